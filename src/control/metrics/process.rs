//! The process as `/proc` shows it, under the names that every Prometheus client uses.
//!
//! A value that cannot be read is left out rather than shown as zero.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::exposition::{Family, Kind, Number};

pub(super) fn families() -> Vec<Family> {
    let mut families = Vec::new();
    let mut add = |name, kind, help, value: Option<Number>| {
        families.extend(value.map(|value| Family::single(name, kind, help, value)));
    };
    let stat = fs::read_to_string("/proc/self/stat").ok();
    // The command, in parentheses, may hold spaces; what follows it does not.
    let stat: Vec<u64> = stat
        .as_deref()
        .and_then(|stat| stat.rsplit_once(')'))
        .map(|(_, rest)| rest.split_whitespace().map(|n| n.parse().unwrap_or(0)).collect())
        .unwrap_or_default();
    // Fields of proc_pid_stat(5), counted from the state (field 3), which is 0 here.
    let (utime, stime, threads, start, virtual_bytes) = (11, 12, 17, 19, 20);
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    let micros = |n: u64| Number::Micros(n * 1_000_000 / ticks);
    let cpu = stat.get(utime).zip(stat.get(stime)).map(|(user, system)| micros(user + system));
    add(
        "process_cpu_seconds_total",
        Kind::Counter,
        "User and system CPU time of the process, all threads.",
        cpu,
    );
    add(
        "process_start_time_seconds",
        Kind::Gauge,
        "When the process started, in Unix time.",
        stat.get(start).zip(boot_time()).map(|(ticks_after_boot, boot)| {
            Number::Micros(boot * 1_000_000 + ticks_after_boot * 1_000_000 / ticks)
        }),
    );
    add(
        "process_threads",
        Kind::Gauge,
        "Threads of the process.",
        stat.get(threads).copied().map(Number::Whole),
    );
    add(
        "process_virtual_memory_bytes",
        Kind::Gauge,
        "Address space of the process.",
        stat.get(virtual_bytes).copied().map(Number::Whole),
    );
    add(
        "process_resident_memory_bytes",
        Kind::Gauge,
        "Memory of the process that is in RAM, without the kernel's socket memory.",
        resident_bytes().map(Number::Whole),
    );
    add(
        "process_open_fds",
        Kind::Gauge,
        "Ordinary descriptors in use; sockets of viewers are not among them.",
        // The listing itself is one of them.
        fs::read_dir("/proc/self/fd").ok().map(|fds| Number::Whole(fds.count() as u64 - 1)),
    );
    add(
        "process_max_fds",
        Kind::Gauge,
        "RLIMIT_NOFILE: the most ordinary descriptors, and the most sockets of one ring.",
        getrlimit(Resource::Nofile).current.map(Number::Whole),
    );
    families
}

fn boot_time() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
