//! The binary form, `uproar.rkyv.v1`: its own struct definitions, written from PROTOCOL.md.

use rkyv::rancor::Error;
use rkyv::{Archive, Deserialize, Serialize};
use tungstenite::protocol::frame::coding::OpCode;

use super::frame::{BINARY, WireError};
use super::{Heard, Reader};
use crate::marker::Marker;

const FORMAT_VERSION: u8 = 1;
const ENVELOPE_BYTES: usize = 16;
const KIND_POST: u8 = 16;

#[derive(Archive, Serialize, Deserialize)]
struct Comment {
    id: [u8; 16],
    origin: String,
    time: u64,
    user: String,
    name: Option<String>,
    text: String,
}

#[derive(Archive, Serialize, Deserialize)]
struct Welcome {
    event: String,
    node: String,
    epoch: u64,
    start: u64,
    head: u64,
    recovered: bool,
    viewers: u32,
}

#[derive(Archive, Serialize, Deserialize)]
struct Ack {
    reference: Option<String>,
    id: [u8; 16],
}

#[derive(Archive, Serialize, Deserialize)]
struct Refusal {
    reference: Option<String>,
    code: String,
    message: String,
}

#[derive(Archive, Serialize, Deserialize)]
struct Gap {
    from: u64,
    to: u64,
}

#[derive(Archive, Serialize, Deserialize)]
struct Drain {
    delay_ms: u32,
}

#[derive(Archive, Serialize, Deserialize)]
struct Post {
    reference: Option<String>,
    key: Option<String>,
    text: String,
}

/// The checked root of an archive of type `$archived`.
macro_rules! root {
    ($archived:ty, $bytes:expr) => {
        rkyv::access::<$archived, Error>($bytes).map_err(|_| WireError::Payload)?
    };
}

pub(super) fn read(reader: &mut Reader, payload: &[u8]) -> Result<Heard, WireError> {
    let (envelope, archive) =
        payload.split_first_chunk::<ENVELOPE_BYTES>().ok_or(WireError::Payload)?;
    let archive_bytes = u32::from_le_bytes([envelope[4], envelope[5], envelope[6], envelope[7]]);
    if envelope[0] != FORMAT_VERSION || archive_bytes as usize != archive.len() {
        return Err(WireError::Payload);
    }
    let offset = u64::from_le_bytes(std::array::from_fn(|i| envelope[8 + i]));
    Ok(match envelope[1] {
        1 => {
            let marker = reader.finder.find(archive);
            if reader.is_check_due() {
                check_comment(reader, archive, marker)?;
            }
            Heard::Comment { offset, marker }
        }
        2 => {
            let welcome = root!(ArchivedWelcome, archive);
            Heard::Welcome {
                epoch: welcome.epoch.to_native(),
                start: welcome.start.to_native(),
                head: welcome.head.to_native(),
                recovered: welcome.recovered,
            }
        }
        3 => {
            let ack = root!(ArchivedAck, archive);
            let reference = ack.reference.as_ref();
            Heard::Ack { sequence: reference.and_then(|text| text.parse().ok()), offset }
        }
        4 => {
            let refusal = root!(ArchivedRefusal, archive);
            let sequence = refusal.reference.as_ref().and_then(|text| text.parse().ok());
            Heard::Refused { sequence, code: refusal.code.to_string() }
        }
        5 => {
            let gap = root!(ArchivedGap, archive);
            Heard::Gap { from: gap.from.to_native(), to: gap.to.to_native() }
        }
        6 => {
            Heard::Drain { delay_ms: u64::from(root!(ArchivedDrain, archive).delay_ms.to_native()) }
        }
        _ => Heard::Unknown,
    })
}

/// Reads a comment by rkyv's checked access; its text must be the one its marker calls for.
fn check_comment(reader: &Reader, archive: &[u8], marker: Option<Marker>) -> Result<(), WireError> {
    let comment = root!(ArchivedComment, archive);
    let in_text = reader.finder.find(comment.text.as_bytes());
    let is_damaged = in_text.is_some_and(|marker| !reader.is_own_text(marker, &comment.text));
    if in_text != marker || is_damaged || comment.time == 0 || comment.user.is_empty() {
        return Err(WireError::Payload);
    }
    Ok(())
}

pub(super) fn post(marker: Marker, text_bytes: usize, out: &mut Vec<u8>) -> OpCode {
    let mut text = Vec::with_capacity(text_bytes);
    marker.write(text_bytes, &mut text);
    let text = String::from_utf8(text).expect("markers are ASCII");
    let post = Post { reference: Some(marker.sequence.to_string()), key: None, text };
    let archive = rkyv::to_bytes::<Error>(&post).expect("a post of bounded size serializes");
    out.extend_from_slice(&[FORMAT_VERSION, KIND_POST, 0, 0]);
    out.extend_from_slice(&(archive.len() as u32).to_le_bytes());
    out.extend_from_slice(&0u64.to_le_bytes());
    out.extend_from_slice(&archive);
    BINARY
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enveloped(kind: u8, offset: u64, archive: &[u8]) -> Vec<u8> {
        let mut frame = vec![1, kind, 0, 0];
        frame.extend_from_slice(&(archive.len() as u32).to_le_bytes());
        frame.extend_from_slice(&offset.to_le_bytes());
        frame.extend_from_slice(archive);
        frame
    }

    #[test]
    fn comments_are_found_by_marker_and_checked_whole_now_and_then() {
        let marker = Marker { run: 1, publisher: 2, sequence: 3, due_ns: 4 };
        let mut text = Vec::new();
        marker.write(100, &mut text);
        let mut comment = Comment {
            id: [7; 16],
            origin: "n1".into(),
            time: 5,
            user: "u".into(),
            name: None,
            text: String::from_utf8(text).unwrap(),
        };
        let good = enveloped(1, 12, &rkyv::to_bytes::<Error>(&comment).unwrap());
        let mut reader = Reader::new(100);
        for _ in 0..128 {
            let heard = read(&mut reader, &good);
            assert_eq!(heard, Ok(Heard::Comment { offset: 12, marker: Some(marker) }));
        }
        assert_eq!(reader.checked, 2);
        comment.text.pop();
        let short = enveloped(1, 12, &rkyv::to_bytes::<Error>(&comment).unwrap());
        assert_eq!((0..64).filter(|_| read(&mut reader, &short).is_err()).count(), 1);
    }

    #[test]
    fn wrong_versions_and_cut_archives_are_refused() {
        let mut reader = Reader::new(100);
        let gap = enveloped(5, 0, &rkyv::to_bytes::<Error>(&Gap { from: 3, to: 9 }).unwrap());
        assert_eq!(read(&mut reader, &gap), Ok(Heard::Gap { from: 3, to: 9 }));
        assert_eq!(read(&mut reader, &gap[..gap.len() - 1]), Err(WireError::Payload));
        let mut future = gap;
        future[0] = 2;
        assert_eq!(read(&mut reader, &future), Err(WireError::Payload));
        // `you`, and what may come later.
        for kind in [7, 8, 99] {
            assert_eq!(read(&mut reader, &enveloped(kind, 0, b"?")), Ok(Heard::Unknown));
        }
    }
}
