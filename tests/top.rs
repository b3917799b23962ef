//! What `uproar top` makes of reports.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::time::Duration;

use serde_json::json;
use uproar::top::{LEGEND, Size, Snapshot, frame as sized};

fn frame(now: &Snapshot, before: Option<(&Snapshot, Duration)>) -> String {
    sized(now, before, Size::ENDLESS)
}

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
    assert!(text.starts_with("n1 0.1.0  up 0m12s\nstate: ready\n"), "{text}");
    for part in [
        "connections 50k of 55k",
        "deliveries 20k",
        "a connection 271B + 4120B kernel",
        "pass 1.0 ms on average",
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

/// A report is only as good as whoever sent it.
#[test]
fn nothing_of_a_report_can_steer_the_terminal() {
    const EVIL: &str = "e\u{1b}[2J\u{9b}1m\u{202e}\u{2067}\n\u{85}";
    let sample = labelled("uproar_drain_phase", "phase", EVIL, 1.0);
    let up = labelled("uproar_shard_up", "shard", EVIL, 0.0);
    let room = json!({
        "event": EVIL, "viewers": 1, "comments_per_second": 1.0, "deliveries_per_second": 1.0,
    });
    let body = json!({
        "node": EVIL, "version": EVIL, "state": EVIL, "uptime_seconds": 1,
        "hot_rooms": { "by_viewers": [room], "by_comments": [room] },
        "metrics": [{ "name": "all", "type": "gauge", "samples": [sample, up] }],
    });
    let now = Snapshot::parse(body.to_string().as_bytes()).unwrap();
    let text = frame(&now, None);
    let is_obeyed = |c: char| c.is_control() && c != '\n' || "\u{202e}\u{2067}".contains(c);
    assert!(!text.contains(is_obeyed), "{text:?}");
    assert!(text.contains("e\\u{1b}[2J"), "{text}");
    let plain = body.to_string().replace(&json!(EVIL).to_string(), "\"plain\"");
    let plain = Snapshot::parse(plain.as_bytes()).unwrap();
    assert_eq!(text.lines().count(), frame(&plain, None).lines().count(), "no line of its own");
}

#[test]
fn another_server_is_told_apart() {
    let why = Snapshot::parse(b"<html>").unwrap_err().to_string();
    assert!(why.contains("admin port"), "{why}");
}

/// A shard without an answer has no counters now, and had some before.
#[test]
fn rates_beside_a_stuck_shard_are_those_of_the_others() {
    let body = |shards: &[(&str, f64)]| {
        let up = ["0", "1"].map(|shard| {
            let is_up = shards.iter().any(|(s, _)| *s == shard);
            sample("uproar_shard_up", Some(shard), f64::from(u8::from(is_up)))
        });
        let counted = shards.iter().flat_map(|&(shard, value)| {
            ["uproar_deliveries_total", "uproar_comments_total", "uproar_pass_duration_seconds_sum"]
                .map(|name| sample(name, Some(shard), value))
        });
        let samples: Vec<_> = up.into_iter().chain(counted).collect();
        let body = json!({
            "node": "n1", "version": "0.1.0", "state": "stuck", "uptime_seconds": 60,
            "metrics": [{ "name": "all", "type": "gauge", "samples": samples }],
        });
        Snapshot::parse(body.to_string().as_bytes()).unwrap()
    };
    let (both, one) = (body(&[("0", 1_000.0), ("1", 9_000.0)]), body(&[("0", 1_040.0)]));
    let second = Duration::from_secs(2);
    let text = frame(&one, Some((&both, second)));
    assert!(text.contains("comments 20   deliveries 20 "), "{text}");
    let is_negative =
        |word: &str| word.starts_with('-') && word.contains(|c: char| c.is_ascii_digit());
    assert!(!text.split_whitespace().any(is_negative), "{text}");
    // And when it is back, nobody's history counts as this second's.
    let text = frame(&both, Some((&one, second)));
    assert!(!text.contains("deliveries 4500") && !text.contains("4480"), "{text}");
}

/// 64 shards and twenty rooms on the smallest terminal: the state stays, and what is left out is counted.
#[test]
fn a_frame_fits_the_screen_and_keeps_the_state() {
    let shards = (0..64).flat_map(|shard| {
        let number = shard.to_string();
        [
            sample("uproar_shard_up", Some(&number), f64::from(u8::from(shard != 40))),
            sample("uproar_shard_busy_ratio", Some(&number), f64::from(shard) / 64.0),
            sample("uproar_connections", Some(&number), 50_000.0),
        ]
    });
    let reasons = ["draining", "full"].map(|r| labelled("uproar_not_ready", "reason", r, 1.0));
    let room = |i| json!({ "event": "x".repeat(128), "viewers": i, "comments_per_second": 1.0, "deliveries_per_second": 9.0 });
    let rooms: Vec<_> = (0..10).map(room).collect();
    let body = json!({
        "node": "n1", "version": "0.1.0", "commit": "0123456789ab", "state": "draining",
        "uptime_seconds": 60, "hot_rooms": { "by_viewers": rooms, "by_comments": rooms },
        "metrics": [{ "name": "all", "type": "gauge", "samples": shards.chain(reasons).collect::<Vec<_>>() }],
    });
    let now = Snapshot::parse(body.to_string().as_bytes()).unwrap();
    let text = sized(&now, None, Size { rows: 22, columns: 80 });
    assert!(text.lines().count() <= 22, "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    for part in [
        "n1 0.1.0 (0123456789ab)",
        "state: draining, full",
        "HOT ROOMS BY VIEWERS",
        "HOT ROOMS BY COMMENTS",
    ] {
        assert!(text.contains(part), "no \"{part}\" in\n{text}");
    }
    let line = |begin: &str| text.lines().position(|line| line.starts_with(begin));
    assert_eq!(line("   40  does not answer"), line("SHARD").map(|at| at + 1), "{text}");
    let told: usize = text
        .lines()
        .find_map(|line| {
            line.trim().strip_prefix("and ")?.strip_suffix(" shards more")?.parse().ok()
        })
        .unwrap();
    assert_eq!(
        told + text
            .lines()
            .filter(|line| line.contains('#') || line.contains("does not answer"))
            .count(),
        64,
        "{text}"
    );
    // Without a screen everything is there.
    let all = sized(&now, None, Size::ENDLESS);
    assert!(!all.contains(" more") && all.lines().count() > 64 + 20, "{all}");
    assert!(LEGEND.lines().all(|line| line.len() < 80) && LEGEND.lines().count() < 22);
}
