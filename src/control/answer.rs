//! Refusals over HTTP: a status and `{"code":"…","message":"…"}`, as PROTOCOL.md has it.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use uproar_engine::control::PostRefusal;

use super::node::NoAnswer;

/// A refusal on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry_after: Option<u32>,
}

impl Refused {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: None }
    }

    pub(super) fn bad_query(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_query", message)
    }

    pub(super) fn no_such_event() -> Self {
        let message = "nobody watches this event and nothing of it is retained";
        Self::new(StatusCode::NOT_FOUND, "no_such_event", message)
    }

    pub(super) fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        let retry_after = Some(RETRY_AFTER_S);
        Self { retry_after, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message) }
    }
}

/// What `Retry-After` says to whoever met an overloaded or draining node, in seconds: long
/// enough to choose another node, short enough to come back to this one.
const RETRY_AFTER_S: u32 = 2;

impl From<NoAnswer> for Refused {
    fn from(why: NoAnswer) -> Self {
        Self::unavailable("overloaded", why.to_string())
    }
}

impl From<PostRefusal> for Refused {
    fn from(why: PostRefusal) -> Self {
        let (status, retry_after) = match why {
            PostRefusal::RateLimited => (StatusCode::TOO_MANY_REQUESTS, Some(1)),
            PostRefusal::Overloaded | PostRefusal::Draining | PostRefusal::RoomsFull => {
                (StatusCode::SERVICE_UNAVAILABLE, Some(RETRY_AFTER_S))
            }
            PostRefusal::BadCommand
            | PostRefusal::BadText
            | PostRefusal::TooLong
            | PostRefusal::Empty
            | PostRefusal::KeyNeedsUser => (StatusCode::BAD_REQUEST, None),
        };
        Self { retry_after, ..Self::new(status, why.code(), why.message()) }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = Json(json!({ "code": self.code, "message": self.message }));
        let mut response = (self.status, body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The answer of a path that does not exist.
pub(super) async fn not_found() -> Refused {
    Refused::new(StatusCode::NOT_FOUND, "not_found", "no such path; see PROTOCOL.md")
}

/// The answer of a path that exists under another method.
pub(super) async fn method_not_allowed() -> Refused {
    let message = "this path has other methods; see the Allow header";
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}
