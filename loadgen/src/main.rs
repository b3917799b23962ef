//! `uproar-loadgen`: proves what a node serves, finds where it breaks, compares two runs.
//!
//! ```text
//!  conductor (main thread): the course of a scenario, samples, service levels, report
//!     │ commands                                   ▲ tallies
//!     ▼                                            │
//!  planes, one a CPU (glommio, private io_uring rings): viewers, schedule, verification
//! ```

mod audience;
mod chance;
mod cli;
mod clients;
mod clock;
mod command;
mod conductor;
mod crew;
mod floor;
mod growth;
mod interrupt;
mod marker;
mod observer;
mod pinning;
mod plane;
mod probe;
mod remote;
mod report;
mod run;
mod scenario;
mod schedule;
mod slo;
mod sources;
mod tally;
mod verify;
mod wire;

use std::process::ExitCode;

use clap::Parser;

/// 0: all held. 1: something did not hold. 2: the run could not take place.
fn main() -> ExitCode {
    let done = match cli::Cli::parse().task {
        cli::Task::Run(options) => run::run(&options),
        cli::Task::Compare(options) => report::compare::run(&options),
        cli::Task::Floor(options) => run::floor(&options),
        cli::Task::Worker(options) => run::work(&options).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(text) => {
            eprintln!("uproar-loadgen: {text}");
            ExitCode::from(2)
        }
    }
}
