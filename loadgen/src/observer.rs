//! Watches both sides while a run goes on: samples once a second, snapshots around windows.

use std::io::IsTerminal;

use hdrhistogram::Histogram;

use crate::cli::Progress;
use crate::clock::now_ns;
use crate::interrupt::Interrupt;
use crate::memory::{self, Memory};
use crate::probe::calibrate::Calibration;
use crate::probe::cpus::Others;
use crate::probe::metrics::{self, Metrics};
use crate::probe::process::{CpuTime, Process};
use crate::report::{LoadgenUse, Sample, ServerUse, table::time};
use crate::say;
use crate::tally::{Counters, PlaneUse, Tally, latency_histogram};

/// The server at one instant.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) time_ns: u64,
    cpu: CpuTime,
    others: Others,
    pub(crate) metrics: Metrics,
}

/// The watcher.
#[derive(Debug)]
pub(crate) struct Observer {
    server: Option<Process>,
    admin: String,
    calibration: Option<Calibration>,
    interrupt: Interrupt,
    /// Ends of each connection that are on this host.
    ends: u32,
    /// Before the first connection.
    baseline: Memory,
    progress: Progress,
    started_ns: u64,
    last_ns: u64,
    last_counters: Counters,
    last_cpu: CpuTime,
    last_planes: Vec<PlaneUse>,
    /// Latencies since the last sample.
    recent: Histogram<u64>,
}

impl Observer {
    pub(crate) fn new(
        server: Option<Process>,
        admin: &str,
        calibration: Option<Calibration>,
        progress: Progress,
        interrupt: Interrupt,
        ends: u32,
    ) -> Self {
        let mut observer = Self {
            baseline: Memory::default(),
            progress: match progress {
                Progress::Auto if !std::io::stderr().is_terminal() => Progress::Off,
                shown => shown,
            },
            admin: admin.to_owned(),
            calibration,
            interrupt,
            ends,
            started_ns: now_ns(),
            last_ns: now_ns(),
            last_counters: Counters::default(),
            last_cpu: server.as_ref().map(Process::cpu_time).unwrap_or_default(),
            last_planes: Vec::new(),
            recent: latency_histogram(),
            server,
        };
        observer.baseline = observer.memory();
        observer
    }

    /// The server's process, when it is local and known.
    pub(crate) fn server(&self) -> Option<&Process> {
        self.server.as_ref()
    }

    /// Whether a local server has ended.
    pub(crate) fn is_server_gone(&self) -> bool {
        self.server.as_ref().is_some_and(|server| !server.is_alive())
    }

