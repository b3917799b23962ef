//! What CPUs did, and whose it was.
//!
//! A party's threads are known exactly (schedstat), and so is the time in which a CPU was idle or stolen by the
//! host. Between them are the softirqs that run beside the threads, which belong to the party whose CPU it is,
//! and other processes. Those may live for milliseconds, as compilers do, so looking at who is there
//! before and after finds few of them; the kernel's ticks in task context are the time of *all* tasks, gone or
//! not. So: others took the larger of what is seen of them and of the ticks that the party's threads
//! do not account for, and the party used the rest, but no more than its threads and all time that no task had.

use std::collections::HashMap;
use std::fs;

use serde::{Deserialize, Serialize};

/// Microseconds of a tick of `/proc/stat` (USER_HZ is 100 on all Linux).
const TICK_US: u64 = 10_000;

/// What some CPUs did so far, together, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CpuBooks {
    /// When this was read, by this host's monotonic clock, times the number of CPUs.
    wall_us: u64,
    /// Idle, or waiting for disks.
    idle_us: u64,
    /// Taken by the host for its other guests.
    stolen_us: u64,
    /// In the context of tasks, whosever they are, softirqs left out.
    tasks_us: u64,
}

impl CpuBooks {
    /// Reads the books of `cpus` now.
    pub(crate) fn now(cpus: &[usize]) -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let mut books = Self::read(&text, cpus);
        books.wall_us = crate::clock::now_ns() / 1_000 * cpus.len() as u64;
        books
    }

    fn read(text: &str, cpus: &[usize]) -> Self {
        let mut books = Self::default();
        for line in text.lines() {
            let mut fields = line.split_whitespace();
            let cpu = fields.next().and_then(|name| name.strip_prefix("cpu")?.parse().ok());
            if !cpu.is_some_and(|cpu| cpus.contains(&cpu)) {
                continue;
            }
            // user nice system idle iowait irq softirq steal
            let mut ticks = [0; 8];
            for (tick, field) in ticks.iter_mut().zip(fields) {
                *tick = field.parse::<u64>().unwrap_or(0) * TICK_US;
            }
            books.tasks_us += ticks[0] + ticks[1] + ticks[2];
            books.idle_us += ticks[3] + ticks[4];
            books.stolen_us += ticks[7];
        }
        books
    }

    /// What they did since `earlier`.
    fn since(&self, earlier: &Self) -> Self {
        Self {
            wall_us: self.wall_us.saturating_sub(earlier.wall_us),
            idle_us: self.idle_us.saturating_sub(earlier.idle_us),
            stolen_us: self.stolen_us.saturating_sub(earlier.stolen_us),
            tasks_us: self.tasks_us.saturating_sub(earlier.tasks_us),
        }
    }

    /// Shares of the time since `earlier`, of whose tasks `own_us` were one party's and at least `seen_us` others'.
    pub(crate) fn shares(&self, earlier: &Self, own_us: u64, seen_us: u64) -> Shares {
        let books = self.since(earlier);
        let wall = books.wall_us.max(1) as f64;
        let (own, tasks) = (own_us as f64, books.tasks_us as f64);
        let stolen = (books.stolen_us as f64).min(wall);
        let used = (wall - books.idle_us as f64 - stolen).clamp(0.0, wall).max(own.min(wall));
        let others = (seen_us as f64).max(tasks - own).clamp(0.0, (used - own).max(0.0));
        let mine = (used - others).min(own + (used - tasks).max(0.0)).max(own);
        let percent = |us: f64| us / wall * 100.0;
        Shares {
            used_percent: percent(used),
            own_percent: percent(mine),
            others_percent: percent(others),
            stolen_percent: percent(stolen),
        }
    }
}

/// Shares of a window, in percent of all CPUs looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shares {
    /// Whoever used them.
    pub(crate) used_percent: f64,
    /// The party's threads, and the softirqs beside them.
    pub(crate) own_percent: f64,
    /// Other processes, however short they lived.
    pub(crate) others_percent: f64,
    /// The host's other guests.
    pub(crate) stolen_percent: f64,
}

/// CPU time so far of threads that are not the server's, by thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Others(HashMap<u32, Thread>);

#[derive(Clone, Debug)]
struct Thread {
    name: String,
    /// Where it ran last.
    cpu: usize,
    on_cpu_us: u64,
}

impl Others {
    /// All threads of the host but those of `server`, and the kernel's own for softirqs.
    pub(crate) fn now(server: &[u32]) -> Self {
        let processes = numbers("/proc").filter(|pid| !server.contains(pid));
        let threads = processes.flat_map(|pid| {
            let tasks = format!("/proc/{pid}/task");
            numbers(&tasks).filter_map(move |tid| Some((tid, Thread::read(&tasks, tid)?)))
        });
        Self(threads.collect())
    }

