//! `uproar drain`: takes a running node out of service and back, over its admin port.
//!
//! The node goes on running with nobody on it; SIGTERM is the drain that ends the process.

use std::time::Duration;

use clap::ArgMatches;
use serde::Deserialize;

use super::url::NodeUrl;
use super::{Failure, admin, print_line, required};

/// Time between two looks of `--wait`.
const LOOK: Duration = Duration::from_secs(1);

/// What the node says about its drain.
#[derive(Deserialize)]
struct State {
    #[serde(rename = "draining")]
    is_draining: bool,
    phase: Option<String>,
    status: String,
}

pub(super) fn run(args: &ArgMatches) -> Result<(), Failure> {
    let url = NodeUrl::parse(required(args, "url"))?;
    let method = match (args.get_flag("undo"), args.get_flag("status")) {
        (true, _) => "DELETE",
        (_, true) => "GET",
        _ => "POST",
    };
    let mut state = ask(&url, method)?;
    if !print_line(&state.status)? || !args.get_flag("wait") {
        return Ok(());
    }
    while state.phase.as_deref() != Some("drained") {
        std::thread::sleep(LOOK);
        state = ask(&url, "GET")?;
        if !print_line(&state.status)? {
            return Ok(());
        }
        if !state.is_draining {
            return Err(Failure("somebody undid the drain".into()));
        }
    }
    Ok(())
}

fn ask(url: &NodeUrl, method: &str) -> Result<State, Failure> {
    let body = admin::ask(url, method, "/drain")?;
    serde_json::from_slice(&body).map_err(|why| admin::foreign(url, &why))
}
