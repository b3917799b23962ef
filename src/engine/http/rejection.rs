//! Refusals before the upgrade: each a status, a code of PROTOCOL.md and a sentence.

use super::HttpDate;
use crate::report::Refusal;

/// A request that is answered and closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The HTTP status.
    pub status: u16,
    /// PROTOCOL.md's code.
    pub code: &'static str,
    /// What to do about it; plain ASCII without quotes.
    pub message: &'static str,
    /// When to try again, in seconds.
    pub retry_after_s: Option<u32>,
}

impl Rejection {
    /// The head is not a request we understand.
    pub const BAD_REQUEST: Self =
        Self::new(400, "bad_request", "not a request by RFC 9112, or not an upgrade by RFC 6455");
    /// The path names no possible event.
    pub const BAD_EVENT: Self =
        Self::new(400, "bad_event", "an event id is 1 to 128 of A-Z a-z 0-9 . _ ~ : -");
    /// A known query parameter is malformed.
    pub const BAD_QUERY: Self =
        Self::new(400, "bad_query", "since, history, user or name is malformed, or given twice");
    /// Only unknown subprotocols are offered.
    pub const BAD_SUBPROTOCOL: Self =
        Self::new(400, "bad_subprotocol", "offer uproar.json.v1, uproar.rkyv.v1 or none");
    /// The live path without an upgrade we can do.
    pub const UPGRADE_REQUIRED: Self =
        Self::new(426, "upgrade_required", "this path is a WebSocket of version 13");
    /// The head did not arrive whole within `handshake_ms_max`.
    pub const TIMEOUT: Self = Self::new(408, "timeout", "the request did not arrive whole in time");
    /// The head is over `handshake_bytes_max`, or has over 64 header lines.
    pub const TOO_LARGE: Self =
        Self::new(431, "too_large", "the request head is longer than this node takes");
    /// `connections_per_address_max` is reached.
    pub const ADDRESS_FULL: Self =
        Self::new(429, "address_full", "too many connections from this address").retry_after(10);
    /// The address has `connections_per_address_max` requests that are not whole; the oldest is refused.
    pub const ADDRESS_UNFINISHED: Self =
        Self::new(429, "address_unfinished", "too many unfinished requests from this address")
            .retry_after(1);
    /// `handshakes_max` is reached; the oldest is refused.
    pub const HANDSHAKES_FULL: Self =
        Self::new(503, "handshakes_full", "too many unfinished requests; try again").retry_after(1);
    /// `connections_max` is reached.
    pub const FULL: Self = Self::new(503, "full", "the node is full").retry_after(10);
    /// The node is draining.
    pub const DRAINING: Self =
        Self::new(503, "draining", "the node is draining; connect again").retry_after(1);
    /// `rooms_max` is reached.
    pub const ROOMS_FULL: Self =
        Self::new(503, "rooms_full", "the node has as many events as it takes").retry_after(30);
    /// The mesh or the target shard's descriptor table is full.
    pub const OVERLOADED: Self =
        Self::new(503, "overloaded", "the node is overloaded; try again in a few seconds")
            .retry_after(5);

    /// All places for plain HTTP are taken.
    pub const HTTP_FULL: Self =
        Self::new(503, "overloaded", "too many HTTP requests at once; try again").retry_after(2);

    /// Every rejection by a shard, in the order of PROTOCOL.md's table.
    pub const ALL: [Self; 14] = [
        Self::BAD_REQUEST,
        Self::BAD_EVENT,
        Self::BAD_QUERY,
        Self::BAD_SUBPROTOCOL,
        Self::UPGRADE_REQUIRED,
        Self::TIMEOUT,
        Self::TOO_LARGE,
        Self::ADDRESS_FULL,
        Self::ADDRESS_UNFINISHED,
        Self::HANDSHAKES_FULL,
        Self::FULL,
        Self::DRAINING,
        Self::ROOMS_FULL,
        Self::OVERLOADED,
    ];

    const fn new(status: u16, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message, retry_after_s: None }
    }

    const fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }

    /// The whole answer to a request that begins so, of this time.
    #[must_use]
    pub fn answer_to(&self, request: &[u8], wall_ms: u64) -> Vec<u8> {
        let mut answer = Vec::new();
        write_rejection(&mut answer, self, wall_ms, Content::for_request(request));
        answer
    }

    /// What it is counted as.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let same = |refusal: &Refusal| refusal.label() == self.code;
        Refusal::ALL.into_iter().find(same).unwrap_or(Refusal::BadRequest)
    }

    /// The reason phrase of the status (RFC 9110 §15).
    fn phrase(&self) -> &'static str {
        match self.status {
            400 => "Bad Request",
            408 => "Request Timeout",
            426 => "Upgrade Required",
            429 => "Too Many Requests",
            431 => "Request Header Fields Too Large",
            _ => "Service Unavailable",
        }
    }
}

/// Whether a peer is sent the content of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// As usual.
    Sent,
    /// Only announced, to a HEAD request (RFC 9110 §9.3.2).
    Announced,
}

impl Content {
    /// What the answer to a request that begins so has.
    #[must_use]
    pub fn for_request(request: &[u8]) -> Self {
        if request.starts_with(b"HEAD ") { Self::Announced } else { Self::Sent }
    }
}

/// Appends the whole response, of this time; the connection closes after it.
pub fn write_rejection(out: &mut Vec<u8>, rejection: &Rejection, wall_ms: u64, content: Content) {
    let Rejection { status, code, message, retry_after_s } = rejection;
    let body = format!(r#"{{"code":"{code}","message":"{message}"}}"#);
    let mut head = format!(
        "HTTP/1.1 {status} {}\r\nDate: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
        rejection.phrase(),
        HttpDate { wall_ms },
        body.len(),
    );
    if let Some(seconds) = retry_after_s {
        head += &format!("Retry-After: {seconds}\r\n");
    }
    head += match status {
        426 => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nConnection: close, Upgrade\r\n",
        _ => "Connection: close\r\n",
    };
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(b"\r\n");
    if content == Content::Sent {
        out.extend_from_slice(body.as_bytes());
    }
}
