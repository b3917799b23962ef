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
mod judge;
mod marker;
mod memory;
mod observer;
mod pinning;
mod plane;
mod probe;
mod remote;
mod report;
mod run;
mod say;
mod scenario;
mod schedule;
mod slo;
mod sources;
mod tally;
mod verify;
mod wire;
mod words;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use report::Outcome;

/// 0: all held. 1: something did not hold. 2: nothing failed, but not everything was measured, or nothing could be.
fn main() -> ExitCode {
    let held = |held: bool| if held { Outcome::Passed } else { Outcome::Failed };
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(why) if why.use_stderr() => {
            let why = words::usage(&why);
            run::refused(std::env::args_os().skip(1), &why);
            say::note(&why);
            return ExitCode::from(2);
        }
        Err(help) => {
            say::text(&help.render().to_string());
            return ExitCode::SUCCESS;
        }
    };
    let done = match cli.task {
        cli::Task::Run(options) => run::run(&options),
        cli::Task::Compare(options) => report::compare::run(&options).map(|()| Outcome::Passed),
        cli::Task::Floor(options) => run::floor(&options).map(held),
        cli::Task::Worker(options) => run::work(&options).map(|()| Outcome::Passed),
        cli::Task::Man => man().map(|()| Outcome::Passed),
    };
    match done {
        Ok(outcome) => ExitCode::from(outcome as u8),
        Err(text) => {
            say::complain(&text);
            ExitCode::from(2)
        }
    }
}

/// The manual page: the command, its scenarios' flags included.
fn man() -> Result<(), String> {
    let command = cli::Cli::command();
    let run = command.find_subcommand("run").expect("there is a command `run`").clone();
    let pages = [command, run];
    let mut sections = [Vec::new(), Vec::new()];
    let [page, options] = pages.map(clap_mangen::Man::new);
    let [all, of_run] = &mut sections;
    let written = page.render(all).and_then(|()| options.render_options_section(of_run));
    let text = sections.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text[0].clone() + &text[1].replace(".SH OPTIONS", ".SH OPTIONS OF RUN");
    written.map_err(|error| format!("cannot make the page: {error}"))?;
    say::text(&text);
    Ok(())
}
