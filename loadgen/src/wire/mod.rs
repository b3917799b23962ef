//! What is said on the wire, read and written without the server's own encoder, so that each
//! run is an interoperability test too.
//!
//! A [`Dialect`] turns a payload into a [`Heard`] and a post into a payload. The usual frame,
//! a comment, is read by its prefix and its marker; one in [`CHECK_EVERY`] is read whole by a
//! real parser as well, and the two must agree.

pub(crate) mod frame;
pub(crate) mod generic;
mod json;
mod rkyv;
pub(crate) mod upgrade;

use tungstenite::protocol::frame::coding::OpCode;

pub(crate) use generic::Templates;

use crate::marker::{Marker, MarkerFinder};
use frame::{BINARY, TEXT, WireError};

/// One comment in this many is parsed whole and compared byte for byte.
const CHECK_EVERY: u32 = 64;

/// What a server's message means to a viewer.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    /// The stream starts after `start`, in `epoch`; `recovered` answers a resume.
    Welcome { epoch: u64, start: u64, head: u64, recovered: bool },
    /// A comment; the marker is absent when it is not of our making.
    Comment { offset: u64, marker: Option<Marker> },
    /// Our post is in the log.
    Ack { sequence: Option<u32>, offset: u64 },
    /// Our post was refused.
    Refused { sequence: Option<u32>, code: String },
    /// Offsets `from` to `to` were skipped, and announced.
    Gap { from: u64, to: u64 },
    /// The server will close this connection.
    Drain { delay_ms: u64 },
    /// A kind this tool does not know; clients must ignore those.
    Unknown,
}

/// How to talk to the server under test.
#[derive(Debug)]
pub(crate) enum Dialect {
    /// `uproar.json.v1`.
    Json,
    /// `uproar.rkyv.v1`.
    Rkyv,
    /// Any broadcast server, by templates.
    Generic(Templates),
}

/// Reads one plane's messages. Counts, so that every n-th comment is checked whole.
#[derive(Debug)]
pub(crate) struct Reader {
    finder: MarkerFinder,
    comment_bytes: usize,
    countdown: u32,
    /// Comments parsed whole.
    pub(crate) checked: u64,
}

impl Reader {
    pub(crate) fn new(comment_bytes: usize) -> Self {
        Self { finder: MarkerFinder::new(), comment_bytes, countdown: CHECK_EVERY, checked: 0 }
    }

    fn is_check_due(&mut self) -> bool {
        self.countdown -= 1;
        if self.countdown > 0 {
            return false;
        }
        self.countdown = CHECK_EVERY;
        self.checked += 1;
        true
    }

    /// Whether `text` is exactly what our publisher wrote under `marker`.
    fn is_own_text(&self, marker: Marker, text: &str) -> bool {
        let mut expected = Vec::with_capacity(self.comment_bytes);
        marker.write(self.comment_bytes, &mut expected);
        text.as_bytes() == expected
    }
}

impl Dialect {
    /// What a message of uproar's protocol says; a generic one is [`generic::read`].
    pub(crate) fn read(
        &self,
        reader: &mut Reader,
        opcode: OpCode,
        payload: &[u8],
    ) -> Result<Heard, WireError> {
        match self {
            Self::Json if opcode == TEXT => json::read(reader, payload),
            Self::Rkyv if opcode == BINARY => rkyv::read(reader, payload),
            _ => Err(WireError::Payload),
        }
    }

    /// Appends the payload that posts a comment of `text_bytes` to `event`, and says its opcode.
    pub(crate) fn post(
        &self,
        marker: Marker,
        text_bytes: usize,
        event: &str,
        out: &mut Vec<u8>,
    ) -> OpCode {
        match self {
            Self::Json => json::post(marker, text_bytes, out),
            Self::Rkyv => return rkyv::post(marker, text_bytes, out),
            Self::Generic(templates) => templates.post(marker, text_bytes, event, out),
        }
        TEXT
    }

    /// The subprotocol to offer, if any.
    pub(crate) fn subprotocol(&self) -> Option<&str> {
        match self {
            Self::Json => Some("uproar.json.v1"),
            Self::Rkyv => Some("uproar.rkyv.v1"),
            Self::Generic(templates) => templates.subprotocol.as_deref(),
        }
    }
}
