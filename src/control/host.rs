//! What the host gives this process: CPUs, a name, descriptors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity};

/// The facts of the host that a layout depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The CPUs this process may run on, ascending.
    pub cpus: Vec<usize>,
    /// The host name, reduced to what a node name may hold.
    pub name: String,
    /// RLIMIT_NOFILE: descriptors of the process, and direct descriptors of each ring.
    pub descriptors_max: u64,
}

impl Host {
    /// Raises the soft descriptor limit to the hard one and looks around.
    #[must_use]
    pub fn observe() -> Self {
        Self { cpus: allowed_cpus(), name: host_name(), descriptors_max: raise_limits() }
    }
}

/// Has the kernel give this process pages of 4 KiB only. Memory here is many small things that come and go, of
/// which huge pages make holes; and a buffer that is registered with a ring counts against RLIMIT_MEMLOCK as the
/// whole page that it lies in: with huge ones, 2 MiB for each of glommio's three 64 KiB, which takes an ordinary
/// user on two CPUs past the usual 8 MiB.
pub(super) fn keep_pages_small() {
    // A kernel without huge pages refuses, and needs no telling.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// The new soft limit of descriptors; that of locked memory is raised with it. A kernel that refuses keeps the
/// old ones, which planning and the rings then judge.
fn raise_limits() -> u64 {
    for resource in [Resource::Nofile, Resource::Memlock] {
        let Rlimit { maximum, .. } = getrlimit(resource);
        let _ = setrlimit(resource, Rlimit { current: maximum, maximum });
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn allowed_cpus() -> Vec<usize> {
    match sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect(),
        // Only a host with over 1,024 CPUs refuses; there `cpus` must be given anyway.
        Err(_) => vec![0],
    }
}

fn host_name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    let fits = |c: &char| c.is_ascii_alphanumeric() || "._-".contains(*c);
    let name: String = name.chars().filter(fits).take(64).collect();
    if name.is_empty() { "node".to_owned() } else { name }
}
