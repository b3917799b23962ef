//! What `uproar top` makes of reports.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::time::Duration;

use serde_json::json;
use uproar::top::{Snapshot, frame};

fn sample(name: &str, shard: Option<&str>, value: f64) -> serde_json::Value {
    let labels = shard.map_or_else(|| json!({}), |shard| json!({ "shard": shard }));
    json!({ "name": name, "labels": labels, "value": value })
}

fn labelled(name: &str, label: &str, text: &str, value: f64) -> serde_json::Value {
    json!({ "name": name, "labels": { label: text }, "value": value })
}

fn report(uptime: u64, deliveries: f64, is_up: bool) -> Snapshot {
    report_of([30_000.0, 20_000.0], uptime, deliveries, is_up)
}

fn report_of(connections: [f64; 2], uptime: u64, deliveries: f64, is_up: bool) -> Snapshot {
    let samples = [
        sample("uproar_connections", Some("0"), connections[0]),
        sample("uproar_connections", Some("1"), connections[1]),
        sample("uproar_connections_max", None, 55_000.0),
        sample("uproar_cpu_target_ratio", None, 0.7),
        sample("uproar_shard_up", Some("0"), 1.0),
        sample("uproar_shard_up", Some("1"), f64::from(u8::from(is_up))),
        sample("uproar_shard_busy_ratio", Some("0"), 0.5),
        sample("uproar_governor_pause_ratio", Some("0"), 0.25),
        sample("uproar_deliveries_total", Some("0"), deliveries),
        labelled("uproar_memory_per_connection_bytes", "space", "user", 271.0),
        labelled("uproar_memory_per_connection_bytes", "space", "kernel", 4_120.0),
        sample("uproar_pass_duration_seconds_sum", Some("0"), deliveries / 1e6),
        sample("uproar_pass_duration_seconds_count", Some("0"), deliveries / 1e3),
    ];
    let body = json!({
        "node": "n1", "version": "0.1.0", "state": "ready", "uptime_seconds": uptime,
        "hot_rooms": {
            "by_viewers": [{
                "event": "final", "viewers": 30_000, "comments_per_second": 2.5,
                "deliveries_per_second": 75_000.0,
            }],
            "by_comments": [],
        },
        "metrics": [{ "name": "all", "type": "gauge", "samples": samples }],
    });
    Snapshot::parse(body.to_string().as_bytes()).unwrap()
}

#[test]
fn counters_show_what_they_grew_by_and_gauges_what_they_are() {
    let (before, now) = (report(10, 1_000.0, true), report(12, 41_000.0, true));
    let text = frame(&now, Some((&before, Duration::from_secs(2))));
    assert!(text.starts_with("n1 0.1.0  ready  up 0m12s\n"), "{text}");
    for part in [
        "connections 50k of 55k",
        "deliveries 20k",
        "a connection 271B, and 4120B of the kernel's",
        "pass over a room: 1.0 ms on average",
        "BUSY of 70%",
        " 50% #####",
        "HOT ROOMS BY VIEWERS ",
        "      30k         2.5           75k\n",
    ] {
        assert!(text.contains(part), "no \"{part}\" in\n{text}");
    }
}

#[test]
fn without_a_second_report_there_are_no_rates() {
    let now = report(12, 41_000.0, true);
    assert!(frame(&now, None).contains("deliveries -"));
    // A node that restarted in between has no rates either, and no negative ones.
    let before = report(1_000, 90_000.0, true);
    let text = frame(&now, Some((&before, Duration::from_secs(2))));
    assert!(text.contains("deliveries -"), "{text}");
}

#[test]
fn the_memory_of_a_connection_is_shown_only_where_it_is_more_than_fixed_tables() {
    let is_shown = |connections| {
        frame(&report_of(connections, 12, 0.0, true), None).contains("   a connection 271B")
    };
    assert!(!is_shown([2.0, 0.0]));
    assert!(is_shown([500.0, 500.0]));
}

#[test]
fn a_stuck_shard_stands_out() {
    let text = frame(&report(12, 0.0, false), None);
    assert!(text.lines().any(|line| line == "    1  does not answer"), "{text}");
}

#[test]
fn another_server_is_told_apart() {
    let why = Snapshot::parse(b"<html>").unwrap_err().to_string();
    assert!(why.contains("admin port"), "{why}");
}
