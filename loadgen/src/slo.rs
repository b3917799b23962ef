//! Service levels as the user writes them: `p99<250ms,loss=0,cpu<=70%,memory<=8KB`.

use serde::{Deserialize, Serialize};

/// What may be asked for. All values are numbers in base units: seconds, bytes, percent, counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    Percentile(u32),
    Max,
    Loss,
    Duplicates,
    Reordered,
    Cpu,
    Memory,
    Growth,
    Logs,
    Connections,
    Closed,
    Errors,
}

/// One service level.
#[derive(Clone, Debug)]
pub(crate) struct Level {
    text: String,
    measure: Measure,
    comparison: &'static str,
    bound: f64,
}

/// A service level and what was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// As the user wrote it.
    pub(crate) level: String,
    /// In base units; absent when it could not be measured, which does not hold.
    pub(crate) measured: Option<f64>,
    pub(crate) holds: bool,
}

/// What a window measured, in base units.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured<'a> {
    pub(crate) latency: &'a hdrhistogram::Histogram<u64>,
    pub(crate) counters: &'a crate::tally::Counters,
    pub(crate) connections: u64,
    pub(crate) cpu_percent: Option<f64>,
    /// A connection.
    pub(crate) memory_bytes: Option<f64>,
    /// Of the whole server, over the window.
    pub(crate) growth_bytes: Option<f64>,
    /// How full the server's logs are.
    pub(crate) logs_percent: Option<f64>,
}

const COMPARISONS: [&str; 6] = ["<=", ">=", "==", "<", ">", "="];

/// Reads a list of service levels.
pub(crate) fn parse(text: &str) -> Result<Vec<Level>, String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(parse_level).collect()
}

fn parse_level(item: &str) -> Result<Level, String> {
    let found = COMPARISONS.iter().find_map(|&c| item.split_once(c).map(|(l, r)| (l, c, r)));
    let (name, comparison, value) =
        found.ok_or_else(|| format!("{item:?} is not of the form p99<250ms"))?;
    let measure = match name.trim() {
        "p50" => Measure::Percentile(5_000),
        "p90" => Measure::Percentile(9_000),
        "p95" => Measure::Percentile(9_500),
        "p99" => Measure::Percentile(9_900),
        "p99.9" | "p999" => Measure::Percentile(9_990),
        "p99.99" | "p9999" => Measure::Percentile(9_999),
        "max" => Measure::Max,
        "loss" => Measure::Loss,
        "duplicates" => Measure::Duplicates,
        "reordered" => Measure::Reordered,
        "cpu" => Measure::Cpu,
        "memory" => Measure::Memory,
        "growth" => Measure::Growth,
        "logs" => Measure::Logs,
        "connections" => Measure::Connections,
        "closed" => Measure::Closed,
        "errors" => Measure::Errors,
        other => {
            return Err(format!(
                "{other:?} is not a service level; there are p50 p90 p95 p99 p99.9 p99.99 max loss \
                 duplicates reordered cpu memory growth logs connections closed errors"
            ));
        }
    };
    let bound = parse_value(value.trim(), measure)?;
    Ok(Level { text: item.to_owned(), measure, comparison, bound })
}

fn parse_value(text: &str, measure: Measure) -> Result<f64, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic() || c == '%').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is not a number"))?;
    let scale = match (measure, unit) {
        (Measure::Percentile(_) | Measure::Max, "us") => 1e-6,
        (Measure::Percentile(_) | Measure::Max, "ms") => 1e-3,
        (Measure::Percentile(_) | Measure::Max, "s") | (Measure::Cpu | Measure::Logs, "%") => 1.0,
        (Measure::Memory | Measure::Growth, "B") => 1.0,
        (Measure::Memory | Measure::Growth, "KB") => 1_024.0,
        (Measure::Memory | Measure::Growth, "MB") => 1_024.0 * 1_024.0,
        (Measure::Percentile(_) | Measure::Max, _) => {
            return Err(format!("{text:?} needs a unit: us, ms, s"));
        }
        (Measure::Cpu | Measure::Logs, _) => return Err(format!("{text:?} needs the unit %")),
        (Measure::Memory | Measure::Growth, _) => {
            return Err(format!("{text:?} needs a unit: B, KB, MB"));
        }
        (_, "") => 1.0,
        _ => return Err(format!("{text:?} is a count and has no unit")),
    };
    Ok(number * scale)
}

