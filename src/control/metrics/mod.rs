//! What a node exports: every counter and gauge of the shards' reports, the process, and the
//! node's own state, collected once and written as Prometheus text or as JSON.
//!
//! Names are `uproar_<noun>_<unit>[_total]` in base units; `process_*` are the names every
//! client library uses. Labels are shard, reason, cause and code: never a room or a
//! connection, whose number has no bound.

mod exposition;
mod memory;
mod observed;
mod process;
mod shards;

use std::sync::atomic::Ordering::Relaxed;

use uproar_engine::report::Report;

use super::drain::Phase;
use super::node::Node;
use super::readiness::State;
use crate::lines;
use crate::version;
use exposition::{Family, Kind, Number};
pub(super) use exposition::{json, text};
use observed::Observed;
pub(super) use observed::Observer;

/// Collects everything, asking each shard for a report.
pub(super) async fn collect(node: &Node) -> Vec<Family> {
    let (reports, observed) = tokio::join!(node.reports(), node.observer.look());
    families(node, &reports, &observed)
}

/// All families, with the reports at hand; a shard that gave none is shown as down.
#[must_use]
pub(super) fn families(
    node: &Node,
    reports: &[Option<Report>],
    observed: &Observed,
) -> Vec<Family> {
    let mut families = node_families(node, reports);
    families.extend(drain_families(node, reports));
    let present: Vec<&Report> = reports.iter().flatten().collect();
    families.extend(shards::families(&present));
    families.extend(memory::families(node, &present, observed));
    families.extend(observed.process.iter().cloned());
    families
}

fn node_families(node: &Node, reports: &[Option<Report>]) -> Vec<Family> {
    let reasons = node.readiness.reasons();
    let limits = node.limits();
    let gauge = |name, help, value: u64| Family::single(name, Kind::Gauge, help, value.into());
    let mut build = Family::new(
        "uproar_build_info",
        Kind::Gauge,
        "Always 1; the labels are the version of the server and the commit it was built of.",
    );
    let labels = [("version", version::VERSION), ("commit", version::COMMIT)];
    build.sample(&labels.map(|(label, text)| (label, text.to_owned())), 1.into());
    let mut not_ready = Family::new(
        "uproar_not_ready",
        Kind::Gauge,
        "1 for each reason why /ready answers 503, 0 for the others; several may hold at once.",
    );
    for reason in State::ALL.into_iter().filter(|&reason| reason != State::Ready) {
        let is_reason = u64::from(reasons.contains(&reason));
        not_ready.sample(&[("reason", reason.code().to_owned())], is_reason.into());
    }
    let mut up = Family::new(
        "uproar_shard_up",
        Kind::Gauge,
        "1 if the shard answered this scrape, 0 if it is stuck; its other metrics are then absent.",
    );
    for (shard, report) in reports.iter().enumerate() {
        up.sample(&[("shard", shard.to_string())], u64::from(report.is_some()).into());
    }
    let mut http_refused = Family::new(
        "uproar_http_refused_total",
        Kind::Counter,
        "HTTP connections answered 503 because as many as allowed were being served (http_connections_max).",
    );
    for (port, count) in [("public", &node.http_refused), ("admin", &node.admin_refused)] {
        http_refused.sample(&[("port", port.to_owned())], count.load(Relaxed).into());
    }
    let mut reads_refused = Family::new(
        "uproar_http_reads_refused_total",
        Kind::Counter,
        "REST requests answered 503: rate is over http_reads_per_sec, bytes is over http_bytes_max (posts as well).",
    );
    for (reason, count) in node.pages.refused() {
        reads_refused.sample(&[("reason", reason.to_owned())], count.into());
    }
    let mut lingers_cut = Family::new(
        "uproar_http_lingers_cut_total",
        Kind::Counter,
        "HTTP connections that had had their answer and were closed before their end, by the limit that was hit.",
    );
    for (limit, count) in node.lingering.cuts() {
        lingers_cut.sample(&[("limit", limit.to_owned())], count.into());
    }
    let (pages, encoded) = node.pages.counts();
    let counter = |name, help, value: u64| Family::single(name, Kind::Counter, help, value.into());
    let mut reloads = Family::new(
        "uproar_config_reloads_total",
        Kind::Counter,
        "Reloads of the configuration by SIGHUP: applied by every shard, or refused whole because something was wrong.",
    );
    for (result, count) in node.reloads.counts() {
        reloads.sample(&[("result", result.to_owned())], count.into());
    }
    let mut clock_steps = Family::new(
        "uproar_clock_steps_total",
        Kind::Counter,
        "Times the host's wall clock was set by a second or more, ahead or back; comments carry its time.",
    );
    for (direction, count) in node.clock.counts() {
        clock_steps.sample(&[("direction", direction.to_owned())], count.into());
    }
    vec![
        build,
        clock_steps,
        reloads,
        gauge(
            "uproar_config_last_reload_successful",
            "1 if the last reload was applied or none was asked for, 0 if it was refused or a shard has not taken it yet.",
            u64::from(node.reloads.trouble().is_none()),
        ),
        gauge(
            "uproar_config_shards_behind",
            "Shards that have not taken the last reload yet; they are told again when they answer.",
            node.reloads.behind().len() as u64,
        ),
        http_refused,
        gauge(
            "uproar_http_lingering_connections",
            "HTTP connections that have had their answer and are heard to their end.",
            node.lingering.count(),
        ),
        lingers_cut,
        counter(
            "uproar_log_lines_lost_total",
            "Lines of the log that nobody took: stderr is a pipe that is full, or closed, or on a full disk.",
            lines::lost(),
        ),
        counter(
            "uproar_http_evicted_total",
            "HTTP connections cut off because all places were taken, their address had more than half, and another asked.",
            node.http_evicted.load(Relaxed),
        ),
        reads_refused,
        counter("uproar_http_pages_total", "Pages of history answered over REST.", pages),
        counter(
            "uproar_http_pages_encoded_total",
            "Pages of history that had to be encoded; the others were the same bytes as one before.",
            encoded,
        ),
        gauge(
            "uproar_http_bytes",
            "Memory in bodies of plain HTTP, pages kept for the next reader among them (http_bytes_max).",
            node.pages.bytes.bytes(),
        ),
        gauge(
            "uproar_ready",
            "1 if the node takes new viewers, 0 while starting, draining, full, or stuck: a shard does not answer.",
            u64::from(reasons.is_empty()),
        ),
        not_ready,
        up,
        gauge(
            "uproar_connections_max",
            "Configured limit of live connections on the node.",
            limits.connections_max.into(),
        ),
        gauge(
            "uproar_connections_fit",
            "Connections that the rings made at start could hold.",
            node.layout.connections_fit,
        ),
        gauge(
            "uproar_log_bytes_max",
            "Configured limit of all logs together.",
            limits.log_bytes_max,
        ),
        Family::single(
            "uproar_cpu_target_ratio",
            Kind::Gauge,
            "Busy share of a shard's core that the governor aims for, 0 to 1.",
            Number::Permille(u64::from(limits.cpu_target_percent) * 10),
        ),
    ]
}

