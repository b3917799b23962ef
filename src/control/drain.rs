//! Drain: tell every shard to let its viewers go, and watch until they are gone.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{info, warn};
use uproar_engine::control::Request;

use super::node::Node;
use super::systemd;

/// How often the shards are asked whether anyone is left.
const POLL: Duration = Duration::from_millis(100);
/// How often progress is logged and the service manager asked for patience.
const PROGRESS: Duration = Duration::from_secs(1);
/// How much more time each progress notice asks the service manager for.
const EXTENSION: Duration = Duration::from_secs(10);

/// Tells every shard to drain over the configured time, which is returned in milliseconds.
pub(super) async fn begin(node: &Node) -> u32 {
    let spread_ms = node.loaded().config.server.drain_spread_ms;
    complain(&node.ask_all(|| Request::Drain { spread_ms }).await, "drain");
    spread_ms
}

/// Tells every shard to admit again.
pub(super) async fn undo(node: &Node) {
    complain(&node.ask_all(|| Request::Undrain).await, "end its drain");
}

fn complain<T>(answers: &[Result<T, super::node::NoAnswer>], what: &str) {
    for (shard, answer) in answers.iter().enumerate() {
        if let Err(why) = answer {
            warn!(shard, %why, "a shard could not be told to {what}");
        }
    }
}

/// Drains until nobody is left or the deadline is over; the connections left are returned.
pub(super) async fn until_empty(node: &Arc<Node>) -> u64 {
    let deadline_ms = node.loaded().config.server.drain_deadline_ms;
    let deadline = Instant::now() + Duration::from_millis(deadline_ms.into());
    systemd::stopping(EXTENSION);
    let mut progress = Instant::now() + PROGRESS;
    // A stuck shard must not stretch the deadline, so every wait on the shards ends with it.
    let drained = async {
        begin(node).await;
        loop {
            let left = connections(node).await;
            if left == Some(0) {
                return;
            }
            if Instant::now() >= progress {
                progress += PROGRESS;
                let left = left.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
                info!(connections = left, "draining");
                systemd::draining(&left, EXTENSION);
            }
            sleep(POLL).await;
        }
    };
    if tokio::time::timeout_at(deadline, drained).await.is_ok() {
        return 0;
    }
    let last_look = tokio::time::timeout(POLL, connections(node)).await;
    last_look.ok().flatten().unwrap_or(0)
}

/// Connections and handshakes on the node; `None` while a shard gives no answer.
async fn connections(node: &Node) -> Option<u64> {
    let reports = node.reports().await;
    reports.into_iter().map(|report| report.map(|r| r.connections + r.handshakes)).sum()
}
