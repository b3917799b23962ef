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
    Rate,
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

/// What a level came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Standing {
    Holds,
    Broken,
    /// Neither: what was seen says nothing about the server.
    Unmeasured,
}

impl Standing {
    /// Broken outweighs unmeasured, which outweighs what holds.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Broken, _) | (_, Self::Broken) => Self::Broken,
            (Self::Unmeasured, _) | (_, Self::Unmeasured) => Self::Unmeasured,
            (Self::Holds, Self::Holds) => Self::Holds,
        }
    }
}

/// A service level and what was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// As the user wrote it.
    pub(crate) level: String,
    /// In base units.
    pub(crate) measured: Option<f64>,
    pub(crate) standing: Standing,
    /// What was measured, in the unit of the level, or why nothing was.
    pub(crate) shown: String,
}

/// A measured value, or why there is none.
pub(crate) type Reading = Result<f64, String>;

/// What a window measured, in base units.
#[derive(Clone, Debug)]
pub(crate) struct Measured<'a> {
    pub(crate) latency: &'a hdrhistogram::Histogram<u64>,
    pub(crate) counters: &'a crate::tally::Counters,
    pub(crate) connections: u64,
    pub(crate) cpu_percent: Reading,
    /// A connection.
    pub(crate) memory_bytes: Reading,
    /// Of the whole server, over the window.
    pub(crate) growth_bytes: Reading,
    /// How full the server's logs are.
    pub(crate) logs_percent: Reading,
    /// Comments that were posted, of those that the rate asked for.
    pub(crate) rate_percent: Reading,
    /// Why the window says nothing about the server's speed and use: the client or others were in the way.
    pub(crate) distorted: Option<&'a str>,
}

const COMPARISONS: [&str; 6] = ["<=", ">=", "==", "<", ">", "="];

/// Reads a list of service levels.
pub(crate) fn parse(text: &str) -> Result<Vec<Level>, String> {
    let levels = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    levels.map(|item| parse_level(item).map_err(|why| format!("--slo {item}: {why}"))).collect()
}

fn parse_level(item: &str) -> Result<Level, String> {
    let found = COMPARISONS.iter().find_map(|&c| item.split_once(c).map(|(l, r)| (l, c, r)));
    let (name, comparison, value) = found
        .ok_or_else(|| "a level is a name, a comparison and a bound, as in p99<250ms".to_owned())?;
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
        "rate" => Measure::Rate,
        "connections" => Measure::Connections,
        "closed" => Measure::Closed,
        "errors" => Measure::Errors,
        other => {
            return Err(format!(
                "{other:?} is not a service level; there are p50 p90 p95 p99 p99.9 p99.99 max loss \
                 duplicates reordered cpu memory growth logs rate connections closed errors"
            ));
        }
    };
    let bound = parse_value(value.trim(), measure)?;
    Ok(Level { text: item.to_owned(), measure, comparison, bound })
}

fn parse_value(text: &str, measure: Measure) -> Result<f64, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic() || c == '%').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 =
        number.parse().map_err(|_| format!("{text:?} does not begin with a number"))?;
    let scale = match (measure, unit) {
        (Measure::Percentile(_) | Measure::Max, "us") => 1e-6,
        (Measure::Percentile(_) | Measure::Max, "ms") => 1e-3,
        (Measure::Percentile(_) | Measure::Max, "s")
        | (Measure::Cpu | Measure::Logs | Measure::Rate, "%") => 1.0,
        (Measure::Memory | Measure::Growth, "B") => 1.0,
        (Measure::Memory | Measure::Growth, "KB") => 1_024.0,
        (Measure::Memory | Measure::Growth, "MB") => 1_024.0 * 1_024.0,
        (Measure::Percentile(_) | Measure::Max, _) => {
            return Err(format!("{text:?} needs a unit: us, ms, s"));
        }
        (Measure::Cpu | Measure::Logs | Measure::Rate, _) => {
            return Err(format!("{text:?} needs the unit %"));
        }
        (Measure::Memory | Measure::Growth, _) => {
            return Err(format!("{text:?} needs a unit: B, KB, MB"));
        }
        (_, "") => 1.0,
        _ => return Err(format!("{text:?} is a count and has no unit")),
    };
    Ok(number * scale)
}

impl Level {
    /// Whether it holds. What the client or others distort is not judged by what was seen of it.
    pub(crate) fn judge(&self, measured: &Measured<'_>) -> Verdict {
        let is_distorted = self.measure.is_distorted_by_the_client();
        // What cannot be read here at all says more than what would have distorted it.
        let reading = self.reading(measured).and_then(|value| match measured.distorted {
            Some(reason) if is_distorted => Err(reason.to_owned()),
            _ => Ok(value),
        });
        let (measured, standing, shown) = match reading {
            Ok(value) if self.holds(value) => {
                (Some(value), Standing::Holds, self.measure.show(value))
            }
            Ok(value) => (Some(value), Standing::Broken, self.measure.show(value)),
            Err(reason) => (None, Standing::Unmeasured, reason),
        };
        Verdict { level: self.text.clone(), measured, standing, shown }
    }

    fn reading(&self, measured: &Measured<'_>) -> Reading {
        let counters = measured.counters;
        let seconds = |us: u64| match measured.latency.is_empty() {
            true => Err("nothing that was due in the window was delivered".to_owned()),
            false => Ok(us as f64 / 1e6),
        };
        match self.measure {
            Measure::Percentile(hundredths) => {
                seconds(measured.latency.value_at_quantile(f64::from(hundredths) / 1e4))
            }
            Measure::Max => seconds(measured.latency.max()),
            Measure::Loss => Ok(counters.lost as f64),
            Measure::Duplicates => Ok((counters.duplicates + counters.appended_twice) as f64),
            Measure::Reordered => Ok(counters.reordered as f64),
            Measure::Cpu => measured.cpu_percent.clone(),
            Measure::Memory => measured.memory_bytes.clone(),
            Measure::Growth => measured.growth_bytes.clone(),
            Measure::Logs => measured.logs_percent.clone(),
            Measure::Rate => measured.rate_percent.clone(),
            Measure::Connections => Ok(measured.connections as f64),
            Measure::Closed => Ok(counters.closed_unexpectedly as f64),
            Measure::Errors => Ok((counters.protocol_errors + counters.disagreements) as f64),
        }
    }