fn drain_families(node: &Node, reports: &[Option<Report>]) -> [Family; 4] {
    let left: Option<u64> =
        reports.iter().map(|report| report.as_ref().map(|r| r.connections)).sum();
    let drain = node.drain();
    let mut phases = Family::new(
        "uproar_drain_phase",
        Kind::Gauge,
        "1 for the phase of the drain under way: waiting for load balancers, closing, drained; else 0.",
    );
    for phase in Phase::ALL {
        let is_now = drain.is_some_and(|drain| drain.phase(left) == phase);
        phases.sample(&[("phase", phase.word().to_owned())], u64::from(is_now).into());
    }
    let gone = drain.zip(left).map_or(0, |(drain, left)| drain.gone_permille(left));
    let spread_ms = drain.and_then(|drain| drain.closes).map_or_else(
        || node.loaded().config.server.spread_ms(node.connections_seen()),
        |closes| closes.spread_ms,
    );
    let age = drain.map_or(0, |drain| drain.age().as_micros() as u64);
    [
        phases,
        Family::single(
            "uproar_drain_progress_ratio",
            Kind::Gauge,
            "Share of the connections that are gone since the drain's closes began, 0 to 1; 0 without a drain.",
            Number::Permille(gone),
        ),
        Family::single(
            "uproar_drain_spread_seconds",
            Kind::Gauge,
            "Over how long the closes of the drain under way are spread, or those of one would be now: \
             drain_spread_ms, or longer for drain_closes_per_sec.",
            Number::Micros(u64::from(spread_ms) * 1_000),
        ),
        Family::single(
            "uproar_drain_age_seconds",
            Kind::Gauge,
            "Time since the drain under way took readiness away; 0 without a drain.",
            Number::Micros(age),
        ),
    ]
}