    /// Whether someone wants the run to end.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupt.has_come()
    }

    /// CPU and counters of the server now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let metrics = match self.admin.as_str() {
            "" => Metrics::new(),
            admin => metrics::fetch(admin).unwrap_or_default(),
        };
        Snapshot {
            others: self.server.as_ref().map(|s| Others::now(&s.pids())).unwrap_or_default(),
            time_ns: now_ns(),
            cpu: self.server.as_ref().map(Process::cpu_time).unwrap_or_default(),
            metrics,
        }
    }

    /// Memory of the server now.
    fn memory(&self) -> Memory {
        Memory::now(self.server.as_ref())
    }

    /// What is known of the server's memory, with `connections` open.
    pub(crate) fn memory_facts(&self, connections: u64) -> memory::Facts {
        let now = self.memory();
        memory::Facts {
            is_local: self.server.is_some(),
            has_user: now.user_bytes.is_some(),
            has_kernel: now.kernel.is_some(),
            connections,
            ends: self.ends,
            is_calibrated: self.calibration.is_some() || self.ends == 1,
            sockets_grown: now.sockets_grown(&self.baseline).unwrap_or(0.0),
        }
    }

    /// What the server used between two snapshots.
    pub(crate) fn server_use(
        &self,
        start: &Snapshot,
        end: &Snapshot,
        connections: u64,
        deliveries: f64,
    ) -> Option<ServerUse> {
        let server = self.server.as_ref()?;
        let micros = (end.time_ns - start.time_ns) as f64 / 1e3;
        let own_us = end.cpu.used_us(&start.cpu);
        let (others_us, others_name) = match server.is_pinned {
            true => end.others.used_us(&start.others, &server.cpus),
            // Where it may run anywhere, others elsewhere are not in its way.
            false => (0, None),
        };
        let shares = end.cpu.books.shares(&start.cpu.books, own_us, others_us);
        let cpus = server.cpus.len().max(1) as f64;
        let own_percent = own_us as f64 / micros / cpus * 100.0;
        // Softirqs can only be told apart on CPUs that are the server's.
        let cpu_percent = if server.is_pinned { shares.own_percent } else { own_percent };
        let (busiest_us, starved_us) = end.cpu.most_us(&start.cpu);
        let memory = self.memory();
        let each = self.memory_each(&memory, connections);
        Some(ServerUse {
            pid: server.pid,
            is_pinned: server.is_pinned,
            cpu_percent,
            own_percent,
            busy_percent: shares.used_percent,
            others_percent: shares.others_percent,
            others_name: others_name.map(str::to_owned),
            stolen_percent: shares.stolen_percent,
            busiest_thread_percent: busiest_us as f64 / micros * 100.0,
            starved_percent: starved_us as f64 / micros * 100.0,
            cpu_us_per_delivery: (deliveries > 0.0)
                .then(|| cpu_percent / 100.0 * cpus * micros / deliveries),
            pss_bytes: memory.user_bytes,
            user_bytes_per_connection: each.map(|(user, _)| user),
            kernel_bytes_per_connection: each.map(|(_, kernel)| kernel),
        })
    }

    /// A connection's bytes, user and kernel, the client half taken away.
    fn memory_each(&self, memory: &Memory, connections: u64) -> Option<(f64, f64)> {
        let connections = (connections > 0).then_some(connections as f64)?;
        let client_half = self.calibration.map_or(0.0, |c| c.client_half_bytes);
        let user = memory.user_growth(&self.baseline)? / connections;
        Some((user, memory.kernel_growth(&self.baseline)? / connections - client_half))
    }

    /// Takes a look's numbers in; a sample once a second.
    pub(crate) fn sample(&mut self, phase: &str, tally: &Tally) -> Option<Sample> {
        self.recent.add(&tally.recent).expect("all histograms have the same bounds");
        let now = now_ns();
        let secs = (now - self.last_ns) as f64 / 1e9;
        if secs < 1.0 {
            return None;
        }
        let counters = tally.counters.since(&self.last_counters);
        let cpu = self.server.as_ref().map(Process::cpu_time).unwrap_or_default();
        let memory = self.memory();
        let quantile = |q: f64| match self.recent.is_empty() {
            true => 0.0,
            false => self.recent.value_at_quantile(q) as f64 / 1e6,
        };
        let server_cpu_percent = self.server.as_ref().map(|server| {
            let own_us = cpu.used_us(&self.last_cpu);
            let cpus = server.cpus.len().max(1) as f64;
            match server.is_pinned {
                true => cpu.books.shares(&self.last_cpu.books, own_us, 0).own_percent,
                false => own_us as f64 / secs / cpus / 1e4,
            }
        });
        let loadgen_cpu_percent = (!self.last_planes.is_empty())
            .then(|| loadgen_use(&self.last_planes, &tally.planes, secs).gone_percent());
        let each = self.memory_each(&memory, tally.live);
        let sample = Sample {
            bytes_per_connection: each.map(|(user, kernel)| user + kernel),
            user_bytes_per_connection: each.map(|(user, _)| user),
            secs: (now - self.started_ns) as f64 / 1e9,
            span_secs: secs,
            phase: phase.to_owned(),
            connections: tally.live,
            posts_per_sec: counters.posts as f64 / secs,
            deliveries_per_sec: (counters.deliveries + counters.deliveries_slow) as f64 / secs,
            p50: quantile(0.5),
            p99: quantile(0.99),
            max: self.recent.max() as f64 / 1e6,
            server_cpu_percent,
            loadgen_cpu_percent,
            user_bytes: memory.user_bytes,
            kernel_bytes: (memory.kernel_growth(&self.baseline))
                .filter(|_| self.server.is_some())
                .map(|bytes| bytes.max(0.0) as u64),
        };
        self.recent.reset();
        self.last_ns = now;
        self.last_counters = tally.counters.clone();
        self.last_cpu = cpu;
        self.last_planes.clone_from(&tally.planes);
        self.show(&sample, tally);
        Some(sample)
    }

    fn show(&self, sample: &Sample, tally: &Tally) {
        let server =
            sample.server_cpu_percent.map_or(String::new(), |cpu| format!(" server {cpu:.0}%"));
        let loadgen = sample.loadgen_cpu_percent.map_or("-".to_owned(), |cpu| format!("{cpu:.0}%"));
        let mut line = format!(
            "{:6.1}s {:<8} {:>6} live {:>7.0} dlv/s {:>5} p50 {:>5} p99 {:>5} max lost {}{server} \
             loadgen {loadgen} {:.0} posts/s",
            sample.secs,
            sample.phase,
            sample.connections,
            sample.deliveries_per_sec,
            time(sample.p50),
            time(sample.p99),
            time(sample.max),
            tally.counters.lost,
            sample.posts_per_sec,
        );
        let (start, end) = match self.progress {
            Progress::Off => return,
            Progress::Auto => {
                // A line that wraps cannot be written over.
                line.truncate(terminal_columns());
                ("\r\x1b[K", "")
            }
            Progress::Lines => ("", "\n"),
        };
        // A progress line that cannot be written is not worth ending a run for.
        say::note(&format!("{start}{line}{end}"));
    }

    /// Leaves the progress line behind.
    pub(crate) fn end_progress(&self) {
        if self.progress == Progress::Auto {
            say::note("\n");
        }
    }
}

