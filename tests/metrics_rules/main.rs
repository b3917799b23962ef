//! Alert rules and dashboard against the metrics of a real node: promtool judges the forms, every
//! name and label they use must be one that the node exposes, and every alert but one fires over
//! what a node exposed that was brought into that very condition.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod counts;
mod down;
mod kernel;
mod load;
mod node;
mod promtool;
mod series;
mod states;

use std::collections::BTreeSet;

use serde_json::Value;

use crate::node::Node;
use crate::promtool::{assert_good, observability, promtool, read};

/// Every metric name in a text, without a histogram's suffixes.
fn names(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("uproar_") || word.starts_with("process_"))
        .map(|name| {
            ["_bucket", "_sum", "_count"].iter().fold(name, |n, s| n.strip_suffix(s).unwrap_or(n))
        })
        .collect()
}

/// Every value that a text compares these labels with.
fn label_values(text: &str) -> BTreeSet<(&str, &str)> {
    let mut found = BTreeSet::new();
    for label in ["reason", "cause", "code", "port"] {
        for (at, _) in text.match_indices(label) {
            let rest = &text[at + label.len()..];
            let Some(rest) = rest.strip_prefix("=~\"").or(rest.strip_prefix("=\"")) else {
                continue;
            };
            let values = rest.split_once('"').unwrap().0;
            found.extend(values.split('|').map(|value| (label, value)));
        }
    }
    found
}

#[test]
fn promtool_finds_no_fault_with_the_metrics() {
    let node = Node::start(&[]);
    let output = promtool(&["check", "metrics"], &node.metrics());
    assert_good(&output);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr),
        ""
    );
}

#[test]
fn rules_and_dashboard_use_only_what_a_node_exposes() {
    let metrics = Node::start(&[]).metrics();
    let exposed: BTreeSet<&str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    for file in ["alerts.yml", "alerts_test.yml", "dashboard.json"] {
        // JSON escapes the quotes of label values.
        let text = read(file).replace("\\\"", "\"");
        let used = names(&text);
        assert!(used.len() > 10, "{file}: {used:?}");
        let unknown: Vec<_> = used.difference(&exposed).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
        for (label, value) in label_values(&text) {
            assert!(metrics.contains(&format!("{label}=\"{value}\"")), "{file}: {label}={value}");
        }
    }
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.iter().all(|panel| panel["targets"].as_array().is_some_and(|t| !t.is_empty())));
}

#[test]
fn the_rules_are_valid_and_each_alert_fires_and_is_quiet() {
    let alerts = observability("alerts.yml");
    assert_good(&promtool(&["check", "rules", alerts.to_str().unwrap()], ""));
    let tests = observability("alerts_test.yml");
    assert_good(&promtool(&["test", "rules", tests.to_str().unwrap()], ""));
    let (rules, tests) = (read("alerts.yml"), read("alerts_test.yml"));
    let alerts: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 15, "{alerts:?}");
    for alert in alerts {
        let named = |how: &str| tests.contains(&format!("  - name: {alert}{how}"));
        assert!(
            named("\n") && tests.contains(&format!("alertname=\"{alert}\", severity")),
            "{alert} is never fired"
        );
        assert!(named(" is quiet, "), "{alert} is never seen quiet");
    }
}

#[test]
fn each_alert_fires_over_a_real_node() {
    let tests = [
        include_str!("counts.rs"),
        include_str!("down.rs"),
        include_str!("kernel.rs"),
        include_str!("load.rs"),
        include_str!("states.rs"),
    ];
    let rules = read("alerts.yml");
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let is_fired = |alert: &str| tests.iter().any(|test| test.contains(&format!("\"{alert}\"")));
    let unfired: Vec<&str> = alerts.filter(|alert| !is_fired(alert)).collect();
    assert_eq!(unfired, [""; 0]);
}
