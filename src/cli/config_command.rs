//! `uproar config`: the commented defaults, a file checked, the effective values.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ArgMatches;

use super::{EXIT_CONFIG, command, complain, finish, print_line};
use crate::config::{Loaded, Problems, Sources, commented_default, effective};
use crate::control::{Host, Layout};

pub(super) fn run(args: &ArgMatches) -> ExitCode {
    match args.subcommand() {
        Some(("default", _)) => print(&commented_default()),
        Some(("check", args)) => {
            let file = args.get_one::<PathBuf>("file").expect("clap demands it").clone();
            let sources = Sources { file: Some(file.clone()), ..Sources::default() };
            let judged = if args.get_flag("anywhere") {
                sources.load()
            } else {
                Layout::load(&sources, &Host::observe()).map(|(mut loaded, layout)| {
                    loaded.warnings.extend(layout.warnings);
                    loaded
                })
            };
            show(judged, |loaded| {
                let set = loaded.origins.len();
                format!("{}: good, {set} settings", file.display())
            })
        }
        Some(("show", args)) => show(command::sources(args, std::env::vars_os()).load(), effective),
        _ => unreachable!("clap demands one of the subcommands"),
    }
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
    finish(print_line(text.trim_end()).map(|_| ()))
}
