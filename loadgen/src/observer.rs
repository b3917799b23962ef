//! Watches both sides while a run goes on: samples once a second, snapshots around windows.

use std::io::{IsTerminal, Write};

use hdrhistogram::Histogram;

use crate::cli::Progress;
use crate::clock::{now_ns, process_cpu_us};
use crate::interrupt::Interrupt;
use crate::probe::calibrate::Calibration;
use crate::probe::cpus::Others;
use crate::probe::kernel::KernelMemory;
use crate::probe::metrics::{self, Metrics};
use crate::probe::process::{CpuTime, Process};
use crate::report::{Sample, ServerUse, table::time};
use crate::tally::{Counters, Tally, latency_histogram};

/// Both sides' CPU at one instant.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) time_ns: u64,
    cpu: CpuTime,
    others: Others,
    pub(crate) metrics: Metrics,
}

/// The server's memory at one instant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pss_bytes: u64,
    kernel: KernelMemory,
}

impl Memory {
    /// By how much the kernel's books have grown, both ends of connections, in bytes.
    fn kernel_growth(&self, earlier: &Self) -> f64 {
        let tcp = self.kernel.tcp_bytes as f64 - earlier.kernel.tcp_bytes as f64;
        self.kernel.slab_growth(&earlier.kernel) as f64 + tcp
    }
}

/// The watcher.
#[derive(Debug)]
pub(crate) struct Observer {
    server: Option<Process>,
    admin: String,
    calibration: Option<Calibration>,
    interrupt: Interrupt,
    /// Whether workers run the load, so that this process's CPU says nothing.
    is_remote: bool,
    /// Before the first connection.
    baseline: Memory,
    progress: Progress,
    started_ns: u64,
    last_ns: u64,
    last_counters: Counters,
    last_cpu: CpuTime,
    last_loadgen_us: u64,
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
        is_remote: bool,
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
            is_remote,
            started_ns: now_ns(),
            last_ns: now_ns(),
            last_counters: Counters::default(),
            last_cpu: server.as_ref().map(Process::cpu_time).unwrap_or_default(),
            last_loadgen_us: process_cpu_us(),
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
            others: self.server.as_ref().map(|s| Others::now(s.pid)).unwrap_or_default(),
            time_ns: now_ns(),
            cpu: self.server.as_ref().map(Process::cpu_time).unwrap_or_default(),
            metrics,
        }
    }

    /// Memory of the server now.
    pub(crate) fn memory(&self) -> Memory {
        let pss_bytes = self.server.as_ref().map_or(0, Process::pss_bytes);
        Memory { pss_bytes, kernel: KernelMemory::now() }
    }

    /// What the server used between two snapshots.
    pub(crate) fn server_use(
        &self,
        start: &Snapshot,
        end: &Snapshot,
        memory: &Memory,
        connections: u64,
        deliveries: f64,
    ) -> Option<ServerUse> {
        let server = self.server.as_ref()?;
        let micros = (end.time_ns - start.time_ns) as f64 / 1e3;
        let percent = |after: u64, before: u64| (after - before) as f64 / micros * 100.0;
        let process_percent = percent(end.cpu.process_us, start.cpu.process_us);
        let unused_percent = percent(end.cpu.unused_us, start.cpu.unused_us);
        let busy_percent = (100.0 * server.cpus.len() as f64 - unused_percent).max(process_percent);
        let others_percent = percent(end.others.used_us(&start.others, &server.cpus), 0);
        let used_percent = (busy_percent - others_percent).max(process_percent);
        let cpus = server.cpus.len().max(1) as f64;
        let cpu_percent = used_percent / cpus;
        let disturbed_percent = others_percent / cpus;
        let process_us = (end.cpu.process_us - start.cpu.process_us) as f64;
        let each = |bytes: f64| bytes / connections.max(1) as f64;
        let client_half = self.calibration.map_or(0.0, |c| c.client_half_bytes);
        let grown = |after: u64, before: u64| after as f64 - before as f64;
        let kernel = memory.kernel_growth(&self.baseline);
        Some(ServerUse {
            cpu_percent,
            process_percent,
            busy_percent,
            disturbed_percent,
            cpu_us_per_delivery: (deliveries > 0.0).then(|| process_us / deliveries),
            pss_bytes: memory.pss_bytes,
            user_bytes_per_connection: each(grown(memory.pss_bytes, self.baseline.pss_bytes)),
            kernel_bytes_per_connection: each(kernel) - client_half,
        })
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
        let loadgen_us = process_cpu_us();
        let memory = self.memory();
        let quantile = |q: f64| match self.recent.is_empty() {
            true => 0.0,
            false => self.recent.value_at_quantile(q) as f64 / 1e6,
        };
        let server_us = cpu.process_us.saturating_sub(self.last_cpu.process_us);
        let kernel = memory.kernel_growth(&self.baseline);
        let client_half = self.calibration.map_or(0.0, |c| c.client_half_bytes);
        let user = memory.pss_bytes as f64 - self.baseline.pss_bytes as f64;
        let bytes_per_connection = (self.server.is_some() && tally.live > 0)
            .then(|| (user + kernel) / tally.live as f64 - client_half);
        let sample = Sample {
            bytes_per_connection,
            secs: (now - self.started_ns) as f64 / 1e9,
            phase: phase.to_owned(),
            connections: tally.live,
            posts_per_sec: counters.posts as f64 / secs,
            deliveries_per_sec: (counters.deliveries + counters.deliveries_slow) as f64 / secs,
            p50: quantile(0.5),
            p99: quantile(0.99),
            max: self.recent.max() as f64 / 1e6,
            server_cpu_percent: self.server.is_some().then(|| server_us as f64 / secs / 1e4),
            loadgen_cpu_percent: (!self.is_remote)
                .then(|| (loadgen_us - self.last_loadgen_us) as f64 / secs / 1e4),
            user_bytes: self.server.is_some().then_some(memory.pss_bytes),
            kernel_bytes: self.server.is_some().then_some(kernel.max(0.0) as u64),
        };
        self.recent.reset();
        self.last_ns = now;
        self.last_counters = tally.counters.clone();
        self.last_cpu = cpu;
        self.last_loadgen_us = loadgen_us;
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
        let _ = write!(std::io::stderr(), "{start}{line}{end}");
    }

    /// Leaves the progress line behind.
    pub(crate) fn end_progress(&self) {
        if self.progress == Progress::Auto {
            eprintln!();
        }
    }
}

/// Columns of the terminal that standard error is.
fn terminal_columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    size.map_or(80, |size| usize::from(size.ws_col)).max(40)
}
