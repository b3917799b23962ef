//! The request head of a new connection, and the answers that never leave the data plane.
//!
//! A head is either the upgrade of the live path, something the control plane answers, or a
//! mistake that is refused here with a status and a code. It is parsed anew when more has come: heads
//! come in one piece, and keeping none of the parser's state keeps this a function. One that drips is
//! parsed again when its end is there or it has doubled (`connection::Handshake`).
//!
//! Not here: admission (who is let in), the REST API, the deadline of a slow head.

use std::str::FromStr;

use httparse::{EMPTY_HEADER, Header, Request, Status};
use tungstenite::handshake::derive_accept_key;

use crate::codec::{Codec, clean_label};
use crate::ids::{EventId, Position};
use crate::limits::Limits;

mod date;
mod rejection;

pub use date::HttpDate;
pub use rejection::{Content, Rejection, write_rejection};

/// Header lines of one head; more are answered 431.
const HEADERS_MAX: usize = 64;

/// What the first bytes of a connection are.
#[derive(Debug)]
pub enum Head {
    /// Not a whole head yet.
    Incomplete,
    /// The upgrade of the live path.
    Upgrade(Box<Upgrade>),
    /// Plain HTTP: the control plane answers it.
    Plain,
    /// Answered here; the connection ends with it.
    Refused(Rejection),
}

/// A sound upgrade request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The event to watch.
    pub event: EventId,
    /// The answer to the client's key (RFC 6455 §4.2.2).
    pub accept_key: String,
    /// The codec that was negotiated.
    pub codec: Codec,
    /// Whether the client offered subprotocols, so that the answer names the chosen one.
    pub names_protocol: bool,
    /// The position to resume from.
    pub since: Option<Position>,
    /// How much history to start with; not capped yet.
    pub history: Option<u32>,
    /// Who posts over this connection.
    pub user: Option<Box<str>>,
    /// The name to show with those posts.
    pub name: Option<Box<str>>,
    /// Bytes of the input that were the head; the rest is frames that came early.
    pub head_len: usize,
}

/// Reads the head at the front of everything received so far.
#[must_use]
pub fn read_head(input: &[u8], limits: &Limits) -> Head {
    let head_bytes_max = limits.handshake_bytes_max as usize;
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = Request::new(&mut headers);
    let head_len = match request.parse(input) {
        Ok(Status::Complete(head_len)) => head_len,
        Ok(Status::Partial) if input.len() < head_bytes_max => return Head::Incomplete,
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Head::Refused(Rejection::TOO_LARGE);
        }
        Err(_) => return Head::Refused(Rejection::BAD_REQUEST),
    };
    if head_len > head_bytes_max {
        return Head::Refused(Rejection::TOO_LARGE);
    }
    // httparse takes a bare line feed for a line end; a proxy in front may not.
    let mut ends = input[..head_len].iter().zip(&input[1..head_len]);
    if input[0] == b'\n' || ends.any(|(a, b)| *b == b'\n' && *a != b'\r') {
        return Head::Refused(Rejection::BAD_REQUEST);
    }
    route(&request, head_len).unwrap_or_else(Head::Refused)
}

/// Whether the blank line that ends a head is in `input` and was not in its first `searched` bytes. Line ends in front of the request line (RFC 9112 §2.2) are no end of anything.
#[must_use]
pub fn has_end(input: &[u8], searched: usize) -> bool {
    let before = |at: usize| at.checked_sub(1).map(|at| input[at]);
    let ends_line = |at: usize| match before(at) {
        Some(b'\r') => before(at - 1),
        byte => byte,
    };
    (searched..input.len()).any(|at| {
        let blank = if before(at) == Some(b'\r') { at.saturating_sub(1) } else { at };
        // The byte before the blank line is the line feed of a line that is not blank.
        input[at] == b'\n'
            && before(blank) == Some(b'\n')
            && ends_line(blank - 1).is_some_and(|byte| byte != b'\n')
    })
}

