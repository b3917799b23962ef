//! Two runs side by side, step by step, as text and as the table of a page.
//!
//! A ratio says something about two servers only when all else was alike. What was not (machine, kernel, CPUs,
//! network, builds, parameters) is said first, and a step that says nothing about its server has no ratios.

use std::fs;
use std::path::Path;

use super::{Report, Step, html, table};
use crate::cli::Compare;
use crate::say;
use crate::slo::Standing;
use crate::words;

/// Prints the comparison; it judges nothing.
pub(crate) fn run(options: &Compare) -> Result<(), String> {
    let (a, b) = (load(&options.a)?, load(&options.b)?);
    let comparison = Comparison::of(&a, &b);
    if let Some(path) = &options.html {
        let names = [&options.a, &options.b].map(|path| path.display().to_string());
        let page = html::page(&[(&names[0], &a), (&names[1], &b)], Some(&comparison));
        fs::write(path, page).map_err(|error| {
            format!("cannot write {} of --html: {}", path.display(), words::of_file(&error))
        })?;
    }
    say::line(&comparison.text());
    Ok(())
}

fn load(folder: &Path) -> Result<Report, String> {
    let path = if folder.is_dir() { folder.join("report.json") } else { folder.to_owned() };
    let text = fs::read(&path).map_err(|error| {
        let why = words::of_file(&error);
        format!("cannot read {}: {why}; name the folder that a run had as --out", path.display())
    })?;
    let report: Report = serde_json::from_slice(&text).map_err(|error| {
        format!("{} is not a report of this version; run it again: {error}", path.display())
    })?;
    Ok(report)
}

/// What two reports have to say of each other.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// What was not alike, a line each: what, A, B.
    pub(crate) unlike: Vec<[String; 3]>,
    /// What differs in the parameters: name, A, B.
    pub(crate) parameters: Vec<[String; 3]>,
    pub(crate) sections: Vec<Section>,
    /// Steps that only one has.
    pub(crate) alone: Vec<String>,
}

/// The whole run, or a step.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) title: String,
    /// What, A, B, and B / A.
    pub(crate) rows: Vec<[String; 4]>,
    pub(crate) notes: Vec<String>,
}

impl Comparison {
    fn of(a: &Report, b: &Report) -> Self {
        let mut sections = vec![Section { title: "whole run".to_owned(), ..outcome(a, b) }];
        for step in &a.steps {
            if let Some(other) = b.steps.iter().find(|other| other.label == step.label) {
                sections.push(section(step, other));
            }
        }
        let mut alone_steps = Vec::new();
        for (name, mine, others) in [("A", a, b), ("B", b, a)] {
            let lacks = |step: &&Step| others.steps.iter().all(|other| other.label != step.label);
            alone_steps.extend(mine.steps.iter().filter(lacks).map(|step| alone(name, step)));
        }
        Self { unlike: unlike(a, b), parameters: parameters(a, b), sections, alone: alone_steps }
    }

    fn text(&self) -> String {
        let mut lines = Vec::new();
        if !self.unlike.is_empty() {
            lines.push(
                "WARNING: these runs were not alike in what is not of the servers' making:"
                    .to_owned(),
            );
            lines.extend(
                self.unlike
                    .iter()
                    .map(|[what, a, b]| format!("  {what:<16} A {a}\n{:<19}B {b}", "")),
            );
            lines.push(String::new());
        }
        lines.extend(
            self.parameters
                .iter()
                .map(|[name, a, b]| format!("A {name:<20} = {a}\nB {name:<20} = {b}")),
        );
        for Section { title, rows, notes } in &self.sections {
            lines.push(format!("\n{title:<28}{:>14}{:>14}{:>9}", "A", "B", "B / A"));
            lines.extend(
                rows.iter()
                    .map(|[what, a, b, ratio]| format!("{what:<28}{a:>14}{b:>14}{ratio:>9}")),
            );
            lines.extend(notes.iter().cloned());
        }
        lines.extend(self.alone.iter().map(|text| format!("\n{text}")));
        lines.join("\n")
    }
}

/// What was not alike but the parameters and what is compared.
fn unlike(a: &Report, b: &Report) -> Vec<[String; 3]> {
    let list = |cpus: &[usize]| format!("{cpus:?}");
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
    let facts = |report: &Report| {
        let machine = &report.machine;
        [
            ("processor", machine.cpu.clone()),
            ("CPUs of the host", machine.cpus.to_string()),
            ("kernel", machine.kernel.clone()),
            ("server's CPUs", list(&machine.server_cpus)),
            ("loadgen's CPUs", machine.loadgen_cpus.as_deref().map_or("workers".to_owned(), list)),
            ("network", machine.network.clone()),
            ("root", machine.is_root.to_string()),
            ("scenario", report.scenario.clone()),
            ("loadgen's build", machine.loadgen_program.clone()),
            ("server's build", known(&machine.server_build)),
            ("server's program", known(&machine.server_program)),
        ]
    };
    let differing = facts(a).into_iter().zip(facts(b)).filter(|(a, b)| a.1 != b.1);
    differing.map(|((what, a), (_, b))| [what.to_owned(), a, b]).collect()
}

