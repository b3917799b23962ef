//! The host: CPUs, descriptors, and the line that says where the numbers come from.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Failure;

/// The CPUs this process may use, ascending.
pub(crate) fn cpus() -> Vec<usize> {
    let allowed = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect()
}

/// Keeps this thread, and those it starts, on `cpu`.
pub(crate) fn pin(cpu: usize) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)
        .map_err(|error| format!("CPU {cpu} cannot be used: {error}").into())
}

/// The hard limit of descriptors.
pub(crate) fn descriptors_max() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// Raises the soft limit of descriptors to the hard one.
pub(crate) fn allow_descriptors() -> Result<(), Failure> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// Processor, kernel and how busy the machine is otherwise.
pub(crate) fn line() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let online = read("/proc/stat").lines().filter(|line| line.starts_with("cpu")).count();
    let online = online.saturating_sub(1).max(cpus);
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let load = read("/proc/loadavg").split(' ').next().unwrap_or("?").to_owned();
    format!("{model}, {online} CPUs, Linux {kernel}, load average {load}")
}

/// The CPU time of a thread of this process, read from outside it.
#[derive(Debug)]
pub(crate) struct Thread {
    task: PathBuf,
}

impl Thread {
    /// The thread whose name begins with `name`; glommio puts a number behind it.
    pub(crate) fn named(name: &str) -> Result<Self, Failure> {
        for task in std::fs::read_dir("/proc/self/task")? {
            let task = task?.path();
            if std::fs::read_to_string(task.join("comm"))?.starts_with(name) {
                return Ok(Self { task });
            }
        }
        Err(format!("this process has no thread {name}").into())
    }

    /// Its CPU time so far, in nanoseconds. Waits until it sleeps: the account of a running
    /// thread is only brought up to date when it stops.
    pub(crate) fn cpu_ns(&self) -> Result<u64, Failure> {
        while !is_asleep(&self.task)? {
            std::thread::sleep(Duration::from_micros(100));
        }
        let schedstat = std::fs::read_to_string(self.task.join("schedstat"))?;
        let ran = schedstat.split(' ').next().ok_or("an empty schedstat")?;
        Ok(ran.parse()?)
    }
}

/// The state after the parenthesised name in `stat` (proc(5)).
fn is_asleep(task: &Path) -> Result<bool, Failure> {
    let stat = std::fs::read_to_string(task.join("stat"))?;
    let (_, rest) = stat.rsplit_once(") ").ok_or("a stat without a name")?;
    Ok(rest.starts_with('S'))
}
