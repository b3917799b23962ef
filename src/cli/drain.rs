//! `uproar drain`: takes a running node out of service and back, over its admin port.
//!
//! The node goes on running with nobody on it; SIGTERM is the drain that ends the process.
//!
//! `--wait` ends with 0 only when it has seen that nobody is left. It does not wait for what will not come: a node
//! that has ended or is another process by now, a drain that somebody undid, a shard that is stuck.

use std::time::{Duration, Instant};

use clap::ArgMatches;
use serde::Deserialize;

use super::url::NodeUrl;
use super::{Failure, admin, print_line, required};

/// Time between two looks of `--wait`.
const LOOK: Duration = Duration::from_secs(1);
/// How long a node that was there may be unreachable: as long as a restart takes.
const ABSENCE_MAX: Duration = Duration::from_secs(10);
/// Looks in a row at which a shard is silent before it is taken for stuck; each gives it three seconds.
const SILENT_LOOKS: u32 = 3;

/// What the node says about its drain.
#[derive(Deserialize)]
struct State {
    #[serde(rename = "draining")]
    is_draining: bool,
    /// Which run of the process says so; a node that is older does not.
    #[serde(default)]
    incarnation: String,
    phase: Option<String>,
    status: String,
    /// Shards that do not answer.
    #[serde(default)]
    silent: Vec<usize>,
    /// Connections on the other shards.
    #[serde(default)]
    connections_known: u64,
    /// Everybody should have been gone a while ago.
    #[serde(default, rename = "overdue")]
    is_overdue: bool,
}

impl State {
    fn is_drained(&self) -> bool {
        self.phase.as_deref() == Some("drained")
    }

    /// Nothing more will happen that does not hang on a silent shard.
    fn is_held_up(&self) -> bool {
        let is_closing = self.phase.as_deref() == Some("closing");
        is_closing && !self.silent.is_empty() && (self.is_overdue || self.connections_known == 0)
    }
}

pub(super) fn run(args: &ArgMatches) -> Result<(), Failure> {
    let url = NodeUrl::parse(required(args, "url"))?;
    let method = match (args.get_flag("undo"), args.get_flag("status")) {
        (true, _) => "DELETE",
        (_, true) => "GET",
        _ => "POST",
    };
    let first = ask(&url, method)?;
    print_line(&first.status)?;
    if args.get_flag("wait") { wait(&url, &first) } else { Ok(()) }
}

/// Tells how the drain goes on until nobody is left.
fn wait(url: &NodeUrl, first: &State) -> Result<(), Failure> {
    if first.is_drained() {
        return Ok(());
    }
    let mut held_up = 0;
    loop {
        std::thread::sleep(LOOK);
        let state = ask_again(url)?;
        print_line(&state.status)?;
        if state.incarnation != first.incarnation {
            return Err(Failure(
                "the node was restarted before its drain was done: this is another process, which takes viewers; \
                 if that is not what you want, drain it again"
                    .into(),
            ));
        }
        if !state.is_draining {
            return Err(Failure("somebody undid the drain".into()));
        }
        if state.is_drained() {
            return Ok(());
        }
        held_up = if state.is_held_up() { held_up + 1 } else { 0 };
        if held_up == SILENT_LOOKS {
            return Err(Failure(format!(
                "the drain cannot be seen to its end: of the node's shards {:?} do not answer, and what they hold \
                 nobody knows; everybody else is gone or late. Restart the node (systemctl restart uproar) and keep \
                 its core dump: a shard that stands still is a bug, or its CPU is taken by something else",
                state.silent
            )));
        }
    }
}

/// Asks a node that was there a moment ago.
fn ask_again(url: &NodeUrl) -> Result<State, Failure> {
    let since = Instant::now();
    loop {
        match ask(url, "GET") {
            Err(why) if since.elapsed() < ABSENCE_MAX => {
                print_line(&format!("{why}; trying again"))?;
                std::thread::sleep(LOOK);
            }
            Err(Failure(why)) => {
                return Err(Failure(format!(
                    "the node was there and is not any more: it has ended, with or without its drain ({why})"
                )));
            }
            answered => return answered,
        }
    }
}

fn ask(url: &NodeUrl, method: &str) -> Result<State, Failure> {
    let body = admin::ask(url, method, "/drain")?;
    serde_json::from_slice(&body).map_err(|why| admin::foreign(url, &why))
}
