//! The command line: `serve`, `doctor`, `top`, `drain`, `tail`, `post`, `config`.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 a usage
//! error (clap's), 78 a configuration that cannot work (EX_CONFIG of sysexits.h).
//!
//! Not here: what a setting is (`config`), what a server does (`control`).

mod admin;
mod command;
mod config_command;
mod doctor;
mod drain;
mod manual;
mod post;
mod tail;
mod top;
mod unit;
mod url;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::ArgMatches;
use tracing::dispatcher::has_been_set;
use tracing::{Level, enabled, error};

use crate::config::Sources;
use crate::control::{Ended, LAST_WORDS_MAX, StartError, is_journal, say_last_words, serve};
use crate::lines::{self, write_whole};
use crate::terminal;
pub use command::{command, completed_command};
pub use manual::MANUAL;

/// The configuration cannot work: EX_CONFIG of sysexits.h.
pub const EXIT_CONFIG: u8 = 78;

/// Words on the command line that cannot be: what clap ends with.
const EXIT_USAGE: u8 = 2;

/// Why a client command failed, in words for the terminal; one line, whoever put words into it. Nothing
/// where nobody reads any more.
#[derive(Debug)]
struct Failure(String);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&terminal::line(&self.0))
    }
}

impl From<io::Error> for Failure {
    fn from(why: io::Error) -> Self {
        Self(why.to_string())
    }
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(why) => return explain(&why),
    };
    match matches.subcommand() {
        Some(("serve", args)) => run_server(command::sources(args, std::env::vars_os())),
        Some(("config", args)) => config_command::run(args),
        Some(("doctor", args)) => doctor::run(args),
        Some(("tail", args)) => finish(tail::run(&tail::Options::from_args(args))),
        Some(("drain", args)) => finish(drain::run(args)),
        Some(("top", args)) => finish(top::run(args)),
        Some(("post", args)) => finish(post::run(&post::Options::from_args(args))),
        _ => unreachable!("clap demands one of the subcommands"),
    }
}

/// What clap has to say: help goes to stdout, what was wrong to stderr.
fn explain(why: &clap::Error) -> ExitCode {
    let text = why.render();
    let is_help = !why.use_stderr();
    let is_terminal = if is_help { io::stdout().is_terminal() } else { io::stderr().is_terminal() };
    let has_colours = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let text = if has_colours { text.ansi().to_string() } else { text.to_string() };
    if is_help {
        return finish(print_raw(text.trim_end()));
    }
    let _ = write_whole(io::stderr(), text.as_bytes());
    ExitCode::from(EXIT_USAGE)
}

fn run_server(sources: Sources) -> ExitCode {
    let ended = run_until_end(sources);
    lines::flush(LAST_WORDS_MAX);
    say_last_words();
    ended
}

fn run_until_end(sources: Sources) -> ExitCode {
    match serve(sources) {
        Ok(Ended::Drained(_)) => ExitCode::SUCCESS,
        Ok(Ended::AtOnce) => ExitCode::FAILURE,
        Err(why) => {
            complain_in_log(&why);
            if why.is_configuration() { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

/// A line of the log where there is one, in the format of all its lines.
fn complain_in_log(why: &StartError) {
    let is_logged = has_been_set() && enabled!(Level::ERROR);
    if is_logged {
        error!("{why}");
    } else if lines::open().is_ok() {
        // A node waits for nobody, however early it ends.
        complaint(why).for_each(|line| lines::push(line.as_bytes()));
    }
}

/// One line on stderr for each line of the reason.
fn complain(why: &dyn std::fmt::Display) {
    for line in complaint(why) {
        // Whoever does not read what is wrong still has the exit code.
        let _ = write_whole(io::stderr(), line.as_bytes());
    }
}

/// These lines, as errors where the journal reads them.
fn complaint(why: &dyn std::fmt::Display) -> impl Iterator<Item = String> {
    let priority = if is_journal() { "<3>" } else { "" };
    let lines: Vec<String> = why.to_string().lines().map(terminal::line).collect();
    lines.into_iter().map(move |line| format!("{priority}uproar: {line}\n"))
}

fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(why)) if why.is_empty() => ExitCode::FAILURE,
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

/// Writes a line, or several, to stdout, and waits for a slow reader. When nobody reads it any more the process ends.
/// What may come from elsewhere is shown and not obeyed.
fn print_line(line: &str) -> Result<(), Failure> {
    print_raw(&terminal::lines(line))
}

/// The same as it is: for what was made here, to be obeyed.
fn print_raw(line: &str) -> Result<(), Failure> {
    match write_whole(io::stdout(), format!("{line}\n").as_bytes()) {
        Ok(()) => Ok(()),
        Err(why) if why.kind() == io::ErrorKind::BrokenPipe => end_unread(),
        Err(why) => Err(Failure(format!("cannot write to stdout: {why}"))),
    }
}

/// Ends as whoever writes into a closed pipe ends, silently and by SIGPIPE: what was asked for has not been told, so
/// it is no success, and a pipeline knows it from a failure.
fn end_unread() -> ! {
    // It returns only where the signal is blocked; a shell shows it as this exit code.
    let _ = signal_hook::low_level::emulate_default_handler(signal_hook::consts::SIGPIPE);
    std::process::exit(128 + signal_hook::consts::SIGPIPE)
}

fn required<'a>(args: &'a ArgMatches, name: &str) -> &'a str {
    args.get_one::<String>(name).expect("clap demands it or has a default")
}
