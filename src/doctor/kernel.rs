//! The kernel and its io_uring: asked by making rings, not guessed from the version.

use std::io;

use serde::{Deserialize, Serialize};
use uproar_ring::{Ring, RingConfig, Wake, features};

use super::check::{Check, Verdict};
use super::tree::{Groups, Tree};
use crate::control::{Host, SLOTS_PER_RING_MAX};

/// The first kernel with everything that rings use.
const KERNEL_MIN: (u32, u32) = (6, 8);
const SECCOMP: &str = "allow io_uring_setup, io_uring_enter and io_uring_register in the container's \
                       seccomp profile (tuning/seccomp/uproar.json) or in SystemCallFilter=";

/// What trying to make rings came to.
#[derive(Debug, Deserialize, Serialize)]
pub struct Rings {
    /// Each feature, or why there is no ring at all.
    pub features: Result<Vec<RingFeature>, String>,
    /// A whole ring with as many direct descriptors as the limit allows, or why not.
    pub whole: Result<u64, String>,
    /// Whose rights were tried, where they are not those of who asks.
    #[serde(skip)]
    pub tried_as: Option<String>,
}

/// One operation or flag, by its name.
#[derive(Debug, Deserialize, Serialize)]
pub struct RingFeature {
    /// Its name.
    pub name: String,
    /// Whether the kernel has it.
    pub is_there: bool,
}

impl Rings {
    /// Makes rings as a shard would, and lets them go again.
    #[must_use]
    pub fn probe(host: &Host) -> Self {
        let slots = host.descriptors_max.min(SLOTS_PER_RING_MAX);
        let whole = || -> io::Result<u64> {
            let config = RingConfig { slots: slots as u32, buffers: 128, buffer_bytes: 4_096 };
            let wake = Wake::new()?;
            Ring::new(config, &wake)?;
            Ok(slots)
        };
        Self {
            features: features()
                .map(|all| {
                    let named = |f: uproar_ring::Feature| RingFeature {
                        name: f.name.to_owned(),
                        is_there: f.is_there,
                    };
                    all.into_iter().map(named).collect()
                })
                .map_err(|why| why.to_string()),
            whole: whole().map_err(|why| why.to_string()),
            tried_as: None,
        }
    }
}

pub(super) fn checks(tree: &Tree, rings: &Rings) -> Vec<Check> {
    let mut checks = vec![version(tree), disabled(tree), seccomp(tree, rings)];
    checks.extend(probed(rings));
    checks
}

fn version(tree: &Tree) -> Check {
    let (major, minor) = KERNEL_MIN;
    let row = Check::new("kernel", "sockets move between rings with operations that 6.8 brought")
        .needed(format!("{major}.{minor} or newer"));
    let release = tree.sysctl_text("kernel.osrelease");
    let Some((release, parsed)) = release.and_then(|text| Some((text.clone(), parse(&text)?)))
    else {
        return row.unknown();
    };
    let fix = "run Linux 6.8 or newer, which Debian 13 and Ubuntu 24.04 have";
    row.now(release).wrong_if(parsed < KERNEL_MIN, Verdict::Misfit, fix)
}

fn parse(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn disabled(tree: &Tree) -> Check {
    let row = Check::new(
        "kernel.io_uring_disabled",
        "the whole server runs on io_uring; there is no other way to run it",
    )
    .needed("0, or 1 with the node's group in kernel.io_uring_group");
    // Kernels before 6.6 do not have the setting, nor any that was built without it.
    let Some(now) = tree.sysctl_text("kernel.io_uring_disabled") else {
        return row.now("no such setting");
    };
    let group = tree.sysctl_text("kernel.io_uring_group").unwrap_or_else(|| "-1".into());
    // Any group opens it to somebody; this must be one of the node's.
    let Groups { of, ids } = tree.service_groups();
    let is_member = group.parse().is_ok_and(|group: u64| ids.contains(&group));
    let is_open = now == "0" || (now == "1" && is_member);
    let fix = "sysctl -w kernel.io_uring_disabled=1 kernel.io_uring_group=$(id -g uproar), and the \
               same in /etc/sysctl.d/";
    let now = match (now.as_str(), is_member) {
        ("1", true) => format!("1, group {group}, which {of} is in"),
        ("1", false) => format!("1, group {group}, which {of} is not in"),
        _ => now,
    };
    row.now(now).wrong_if(!is_open, Verdict::Misfit, fix)
}

/// A filter is no fault as long as rings can be made under it.
fn seccomp(tree: &Tree, rings: &Rings) -> Check {
    let row = Check::new(
        "seccomp",
        "container runtimes block io_uring by default, and the kernel then says only EPERM",
    )
    .needed("no filter, or one that allows io_uring");
    let Some(mode) = tree.status("Seccomp") else { return row.unknown() };
    let is_filtered = mode == "2";
    let now = if is_filtered { "a filter" } else { "no filter" };
    row.now(now).wrong_if(is_filtered && rings.features.is_err(), Verdict::Misfit, SECCOMP)
}

fn probed(rings: &Rings) -> Vec<Check> {
    let why = "each shard uses it for every connection or every comment";
    let mut checks = match &rings.features {
        Ok(features) => features
            .iter()
            .map(|RingFeature { name, is_there }| {
                let fix = "run Linux 6.8 or newer";
                Check::new(format!("io_uring {name}"), why)
                    .needed("there")
                    .now(if *is_there { "there" } else { "missing" })
                    .wrong_if(!is_there, Verdict::Misfit, fix)
            })
            .collect(),
        Err(problem) => {
            let row = Check::new("io_uring setup", why).needed("a ring can be made");
            vec![row.now(refused(rings)).wrong_if(true, Verdict::Misfit, problem)]
        }
    };
    let row = Check::new(
        "io_uring direct descriptors",
        "viewers' sockets live in tables of rings, each as large as RLIMIT_NOFILE allows",
    )
    .needed("a ring as a shard makes it");
    checks.push(match &rings.whole {
        Ok(slots) => row.now(format!("{slots} a ring{}", by(rings))),
        Err(problem) => row.now(refused(rings)).wrong_if(true, Verdict::Misfit, problem),
    });
    checks
}

/// Whose rights were tried.
fn by(rings: &Rings) -> String {
    rings.tried_as.as_ref().map_or_else(String::new, |who| format!(", tried as {who}"))
}

fn refused(rings: &Rings) -> String {
    format!("refused{}", by(rings))
}
