//! The JSON object a run prints.

use serde_json::{Value, json};

use crate::options::Group;
use crate::probe::{Processor, Usage};
use crate::report::{GroupReport, Report, histogram};

/// Latencies in milliseconds.
fn latency(pairs: &[(u64, u64)]) -> Value {
    let mut all = histogram();
    for &(microseconds, count) in pairs {
        all.record_n(microseconds, count).expect("a worker recorded it within the same bounds");
    }
    let at = |quantile| all.value_at_quantile(quantile) as f64 / 1e3;
    json!({
        "mean": all.mean() / 1e3, "p50": at(0.5), "p90": at(0.9), "p99": at(0.99),
        "p999": at(0.999), "max": all.max() as f64 / 1e3,
    })
}

fn group(group: &Group, report: &GroupReport) -> Value {
    json!({
        "name": group.name, "rooms": group.rooms, "rate": group.rate, "bytes": group.bytes,
        "viewers": report.viewers, "stalled": report.stalled,
        "expected": report.expected, "delivered": report.delivered,
        "missing": report.expected - report.seen,
        "duplicates": report.duplicates, "reordered": report.late,
        "latency_ms": latency(&report.latencies),
    })
}

/// What the fleet saw, all groups and each.
pub(crate) fn seen(groups: &[Group], report: &Report) -> Value {
    let sum = |of: fn(&GroupReport) -> u64| report.groups.iter().map(of).sum::<u64>();
    let all: Vec<(u64, u64)> =
        report.groups.iter().flat_map(|group| group.latencies.iter().copied()).collect();
    json!({
        "connections": report.open,
        "refused": report.refused.values().sum::<usize>(), "refused_by": report.refused,
        "lost_connections": report.ended.values().sum::<usize>(), "ended_by": report.ended,
        "published": report.posted, "acks": report.acks, "post_errors": report.errors,
        "expected": sum(|g| g.expected), "delivered": sum(|g| g.delivered),
        "missing": sum(|g| g.expected - g.seen),
        "duplicates": sum(|g| g.duplicates), "reordered": sum(|g| g.late),
        "gap_notices": report.gap_notices, "drain_notices": report.drain_notices,
        "pings": report.pings, "bad_frames": report.bad_frames,
        "latency_ms": latency(&all),
        "client_cpu_seconds": report.cpu_ns as f64 / 1e9,
        "groups": groups.iter().zip(&report.groups).map(|(g, r)| group(g, r)).collect::<Vec<_>>(),
        "offences": report.offences,
    })
}

/// CPU of the server between two readings, over `wall_ns` and for `delivered` comments.
pub(crate) fn server_cpu(before: Usage, after: Usage, wall_ns: u64, delivered: u64) -> Value {
    let ns = after.cpu_ns.saturating_sub(before.cpu_ns) as f64;
    json!({
        "seconds": ns / 1e9,
        "share": ns / wall_ns.max(1) as f64,
        "us_per_delivery": ns / 1e3 / delivered.max(1) as f64,
        "deliveries_per_second": delivered as f64 / (ns / 1e9).max(1e-9),
    })
}

/// The server's CPU and the fleet's between two readings, over `wall_ns` and for `count` deliveries or connections.
/// What the server's CPU did besides the process is mostly the receive path of its sockets.
pub(crate) fn processors(
    before: [Processor; 2],
    after: [Processor; 2],
    wall_ns: u64,
    count: u64,
) -> Value {
    let of = |cpu: usize| {
        let busy_ns = after[cpu].busy_ns.saturating_sub(before[cpu].busy_ns) as f64;
        let steal_ns = after[cpu].steal_ns.saturating_sub(before[cpu].steal_ns) as f64;
        json!({
            "busy_share": busy_ns / wall_ns.max(1) as f64,
            "steal_share": steal_ns / wall_ns.max(1) as f64,
            "us_each": busy_ns / 1e3 / count.max(1) as f64,
        })
    };
    json!({ "server": of(0), "fleet": of(1) })
}

/// Adds the entries of one object to another.
pub(crate) fn join(mut into: Value, from: Value) -> Value {
    if let (Value::Object(into), Value::Object(from)) = (&mut into, from) {
        into.extend(from);
    }
    into
}
