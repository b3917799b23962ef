//! Families of samples, and their two written forms.
//!
//! Prometheus text format 0.0.4: a family's HELP and TYPE once, its samples together after
//! them. Numbers stay integers until they are written, so that nothing is rounded.

use std::fmt::{self, Write};

use serde_json::{Value, json as object};
use uproar_engine::report::Histogram;

/// The TYPE of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets with a sum and a count.
    Histogram,
}

impl Kind {
    fn text(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A value, kept in the unit it was counted in and written in base units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Number {
    /// As it is.
    Whole(u64),
    /// Microseconds, written as seconds.
    Micros(u64),
    /// Thousandths, written as a ratio.
    Permille(u64),
}

impl From<u64> for Number {
    fn from(n: u64) -> Self {
        Self::Whole(n)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Whole(n) => write!(f, "{n}"),
            Self::Micros(us) => write!(f, "{}.{:06}", us / 1_000_000, us % 1_000_000),
            Self::Permille(n) => write!(f, "{}.{:03}", n / 1_000, n % 1_000),
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// `_bucket`, `_sum`, `_count`, or nothing.
    pub suffix: &'static str,
    /// Names and values; none needs escaping.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: Number,
}

/// A metric with its samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Family {
    /// The name.
    pub name: &'static str,
    /// The TYPE.
    pub kind: Kind,
    /// The HELP: what it counts, for an operator.
    pub help: &'static str,
    /// The samples, those of one label set together.
    pub samples: Vec<Sample>,
}

impl Family {
    /// A family without samples yet.
    #[must_use]
    pub(crate) fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self { name, kind, help, samples: Vec::new() }
    }

    /// A family of one sample without labels.
    #[must_use]
    pub(crate) fn single(
        name: &'static str,
        kind: Kind,
        help: &'static str,
        value: Number,
    ) -> Self {
        let mut family = Self::new(name, kind, help);
        family.sample(&[], value);
        family
    }

    /// Adds a sample.
    pub(crate) fn sample(&mut self, labels: &[(&'static str, String)], value: Number) {
        self.samples.push(Sample { suffix: "", labels: labels.to_vec(), value });
    }

    /// Adds the samples of a histogram.
    pub(crate) fn histogram(&mut self, labels: &[(&'static str, String)], histogram: &Histogram) {
        let mut count = 0;
        for (i, observations) in histogram.buckets.iter().enumerate() {
            count += observations;
            let bound = Histogram::bound_us(i)
                .map_or_else(|| "+Inf".to_owned(), |us| Number::Micros(us).to_string());
            let mut labels = labels.to_vec();
            labels.push(("le", bound));
            self.samples.push(Sample { suffix: "_bucket", labels, value: count.into() });
        }
        let sum = Number::Micros(histogram.sum_us);
        for (suffix, value) in [("_sum", sum), ("_count", count.into())] {
            self.samples.push(Sample { suffix, labels: labels.to_vec(), value });
        }
    }
}

/// The Prometheus text form.
#[must_use]
pub(crate) fn text(families: &[Family]) -> String {
    let mut text = String::with_capacity(16 * 1024);
    for Family { name, kind, help, samples } in families {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", kind.text());
        for Sample { suffix, labels, value } in samples {
            let labels: Vec<_> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
            let _ = match labels.as_slice() {
                [] => writeln!(text, "{name}{suffix} {value}"),
                labels => writeln!(text, "{name}{suffix}{{{}}} {value}", labels.join(",")),
            };
        }
    }
    text
}

/// The same as JSON: `[{"name","type","samples":[{"labels":{…},"value":…}]}]`.
#[must_use]
pub(crate) fn json(families: &[Family]) -> Value {
    let sample = |family: &Family, sample: &Sample| {
        let labels: serde_json::Map<_, _> =
            sample.labels.iter().map(|(k, v)| ((*k).to_owned(), v.clone().into())).collect();
        let value: Value = match sample.value {
            Number::Whole(n) => n.into(),
            fraction => fraction.to_string().parse::<f64>().map_or(Value::Null, Value::from),
        };
        object!({ "name": format!("{}{}", family.name, sample.suffix), "labels": labels, "value": value })
    };
    families
        .iter()
        .map(|family| {
            let samples: Vec<_> = family.samples.iter().map(|s| sample(family, s)).collect();
            object!({ "name": family.name, "type": family.kind.text(), "samples": samples })
        })
        .collect()
}
