//! What a viewer writes and reads, by PROTOCOL.md alone: its own record definitions, its own
//! decoder. Nothing of the engine's codecs is used, so a wrong byte there is a failure here.

use std::io::Cursor;

use rkyv::rancor::Error;
use rkyv::{Archive, Serialize};
use serde_json::{Value, json};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// The envelope in front of every archive.
const ENVELOPE_BYTES: usize = 16;

#[derive(Archive)]
#[expect(dead_code, reason = "only the archived forms of what the node writes are read")]
struct CommentRecord {
    id: [u8; 16],
    origin: String,
    time: u64,
    user: String,
    name: Option<String>,
    text: String,
}

#[derive(Archive)]
#[expect(dead_code, reason = "only the archived forms of what the node writes are read")]
struct WelcomeRecord {
    event: String,
    node: String,
    epoch: u64,
    start: u64,
    head: u64,
    recovered: bool,
    viewers: u32,
}

#[derive(Archive)]
#[expect(dead_code, reason = "only the archived forms of what the node writes are read")]
struct AckRecord {
    reference: Option<String>,
    id: [u8; 16],
}

#[derive(Archive)]
#[expect(dead_code, reason = "only the archived forms of what the node writes are read")]
struct ErrorRecord {
    reference: Option<String>,
    code: String,
    message: String,
}

#[derive(Archive)]
#[expect(dead_code, reason = "only the archived forms of what the node writes are read")]
struct GapRecord {
    from: u64,
    to: u64,
}

#[derive(Archive)]
#[expect(dead_code, reason = "only the archived forms of what the node writes are read")]
struct DrainRecord {
    delay_ms: u32,
}

#[derive(Archive)]
#[expect(dead_code, reason = "only the archived forms of what the node writes are read")]
struct YouRecord {
    user: String,
    role: Option<String>,
    can: Vec<String>,
    expires_ms: Option<u64>,
}

#[derive(Archive, Serialize)]
struct PostRecord {
    reference: Option<String>,
    key: Option<String>,
    text: String,
}

/// A comment as a viewer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) id: u128,
    pub(crate) time: u64,
    pub(crate) user: String,
    pub(crate) name: Option<String>,
    pub(crate) text: String,
}

/// One frame from the node.
#[derive(Debug)]
pub(crate) enum Frame {
    Comment { offset: u64, seen: Seen },
    Welcome { event: String, epoch: u64, start: u64, head: u64, recovered: bool, viewers: u32 },
    You { user: String },
    Ack { reference: Option<String>, id: u128, offset: u64 },
    Error { reference: Option<String>, code: String },
    Gap { from: u64, to: u64 },
    Drain,
    Ping(Vec<u8>),
    Pong,
    Close(u16),
}

/// Cuts the first whole frame off `bytes`; `None` while it is incomplete.
pub(crate) fn next_frame(bytes: &[u8], is_binary: bool) -> Option<(Frame, usize)> {
    let mut cursor = Cursor::new(bytes);
    let (header, len) = FrameHeader::parse(&mut cursor).expect("a sound frame header")?;
    let start = cursor.position() as usize;
    let payload = bytes.get(start..start + len as usize)?;
    assert!(header.is_final && !header.rsv1 && !header.rsv2 && !header.rsv3, "{header:?}");
    assert!(header.mask.is_none(), "a server frame is not masked");
    let frame = match header.opcode {
        OpCode::Control(Control::Ping) => Frame::Ping(payload.to_vec()),
        OpCode::Control(Control::Pong) => Frame::Pong,
        OpCode::Control(Control::Close) => {
            Frame::Close(u16::from_be_bytes([payload[0], payload[1]]))
        }
        OpCode::Data(Data::Text) if !is_binary => read_json(payload),
        OpCode::Data(Data::Binary) if is_binary => read_binary(payload),
        opcode => panic!("an unexpected frame {opcode:?}"),
    };
    Some((frame, start + payload.len()))
}

/// The JSON comment object that a viewer gets and a REST page holds.
pub(crate) fn comment_of(value: &Value) -> (u64, Seen) {
    let seen = Seen {
        id: u128::from_str_radix(&text(value, "id").replace('-', ""), 16).expect("a UUID"),
        time: number(value, "time"),
        user: text(value, "user"),
        name: optional(value, "name"),
        text: text(value, "text"),
    };
    (number(value, "offset"), seen)
}

/// `{epoch}-{offset}`, taken apart.
pub(crate) fn position_of(position: &str) -> (u64, u64) {
    let (epoch, offset) = position.split_once('-').expect("a position has a dash");
    let epoch = u64::from_str_radix(epoch, 16).expect("an epoch is hex");
    (epoch, offset.parse().expect("an offset is a number"))
}

