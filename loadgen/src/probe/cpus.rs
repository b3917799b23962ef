//! Who used the server's CPUs: all their time but idleness, and what of it was other processes'.
//!
//! What is left is the server's: its threads, and the softirqs that its sends and its viewers' bytes
//! cause in whatever context they run. Adding softirq time to the threads' own would count most of it twice,
//! as kernels that do not account interrupts apart have it in both.

use std::collections::HashMap;
use std::fs;

/// Microseconds of a tick of `/proc/stat` (USER_HZ is 100 on all Linux).
const TICK_US: u64 = 10_000;

/// Time not used on some CPUs so far: idle, waiting for disks, or stolen by the host, in microseconds.
pub(crate) fn unused_us(cpus: &[usize]) -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    cpus.iter().map(|cpu| unused_ticks(&text, *cpu).unwrap_or(0) * TICK_US).sum()
}

fn unused_ticks(text: &str, cpu: usize) -> Option<u64> {
    let name = format!("cpu{cpu}");
    let row = text.lines().find(|line| line.split(' ').next() == Some(&name))?;
    // user nice system idle iowait irq softirq steal
    let ticks: Vec<u64> = row.split_whitespace().skip(1).map_while(|t| t.parse().ok()).collect();
    Some(ticks.get(3)? + ticks.get(4)? + ticks.get(7)?)
}

/// CPU time so far of threads that are not the server's, by thread, in microseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Others(HashMap<u32, Thread>);

#[derive(Clone, Copy, Debug)]
struct Thread {
    /// Where it ran last.
    cpu: usize,
    on_cpu_us: u64,
}

impl Others {
    /// All threads of the host but those of `server`, and the kernel's own for softirqs.
    pub(crate) fn now(server: u32) -> Self {
        let processes = numbers("/proc").filter(|&pid| pid != server);
        let threads = processes.flat_map(|pid| {
            let tasks = format!("/proc/{pid}/task");
            numbers(&tasks).filter_map(move |tid| Some((tid, Thread::read(&tasks, tid)?)))
        });
        Self(threads.collect())
    }

    /// What they used of `cpus` since `earlier`. A thread counts where it ran last; one that began and
    /// ended in between is not seen, and counts as the server's.
    pub(crate) fn used_us(&self, earlier: &Self, cpus: &[usize]) -> u64 {
        let here = self.0.iter().filter(|(_, thread)| cpus.contains(&thread.cpu));
        let used = here.map(|(tid, thread)| {
            let before = earlier.0.get(tid).map_or(0, |before| before.on_cpu_us);
            thread.on_cpu_us.saturating_sub(before)
        });
        used.sum()
    }
}

impl Thread {
    fn read(tasks: &str, tid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("{tasks}/{tid}/stat")).ok()?;
        let (head, rest) = stat.rsplit_once(')')?;
        if head.contains("(ksoftirqd/") {
            return None;
        }
        // proc(5): the processor is field 39, the state after the name is field 3.
        let cpu = rest.split_whitespace().nth(36)?.parse().ok()?;
        let schedstat = fs::read_to_string(format!("{tasks}/{tid}/schedstat")).ok()?;
        let on_cpu_ns: u64 = schedstat.split_whitespace().next()?.parse().ok()?;
        Some(Self { cpu, on_cpu_us: on_cpu_ns / 1_000 })
    }
}

/// Entries of a folder whose names are numbers.
fn numbers(folder: &str) -> impl Iterator<Item = u32> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_disk_and_stolen_ticks_are_not_used() {
        let text =
            "cpu  9 9 9 9 9 9 9 9 0 0\ncpu1 1 2 3 100 20 4 5 7 0 0\ncpu10 0 0 0 1 0 0 0 0 0 0\n";
        assert_eq!(unused_ticks(text, 1), Some(127));
        assert_eq!(unused_ticks(text, 10), Some(1));
        assert_eq!(unused_ticks(text, 2), None);
    }

    #[test]
    fn a_busy_thread_of_another_process_is_seen_where_it_runs() {
        // Seen from a server that does not exist, this test is another process.
        let before = Others::now(0);
        let spin_until = crate::clock::thread_cpu_us() + 30_000;
        while crate::clock::thread_cpu_us() < spin_until {}
        let after = Others::now(0);
        let cpus: Vec<usize> = (0..1_024).collect();
        assert!(after.used_us(&before, &cpus) > 25_000);
        assert_eq!(after.used_us(&before, &[]), 0);
        let own = Others::now(std::process::id());
        assert!(!own.0.contains_key(&std::process::id()));
    }
}
