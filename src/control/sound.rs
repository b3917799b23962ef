//! What every request must be before a handler sees it, the same on both ports.
//!
//! On the public port the shard has looked already, with the same rule. hyper looks for neither a
//! missing `Host` nor a second one.

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, Version, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use uproar_engine::http::is_host_sound;

use super::answer::Refused;

/// The router, behind these rules.
pub(super) fn sound(router: Router) -> Router {
    router.layer(middleware::from_fn(check))
}

async fn check(request: Request, next: Next) -> Response {
    let hosts = request.headers().get_all(header::HOST).iter().map(HeaderValue::as_bytes);
    if !is_host_sound(request.version() == Version::HTTP_11, hosts) {
        let message = "HTTP/1.1 takes one Host header (RFC 9112 section 3.2)";
        return Refused::new(StatusCode::BAD_REQUEST, "bad_request", message).into_response();
    }
    next.run(request).await
}
