//! One report, as numbers to look up.

use std::collections::BTreeMap;

use serde::Deserialize;

/// What a node reported at one time.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Snapshot {
    /// The node's name.
    pub node: String,
    /// Its version.
    pub version: String,
    /// The commit it was built of, if it says so.
    #[serde(default)]
    pub commit: Option<String>,
    /// Ready, or why not.
    pub state: String,
    /// Since when it runs, in seconds.
    pub uptime_seconds: u64,
    /// Its hot rooms, where the report has any.
    pub hot_rooms: Option<HotRooms>,
    metrics: Vec<Family>,
}

/// The hottest rooms, hottest first.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct HotRooms {
    /// By viewers.
    pub by_viewers: Vec<HotRoom>,
    /// By comments.
    pub by_comments: Vec<HotRoom>,
}

/// One of them.
#[derive(Clone, Debug, Deserialize)]
pub struct HotRoom {
    /// Its event.
    pub event: String,
    /// Connections that watch it.
    pub viewers: u64,
    /// Comments a second, by the last ten.
    pub comments_per_second: f64,
    /// Both multiplied: what it costs.
    pub deliveries_per_second: f64,
}

#[derive(Clone, Debug, Deserialize)]
struct Family {
    samples: Vec<Sample>,
}

#[derive(Clone, Debug, Deserialize)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// The answer is no report.
#[derive(Debug, thiserror::Error)]
#[error("the answer is no report of uproar's ({0}); is --url the admin port?")]
pub struct NoReport(#[from] serde_json::Error);

impl Snapshot {
    /// Reads the body of /report.
    ///
    /// # Errors
    /// [`NoReport`] if it is something else.
    pub fn parse(body: &[u8]) -> Result<Self, NoReport> {
        Ok(serde_json::from_slice(body)?)
    }

    /// The sum over all samples of a metric.
    #[must_use]
    pub fn sum(&self, name: &str) -> f64 {
        // A sum of floats begins with minus nothing.
        self.samples(name).map(|sample| sample.value).sum::<f64>() + 0.0
    }

    /// The sum over the samples of a metric with this label.
    #[must_use]
    pub fn sum_where(&self, name: &str, label: &str, value: &str) -> f64 {
        let matches = |sample: &&Sample| sample.labels.get(label).is_some_and(|have| have == value);
        self.samples(name).filter(matches).map(|sample| sample.value).sum::<f64>() + 0.0
    }

    /// What a counter grew by since `before`, over the series that both have: a shard that does not answer has none
    /// now and counts for nothing. Nothing if none is in both.
    #[must_use]
    pub fn grown(&self, before: &Self, name: &str) -> Option<f64> {
        let then: BTreeMap<_, _> = before.samples(name).map(|s| (&s.labels, s.value)).collect();
        let grown =
            |sample: &Sample| then.get(&sample.labels).map(|then| (sample.value - then).max(0.0));
        self.samples(name).filter_map(grown).reduce(|a, b| a + b)
    }

    /// The same of the series with this label.
    #[must_use]
    pub fn grown_where(&self, before: &Self, name: &str, label: &str, value: &str) -> Option<f64> {
        let of = |snapshot: &Self| {
            let matches =
                |sample: &&Sample| sample.labels.get(label).is_some_and(|have| have == value);
            let mut values = snapshot.samples(name).filter(matches).map(|sample| sample.value);
            values.next()
        };
        of(self).zip(of(before)).map(|(now, then)| (now - then).max(0.0))
    }

    /// The values of a label of a metric, numbers in their order.
    #[must_use]
    pub fn label_values(&self, name: &str, label: &str) -> Vec<String> {
        let values = self.samples(name).filter_map(|sample| sample.labels.get(label).cloned());
        let mut values: Vec<String> = values.collect();
        values.sort_by_key(|value| (value.parse::<u64>().unwrap_or(u64::MAX), value.clone()));
        values.dedup();
        values
    }

    fn samples<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        let all = self.metrics.iter().flat_map(|family| &family.samples);
        all.filter(move |sample| sample.name == name)
    }
}