/// What the planes used between two tallies `secs` apart. Each is compared with itself; the CPU that had least left and
/// the thread that was busiest may be different ones.
pub(crate) fn loadgen_use(start: &[PlaneUse], end: &[PlaneUse], secs: f64) -> LoadgenUse {
    let mut most = LoadgenUse::default();
    for (before, after) in start.iter().zip(end) {
        let percent = |after: u64, before: u64| after.saturating_sub(before) as f64 / secs / 1e4;
        let own_us = after.cpu_us.saturating_sub(before.cpu_us);
        let shares = after.books.shares(&before.books, own_us, 0);
        most.busiest_percent = most.busiest_percent.max(percent(after.cpu_us, before.cpu_us));
        most.starved_percent = most.starved_percent.max(percent(after.waited_us, before.waited_us));
        if shares.used_percent + shares.stolen_percent >= most.cpu_percent + most.stolen_percent {
            most.cpu = after.cpu;
            (most.cpu_percent, most.stolen_percent) = (shares.used_percent, shares.stolen_percent);
        }
    }
    most
}

/// Columns of the terminal that standard error is.
fn terminal_columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    size.map_or(80, |size| usize::from(size.ws_col)).max(40)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_is_compared_with_itself() {
        let plane =
            |cpu, cpu_us, waited_us| PlaneUse { cpu, cpu_us, waited_us, ..PlaneUse::default() };
        // The one that had used most before is idle now; totals' maxima would say 10 %.
        let start = [plane(0, 9_000_000, 5_000_000), plane(1, 100_000, 0)];
        let end = [plane(0, 9_000_000, 5_000_000), plane(1, 1_050_000, 300_000)];
        let most = loadgen_use(&start, &end, 1.0);
        assert_eq!((most.busiest_percent.round(), most.starved_percent.round()), (95.0, 30.0));
    }
}
