//! The shard under test: the real one, in this process, with real WebSocket viewers.

use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uproar::link::{Handover, ShardPort};
use uproar::shard::{self, Listeners, Plan};
use uproar_engine::control::{Reply, Request};
use uproar_engine::ids::EventId;
use uproar_engine::limits::Limits;
use uproar_engine::log::Log;
use uproar_engine::page;
use uproar_engine::report::Report;

use crate::machine::{self, Thread};
use crate::options::Options;
use crate::sender::{Load, Sample, Sender};
use crate::viewers::Viewers;
use crate::{Failure, floors};

/// The event everybody watches.
const EVENT: &str = "bench";
/// Slots besides those of viewers: accepts in flight and the reserve for moves.
const SLOTS_SPARE: usize = 256;
/// How long the shard may take for what it was asked to do.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// A shard with its viewers.
#[derive(Debug)]
pub(crate) struct Node {
    port: ShardPort,
    runtime: Runtime,
    viewers: Viewers,
    thread: Thread,
    text: String,
    viewer_count: u64,
    /// Plain HTTP would come here; nobody asks for any, but the channel must stay open.
    _handovers: mpsc::Receiver<Handover>,
}

impl Node {
    /// Starts the shard and lets every viewer in.
    pub(crate) fn start(options: &Options) -> Result<Self, Failure> {
        let listener = floors::listen()?;
        let server = floors::address(&listener)?;
        let limits = Limits {
            posts_per_sec_event: 0,
            // The schedule alone decides what is coalesced, and nothing else is sent.
            cpu_target_percent: 100,
            keepalive_ms: 0,
            ..Limits::default()
        };
        let slots = (options.viewers + SLOTS_SPARE) as u64;
        let plan = Plan {
            node: "bench".to_owned(),
            cpus: vec![options.sender_cpu],
            rings_per_shard: options.rings,
            slots_per_ring: slots.min(machine::descriptors_max()) as u32,
            listeners: Listeners::PerShard(vec![listener]),
            limits,
            mesh_messages_max: 1,
            stall_after_ms: 0,
            panic_after_ms: 0,
            conformance_echo: false,
        };
        let (sender, handovers) = mpsc::channel(1);
        let port = shard::launch(plan, sender)?.ports.remove(0);
        let path = format!("/v1/events/{EVENT}/live?history=0");
        let mut viewers = Viewers::start(server, options.viewers, Some(&path))?;
        viewers.ready()?;
        let mut node = Self {
            port,
            runtime: Builder::new_current_thread().build()?,
            viewers,
            thread: Thread::named("shard-0")?,
            text: "c".repeat(options.text_bytes),
            viewer_count: options.viewers as u64,
            _handovers: handovers,
        };
        let live = node.await_report(|report| report.connections == options.viewers as u64)?;
        node.viewers.await_bytes(live.counters.bytes_sent)?;
        Ok(node)
    }

    /// The frame of one comment, as viewers get it.
    pub(crate) fn frame(&mut self) -> Result<Vec<u8>, Failure> {
        let once = Load { bursts: 1, comments: 1, every: Duration::ZERO };
        self.run(&once)?;
        let reply = self.ask(Request::Follow { event: event()? })?;
        let Reply::Followed { log: Some(log), .. } = &reply else {
            return Err(format!("no comment to read back, but {reply:?}").into());
        };
        let log = log.upgrade().map(|grant| Log::follow(&grant)).ok_or("the log is gone")?;
        let mut comment = Vec::new();
        page::write(&log, page::offsets(&log, 1, None), &mut comment);
        Ok(text_frame(&comment))
    }

    fn ask(&self, request: Request) -> Result<Reply, Failure> {
        Ok(self.runtime.block_on(self.port.request(request))?)
    }

    fn report(&self) -> Result<Box<Report>, Failure> {
        match self.ask(Request::Report)? {
            Reply::Report(report) => Ok(report),
            other => Err(format!("no report, but {other:?}").into()),
        }
    }

    /// Asks for reports until one is as `is_it` wants it.
    fn await_report(&self, is_it: impl Fn(&Report) -> bool) -> Result<Box<Report>, Failure> {
        let deadline = Instant::now() + ANSWER_MAX;
        loop {
            let report = self.report()?;
            if is_it(&report) {
                return Ok(report);
            }
            if Instant::now() > deadline {
                return Err(format!("the shard does not get there: {report:?}").into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Posts comments that wait for the shard together, so that it finds them in one turn.
    fn post(&self, comments: u32) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let mut posts = JoinSet::new();
            for _ in 0..comments {
                let port = self.port.clone();
                let request = Request::Post {
                    event: event()?,
                    user: Some("u1".into()),
                    name: Some("Ann".into()),
                    text: self.text.as_str().into(),
                    key: None,
                    address: 1,
                };
                posts.spawn(async move { port.request(request).await });
            }
            while let Some(reply) = posts.join_next().await {
                match reply?? {
                    Reply::Posted { .. } => {}
                    other => return Err(format!("a comment was not taken: {other:?}").into()),
                }
            }
            Ok(())
        })
    }
}

impl Sender for Node {
    fn run(&mut self, load: &Load) -> Result<Sample, Failure> {
        let before = self.report()?;
        let cpu_ns = self.thread.cpu_ns()?;
        load.each(|| self.post(load.comments))?;
        let made = u64::from(load.bursts) * u64::from(load.comments) * self.viewer_count;
        let deliveries = before.counters.deliveries + made;
        let after = self.await_report(|report| report.counters.deliveries >= deliveries)?;
        let cpu_ns = self.thread.cpu_ns()? - cpu_ns;
        self.viewers.await_bytes(after.counters.bytes_sent)?;
        Ok(Sample {
            cpu_ns,
            sends: after.counters.log_writes - before.counters.log_writes,
            deliveries: after.counters.deliveries - before.counters.deliveries,
        })
    }
}

fn event() -> Result<EventId, Failure> {
    Ok(EVENT.parse()?)
}

/// An unmasked text frame (RFC 6455 §5.2).
fn text_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match payload.len() {
        short @ 0..=125 => frame.push(short as u8),
        long => {
            frame.push(126);
            frame.extend_from_slice(&(long as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}
