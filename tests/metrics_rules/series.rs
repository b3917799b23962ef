//! What a scrape becomes over an hour, as series for promtool, and which alerts fire over them.

use std::collections::BTreeMap;
use std::fs;

use crate::promtool::{assert_good, observability, promtool};

/// Time series for promtool: what each is called, and its values every 15 s for over an hour.
pub(crate) type Series = BTreeMap<String, String>;

/// Every sample of a scrape, by its series.
pub(crate) fn samples(metrics: &str) -> impl Iterator<Item = (&str, f64)> {
    metrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(series, value)| (series, value.parse().unwrap()))
}

/// The sum of the samples whose series contain all of this.
pub(crate) fn sum(metrics: &str, parts: &[&str]) -> f64 {
    let is_it = |series: &str| parts.iter().all(|part| series.contains(part));
    samples(metrics).filter(|(series, _)| is_it(series)).map(|(_, value)| value).sum()
}

/// A node that goes on exposing these metrics.
pub(crate) fn constant(metrics: &str) -> Series {
    samples(metrics).map(|(name, value)| (name.to_owned(), format!("{value}x300"))).collect()
}

/// A node whose counters go on growing every 15 s as they did between two scrapes.
pub(crate) fn growing(before: &str, after: &str) -> Series {
    let before: BTreeMap<&str, f64> = samples(before).collect();
    samples(after)
        .map(|(name, value)| {
            let metric = name.split('{').next().unwrap();
            let is_counter =
                ["_total", "_bucket", "_sum", "_count"].iter().any(|end| metric.ends_with(end));
            let grown = if is_counter { value - before[name] } else { 0.0 };
            (name.to_owned(), format!("{value}+{grown}x300"))
        })
        .collect()
}

/// Asserts that these alerts, and no others, fire over such a node.
pub(crate) fn assert_fires(name: &str, series: &Series, alerts: &[&str]) {
    let input: String = series
        .iter()
        .map(|(series, values)| {
            // A scrape that fell into a busy moment would tell of a core busy for an hour.
            let is_busy_meant = alerts.contains(&"UproarOverCpuTarget");
            let is_busy = series.starts_with("uproar_shard_busy_ratio");
            let values = if is_busy && !is_busy_meant { "0.5x300" } else { values };
            // So would a core that other tests take.
            let is_kept_waiting = |kind: &str, alert: &str| {
                series.starts_with(&format!("uproar_shard_{kind}_seconds_total"))
                    && !alerts.contains(&alert)
            };
            let is_waiting = is_kept_waiting("stall", "UproarShardStalled")
                || is_kept_waiting("run_delay", "UproarShardRunDelay");
            let values = if is_waiting { "0x300" } else { values };
            let (metric, labels) = series.split_once('{').unwrap_or((series, "}"));
            let comma = if labels == "}" { "" } else { "," };
            let labels = format!("job=\"uproar\",instance=\"n\"{comma}{labels}");
            format!("      - {{series: '{metric}{{{labels}', values: '{values}'}}\n")
        })
        .collect();
    let expected: String = alerts
        .iter()
        .map(|alert| format!("          - {{labels: '{{alertname=\"{alert}\"}}', value: 1}}\n"))
        .collect();
    let text = format!(
        "rule_files: [{}]\nevaluation_interval: 15s\ntests:\n  - interval: 15s\n    \
         input_series:\n{input}    promql_expr_test:\n      - expr: 'count by (alertname) \
         (ALERTS{{alertstate=\"firing\"}})'\n        eval_time: 60m\n        exp_samples:\n{}",
        observability("alerts.yml").display(),
        if expected.is_empty() { "          []\n".to_owned() } else { expected }
    );
    let path = std::env::temp_dir().join(format!("uproar-{}-{name}.yml", std::process::id()));
    fs::write(&path, text).unwrap();
    let output = promtool(&["test", "rules", path.to_str().unwrap()], "");
    fs::remove_file(&path).unwrap();
    assert_good(&output);
}
