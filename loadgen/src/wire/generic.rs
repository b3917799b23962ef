//! Any other broadcast server: a path, an optional hello and a publish message, as templates.
//!
//! There is no welcome, ack or offset to rely on. With one publisher an event its sequence
//! takes the offset's place, so order, holes and duplicates are verified all the same. A message
//! may hold any number of publications, as many servers gather what is due.

use super::Reader;
use super::frame::WireError;
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

/// Appends the markers of all publications in `payload` to `found`; a sampled one must be ours byte for byte.
pub(crate) fn read(
    reader: &mut Reader,
    payload: &[u8],
    found: &mut Vec<Marker>,
) -> Result<(), WireError> {
    let mut rest = payload;
    while let Some((at, marker)) = reader.finder.find_at(rest) {
        found.push(marker);
        let text = &rest[at..];
        if reader.is_check_due() {
            let text = text.get(..reader.comment_bytes).ok_or(WireError::Payload)?;
            let text = std::str::from_utf8(text).map_err(|_| WireError::Payload)?;
            if !reader.is_own_text(marker, text) {
                return Err(WireError::Payload);
            }
        }
        rest = &text[crate::marker::MARKER_BYTES..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(sequence: u32) -> Marker {
        Marker { run: 1, publisher: 2, sequence, due_ns: 4 }
    }

    #[test]
    fn every_publication_of_a_message_is_found() {
        let mut payload = b"[{\"say\":\"".to_vec();
        marker(5).write(60, &mut payload);
        payload.extend_from_slice(b"\"},{\"say\":\"");
        marker(6).write(60, &mut payload);
        payload.extend_from_slice(b"\"}]");
        let (mut reader, mut found) = (Reader::new(60), Vec::new());
        for _ in 0..64 {
            found.clear();
            assert_eq!(read(&mut reader, &payload, &mut found), Ok(()));
            assert_eq!(found, [marker(5), marker(6)]);
        }
        assert_eq!(reader.checked, 2);
        let at = payload.len() - 5;
        payload[at] = b'!';
        let damaged = (0..64).filter(|_| read(&mut reader, &payload, &mut found).is_err()).count();
        assert_eq!(damaged, 2, "the sampled check reads the padding too");
        found.clear();
        assert_eq!((read(&mut reader, b"hello", &mut found), found.len()), (Ok(()), 0));
    }
}