/// Appends the 101 that accepts `upgrade`.
pub fn write_switching(out: &mut Vec<u8>, upgrade: &Upgrade) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\n\
          Upgrade: websocket\r\n\
          Connection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(upgrade.accept_key.as_bytes());
    if upgrade.names_protocol {
        out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        out.extend_from_slice(upgrade.codec.subprotocol().as_bytes());
    }
    out.extend_from_slice(b"\r\n\r\n");
}

/// Whether these are the `Host` lines of a sound request (RFC 9112 §3.2): one with a sound value,
/// or, before HTTP/1.1, none.
pub fn is_host_sound<'h>(is_http_1_1: bool, mut hosts: impl Iterator<Item = &'h [u8]>) -> bool {
    // What a host and a port are written with (RFC 3986 §3.2.2, §3.2.3); it may be empty.
    let is_in_host = |b: &u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:[]".contains(b);
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.iter().all(is_in_host),
        (None, _) => !is_http_1_1,
        (Some(_), Some(_)) => false,
    }
}

/// The path and the query of a request target: of an absolute one, which any server takes
/// (RFC 9112 §3.2.2), what stands behind the authority. `None` when it is neither.
#[must_use]
pub fn split_target(target: &str) -> Option<(&str, &str)> {
    fn split(target: &str) -> (&str, &str) {
        target.split_once('?').unwrap_or((target, ""))
    }
    if target.contains('#') {
        return None;
    }
    if target.starts_with('/') || target == "*" {
        return Some(split(target));
    }
    let (scheme, rest) = target.split_once("://")?;
    ["http", "https", "ws", "wss"].iter().find(|known| scheme.eq_ignore_ascii_case(known))?;
    let authority_len = rest.find(['/', '?']).unwrap_or(rest.len());
    let (path, query) = split(&rest[authority_len..]);
    (authority_len > 0).then_some((if path.is_empty() { "/" } else { path }, query))
}

fn route(request: &Request<'_, '_>, head_len: usize) -> Result<Head, Rejection> {
    let headers = &*request.headers;
    let is_http_1_1 = request.version == Some(1);
    if !is_host_sound(is_http_1_1, values(headers, "Host")) {
        return Err(Rejection::BAD_REQUEST);
    }
    let target = request.path.unwrap_or_default();
    let (path, query) = split_target(target).ok_or(Rejection::BAD_REQUEST)?;
    let Some(event) = live_event(path).filter(|_| request.method == Some("GET")) else {
        return Ok(Head::Plain);
    };
    let event = decode(event, Plus::Itself).ok_or(Rejection::BAD_EVENT)?;
    let event = event.parse().map_err(|_| Rejection::BAD_EVENT)?;
    if !has_token(headers, "Upgrade", "websocket") || !has_token(headers, "Connection", "upgrade") {
        return Err(Rejection::UPGRADE_REQUIRED);
    }
    if !is_http_1_1 || has_body(headers) {
        return Err(Rejection::BAD_REQUEST);
    }
    if only(headers, "Sec-WebSocket-Version") != Some(b"13") {
        return Err(Rejection::UPGRADE_REQUIRED);
    }
    let key = only(headers, "Sec-WebSocket-Key").filter(|key| is_key(key));
    let key = key.ok_or(Rejection::BAD_REQUEST)?;
    let offer = Offer::read(headers)?;
    let query = Query::read(query).ok_or(Rejection::BAD_QUERY)?;
    Ok(Head::Upgrade(Box::new(Upgrade {
        event,
        accept_key: derive_accept_key(key),
        codec: offer.codec,
        names_protocol: offer.names_protocol,
        since: query.since,
        history: query.history,
        user: query.user,
        name: query.name,
        head_len,
    })))
}

/// The `event_id` segment of `/v1/events/{event_id}/live`, encoded and unchecked.
fn live_event(path: &str) -> Option<&str> {
    let event = path.strip_prefix("/v1/events/")?.strip_suffix("/live")?;
    (!event.contains('/')).then_some(event)
}

