//! What a run leaves behind: one set of numbers, written as table, JSON, histograms and HTML.

pub(crate) mod compare;
pub(crate) mod files;
mod html;
mod plot;
pub(crate) mod table;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::growth::Growth;
use crate::probe::calibrate::Calibration;
use crate::scenario::Parameters;
use crate::slo::Verdict;
use crate::tally::Counters;

/// The version of `report.json`.
pub(crate) const FORMAT: u32 = 3;

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) format: u32,
    pub(crate) scenario: String,
    /// The command line that repeats it.
    pub(crate) command: Vec<String>,
    pub(crate) machine: Machine,
    pub(crate) parameters: Parameters,
    /// What the client's kernel half costs, and how that was found.
    pub(crate) calibration: Option<Calibration>,
    pub(crate) memory_method: String,
    pub(crate) clock_method: String,
    pub(crate) steps: Vec<Step>,
    pub(crate) samples: Vec<Sample>,
    /// Whole run.
    pub(crate) counters: Counters,
    pub(crate) connect: Latency,
    pub(crate) slippage: Latency,
    /// User-space memory of the load generator a viewer, in bytes; absent when workers run the load.
    pub(crate) loadgen_bytes_per_viewer: Option<f64>,
    /// Its CPU time for each received comment, in microseconds, connects excluded.
    pub(crate) loadgen_us_per_delivery: Option<f64>,
    /// The highest rate, in deliveries a second, whose service levels held.
    pub(crate) highest: Option<Highest>,
    /// The window that the run ended in early.
    pub(crate) unfinished: Option<Unfinished>,
    /// First error texts.
    pub(crate) troubles: Vec<String>,
    /// Why the run ended early; the report is partial then.
    pub(crate) aborted: Option<String>,
    /// Whether everything asserted held.
    pub(crate) passed: bool,
}

/// Where a run took place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) time_unix: u64,
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) descriptors_max: u64,
    /// Absent when workers run the load.
    pub(crate) loadgen_cpus: Option<Vec<usize>>,
    pub(crate) server_cpus: Vec<usize>,
    pub(crate) server_pid: Option<u32>,
    /// Commit of the tree it ran in, when there is one.
    pub(crate) commit: Option<String>,
}

/// One measured window.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) label: String,
    /// Comments a second in each event.
    pub(crate) rate: f64,
    pub(crate) secs: f64,
    pub(crate) connections: u64,
    pub(crate) counters: Counters,
    pub(crate) deliveries_per_sec: f64,
    pub(crate) latency: Latency,
    pub(crate) server: Option<ServerUse>,
    pub(crate) loadgen: LoadgenUse,
    /// Of the server's memory; absent when the window is short or the server not local.
    pub(crate) growth: Option<Growth>,
    /// Who was saturated, in words.
    pub(crate) limit: String,
    pub(crate) is_client_limited: bool,
    /// Seconds from each bounce until everyone was back.
    pub(crate) returns_secs: Vec<f64>,
    /// CPU of each of the server's shards by its own metrics, in percent of one.
    pub(crate) shards_percent: Vec<f64>,
    /// What the server's counters grew by.
    pub(crate) metrics: BTreeMap<String, f64>,
    pub(crate) verdicts: Vec<Verdict>,
    /// Nothing was lost unannounced, came twice, out of order or changed.
    pub(crate) is_sound: bool,
    pub(crate) holds: bool,
}

/// What the server used in a window.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ServerUse {
    /// All use of its CPUs but other processes', softirqs included, in percent of them.
    pub(crate) cpu_percent: f64,
    /// Scheduler time of the process alone, in percent of one CPU.
    pub(crate) process_percent: f64,
    /// Busy time of its CPUs, whoever caused it, in percent of one CPU.
    pub(crate) busy_percent: f64,
    /// What other processes took of its CPUs, in percent of them.
    pub(crate) disturbed_percent: f64,
    pub(crate) cpu_us_per_delivery: Option<f64>,
    pub(crate) pss_bytes: u64,
    /// Growth of PSS since before the first connection, a connection.
    pub(crate) user_bytes_per_connection: f64,
    /// Growth of kernel memory less the client halves, a connection.
    pub(crate) kernel_bytes_per_connection: f64,
}

/// What the load generator used in a window.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LoadgenUse {
    /// Busiest thread, in percent of its CPU.
    pub(crate) busiest_percent: f64,
    /// How long the thread that waited most was ready and had no CPU, in percent of the time.
    pub(crate) starved_percent: f64,
    /// All threads, for each received comment, in microseconds.
    pub(crate) us_per_delivery: Option<f64>,
    /// How late posts left, 99th percentile, in seconds.
    pub(crate) slippage_p99_secs: f64,
}

/// Percentiles in seconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) count: u64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) p9999: f64,
    pub(crate) max: f64,
    /// (quantile, seconds) for the plot.
    pub(crate) curve: Vec<(f64, f64)>,
}

impl Latency {
    /// Reads a histogram of microseconds.
    pub(crate) fn of(histogram: &hdrhistogram::Histogram<u64>) -> Self {
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e6;
        if histogram.is_empty() {
            return Self::default();
        }
        let curve = histogram
            .iter_quantiles(5)
            .map(|point| (point.quantile_iterated_to(), point.value_iterated_to() as f64 / 1e6));
        Self {
            count: histogram.len(),
            mean: histogram.mean() / 1e6,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: histogram.max() as f64 / 1e6,
            curve: curve.collect(),
        }
    }
}

/// About one second of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Since the run began.
    pub(crate) secs: f64,
    pub(crate) phase: String,
    pub(crate) connections: u64,
    pub(crate) posts_per_sec: f64,
    pub(crate) deliveries_per_sec: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
    pub(crate) server_cpu_percent: Option<f64>,
    /// Absent when workers run the load.
    pub(crate) loadgen_cpu_percent: Option<f64>,
    pub(crate) user_bytes: Option<u64>,
    pub(crate) kernel_bytes: Option<u64>,
    /// User and kernel growth a connection, client half taken away.
    pub(crate) bytes_per_connection: Option<f64>,
}

/// The best step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Highest {
    pub(crate) rate: f64,
    pub(crate) deliveries_per_sec: f64,
    /// What broke at the next step, or why there was none.
    pub(crate) stopped_by: String,
}

/// What a window had measured when the run ended early; it is judged by nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Unfinished {
    pub(crate) latency: Latency,
    /// Of the server's memory, in a first step only.
    pub(crate) growth: Option<Growth>,
}
