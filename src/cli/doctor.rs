//! `uproar doctor`: the checks, printed; the exit code says whether the target fits.

use std::process::ExitCode;

use clap::ArgMatches;

use super::{EXIT_CONFIG, EXIT_USAGE, command, complain, finish, print_line};
use crate::config::Origin;
use crate::control::Host;
use crate::doctor::{Rings, Target, Tree, examine, fits, human, json, sysctl_file};

/// The setting that `--target-connections` stands for.
const CONNECTIONS: &str = "connections_max";

/// Exit code 0: fits. 1: does not. 2: no such process. 78: the configuration is wrong in itself.
pub(super) fn run(args: &ArgMatches) -> ExitCode {
    let mut sources = command::sources(args, std::env::vars_os());
    let connections = args.get_one::<String>("target_connections");
    if let Some(connections) = connections {
        sources.flags.retain(|(name, _)| *name != CONNECTIONS);
        sources.flags.push((CONNECTIONS, connections.clone()));
    }
    let loaded = match sources.load() {
        Ok(mut loaded) => {
            if connections.is_some() {
                loaded.origins.insert(CONNECTIONS, target_flag());
            }
            loaded
        }
        Err(mut problems) => {
            let typed = Origin::Flag("--connections-max".into());
            for problem in problems.0.iter_mut().filter(|_| connections.is_some()) {
                if problem.origin == typed {
                    problem.origin = target_flag();
                }
            }
            complain(&problems);
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let mut tree = Tree::host();
    let mut host = Host::observe();
    if let Some(&pid) = args.get_one::<u32>("pid") {
        tree = tree.with_process(pid);
        let (Some(limit), Some(cpus)) = (tree.descriptors_max(), tree.cpus_allowed()) else {
            complain(&format!(
                "cannot read the limits of process {pid}: if the node is not running, leave --pid out"
            ));
            return ExitCode::from(EXIT_USAGE);
        };
        host = Host { descriptors_max: limit, cpus, ..host };
    }
    let mut target = Target::new(&loaded, &host);
    if args.contains_id("pid") {
        let found = tree.listening(target.listen, target.admin);
        target = target.listening_at(found);
    }
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

/// What was really typed for [`CONNECTIONS`].
fn target_flag() -> Origin {
    Origin::Flag("--target-connections".into())
}
