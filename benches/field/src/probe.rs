//! Readings from `/proc`: a process's CPU time, memory and descriptors, the kernel's slabs and
//! socket memory. And pinning, its counterpart.

use std::collections::BTreeMap;
use std::fs;

use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;

/// Pins this process to one CPU.
pub(crate) fn pin(cpu: usize) -> rustix::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)
}

/// Lets this process run before the viewers on the same CPU, where that is allowed: a comment that is posted late
/// because they are busy would count as the server's latency.
pub(crate) fn go_first() {
    let _ = rustix::process::setpriority_process(None, -15);
}

/// Has the kernel end this process when its parent ends.
pub(crate) fn end_with_parent() -> rustix::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
}

/// What one process uses, now.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Usage {
    /// Time on a CPU of all its threads, the kernel's workers for it included.
    pub(crate) cpu_ns: u64,
    pub(crate) pss_bytes: u64,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
}

/// What a CPU has done since the machine started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Processor {
    /// Everything but idling: processes, interrupts, the network's receive path.
    pub(crate) busy_ns: u64,
    /// Time that the host gave to others while this machine had work for it.
    pub(crate) steal_ns: u64,
}

/// Reads `/proc/stat`, in steps of 10 ms; zeros when there is no such CPU.
pub(crate) fn processor(cpu: usize) -> Processor {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    parse_processor(&stat, cpu).unwrap_or_default()
}

fn parse_processor(stat: &str, cpu: usize) -> Option<Processor> {
    const NS_PER_STEP: u64 = 10_000_000;
    let name = format!("cpu{cpu} ");
    let fields = stat.lines().find_map(|line| line.strip_prefix(&name))?.split_whitespace();
    let steps: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = *steps else { return None };
    let busy = user + nice + system + irq + softirq;
    Some(Processor { busy_ns: busy * NS_PER_STEP, steal_ns: steal * NS_PER_STEP })
}

/// CPU time of this process.
pub(crate) fn own_cpu_ns() -> u64 {
    cpu_ns("self").0
}

/// Reads the usage of a process; zeros when it is gone.
pub(crate) fn usage(pid: u32) -> Usage {
    let (cpu_ns, threads) = cpu_ns(&pid.to_string());
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kilobytes = pss.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    Usage { cpu_ns, pss_bytes: kilobytes.unwrap_or(0) * 1024, descriptors, threads }
}

/// Nanoseconds of all threads (the first field of `schedstat`), and their number.
fn cpu_ns(process: &str) -> (u64, usize) {
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { return (0, 0) };
    let each = tasks.flatten().filter_map(|task| {
        let line = fs::read_to_string(task.path().join("schedstat")).ok()?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    each.fold((0, 0), |(ns, threads), one| (ns + one, threads + 1))
}

/// What the kernel uses, now.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Kernel {
    /// Pages of socket buffers, in bytes (`/proc/net/sockstat`, TCP `mem`).
    pub(crate) tcp_bytes: u64,
    /// Bytes in live objects of each slab cache.
    pub(crate) slab_bytes: BTreeMap<String, u64>,
}

pub(crate) fn kernel() -> Kernel {
    let sockstat = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let tcp = sockstat.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
    let pages = tcp.split_whitespace().last().and_then(|pages| pages.parse::<u64>().ok());
    let slabinfo = fs::read_to_string("/proc/slabinfo").unwrap_or_default();
    let slab_bytes = slabinfo.lines().skip(2).filter_map(|line| {
        let mut fields = line.split_whitespace();
        let name = fields.next()?.to_owned();
        let active: u64 = fields.next()?.parse().ok()?;
        let size: u64 = fields.nth(1)?.parse().ok()?;
        Some((name, active * size))
    });
    Kernel { tcp_bytes: pages.unwrap_or(0) * 4096, slab_bytes: slab_bytes.collect() }
}

/// Bytes by which each cache grew, for each of `connections`; caches that moved by less than a
/// byte a connection are left out.
pub(crate) fn slab_growth(
    before: &Kernel,
    after: &Kernel,
    connections: usize,
) -> BTreeMap<String, f64> {
    let each = after.slab_bytes.iter().map(|(name, &bytes)| {
        let grown = bytes as f64 - before.slab_bytes.get(name).copied().unwrap_or(0) as f64;
        (name.clone(), grown / connections.max(1) as f64)
    });
    each.filter(|(_, grown)| grown.abs() >= 1.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_is_busy_with_all_but_idling_and_steal() {
        let stat =
            "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 2 3 400 500 6 7 80 0 0\ncpu10 1 1 1 1 1 1 1 1 1 1\n";
        let cpu = parse_processor(stat, 0).unwrap();
        assert_eq!((cpu.busy_ns, cpu.steal_ns), (190_000_000, 800_000_000));
        assert!(parse_processor(stat, 1).is_none(), "not the prefix of another's name");
    }

    #[test]
    fn this_process_is_seen_at_work() {
        let before = usage(std::process::id());
        let sum = (0..3_000_000_u64).fold(0, |sum: u64, n| sum.wrapping_mul(31) ^ n);
        let after = usage(std::process::id());
        assert_ne!(sum, 0);
        assert!(after.cpu_ns >= before.cpu_ns && after.pss_bytes > 0 && after.descriptors >= 3);
        assert_eq!(usage(u32::MAX).cpu_ns, 0);
    }
}