    fn holds(&self, value: f64) -> bool {
        match self.comparison {
            "<" => value < self.bound,
            "<=" => value <= self.bound,
            ">" => value > self.bound,
            ">=" => value >= self.bound,
            _ => value == self.bound,
        }
    }
}

impl Measure {
    /// Whether a load generator that could not keep up, or others on the CPUs, show in it.
    fn is_distorted_by_the_client(self) -> bool {
        match self {
            Self::Percentile(_)
            | Self::Max
            | Self::Cpu
            | Self::Memory
            | Self::Growth
            | Self::Rate => true,
            Self::Loss | Self::Duplicates | Self::Reordered | Self::Logs => false,
            Self::Connections | Self::Closed | Self::Errors => false,
        }
    }

    /// A value as a person would write it in a level.
    fn show(self, value: f64) -> String {
        match self {
            Self::Percentile(_) | Self::Max => crate::report::table::time(value),
            Self::Cpu | Self::Logs | Self::Rate => format!("{value:.1}%"),
            Self::Memory | Self::Growth => bytes(value),
            Self::Loss | Self::Duplicates | Self::Reordered => format!("{value:.0}"),
            Self::Connections | Self::Closed | Self::Errors => format!("{value:.0}"),
        }
    }
}

/// Bytes in the unit that suits them.
pub(crate) fn bytes(value: f64) -> String {
    match value.abs() {
        size if size >= 1_048_576.0 => format!("{:.1}MB", value / 1_048_576.0),
        size if size >= 1_024.0 => format!("{:.2}KB", value / 1_024.0),
        _ => format!("{value:.0}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::{Counters, latency_histogram};

    fn judged(text: &str, distorted: Option<&str>) -> Vec<Verdict> {
        let mut latency = latency_histogram();
        latency.record_n(100_000, 99).unwrap();
        latency.record(400_000).unwrap();
        let counters = Counters { lost: 3, ..Counters::default() };
        let measured = Measured {
            latency: &latency,
            counters: &counters,
            connections: 50_000,
            cpu_percent: Ok(69.5),
            memory_bytes: Ok(8_000.0),
            growth_bytes: Ok(-2_000_000.0),
            logs_percent: Ok(99.0),
            rate_percent: Ok(100.0),
            distorted,
        };
        parse(text).unwrap().iter().map(|level| level.judge(&measured)).collect()
    }

    fn holds(text: &str) -> bool {
        judged(text, None).iter().all(|verdict| verdict.standing == Standing::Holds)
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
    fn what_cannot_be_measured_neither_holds_nor_breaks() {
        let (latency, counters) = (latency_histogram(), Counters::default());
        let nothing = Measured {
            latency: &latency,
            counters: &counters,
            connections: 0,
            cpu_percent: Err("no process".to_owned()),
            memory_bytes: Err("no root".to_owned()),
            growth_bytes: Err("too short".to_owned()),
            logs_percent: Err("no --admin".to_owned()),
            rate_percent: Err("none".to_owned()),
            distorted: None,
        };
        for text in ["cpu<70%", "memory<8KB", "growth<1MB", "logs>1%", "p99<1s", "rate>99%"] {
            let verdict = parse(text).unwrap()[0].judge(&nothing);
            assert_eq!(
                (verdict.measured, verdict.standing),
                (None, Standing::Unmeasured),
                "{text}"
            );
        }
        assert_eq!(parse("memory<8KB").unwrap()[0].judge(&nothing).shown, "no root");
    }

    #[test]
    fn a_distorted_window_judges_what_is_lost_and_nothing_else() {
        let standing = |text: &str| judged(text, Some("client-limited"))[0].standing;
        for text in ["p50<1s", "p50<1us", "max<1s", "cpu<70%", "memory<1B", "growth<1MB", "rate>1%"]
        {
            assert_eq!(standing(text), Standing::Unmeasured, "{text}");
        }
        assert_eq!(judged("p50<1s", Some("why"))[0].shown, "why");
        assert_eq!(standing("loss=0"), Standing::Broken);
        for text in ["duplicates=0", "reordered=0", "errors=0", "closed=0", "connections>=50000"] {
            assert_eq!(standing(text), Standing::Holds, "{text}");
        }
    }

    #[test]
    fn values_are_shown_in_the_unit_of_their_level() {
        for (level, shown) in [
            ("growth<=16MB", "-1.9MB"),
            ("memory<=8KB", "7.81KB"),
            ("p99<1s", "100.0ms"),
            ("cpu<70%", "69.5%"),
            ("loss=0", "3"),
            ("connections>=1", "50000"),
        ] {
            assert_eq!(judged(level, None)[0].shown, shown, "{level}");
        }
    }

    #[test]
    fn what_is_broken_outweighs_what_was_not_measured() {
        use Standing::{Broken, Holds, Unmeasured};
        assert_eq!(Holds.and(Holds), Holds);
        assert_eq!((Holds.and(Unmeasured), Unmeasured.and(Broken)), (Unmeasured, Broken));
    }

    #[test]
    fn nonsense_is_refused_with_a_hint() {
        for bad in ["p99", "p98<1ms", "p99<250", "loss<1KB", "cpu<70", "memory<x", "growth<1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