fn parameters(a: &Report, b: &Report) -> Vec<[String; 3]> {
    let value = |line: &str| {
        let (name, rest) = line.split_once('=').unwrap_or((line, ""));
        let value = rest.split(" # ").next().unwrap_or_default();
        (name.trim().to_owned(), value.trim().to_owned())
    };
    let (a, b) = (a.parameters.lines(), b.parameters.lines());
    let both = a.iter().zip(&b).map(|(a, b)| (value(a), value(b)));
    both.filter(|(a, b)| a.1 != b.1).map(|((name, a), (_, b))| [name, a, b]).collect()
}

/// What became of both runs.
fn outcome(a: &Report, b: &Report) -> Section {
    let highest = |report: &Report| report.highest.as_ref().map(|best| best.deliveries_per_sec);
    let word = |report: &Report| report.outcome.word().to_owned();
    let rows = vec![
        ["verdict".to_owned(), word(a), word(b), "-".to_owned()],
        row("highest that held, dlv/s", highest(a), highest(b), |value| format!("{value:.0}")),
    ];
    let mut notes = Vec::new();
    for (name, report) in [("A", a), ("B", b)] {
        notes.extend(report.highest.iter().map(|best| format!("  {name} {}", best.stopped_by)));
        notes.extend(report.aborted.iter().map(|why| format!("  {name} ended early: {why}")));
    }
    Section { title: String::new(), rows, notes }
}

/// One step of both. Who was at the limit is a sentence, too long for columns; one line when it is the same.
fn section(a: &Step, b: &Step) -> Section {
    let mut rows = rows(a, b);
    let mut notes = match a.limit == b.limit {
        true => vec![format!("{:<28}{}", "limit", a.limit)],
        false => vec![format!("{:<28}A {}", "limit", a.limit), format!("{:<28}B {}", "", b.limit)],
    };
    if a.is_distorted || b.is_distorted {
        // All but what is lost says nothing about the servers.
        let judged_anyway = |row: &&mut [String; 4]| row[0] != "lost";
        rows.iter_mut().filter(judged_anyway).for_each(|row| "-".clone_into(&mut row[3]));
        notes.push("no ratios: at least one of the two says nothing about its server".to_owned());
    }
    Section { title: a.label.clone(), rows, notes }
}

/// A step that the other run does not have, in a line.
fn alone(name: &str, step: &Step) -> String {
    format!(
        "only {name} has {}: {:.2} deliveries a second, latency p99 {}, lost {}, {}, {}",
        step.label,
        step.deliveries_per_sec,
        table::time(step.latency.p99),
        step.counters.lost,
        step.limit,
        match step.standing {
            Standing::Holds => "held",
            Standing::Broken => "did not hold",
            Standing::Unmeasured => "was not measured",
        }
    )
}

/// What a row takes from a step.
type PickLatency = fn(&super::Latency) -> f64;
type PickUse = fn(&super::ServerUse) -> Option<f64>;

fn rows(a: &Step, b: &Step) -> Vec<[String; 4]> {
    let server = |step: &Step, pick: PickUse| step.server.as_ref().and_then(pick);
    let number = |value: f64| format!("{value:.2}");
    let mut rows = vec![
        row("offered a second", Some(a.offered_per_sec), Some(b.offered_per_sec), number),
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
    let uses: [(&str, PickUse); 2] = [
        ("server CPU, %", |u| Some(u.cpu_percent)),
        ("server us a delivery", |u| u.cpu_us_per_delivery),
    ];
    for (name, pick) in uses {
        rows.push(row(name, server(a, pick), server(b, pick), number));
    }
    let memory = |step: &Step| step.memory.clone().ok();
    rows.push(row("memory a connection, B", memory(a), memory(b), number));
    rows.push(row(
        "loadgen us a delivery",
        a.loadgen.us_per_delivery,
        b.loadgen.us_per_delivery,
        number,
    ));
    rows
}

fn row(name: &str, a: Option<f64>, b: Option<f64>, show: impl Fn(f64) -> String) -> [String; 4] {
    let cell = |value: Option<f64>| value.map_or("-".to_owned(), &show);
    let ratio = match (a, b) {
        (Some(a), Some(b)) if a != 0.0 => format!("{:.2}", b / a),
        _ => "-".to_owned(),
    };
    [name.to_owned(), cell(a), cell(b), ratio]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_show_both_values_and_their_ratio() {
        let line = row("latency p50", Some(0.010), Some(0.025), table::time);
        assert_eq!(line, ["latency p50", "10.0ms", "25.0ms", "2.50"]);
        assert_eq!(row("x", None, Some(1.0), |v| v.to_string())[3], "-");
    }

    #[test]
    fn what_was_not_alike_is_said_before_all_ratios() {
        let comparison = Comparison {
            unlike: vec![["kernel".to_owned(), "6.8".to_owned(), "6.18".to_owned()]],
            sections: vec![Section {
                title: "steady".to_owned(),
                rows: Vec::new(),
                notes: Vec::new(),
            }],
            ..Comparison::default()
        };
        let text = comparison.text();
        let (warning, section) = (text.find("WARNING").unwrap(), text.find("steady").unwrap());
        assert!(warning < section && text.contains("A 6.8\n"), "{text}");
        assert!(!Comparison::default().text().contains("WARNING"));
    }
}
