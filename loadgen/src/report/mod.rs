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
use crate::slo::{Standing, Verdict};
use crate::tally::Counters;

/// The version of `report.json`.
pub(crate) const FORMAT: u32 = 4;

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
    /// Whether everything asserted held; false as well when it could not be measured, see `outcome`.
    pub(crate) passed: bool,
    pub(crate) outcome: Outcome,
    /// Of the first rate's steps that were measured, how far each figure lay apart.
    pub(crate) spread: Vec<Spread>,
}

/// What a run ends with; the exit code is its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// Everything asserted was measured and held.
    Passed = 0,
    /// Something was lost, or a level broke.
    Failed = 1,
    /// Nothing failed, but not everything was measured.
    Unmeasured = 2,
}

impl Outcome {
    /// The last word of a summary.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Passed => "PASS",
            Self::Failed => "FAIL",
            Self::Unmeasured => "NOT MEASURED",
        }
    }
}

/// A figure of repeated steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) name: String,
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
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
    /// Name and digest of the server's program.
    pub(crate) server_program: Option<String>,
    /// What the server's metrics say of its build.
    pub(crate) server_build: Option<String>,
    /// Version and digest of this program.
    pub(crate) loadgen_program: String,
    /// What lies between viewers and server.
    pub(crate) network: String,
    /// Whether it could read what only root may.
    pub(crate) is_root: bool,
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
    /// Comments due in the window that reached a viewer within it; never more than was offered.
    pub(crate) deliveries_per_sec: f64,
    /// What the rate asks for, all viewers together.
    pub(crate) offered_per_sec: f64,
    /// Posts a second that the rate asks for, and those due in the window that left.
    pub(crate) posts_stated_per_sec: f64,
    pub(crate) posts_per_sec: f64,
    pub(crate) latency: Latency,
    pub(crate) server: Option<ServerUse>,
    pub(crate) loadgen: LoadgenUse,
    /// Of the server's memory; absent when the window is short or the server not local.
    pub(crate) growth: Option<Growth>,
    /// Who was saturated, in words.
    pub(crate) limit: String,
    pub(crate) is_client_limited: bool,
    /// Whether its levels are not measured because of that.
    pub(crate) is_distorted: bool,
    /// Whether another try took its place; only what no load excuses counts then.
    pub(crate) is_repeated: bool,
    /// Memory a connection in bytes, the median of the window's looks, or why it was not measured.
    pub(crate) memory: Result<f64, String>,
    /// The least and the most of those looks.
    pub(crate) memory_range: Option<(f64, f64)>,
    /// Seconds from each bounce until everyone was back.
    pub(crate) returns_secs: Vec<f64>,
    /// CPU of each of the server's shards by its own metrics, in percent of one.
    pub(crate) shards_percent: Vec<f64>,
    /// What the server's counters grew by.
    pub(crate) metrics: BTreeMap<String, f64>,
    pub(crate) verdicts: Vec<Verdict>,
    /// Nothing was lost unannounced, came twice, out of order or changed.
    pub(crate) is_sound: bool,
    pub(crate) standing: Standing,
}

/// What the server used in a window.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ServerUse {
    pub(crate) pid: u32,
    /// Whether it keeps to less CPUs than this host has for us. All percentages but those of threads are of the CPUs
    /// that it may use.
    pub(crate) is_pinned: bool,
    /// Its threads, and the softirqs beside them.
    pub(crate) cpu_percent: f64,
    /// Its threads alone.
    pub(crate) own_percent: f64,
    /// Whoever used its CPUs.
    pub(crate) busy_percent: f64,
    /// Other processes, however short they lived.
    pub(crate) others_percent: f64,
    /// The name of the one that used most, of those still there at the end.
    pub(crate) others_name: Option<String>,
    /// The host's other guests.
    pub(crate) stolen_percent: f64,
    /// Its busiest thread, in percent of one CPU.
    pub(crate) busiest_thread_percent: f64,
    /// How long the thread that waited most was ready and had no CPU, in percent of the time.
    pub(crate) starved_percent: f64,
    /// `cpu_percent` as time for each comment received.
    pub(crate) cpu_us_per_delivery: Option<f64>,
    pub(crate) pss_bytes: Option<u64>,
    /// Growth of PSS since before the first connection, a connection.
    pub(crate) user_bytes_per_connection: Option<f64>,
    /// Growth of kernel memory less the client halves, a connection.
    pub(crate) kernel_bytes_per_connection: Option<f64>,
}

/// What the load generator used in a window.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LoadgenUse {
    /// Busiest thread, in percent of its CPU.
    pub(crate) busiest_percent: f64,
    /// The CPU that had least left, what was used of it by whomever, and what the host's other guests had, in percent.
    pub(crate) cpu: usize,
    pub(crate) cpu_percent: f64,
    pub(crate) stolen_percent: f64,
    /// How long the thread that waited most was ready and had no CPU, in percent of the time.
    pub(crate) starved_percent: f64,
    /// All threads, for each received comment, in microseconds.
    pub(crate) us_per_delivery: Option<f64>,
    /// How late posts left, 99th percentile, in seconds.
    pub(crate) slippage_p99_secs: f64,
}

