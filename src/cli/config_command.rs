//! `uproar config`: the commented defaults, a file checked, the effective values.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ArgMatches;

use super::{EXIT_CONFIG, EXIT_USAGE, command, complain, finish, print_line, unit};
use crate::config::{Loaded, Problems, Sources, commented_default, effective};
use crate::control::{Host, Layout};

pub(super) fn run(args: &ArgMatches) -> ExitCode {
    match args.subcommand() {
        Some(("default", _)) => print(&commented_default()),
        Some(("check", args)) => {
            let file = args.get_one::<PathBuf>("file").expect("clap demands it").clone();
            let sources = Sources { file: Some(file.clone()), ..Sources::default() };
            let (judged, by) = if args.get_flag("anywhere") {
                (sources.load(), "whatever the host".to_owned())
            } else {
                let mut host = Host::observe();
                let unit = args.get_one::<String>("unit");
                let mut patience = None;
                if let Some(unit) = unit {
                    match unit::limits(unit) {
                        Ok(limits) => {
                            patience = limits.stop_seconds;
                            host = limits.of(host);
                        }
                        Err(why) => {
                            complain(&why);
                            return ExitCode::from(EXIT_USAGE);
                        }
                    }
                }
                let by = format!(
                    "by the limits of {}: {} descriptors, {} CPUs",
                    unit.map_or("this shell (--unit has the service's)", String::as_str),
                    host.descriptors_max,
                    host.cpus.len()
                );
                let judged = Layout::load(&sources, &host).map(|(mut loaded, layout)| {
                    loaded.warnings.extend(layout.warnings);
                    loaded
                        .warnings
                        .extend(patience.and_then(|patience| impatience(&loaded, patience)));
                    loaded
                });
                (judged, by)
            };
            show(judged, |loaded| {
                let set = loaded.origins.len();
                let end = full_end_seconds(loaded);
                format!(
                    "{}: good, {set} settings ({by})\na full node ends at the latest {end} s after SIGTERM",
                    file.display()
                )
            })
        }
        Some(("show", args)) => show(command::sources(args, std::env::vars_os()).load(), effective),
        _ => unreachable!("clap demands one of the subcommands"),
    }
}

/// How long a node with as many connections as it may have takes to end.
fn full_end_seconds(loaded: &Loaded) -> u64 {
    let connections = loaded.config.limits.connections_max.into();
    loaded.config.server.deadline_ms(connections).div_ceil(1_000)
}

/// What to know when the service manager waits less than that, in seconds.
fn impatience(loaded: &Loaded, patience: u64) -> Option<String> {
    let end = full_end_seconds(loaded);
    (patience <= end).then(|| {
        format!(
            "a full node takes up to {end} s to end, and TimeoutStopSec of the unit is {patience} s: under systemd it \
             asks for more time as it drains, elsewhere it would be killed; raise TimeoutStopSec, or drain_closes_per_sec"
        )
    })
}

fn show(judged: Result<Loaded, Problems>, text: impl FnOnce(&Loaded) -> String) -> ExitCode {
    match judged {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                complain(&format!("warning: {warning}"));
            }
            print(&text(&loaded))
        }
        Err(problems) => {
            complain(&problems);
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

fn print(text: &str) -> ExitCode {
    finish(print_line(text.trim_end()))
}