impl Level {
    /// Whether it holds.
    pub(crate) fn judge(&self, measured: Measured<'_>) -> Verdict {
        let counters = measured.counters;
        let seconds = |us: u64| Some(us as f64 / 1e6);
        let is_timed = !measured.latency.is_empty();
        let value = match self.measure {
            Measure::Percentile(hundredths) if is_timed => {
                seconds(measured.latency.value_at_quantile(f64::from(hundredths) / 1e4))
            }
            Measure::Max if is_timed => seconds(measured.latency.max()),
            Measure::Percentile(_) | Measure::Max => None,
            Measure::Loss => Some(counters.lost as f64),
            Measure::Duplicates => Some(counters.duplicates as f64),
            Measure::Reordered => Some(counters.reordered as f64),
            Measure::Cpu => measured.cpu_percent,
            Measure::Memory => measured.memory_bytes,
            Measure::Growth => measured.growth_bytes,
            Measure::Logs => measured.logs_percent,
            Measure::Connections => Some(measured.connections as f64),
            Measure::Closed => Some(counters.closed_unexpectedly as f64),
            Measure::Errors => Some((counters.protocol_errors + counters.disagreements) as f64),
        };
        let holds = value.is_some_and(|value| match self.comparison {
            "<" => value < self.bound,
            "<=" => value <= self.bound,
            ">" => value > self.bound,
            ">=" => value >= self.bound,
            _ => value == self.bound,
        });
        Verdict { level: self.text.clone(), measured: value, holds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::{Counters, latency_histogram};

    fn holds(text: &str) -> bool {
        let mut latency = latency_histogram();
        latency.record_n(100_000, 99).unwrap();
        latency.record(400_000).unwrap();
        let counters = Counters { lost: 3, ..Counters::default() };
        let measured = Measured {
            latency: &latency,
            counters: &counters,
            connections: 50_000,
            cpu_percent: Some(69.5),
            memory_bytes: Some(8_000.0),
            growth_bytes: Some(-2_000_000.0),
            logs_percent: Some(99.0),
        };
        parse(text).unwrap().iter().all(|level| level.judge(measured).holds)
    }

    #[test]
    fn levels_compare_in_their_units() {
        for good in [
            "p99<250ms",
            "p99 < 0.25s",
            "max<=401000us",
            "loss=3",
            "cpu<70%",
            "memory<8KB",
            "growth<=1MB",
            "logs>=95%",
            "connections>=50000,closed=0,errors==0",
            "",
        ] {
            assert!(holds(good), "{good}");
        }
        for bad in [
            "p50<100us",
            "max<400ms",
            "loss=0",
            "cpu<60%",
            "memory<=4KB",
            "logs>99%",
            "p90<1ms,loss=3",
        ] {
            assert!(!holds(bad), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_measured_does_not_hold() {
        let (latency, counters) = (latency_histogram(), Counters::default());
        let nothing = Measured {
            latency: &latency,
            counters: &counters,
            connections: 0,
            cpu_percent: None,
            memory_bytes: None,
            growth_bytes: None,
            logs_percent: None,
        };
        for text in ["cpu<70%", "memory<8KB", "growth<1MB", "logs>1%", "p99<1s"] {
            let verdict = parse(text).unwrap()[0].judge(nothing);
            assert_eq!((verdict.measured, verdict.holds), (None, false), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_a_hint() {
        for bad in ["p99", "p98<1ms", "p99<250", "loss<1KB", "cpu<70", "memory<x", "growth<1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
