//! `field`: a fleet of WebSocket viewers that measures a broadcast server from outside.
//!
//! It shares no line with the server it measures: plain epoll, its own frame reader, its own
//! verification. A parent starts worker processes (itself again), because one process may not
//! hold 50,000 descriptors, tells them when to start, reads the server's CPU and memory from
//! `/proc`, and prints one JSON object a run.
//!
//! Not here: verdicts. `scripts/measure` compares the numbers with the bounds.

mod churn;
mod clock;
mod conductor;
mod connection;
mod fleet;
mod flood;
mod options;
mod plain;
mod plan;
mod probe;
mod report;
mod result;
mod socket;
mod verify;
mod wire;

use clap::Parser;

fn main() -> std::process::ExitCode {
    let done = match options::Command::parse() {
        options::Command::Load(load) => conductor::load(&load),
        options::Command::Idle(idle) => conductor::idle(&idle),
        options::Command::Storm(storm) => conductor::storm(&storm),
        options::Command::Churn(churn) => conductor::churn(&churn),
        options::Command::Flood(flood) => flood::run(&flood),
        options::Command::PlainServer(server) => plain::serve(&server),
        options::Command::Worker => fleet::run(),
    };
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("field: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
