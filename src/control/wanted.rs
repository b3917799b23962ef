//! What every shard is to hold (the drain under way, the newest limits) beside what it says that it holds.
//!
//! An order reaches a shard over a bounded queue, so it may be refused, and a shard that is stuck does it late or
//! never. So orders are not believed: each report says what holds, and whoever differs is told again.
//!
//! ```text
//!   order ──► wanted ──► all shards, once
//!               │
//!               └── compared with each report (`watch`, once a second) ──► told again until they agree
//! ```
//!
//! All orders are such that hearing one twice changes nothing.

use tracing::info;
use uproar_engine::control::Request;
use uproar_engine::report::Report;

use super::node::Node;

/// Tells shards again what they have missed.
pub(super) fn tell_again(node: &Node, reports: &[Option<Report>]) {
    node.note_held(reports);
    for (shard, report) in reports.iter().enumerate() {
        let Some(report) = report else { continue };
        for request in missed(node, report) {
            let what = match &request {
                Request::Drain { .. } => "to drain",
                Request::Undrain => "to end its drain",
                _ => "the new limits",
            };
            // A queue that is full now is tried again at the next report.
            if node.ports()[shard].ask(request).is_ok() {
                info!(shard, "a shard that had missed it is told {what}");
            }
        }
    }
}

/// The orders that a shard which reports this has not got.
fn missed(node: &Node, report: &Report) -> Vec<Request> {
    let mut missed = Vec::new();
    let closes = node.drain().and_then(|drain| drain.closes);
    if report.drain != closes.map(|closes| closes.number) {
        missed.push(closes.map_or(Request::Undrain, |closes| closes.request()));
    }
    if report.limits_generation != node.reloads.generation() {
        missed.push(node.reload_request());
    }
    missed
}