/// Whether the head announces content, which an upgrade has none of.
fn has_body(headers: &[Header<'_>]) -> bool {
    let is_zero = |length: &[u8]| !length.is_empty() && length.iter().all(|digit| *digit == b'0');
    values(headers, "Transfer-Encoding").next().is_some()
        || values(headers, "Content-Length").any(|length| !is_zero(length))
}

/// What the client offered in `Sec-WebSocket-Protocol`, and our choice.
struct Offer {
    codec: Codec,
    names_protocol: bool,
}

impl Offer {
    fn read(headers: &[Header<'_>]) -> Result<Self, Rejection> {
        let mut names_protocol = false;
        for name in tokens(headers, "Sec-WebSocket-Protocol") {
            names_protocol = true;
            let known = std::str::from_utf8(name).ok().and_then(Codec::from_subprotocol);
            if let Some(codec) = known {
                return Ok(Self { codec, names_protocol });
            }
        }
        if names_protocol {
            return Err(Rejection::BAD_SUBPROTOCOL);
        }
        Ok(Self { codec: Codec::Json, names_protocol })
    }
}

/// The query parameters that mean something here; others are ignored.
#[derive(Default)]
struct Query {
    since: Option<Position>,
    history: Option<u32>,
    user: Option<Box<str>>,
    name: Option<Box<str>>,
}

impl Query {
    /// `None` when a known parameter is malformed or comes twice. One without a value is none.
    fn read(query: &str) -> Option<Self> {
        let mut read = Self::default();
        for pair in query.split('&') {
            let Some((key, value)) = pair.split_once('=').filter(|(_, value)| !value.is_empty())
            else {
                continue;
            };
            let value = || decode(value, Plus::Blank);
            match decode(key, Plus::Blank).as_deref() {
                Some("since") => set(&mut read.since, value()?.parse().ok()?)?,
                Some("history") => set(&mut read.history, number(&value()?)?)?,
                Some("user") => label(&mut read.user, value()?)?,
                Some("name") => label(&mut read.name, value()?)?,
                _ => {}
            }
        }
        Some(read)
    }
}

/// Fills an empty slot; a parameter given twice has no meaning we could choose.
fn set<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.is_none().then(|| *slot = Some(value))
}

/// Digits only: `u32::from_str` alone would take a plus sign. What is too large for the type is more than any
/// cap, and capped later.
fn number(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| u32::from_str(text).unwrap_or(u32::MAX))
}

/// Fills the slot unless nobody could see the label.
fn label(slot: &mut Option<Box<str>>, text: String) -> Option<()> {
    match clean_label(text.into_boxed_str()).ok()? {
        Some(label) => set(slot, label),
        None => Some(()),
    }
}

/// What a plus sign stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plus {
    /// In a path.
    Itself,
    /// In a query, as forms and URLSearchParams write a blank.
    Blank,
}

/// Undoes percent-encoding; `None` when it is broken or hides something that is not UTF-8.
fn decode(value: &str, plus: Plus) -> Option<String> {
    let mut decoded = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    let hex = |digit: Option<u8>| char::from(digit?).to_digit(16);
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => (hex(bytes.next())? << 4 | hex(bytes.next())?) as u8,
            b'+' if plus == Plus::Blank => b' ',
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

/// Base64 of 16 bytes: 22 characters and two of padding.
fn is_key(key: &[u8]) -> bool {
    let is_base64 = |b: &u8| b.is_ascii_alphanumeric() || b"+/".contains(b);
    key.len() == 24 && key[..22].iter().all(is_base64) && key.ends_with(b"==")
}

fn values<'h>(headers: &'h [Header<'h>], name: &'h str) -> impl Iterator<Item = &'h [u8]> {
    let named = headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| header.value.trim_ascii())
}

/// The value of a header that may come once; `None` when it is absent or repeated.
fn only<'h>(headers: &'h [Header<'h>], name: &'h str) -> Option<&'h [u8]> {
    let mut values = values(headers, name);
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// The members of a comma-separated list that may be spread over several header lines.
fn tokens<'h>(headers: &'h [Header<'h>], name: &'h str) -> impl Iterator<Item = &'h [u8]> {
    let members = values(headers, name).flat_map(|value| value.split(|b| *b == b','));
    members.map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

fn has_token(headers: &[Header<'_>], name: &str, token: &str) -> bool {
    tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests;
