//! `uproar doctor`: the checks, printed; the exit code says whether the target fits.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use clap::ArgMatches;
use rustix::process::{Resource, Rlimit, geteuid, setrlimit};

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
    if args.get_flag("probe_rings") {
        let rings = Rings::probe(&Host::observe());
        let text = serde_json::to_string(&rings).expect("texts and numbers have a JSON form");
        return finish(print_line(&text));
    }
    let mut tree = Tree::host();
    let mut host = Host::observe();
    let mut user = tree.service_user();
    if let Some(&pid) = args.get_one::<u32>("pid") {
        tree = tree.with_process(pid);
        let (Some(limit), Some(cpus)) = (tree.descriptors_max(), tree.cpus_allowed()) else {
            complain(&format!(
                "cannot read the limits of process {pid}: if the node is not running, leave --pid out"
            ));
            return ExitCode::from(EXIT_USAGE);
        };
        host = Host { descriptors_max: limit, cpus, ..host };
        user = tree.process_user();
    }
    let mut target = Target::new(&loaded, &host);
    if args.contains_id("pid") {
        let found = tree.listening(target.listen, target.admin);
        target = target.listening_at(found);
        let held = tree.held(target.listen);
        target = target.holding(held);
    }
    if args.get_flag("sysctl") {
        return finish(print_line(sysctl_file(&target).trim_end()));
    }
    let rings = probe(user, &tree).unwrap_or_else(|| Rings::probe(&Host::observe()));
    let checks = examine(&target, &tree, &rings);
    let text = if args.get_flag("json") {
        format!("{:#}", json(&target, &checks))
    } else {
        human(&target, &checks).trim_end().to_owned()
    };
    match print_line(&text) {
        Err(why) => finish(Err(why)),
        Ok(()) if fits(&checks) => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
    }
}

/// Makes rings with the rights of the service, which are not root's: root may lock any memory and use io_uring
/// where it is closed to others. Nothing if who asks is not root, or is whom the service runs as.
fn probe(user: Option<(u32, u32)>, tree: &Tree) -> Option<Rings> {
    let (uid, gid) = user.filter(|&(uid, _)| uid != 0 && geteuid().is_root())?;
    // The limits of the process under examination, which are those of this shell if there is none.
    for (resource, limit) in
        [(Resource::Nofile, tree.descriptors_max()), (Resource::Memlock, tree.memlock_max())]
    {
        let maximum = limit.filter(|&limit| limit != u64::MAX);
        let _ = setrlimit(resource, Rlimit { current: maximum, maximum });
    }
    let program = std::env::current_exe().ok()?;
    let tried = Command::new(program)
        .args(["doctor", "--probe-rings"])
        .uid(uid)
        .gid(gid)
        .current_dir("/")
        .env_clear()
        .stderr(Stdio::null())
        .output();
    let rings = tried.ok().and_then(|output| serde_json::from_slice::<Rings>(&output.stdout).ok());
    match rings {
        Some(rings) => Some(Rings { tried_as: Some(format!("user {uid}")), ..rings }),
        None => {
            complain(&format!(
                "cannot try io_uring as user {uid}, who may not run this program; tried as root"
            ));
            None
        }
    }
}

/// What was really typed for [`CONNECTIONS`].
fn target_flag() -> Origin {
    Origin::Flag("--target-connections".into())
}
