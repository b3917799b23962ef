//! The command line: what is measured, and the hidden form in which a child holds viewers.

use std::net::SocketAddrV4;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::machine;
use crate::sender::Load;

/// What this process is.
pub(crate) enum Mode {
    /// The measuring one.
    Measure(Options),
    /// A child that holds viewers.
    Hold(Hold),
}

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Sockets of each sender.
    pub(crate) viewers: usize,
    /// Length of one turn of one sender.
    pub(crate) seconds: f64,
    /// Turns of each sender under each load.
    pub(crate) rounds: usize,
    /// Bursts a second.
    pub(crate) rate: f64,
    /// Comments of a burst in the second load.
    pub(crate) burst: u32,
    /// Text of a comment, in bytes.
    pub(crate) text_bytes: usize,
    /// Rings of the shard.
    pub(crate) rings: usize,
    /// Where all three senders run.
    pub(crate) sender_cpu: usize,
    /// Where viewers and everything else run.
    pub(crate) viewer_cpu: usize,
}

impl Options {
    /// The loads, with the words for them.
    pub(crate) fn loads(&self) -> Vec<(String, Load)> {
        let rate = self.rate;
        let load = |comments| Load {
            bursts: ((self.seconds * rate).round() as u32).max(1),
            comments,
            every: Duration::from_secs_f64(1.0 / rate),
        };
        let burst = self.burst;
        vec![
            (format!("{rate} comments/s, one at a time: nothing to coalesce"), load(1)),
            (format!("{rate} bursts/s of {burst} comments: one send carries a burst"), load(burst)),
        ]
    }
}

/// The viewers a child holds.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    /// Where they connect to.
    pub(crate) server: SocketAddrV4,
    /// How many.
    pub(crate) viewers: usize,
    /// What each of them asks for, if anything.
    pub(crate) path: Option<String>,
}

/// Reads the command line.
pub(crate) fn parse() -> Mode {
    let matches = command().get_matches();
    match matches.get_one::<SocketAddrV4>("hold") {
        Some(&server) => Mode::Hold(Hold {
            server,
            viewers: size(&matches, "viewers").unwrap_or(0),
            path: matches.get_one("path").cloned(),
        }),
        None => Mode::Measure(options(&matches)),
    }
}

fn options(matches: &ArgMatches) -> Options {
    // Only `cargo bench` passes --bench; as one of the tests it must be short.
    let is_quick = matches.get_flag("quick") || !matches.get_flag("bench");
    let either = |quick: usize, full: usize| if is_quick { quick } else { full };
    let cpus = machine::cpus();
    let cpu = |name: &str, default: Option<&usize>| {
        size(matches, name).or(default.copied()).unwrap_or_default()
    };
    Options {
        viewers: size(matches, "viewers").unwrap_or(either(200, 5_000)),
        seconds: number(matches, "seconds").unwrap_or(if is_quick { 0.1 } else { 3.0 }),
        rounds: size(matches, "rounds").unwrap_or(either(3, 5)),
        rate: number(matches, "rate").unwrap_or(if is_quick { 50.0 } else { 5.0 }),
        burst: size(matches, "burst").unwrap_or(8) as u32,
        text_bytes: size(matches, "text-bytes").unwrap_or(200),
        rings: size(matches, "rings").unwrap_or(1),
        sender_cpu: cpu("sender-cpu", cpus.first()),
        viewer_cpu: cpu("viewer-cpu", cpus.last()),
    }
}

fn size(matches: &ArgMatches, name: &str) -> Option<usize> {
    matches.get_one::<u64>(name).map(|&value| value as usize)
}

fn number(matches: &ArgMatches, name: &str) -> Option<f64> {
    matches.get_one::<f64>(name).copied()
}

fn command() -> Command {
    let whole = |name: &'static str, least: u64, most: u64, help: &'static str| {
        let range = RangedU64ValueParser::<u64>::new().range(least..=most);
        Arg::new(name).long(name).value_name("N").value_parser(range).help(help)
    };
    let real = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("X").value_parser(positive).help(help)
    };
    let hidden = |name: &'static str| Arg::new(name).long(name).hide(true);
    // Descriptors for the sockets of the plain floor, and some for the process.
    let viewers_max = machine::descriptors_max().saturating_sub(200).min(200_000);
    Command::new("fanout")
        .about("The shard's fan-out beside plain send and batched ring sends, over loopback TCP")
        .arg(whole("viewers", 1, viewers_max, "Sockets of each sender [default: 5000, quick 200]"))
        .arg(real("seconds", "Length of one turn of one sender [default: 3, quick 0.1]"))
        .arg(whole("rounds", 1, 1_000, "Turns of each sender and load [default: 5, quick 3]"))
        .arg(real("rate", "Comments, or bursts of them, a second [default: 5, quick 50]"))
        .arg(whole("burst", 1, 40, "Comments of a burst in the second load [default: 8]"))
        .arg(whole("text-bytes", 1, 2_000, "Text of a comment, in bytes [default: 200]"))
        .arg(whole("rings", 1, 16, "Rings of the shard [default: 1]"))
        .arg(whole("sender-cpu", 0, 1_023, "Where the senders run [default: the first CPU]"))
        .arg(whole("viewer-cpu", 0, 1_023, "Where all else runs [default: the last CPU]"))
        .arg(
            Arg::new("quick")
                .long("quick")
                .action(ArgAction::SetTrue)
                .help("About two seconds; so is any run that cargo bench did not start"),
        )
        .arg(hidden("bench").action(ArgAction::SetTrue))
        .arg(hidden("hold").value_parser(value_parser!(SocketAddrV4)))
        .arg(hidden("path"))
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 1e6 => Ok(value),
        _ => Err("a number above 0 and up to 1000000".to_owned()),
    }
}