/// A client frame: masked, in one piece.
pub(crate) fn client_frame(opcode: OpCode, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let header = FrameHeader { opcode, mask: Some(mask), ..FrameHeader::default() };
    let mut out = Vec::new();
    header.format(payload.len() as u64, &mut out).expect("a Vec takes every byte");
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// A post command in the viewer's subprotocol.
pub(crate) fn post(
    is_binary: bool,
    reference: Option<&str>,
    key: Option<&str>,
    text: &str,
    mask: [u8; 4],
) -> Vec<u8> {
    if !is_binary {
        let mut command = json!({"type": "post", "text": text});
        if let Some(reference) = reference {
            command["ref"] = reference.into();
        }
        if let Some(key) = key {
            command["key"] = key.into();
        }
        return client_frame(OpCode::Data(Data::Text), command.to_string().as_bytes(), mask);
    }
    let record = PostRecord {
        reference: reference.map(String::from),
        key: key.map(String::from),
        text: text.into(),
    };
    let archive = rkyv::to_bytes::<Error>(&record).expect("a post can be archived");
    let mut payload = vec![1, 16, 0, 0];
    payload.extend((archive.len() as u32).to_le_bytes());
    payload.extend([0; 8]);
    payload.extend(&archive[..]);
    client_frame(OpCode::Data(Data::Binary), &payload, mask)
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("no text {field} in {value}")).into()
}

fn optional(value: &Value, field: &str) -> Option<String> {
    value.get(field).map(|value| value.as_str().expect("an optional field is text").into())
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("no number {field} in {value}"))
}

fn read_json(payload: &[u8]) -> Frame {
    let value: Value = serde_json::from_slice(payload).expect("a frame is one JSON object");
    match text(&value, "type").as_str() {
        "comment" => {
            let (offset, seen) = comment_of(&value);
            Frame::Comment { offset, seen }
        }
        "welcome" => {
            let (epoch, start) = position_of(&text(&value, "position"));
            Frame::Welcome {
                event: text(&value, "event"),
                epoch,
                start,
                head: number(&value, "head"),
                recovered: value["recovered"].as_bool().expect("recovered is a boolean"),
                viewers: number(&value, "viewers") as u32,
            }
        }
        "you" => Frame::You { user: text(&value, "user") },
        "ack" => {
            let id = u128::from_str_radix(&text(&value, "id").replace('-', ""), 16);
            Frame::Ack {
                reference: optional(&value, "ref"),
                id: id.expect("a UUID"),
                offset: number(&value, "offset"),
            }
        }
        "error" => Frame::Error { reference: optional(&value, "ref"), code: text(&value, "code") },
        "notice" => match text(&value, "kind").as_str() {
            "gap" => Frame::Gap { from: number(&value, "from"), to: number(&value, "to") },
            "drain" => {
                let _ = number(&value, "delay_ms");
                Frame::Drain
            }
            kind => panic!("a notice of kind {kind}"),
        },
        kind => panic!("a frame of type {kind}"),
    }
}

fn read_binary(payload: &[u8]) -> Frame {
    let (envelope, archive) = payload.split_at(ENVELOPE_BYTES);
    assert_eq!((envelope[0], &envelope[2..4]), (1, &[0, 0][..]), "version and flags");
    let len = u32::from_le_bytes(envelope[4..8].try_into().expect("four bytes"));
    assert_eq!(len as usize, archive.len(), "the envelope knows the archive's length");
    let offset = u64::from_le_bytes(envelope[8..].try_into().expect("eight bytes"));
    let bad = "a sound archive";
    match envelope[1] {
        1 => {
            let record = rkyv::access::<ArchivedCommentRecord, Error>(archive).expect(bad);
            assert_eq!(&*record.origin, super::NODE);
            let seen = Seen {
                id: u128::from_be_bytes(record.id),
                time: record.time.to_native(),
                user: record.user.to_string(),
                name: record.name.as_ref().map(ToString::to_string),
                text: record.text.to_string(),
            };
            Frame::Comment { offset, seen }
        }
        2 => {
            let record = rkyv::access::<ArchivedWelcomeRecord, Error>(archive).expect(bad);
            assert_eq!(&*record.node, super::NODE);
            Frame::Welcome {
                event: record.event.to_string(),
                epoch: record.epoch.to_native(),
                start: record.start.to_native(),
                head: record.head.to_native(),
                recovered: record.recovered,
                viewers: record.viewers.to_native(),
            }
        }
        3 => {
            let record = rkyv::access::<ArchivedAckRecord, Error>(archive).expect(bad);
            let reference = record.reference.as_ref().map(ToString::to_string);
            Frame::Ack { reference, id: u128::from_be_bytes(record.id), offset }
        }
        4 => {
            let record = rkyv::access::<ArchivedErrorRecord, Error>(archive).expect(bad);
            assert!(!record.message.is_empty());
            let reference = record.reference.as_ref().map(ToString::to_string);
            Frame::Error { reference, code: record.code.to_string() }
        }
        5 => {
            let record = rkyv::access::<ArchivedGapRecord, Error>(archive).expect(bad);
            Frame::Gap { from: record.from.to_native(), to: record.to.to_native() }
        }
        6 => {
            let record = rkyv::access::<ArchivedDrainRecord, Error>(archive).expect(bad);
            let _ = record.delay_ms.to_native();
            Frame::Drain
        }
        7 => {
            let record = rkyv::access::<ArchivedYouRecord, Error>(archive).expect(bad);
            let has_more = record.role.is_some() || record.expires_ms.is_some();
            assert!(!has_more && record.can.is_empty(), "a guest has an id and nothing else");
            Frame::You { user: record.user.to_string() }
        }
        kind => panic!("a record of kind {kind}"),
    }
}
