//! The admin router: metrics, the report behind `uproar top`, and drains.
//!
//! It has no authentication and listens on loopback by default. A web page in a browser on
//! the same host can reach it there all the same, so whatever changes something refuses a
//! request that names an `Origin`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{info, warn};
use uproar_engine::hot::LISTED_MAX;

use super::answer::{Refused, method_not_allowed, not_found};
use super::drain::Undone;
use super::node::Node;
use super::sound::sound;
use super::{drain, health, hot, metrics};
use crate::link::Handover;
use crate::version;

/// Requests served at the same time; more are answered 503. Scrapers and operators are few.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// The pause after a failed accept: what failed it (out of descriptors) takes time to pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts for the router, which serves as it serves what shards hand over: within the same
/// time-outs, one request a connection.
pub(super) async fn accept(listener: TcpListener, accepted: mpsc::Sender<Handover>) {
    loop {
        let next = listener.accept().await.and_then(|(stream, peer)| {
            Ok(Handover { stream: stream.into_std()?, read: Vec::new(), peer })
        });
        match next {
            Ok(connection) => {
                if accepted.send(connection).await.is_err() {
                    return;
                }
            }
            Err(why) => {
                warn!(%why, "the admin port could not accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The router behind the admin port.
pub(super) fn router(node: Arc<Node>) -> Router {
    let router = Router::new()
        .route("/metrics", get(prometheus))
        .route("/report", get(report))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/drain", get(show_drain).post(begin_drain).delete(undo_drain))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(node);
    sound(router)
}

async fn prometheus(State(node): State<Arc<Node>>) -> Response {
    let body = metrics::text(&metrics::collect(&node).await);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], body).into_response()
}

/// What the report should hold besides.
#[derive(Deserialize)]
struct Wanted {
    /// How many hot rooms a list may have; none unless asked, as a look costs the shards something.
    rooms: Option<usize>,
}

async fn report(
    State(node): State<Arc<Node>>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Value>, Refused> {
    let Query(Wanted { rooms }) = wanted.map_err(|why| Refused::bad_query(why.body_text()))?;
    let looked = async {
        match rooms.unwrap_or(0).min(LISTED_MAX) {
            0 => Value::Null,
            limit => hot::json(&node, limit).await,
        }
    };
    let (families, hot_rooms) = tokio::join!(metrics::collect(&node), looked);
    Ok(Json(json!({
        "node": node.layout.node,
        "version": version::VERSION,
        "commit": version::COMMIT,
        "state": node.readiness.state().code(),
        "uptime_seconds": node.started.elapsed().as_secs(),
        "hot_rooms": hot_rooms,
        "metrics": metrics::json(&families),
    })))
}

fn refuse_browsers(headers: &HeaderMap) -> Result<(), Refused> {
    if headers.contains_key(header::ORIGIN) {
        let message = "requests from web pages may not change a node";
        return Err(Refused::new(StatusCode::FORBIDDEN, "forbidden", message));
    }
    Ok(())
}

async fn show_drain(State(node): State<Arc<Node>>) -> Json<Value> {
    Json(drain::json(&node).await)
}

async fn begin_drain(
    State(node): State<Arc<Node>>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    refuse_browsers(&headers)?;
    info!("draining, on request of the admin port");
    drain::order(&node);
    Ok((StatusCode::ACCEPTED, Json(drain::json(&node).await)).into_response())
}

async fn undo_drain(
    State(node): State<Arc<Node>>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refused> {
    refuse_browsers(&headers)?;
    let was = match drain::undo(&node).await {
        Undone::Ending => {
            let message = "the process is ending; this drain cannot be undone";
            return Err(Refused::new(StatusCode::CONFLICT, "ending", message));
        }
        Undone::Done => {
            info!("no longer draining, on request of the admin port");
            "no longer"
        }
        Undone::Nothing => {
            info!("asked by the admin port to undo a drain, but there was none");
            "was not"
        }
    };
    let mut answer = drain::json(&node).await;
    // Another order may have come meanwhile, and then its progress is what counts.
    if answer["draining"] == false {
        answer["status"] = format!("{was} draining; {}", node.readiness.sentence()).into();
    }
    Ok(Json(answer))
}