    /// What those that are still there used of `cpus` since `earlier`, in microseconds, and the name of the one that
    /// used most. A thread counts where it ran last.
    pub(crate) fn used_us(&self, earlier: &Self, cpus: &[usize]) -> (u64, Option<&str>) {
        let here = self.0.iter().filter(|(_, thread)| cpus.contains(&thread.cpu));
        let used = here.map(|(tid, thread)| {
            let before = earlier.0.get(tid).map_or(0, |before| before.on_cpu_us);
            (thread.on_cpu_us.saturating_sub(before), thread.name.as_str())
        });
        let used: Vec<(u64, &str)> = used.filter(|&(us, _)| us > 0).collect();
        let most = used.iter().max_by_key(|&&(us, _)| us).map(|&(_, name)| name);
        (used.iter().map(|&(us, _)| us).sum(), most)
    }
}

impl Thread {
    fn read(tasks: &str, tid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("{tasks}/{tid}/stat")).ok()?;
        let (head, rest) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        if name.starts_with("ksoftirqd/") {
            return None;
        }
        // proc(5): the processor is field 39, the state after the name is field 3.
        let cpu = rest.split_whitespace().nth(36)?.parse().ok()?;
        let schedstat = fs::read_to_string(format!("{tasks}/{tid}/schedstat")).ok()?;
        let on_cpu_ns: u64 = schedstat.split_whitespace().next()?.parse().ok()?;
        Some(Self { name, cpu, on_cpu_us: on_cpu_ns / 1_000 })
    }
}

/// Entries of a folder whose names are numbers.
pub(crate) fn numbers(folder: &str) -> impl Iterator<Item = u32> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "cpu  9 9 9 9 9 9 9 9 0 0\ncpu1 1 2 3 100 20 4 5 7 0 0\ncpu10 0 0 0 1 0 0 0 0 0 0\n";

    #[test]
    fn columns_of_the_kernels_books_are_told_apart() {
        let books = CpuBooks::read(TEXT, &[1]);
        let ticks = [books.tasks_us, books.idle_us, books.stolen_us].map(|us| us / TICK_US);
        assert_eq!(ticks, [6, 120, 7]);
        assert_eq!(CpuBooks::read(TEXT, &[1, 10]).idle_us, 121 * TICK_US);
        assert_eq!(CpuBooks::read(TEXT, &[2]), CpuBooks::default());
    }

    /// Shares of a window of 100 ms on one CPU, rounded: used, own, others, stolen.
    fn shares([idle, stolen, tasks]: [u64; 3], own: u64, seen: u64) -> (i64, i64, i64, i64) {
        let end = CpuBooks {
            wall_us: 100_000,
            idle_us: idle * 1_000,
            stolen_us: stolen * 1_000,
            tasks_us: tasks * 1_000,
        };
        let s = end.shares(&CpuBooks::default(), own * 1_000, seen * 1_000);
        let whole = |percent: f64| percent.round() as i64;
        (
            whole(s.used_percent),
            whole(s.own_percent),
            whole(s.others_percent),
            whole(s.stolen_percent),
        )
    }

    #[test]
    fn a_party_alone_has_its_threads_and_the_softirqs_beside_them() {
        // 30 of threads, of which 5 were softirqs, and 10 beside them.
        assert_eq!(shares([60, 0, 25], 30, 0), (40, 40, 0, 0));
        assert_eq!(shares([55, 5, 25], 30, 0), (40, 40, 0, 5), "stolen time is nobody's here");
    }

    #[test]
    fn strangers_are_not_the_partys_even_if_nobody_saw_them() {
        // Shards at 8 beside compilers that are gone when the window ends.
        let (_, own, others, _) = shares([30, 0, 68], 8, 0);
        assert_eq!((own, others), (10, 60));
        let (_, own, others, _) = shares([12, 0, 86], 8, 20);
        assert_eq!((own, others), (10, 78));
        // Those that are still there are seen even where the ticks missed them.
        assert_eq!(shares([50, 0, 10], 10, 35), (50, 15, 35, 0));
    }

    #[test]
    fn what_is_read_at_odds_stays_a_share() {
        for case in [shares([0, 0, 0], 200, 0), shares([100, 100, 100], 0, 300)] {
            let (used, _, others, stolen) = case;
            assert!((0..=100).contains(&used) && (0..=100).contains(&others) && stolen <= 100);
        }
    }

    #[test]
    fn a_busy_thread_of_another_process_is_seen_where_it_runs() {
        // Seen from a server that does not exist, this test is another process.
        let before = Others::now(&[]);
        let spin_until = crate::clock::thread_cpu_us() + 30_000;
        while crate::clock::thread_cpu_us() < spin_until {}
        let after = Others::now(&[]);
        let cpus: Vec<usize> = (0..1_024).collect();
        let (used_us, most) = after.used_us(&before, &cpus);
        assert!(used_us > 25_000 && most.is_some());
        assert_eq!(after.used_us(&before, &[]), (0, None));
        let own = Others::now(&[std::process::id()]);
        assert!(!own.0.contains_key(&std::process::id()));
    }
}
