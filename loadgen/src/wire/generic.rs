//! Any other broadcast server: a path, an optional hello and a publish message, as templates.
//!
//! There is no welcome, ack or offset to rely on. With one publisher an event its sequence
//! takes the offset's place, so order, holes and duplicates are verified all the same.

use super::{Heard, Reader};
use crate::marker::Marker;

/// The templates; `{event}`, `{marker}` and `{sequence}` are replaced.
#[derive(Clone, Debug)]
pub(crate) struct Templates {
    /// The request target of the upgrade, for example `/ws?room={event}`.
    pub(crate) path: String,
    /// A text message to send after the 101, if the server wants one.
    pub(crate) hello: Option<String>,
    /// The text message that publishes a comment.
    pub(crate) publish: String,
    /// The subprotocol to offer.
    pub(crate) subprotocol: Option<String>,
}

impl Templates {
    /// The message to send after the 101.
    pub(crate) fn hello(&self, event: &str) -> Option<String> {
        self.hello.as_ref().map(|hello| hello.replace("{event}", event))
    }

    pub(super) fn post(&self, marker: Marker, text_bytes: usize, event: &str, out: &mut Vec<u8>) {
        let mut text = Vec::with_capacity(text_bytes);
        marker.write(text_bytes, &mut text);
        let text = String::from_utf8(text).expect("markers are ASCII");
        let message = self
            .publish
            .replace("{event}", event)
            .replace("{sequence}", &marker.sequence.to_string())
            .replace("{marker}", &text);
        out.extend_from_slice(message.as_bytes());
    }
}

/// A payload with a marker is a comment whose offset is its sequence plus one.
pub(super) fn read(reader: &Reader, payload: &[u8]) -> Heard {
    match reader.finder.find(payload) {
        Some(marker) => {
            Heard::Comment { offset: u64::from(marker.sequence) + 1, marker: Some(marker) }
        }
        None => Heard::Unknown,
    }
}
