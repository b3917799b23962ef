//! What a delivery costs on real sockets: the shard's fan-out beside two floors, in one run.
//!
//! Three senders take turns on one core, each with its own viewers behind loopback TCP in a child
//! process that reads on another core: the shard itself, a bare loop of `send`, and a bare loop
//! of batched ring sends. All send the same bytes on the same schedule, so the ratios say what
//! io_uring saves and what the shard's rules cost on top. CPU is the sending thread's own, in
//! which the kernel counts the TCP work done on its behalf; every byte must have arrived.
//!
//! Not here: latency, other servers, memory (`scripts/measure`); the engine alone.

mod floors;
mod machine;
mod node;
mod options;
mod report;
mod sender;
mod viewers;

use std::process::ExitCode;

use crate::floors::Floor;
use crate::node::Node;
use crate::options::{Mode, Options};
use crate::report::Round;
use crate::sender::{Load, Sample, Sender};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Why a run has no result; it ends the process with its text.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let result = match options::parse() {
        Mode::Hold(hold) => viewers::hold(&hold),
        Mode::Measure(options) => measure(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("fanout: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<(), Failure> {
    machine::allow_descriptors()?;
    machine::pin(options.viewer_cpu)?;
    let mut node = Node::start(options)?;
    let frame = node.frame()?;
    let mut plain = Floor::plain(options, &frame)?;
    let mut batched = Floor::batched(options, &frame)?;
    print!("{}", report::heading(options, frame.len()));
    for (title, load) in options.loads() {
        let mut rounds = Vec::new();
        for round in 0..options.rounds {
            rounds.push(take_turns(round, &load, &mut [&mut node, &mut plain, &mut batched])?);
        }
        print!("{}", report::table(&title, &rounds));
    }
    Ok(())
}

/// One turn of each sender; who begins changes from round to round.
fn take_turns(
    round: usize,
    load: &Load,
    senders: &mut [&mut dyn Sender; 3],
) -> Result<Round, Failure> {
    let mut samples = [Sample::default(); 3];
    for turn in 0..senders.len() {
        let at = (round + turn) % senders.len();
        samples[at] = senders[at].run(load)?;
    }
    let [shard, plain, batched] = samples;
    Ok(Round { shard, plain, batched })
}
