//! A local process by `/proc`: whose listener it is, CPU time, memory.

use std::fs;
use std::net::SocketAddr;

use super::cpus;

/// A server process on this host.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// The CPUs its threads are pinned to; empty when none is.
    pub(crate) cpus: Vec<usize>,
}

/// CPU time so far, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CpuTime {
    /// Of all threads (schedstat: scheduler time, not sampled ticks).
    pub(crate) process_us: u64,
    /// Nobody's time on the process's CPUs.
    pub(crate) unused_us: u64,
}

impl Process {
    /// The process with this id.
    pub(crate) fn new(pid: u32) -> Option<Self> {
        fs::metadata(format!("/proc/{pid}/task")).ok()?;
        let mut process = Self { pid, cpus: Vec::new() };
        process.find_cpus();
        Some(process)
    }

    /// Whoever listens at `target` on this host.
    pub(crate) fn listening_at(target: SocketAddr) -> Option<Self> {
        let inodes = listening_inodes(target.port());
        let is_listener = |link: &str| {
            let inode = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            inode.is_some_and(|inode| inodes.iter().any(|known| known == inode))
        };
        let pids = fs::read_dir("/proc").ok()?.flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        for pid in pids {
            let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
            let mut links = fds.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
            if links.any(|link| link.to_str().is_some_and(is_listener)) {
                return Self::new(pid);
            }
        }
        None
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        state.is_some_and(|state| state != 'Z' && state != 'X')
    }

    /// CPU time of the process and of its CPUs.
    pub(crate) fn cpu_time(&self) -> CpuTime {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid));
        let threads = threads.into_iter().flatten().flatten();
        let on_cpu_ns = threads.filter_map(|thread| {
            let schedstat = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            schedstat.split_whitespace().next()?.parse::<u64>().ok()
        });
        let process_us = on_cpu_ns.sum::<u64>() / 1_000;
        CpuTime { process_us, unused_us: cpus::unused_us(&self.cpus) }
    }

    /// Proportional set size of all its memory, in bytes.
    pub(crate) fn pss_bytes(&self) -> u64 {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid));
        let rollup = rollup.unwrap_or_default();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1_024
    }

    /// The CPUs of threads that are pinned to one each.
    fn find_cpus(&mut self) {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid));
        for thread in threads.into_iter().flatten().flatten() {
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            let Some(Ok(cpu)) = list.map(|list| list.trim().parse::<usize>()) else { continue };
            if !self.cpus.contains(&cpu) {
                self.cpus.push(cpu);
            }
        }
        self.cpus.sort_unstable();
    }
}

/// Inodes of sockets that listen at `port`.
fn listening_inodes(port: u16) -> Vec<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let mut inodes = Vec::new();
    for line in tables.iter().flatten().flat_map(|table| table.lines().skip(1)) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(local), Some(&"0A"), Some(&inode)) =
            (fields.get(1), fields.get(3), fields.get(9))
        else {
            continue;
        };
        let hex = local.rsplit_once(':').map_or("", |(_, port)| port);
        if u16::from_str_radix(hex, 16) == Ok(port) {
            inodes.push(inode.to_owned());
        }
    }
    inodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_listener_is_found_and_measured() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let process = Process::listening_at(listener.local_addr().unwrap()).unwrap();
        assert_eq!(process.pid, std::process::id());
        assert!(process.is_alive());
        assert!(process.pss_bytes() > 100_000);
        let spin_until = crate::clock::process_cpu_us() + 20_000;
        while crate::clock::process_cpu_us() < spin_until {}
        assert!(process.cpu_time().process_us > 10_000);
    }
}
