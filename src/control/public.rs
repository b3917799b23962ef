//! The public router: health, readiness, and the REST API of PROTOCOL.md.
//!
//! A handler translates and nothing more: the rules about comments are the engine's, on the
//! event's home shard.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query, Request as HttpRequest, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use hyper::body::{Frame, SizeHint};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;
use uproar_engine::address::Address;
use uproar_engine::control::{Reply, Request};
use uproar_engine::ids::EventId;

use super::answer::{Refused, method_not_allowed, not_found};
use super::answer_bytes::Held;
use super::health;
use super::node::Node;
use super::pages::Page;
use super::sound::sound;

/// A request body, in bytes: the largest comment, every byte of it escaped, and its labels.
pub(super) const BODY_BYTES_MAX: usize = 128 * 1024;

/// From the head of a request to the last byte of its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The router behind the public port.
pub(super) fn router(node: Arc<Node>) -> Router {
    let router = Router::new()
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/v1/events/{event_id}", get(event))
        .route("/v1/events/{event_id}/live", get(live))
        .route("/v1/events/{event_id}/comments", get(comments).post(post))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(node);
    sound(router)
}

/// The event of the path.
struct Event(EventId);

impl<S: Send + Sync> FromRequestParts<S> for Event {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let bad = |why: String| Refused::new(StatusCode::BAD_REQUEST, "bad_event", why);
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|why| bad(why.body_text()))?;
        text.parse().map(Self).map_err(|why| bad(format!("{why}")))
    }
}

async fn event(
    State(node): State<Arc<Node>>,
    Extension(from): Extension<Address>,
    Event(event): Event,
) -> Result<Response, Refused> {
    node.pages.admit(&node, from)?;
    let reply = node.ask_home(&event, Request::Event { event: event.clone() }).await?;
    match reply {
        Reply::Event { viewers, position, tail } => Ok(Json(json!({
            "event": event.as_str(),
            "viewers": viewers,
            "position": position.to_string(),
            "tail": tail,
        }))
        .into_response()),
        other => Err(unexpected(&other)),
    }
}

/// Shards serve upgrades themselves, so what arrives here is none they could take.
async fn live(Event(_): Event) -> Response {
    let message = "this path speaks WebSocket version 13 (RFC 6455)";
    let refused = Refused::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", message);
    let mut response = refused.into_response();
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

/// Which comments.
#[derive(Deserialize)]
struct Wanted {
    #[serde(default, deserialize_with = "number")]
    limit: Option<u64>,
    #[serde(default, deserialize_with = "number")]
    before: Option<u64>,
}

/// A number of any length: one past every limit is as good as the limit. Nothing is none.
fn number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if !text.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(serde::de::Error::custom("`limit` and `before` are numbers"));
    }
    Ok((!text.is_empty()).then(|| text.parse().unwrap_or(u64::MAX)))
}

async fn comments(
    State(node): State<Arc<Node>>,
    Extension(from): Extension<Address>,
    Event(event): Event,
    page: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(Wanted { limit, before }) =
        page.map_err(|why| Refused::bad_query(why.body_text()))?;
    node.pages.admit(&node, from)?;
    let limits = node.limits();
    let limit = limit.unwrap_or(limits.history_frames.into());
    let limit = limit.min(limits.history_frames_max.into()) as u32;
    node.pages.page(&node, &event, limit, before, from).await.map(page_body)
}

/// The comments are JSON already, the same bytes that viewers get, and shared with whoever else reads them.
fn page_body(page: Page) -> Response {
    let Page { comments, position } = page;
    let end = format!("],\"position\":\"{position}\"}}");
    let parts = [Bytes::from_static(b"{\"comments\":["), comments, Bytes::from(end)];
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], Body::new(Pieces(parts.into()))).into_response()
}

/// A body of several pieces, none of which is copied.
struct Pieces(VecDeque<Bytes>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|part| part.len() as u64).sum())
    }
}

/// The body of a post. Unknown fields are ignored, as everywhere in the protocol.
#[derive(Deserialize)]
struct NewComment {
    user: Option<Box<str>>,
    name: Option<Box<str>>,
    text: Box<str>,
    key: Option<Box<str>>,
}

/// The whole body, within its limits of size and time, and the room that it takes.
async fn read_body(
    node: &Node,
    from: Address,
    request: HttpRequest,
) -> Result<(Vec<u8>, Held), Refused> {
    let too_long = || {
        let message = format!("a body is at most {BODY_BYTES_MAX} bytes");
        Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "too_long", message)
    };
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > BODY_BYTES_MAX as u64) {
        return Err(too_long());
    }
    let bytes_max = node.loaded().config.server.http_bytes_max.into();
    let mut held = node.pages.bytes.hold(from);
    let mut body = request.into_body();
    let mut read = Vec::new();
    let reading = async {
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let frame = frame.map_err(|why| {
                Refused::new(StatusCode::BAD_REQUEST, "bad_request", why.to_string())
            })?;
            let Ok(data) = frame.into_data() else { continue };
            if read.len() + data.len() > BODY_BYTES_MAX {
                return Err(too_long());
            }
            if !held.grow(data.len() as u64, bytes_max) {
                return Err(node.pages.too_many_bytes());
            }
            read.extend_from_slice(&data);
        }
        Ok(())
    };
    timeout(BODY_TIMEOUT, reading).await.map_err(|_| {
        let message = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
        Refused::new(StatusCode::REQUEST_TIMEOUT, "timeout", message)
    })??;
    Ok((read, held))
}

async fn post(
    State(node): State<Arc<Node>>,
    Extension(from): Extension<Address>,
    Event(event): Event,
    request: HttpRequest,
) -> Result<Response, Refused> {
    let (body, _held) = read_body(&node, from, request).await?;
    let bad = |why: String| {
        let message = format!("the body is not {{\"text\":\"…\"}} as PROTOCOL.md has it: {why}");
        Refused::new(StatusCode::BAD_REQUEST, "bad_command", message)
    };
    // serde would take an array of the fields as well.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(bad("it is no JSON object".to_owned()));
    }
    let NewComment { user, name, text, key } =
        serde_json::from_slice(&body).map_err(|why| bad(why.to_string()))?;
    let address = from.digest();
    let request = Request::Post { event: event.clone(), user, name, text, key, address };
    match node.ask_home(&event, request).await? {
        Reply::Posted { id, position } => {
            let body = json!({
                "id": id.to_string(),
                "offset": position.offset,
                "position": position.to_string(),
            });
            Ok((StatusCode::CREATED, Json(body)).into_response())
        }
        other => Err(unexpected(&other)),
    }
}

/// The refusals that any request may meet.
fn unexpected(reply: &Reply) -> Refused {
    match reply {
        Reply::Refused(why) => (*why).into(),
        Reply::NoSuchEvent => Refused::no_such_event(),
        other => unreachable!("the engine answered a request with another's reply: {other:?}"),
    }
}
