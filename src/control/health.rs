//! `/health` and `/ready`, the same on both ports.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::answer::Refused;
use super::node::Node;
use super::readiness;

/// 200 while the process turns. It asks no shard: that is the watchdog's job, and a balancer
/// that restarts nodes because one shard is slow would make overload worse.
pub(super) async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// 200, or 503 with the reason. A stuck shard is one: whoever lands on it gets nothing.
pub(super) async fn ready(State(node): State<Arc<Node>>) -> Result<Json<Value>, Refused> {
    match node.readiness.state() {
        readiness::State::Ready => Ok(Json(json!({ "status": "ready" }))),
        state => Err(Refused::unavailable(state.code(), node.readiness.sentence())),
    }
}
