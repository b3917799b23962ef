//! Two runs side by side, step by step.

use std::fs;
use std::path::Path;

use super::{Report, Step, html, table};
use crate::cli::Compare;

/// Prints the comparison; always "holds", as it judges nothing.
pub(crate) fn run(options: &Compare) -> Result<bool, String> {
    let (a, b) = (load(&options.a)?, load(&options.b)?);
    println!("{}", text(&a, &b));
    if let Some(path) = &options.html {
        let names = [&options.a, &options.b].map(|path| path.display().to_string());
        let page = html::page(&[(&names[0], &a), (&names[1], &b)]);
        fs::write(path, page)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(true)
}

fn load(folder: &Path) -> Result<Report, String> {
    let path = if folder.is_dir() { folder.join("report.json") } else { folder.to_owned() };
    let text =
        fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let report: Report = serde_json::from_slice(&text)
        .map_err(|error| format!("{} is not a report of this version: {error}", path.display()))?;
    Ok(report)
}

/// The steps both runs have, each value with its ratio B / A; and what differs in their parameters.
fn text(a: &Report, b: &Report) -> String {
    let mut lines = Vec::new();
    for (mine, other) in a.parameters.lines().iter().zip(b.parameters.lines()) {
        let value = |line: &str| line.split(" # ").next().unwrap_or("").trim_end().to_owned();
        if value(mine) != value(&other) {
            lines.push(format!("A {}\nB {}", value(mine), value(&other)));
        }
    }
    for step in &a.steps {
        let Some(other) = b.steps.iter().find(|other| other.label == step.label) else { continue };
        lines.push(format!("\n{:<28}{:>14}{:>14}{:>9}", step.label, "A", "B", "B / A"));
        lines.extend(rows(step, other));
    }
    lines.join("\n")
}

/// What a row takes from a step.
type PickLatency = fn(&super::Latency) -> f64;
type PickUse = fn(&super::ServerUse) -> Option<f64>;

fn rows(a: &Step, b: &Step) -> Vec<String> {
    let server = |step: &Step, pick: PickUse| step.server.as_ref().and_then(pick);
    let number = |value: f64| format!("{value:.2}");
    let mut rows = vec![
        row("deliveries a second", Some(a.deliveries_per_sec), Some(b.deliveries_per_sec), number),
        row("lost", Some(a.counters.lost as f64), Some(b.counters.lost as f64), number),
    ];
    let latencies: [(&str, PickLatency); 5] = [
        ("latency p50", |l| l.p50),
        ("latency p90", |l| l.p90),
        ("latency p99", |l| l.p99),
        ("latency p99.9", |l| l.p999),
        ("latency max", |l| l.max),
    ];
    for (name, pick) in latencies {
        rows.push(row(name, Some(pick(&a.latency)), Some(pick(&b.latency)), table::time));
    }
    let uses: [(&str, PickUse); 4] = [
        ("server CPU, %", |u| Some(u.cpu_percent)),
        ("server us a delivery", |u| u.cpu_us_per_delivery),
        ("user bytes a connection", |u| Some(u.user_bytes_per_connection)),
        ("kernel bytes a connection", |u| Some(u.kernel_bytes_per_connection)),
    ];
    for (name, pick) in uses {
        rows.push(row(name, server(a, pick), server(b, pick), number));
    }
    rows.push(row(
        "loadgen us a delivery",
        a.loadgen.us_per_delivery,
        b.loadgen.us_per_delivery,
        number,
    ));
    rows
}

fn row(name: &str, a: Option<f64>, b: Option<f64>, show: impl Fn(f64) -> String) -> String {
    let cell = |value: Option<f64>| value.map_or("-".to_owned(), &show);
    let ratio = match (a, b) {
        (Some(a), Some(b)) if a != 0.0 => format!("{:.2}", b / a),
        _ => "-".to_owned(),
    };
    format!("{name:<28}{:>14}{:>14}{ratio:>9}", cell(a), cell(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_show_both_values_and_their_ratio() {
        let line = row("latency p50", Some(0.010), Some(0.025), table::time);
        let fields: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(fields, ["latency", "p50", "10.0ms", "25.0ms", "2.50"]);
        assert!(row("x", None, Some(1.0), |v| v.to_string()).ends_with('-'));
    }
}
