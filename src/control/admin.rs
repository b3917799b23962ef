//! The admin router: metrics, the report behind `uproar top`, and drain.
//!
//! It has no authentication and listens on loopback by default. A web page in a browser on
//! the same host can reach it there all the same, so whatever changes something refuses a
//! request that names an `Origin`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::answer::{Refused, method_not_allowed, not_found};
use super::node::Node;
use super::{drain, health, metrics};

/// The router behind the admin port.
pub(super) fn router(node: Arc<Node>) -> Router {
    Router::new()
        .route("/metrics", get(prometheus))
        .route("/report", get(report))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/drain", post(begin_drain).delete(undo_drain))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(node)
}

async fn prometheus(State(node): State<Arc<Node>>) -> Response {
    let body = metrics::text(&metrics::collect(&node).await);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], body).into_response()
}

async fn report(State(node): State<Arc<Node>>) -> Json<Value> {
    let families = metrics::collect(&node).await;
    Json(json!({
        "node": node.layout.node,
        "version": env!("CARGO_PKG_VERSION"),
        "state": node.readiness.state().code(),
        "uptime_seconds": node.started.elapsed().as_secs(),
        "metrics": metrics::json(&families),
    }))
}

fn refuse_browsers(headers: &HeaderMap) -> Result<(), Refused> {
    if headers.contains_key(header::ORIGIN) {
        let message = "requests from web pages may not change a node";
        return Err(Refused::new(StatusCode::FORBIDDEN, "forbidden", message));
    }
    Ok(())
}

async fn begin_drain(
    State(node): State<Arc<Node>>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    refuse_browsers(&headers)?;
    node.readiness.drain();
    let spread_ms = drain::begin(&node).await;
    tracing::info!(spread_ms, "draining, on request of the admin port");
    Ok((StatusCode::ACCEPTED, Json(json!({ "draining": true, "spread_ms": spread_ms })))
        .into_response())
}

async fn undo_drain(
    State(node): State<Arc<Node>>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refused> {
    refuse_browsers(&headers)?;
    if !node.readiness.undrain() {
        let message = "the process is ending; this drain cannot be undone";
        return Err(Refused::new(StatusCode::CONFLICT, "ending", message));
    }
    drain::undo(&node).await;
    tracing::info!("no longer draining, on request of the admin port");
    Ok(Json(json!({ "draining": false })))
}
