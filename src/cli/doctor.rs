//! `uproar doctor`: the checks, printed; the exit code says whether the target fits.

use std::process::ExitCode;

use clap::ArgMatches;

use super::{EXIT_CONFIG, Failure, command, complain, finish, print_line};
use crate::control::Host;
use crate::doctor::{Rings, Target, Tree, examine, fits, human, json, sysctl_file};

/// Exit code 0: fits. 1: does not. 78: the configuration is wrong in itself.
pub(super) fn run(args: &ArgMatches) -> ExitCode {
    let mut sources = command::sources(args, std::env::vars_os());
    if let Some(connections) = args.get_one::<String>("target_connections") {
        sources.flags.push(("connections_max", connections.clone()));
    }
    let loaded = match sources.load() {
        Ok(loaded) => loaded,
        Err(problems) => {
            complain(&problems);
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let mut tree = Tree::host();
    let mut host = Host::observe();
    if let Some(&pid) = args.get_one::<u32>("pid") {
        tree = tree.with_process(pid);
        match tree.descriptors_max() {
            Some(limit) => host.descriptors_max = limit,
            None => return finish(Err(Failure(format!("cannot read /proc/{pid}/limits")))),
        }
    }
    let target = Target::new(&loaded, &host);
    if args.get_flag("sysctl") {
        return finish(print_line(sysctl_file(&target).trim_end()).map(|_| ()));
    }
    let checks = examine(&target, &tree, &Rings::probe(&Host::observe()));
    let text = if args.get_flag("json") {
        format!("{:#}", json(&target, &checks))
    } else {
        human(&target, &checks).trim_end().to_owned()
    };
    match print_line(&text) {
        Err(why) => finish(Err(why)),
        Ok(_) if fits(&checks) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
    }
}
