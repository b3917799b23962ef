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

/// What differs in the parameters, what became of both runs, the steps both have with each value's ratio B / A,
/// and the steps that only one has.
fn text(a: &Report, b: &Report) -> String {
    let mut lines = Vec::new();
    for (mine, other) in a.parameters.lines().iter().zip(b.parameters.lines()) {
        let value = |line: &str| line.split(" # ").next().unwrap_or("").trim_end().to_owned();
        if value(mine) != value(&other) {
            lines.push(format!("A {}\nB {}", value(mine), value(&other)));
        }
    }
    lines.push(format!("\n{}", header("whole run")));
    lines.extend(outcome(a, b));
    for step in &a.steps {
        let Some(other) = b.steps.iter().find(|other| other.label == step.label) else { continue };
        lines.push(format!("\n{}", header(&step.label)));
        lines.extend(rows(step, other));
        lines.extend(limits(step, other));
    }
    for (name, mine, others) in [("A", a, b), ("B", b, a)] {
        let lacks = |step: &&Step| others.steps.iter().all(|other| other.label != step.label);
        lines.extend(mine.steps.iter().filter(lacks).map(|step| alone(name, step)));
    }
    lines.join("\n")
}

fn header(what: &str) -> String {
    format!("{what:<28}{:>14}{:>14}{:>9}", "A", "B", "B / A")
}

/// What became of both runs.
fn outcome(a: &Report, b: &Report) -> Vec<String> {
    let verdict = |report: &Report| if report.passed { "PASS" } else { "FAIL" };
    let highest = |report: &Report| report.highest.as_ref().map(|best| best.deliveries_per_sec);
    let mut lines = vec![
        format!("{:<28}{:>14}{:>14}{:>9}", "verdict", verdict(a), verdict(b), "-"),
        row("highest that held, dlv/s", highest(a), highest(b), |value| format!("{value:.0}")),
    ];
    for (name, report) in [("A", a), ("B", b)] {
        lines.extend(report.highest.iter().map(|best| format!("  {name} {}", best.stopped_by)));
        lines.extend(report.aborted.iter().map(|why| format!("  {name} ended early: {why}")));
    }
    lines
}

/// Who was saturated: sentences, too long for columns; one line when they are the same.
fn limits(a: &Step, b: &Step) -> Vec<String> {
    if a.limit == b.limit {
        return vec![format!("{:<28}{}", "limit", a.limit)];
    }
    vec![format!("{:<28}A {}", "limit", a.limit), format!("{:<28}B {}", "", b.limit)]
}

/// A step that the other run does not have, in a line.
fn alone(name: &str, step: &Step) -> String {
    format!(
        "\nonly {name} has {}: {:.2} deliveries a second, latency p99 {}, lost {}, {}, {}",
        step.label,
        step.deliveries_per_sec,
        table::time(step.latency.p99),
        step.counters.lost,
        step.limit,
        if step.holds { "held" } else { "did not hold" }
    )
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
