//! `uproar top`: asks a node's admin port again and again, and draws.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use clap::ArgMatches;

use super::url::NodeUrl;
use super::{Failure, admin, print_raw, required};
use crate::terminal;
use crate::top::{Snapshot, frame};

/// Hot rooms shown of each kind.
const ROOMS: usize = 10;
/// Clears the terminal and goes to its first line.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(super) fn run(args: &ArgMatches) -> Result<(), Failure> {
    let url = NodeUrl::parse(required(args, "url"))?;
    let every = Duration::from_secs(*args.get_one::<u64>("interval").expect("it has a default"));
    let clear = if io::stdout().is_terminal() { CLEAR } else { "" };
    let mut frames = args.get_one::<u64>("frames").copied().unwrap_or(u64::MAX);
    let mut before: Option<(Snapshot, Instant)> = None;
    while frames > 0 {
        frames -= 1;
        let now = ask(&url)?;
        let at = Instant::now();
        let last = before.as_ref().map(|(snapshot, then)| (snapshot, at - *then));
        let text = terminal::lines(frame(&now, last).trim_end());
        if !print_raw(&format!("{clear}{text}"))? {
            return Ok(());
        }
        before = Some((now, at));
        if frames > 0 {
            std::thread::sleep(every);
        }
    }
    Ok(())
}

fn ask(url: &NodeUrl) -> Result<Snapshot, Failure> {
    let body = admin::ask(url, "GET", &format!("/report?rooms={ROOMS}"))?;
    Snapshot::parse(&body).map_err(|why| Failure(why.to_string()))
}