impl LoadgenUse {
    /// What was used and stolen of the CPU that had least left.
    pub(crate) fn gone_percent(&self) -> f64 {
        self.cpu_percent + self.stolen_percent
    }
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
    /// Seconds that it stands for.
    pub(crate) span_secs: f64,
    pub(crate) connections: u64,
    pub(crate) posts_per_sec: f64,
    pub(crate) deliveries_per_sec: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
    /// As a step's `cpu_percent`.
    pub(crate) server_cpu_percent: Option<f64>,
    /// What was gone of the load generator's busiest CPU.
    pub(crate) loadgen_cpu_percent: Option<f64>,
    pub(crate) user_bytes: Option<u64>,
    pub(crate) kernel_bytes: Option<u64>,
    /// User and kernel growth a connection, client half taken away.
    pub(crate) bytes_per_connection: Option<f64>,
    /// The user's part of it.
    pub(crate) user_bytes_per_connection: Option<f64>,
}

/// The best step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Highest {
    pub(crate) rate: f64,
    /// What that rate asks for, and what of it came in time.
    pub(crate) offered_per_sec: f64,
    pub(crate) deliveries_per_sec: f64,
    /// What broke at the next step, or why there was none.
    pub(crate) stopped_by: String,
}

#[cfg(test)]
impl Step {
    /// One of which nothing but this is known.
    pub(crate) fn known_by(label: &str, rate: f64, standing: Standing) -> Self {
        Self {
            label: label.to_owned(),
            rate,
            secs: 1.0,
            connections: 0,
            counters: Counters::default(),
            deliveries_per_sec: 0.0,
            offered_per_sec: 0.0,
            posts_stated_per_sec: 0.0,
            posts_per_sec: 0.0,
            latency: Latency::default(),
            server: None,
            loadgen: LoadgenUse::default(),
            growth: None,
            limit: String::new(),
            is_client_limited: false,
            is_distorted: standing == Standing::Unmeasured,
            is_repeated: false,
            memory: Err("unknown".to_owned()),
            memory_range: None,
            returns_secs: Vec::new(),
            shards_percent: Vec::new(),
            metrics: BTreeMap::new(),
            verdicts: Vec::new(),
            is_sound: true,
            standing,
        }
    }
}

/// How far the figures of the steps at `rate` lie apart, of those that were measured; empty when there are fewer than two.
pub(crate) fn spread(steps: &[Step], rate: f64) -> Vec<Spread> {
    let measured = || steps.iter().filter(|step| step.rate == rate && !step.is_distorted);
    if measured().count() < 2 {
        return Vec::new();
    }
    type Pick = fn(&Step) -> Option<f64>;
    let figures: [(&str, Pick); 7] = [
        ("deliveries a second", |step| Some(step.deliveries_per_sec)),
        ("latency p50, ms", |step| Some(step.latency.p50 * 1e3)),
        ("latency p99, ms", |step| Some(step.latency.p99 * 1e3)),
        ("server CPU, %", |step| Some(step.server.as_ref()?.cpu_percent)),
        ("server us a delivery", |step| step.server.as_ref()?.cpu_us_per_delivery),
        ("memory a connection, B", |step| step.memory.clone().ok()),
        ("client CPU, %", |step| Some(step.loadgen.gone_percent())),
    ];
    let spread = figures.into_iter().filter_map(|(name, pick)| {
        let mut values: Vec<f64> = measured().filter_map(pick).collect();
        values.sort_unstable_by(f64::total_cmp);
        let median = *values.get(values.len() / 2)?;
        Some(Spread { name: name.to_owned(), min: values[0], median, max: *values.last()? })
    });
    spread.collect()
}

/// What a window had measured when the run ended early; it is judged by nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Unfinished {
    pub(crate) latency: Latency,
    /// Of the server's memory, in a first step only.
    pub(crate) growth: Option<Growth>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_of_the_steps_that_were_measured() {
        let step = |deliveries_per_sec, standing| {
            let step = Step::known_by("steady", 1.0, standing);
            Step { deliveries_per_sec, latency: Latency::default(), ..step }
        };
        let one = [step(9.0, Standing::Holds), step(1.0, Standing::Unmeasured)];
        assert_eq!(spread(&one, 1.0), []);
        let three = [
            step(9.0, Standing::Holds),
            step(1.0, Standing::Unmeasured),
            step(7.0, Standing::Broken),
            step(8.0, Standing::Holds),
        ];
        let all = spread(&three, 1.0);
        let of = |name: &str| all.iter().find(|spread| spread.name == name);
        let deliveries = of("deliveries a second").unwrap();
        assert_eq!((deliveries.min, deliveries.median, deliveries.max), (7.0, 8.0, 9.0));
        assert!(of("server CPU, %").is_none(), "nobody knows it");
    }
}
