//! `uproar.json.v1`: one JSON object per text message.
//!
//! The order of the fields is that of PROTOCOL.md; an optional field that has no value is left
//! out. A comment's object is derived from its archive, never encoded from elsewhere.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::binary::read_archive;
use super::{Codec, CommandFault, Notice, Post, Reference, post, write_framed};
use crate::control::PostRefusal;
use crate::ids::{CommentId, Position};

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Frame<'a> {
    Welcome {
        event: &'a str,
        node: &'a str,
        #[serde(serialize_with = "as_text")]
        position: Position,
        head: u64,
        recovered: bool,
        viewers: u32,
    },
    Comment {
        offset: u64,
        #[serde(serialize_with = "as_text")]
        id: CommentId,
        time: u64,
        user: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<&'a str>,
        text: &'a str,
    },
    You {
        user: &'a str,
    },
    Ack {
        #[serde(
            rename = "ref",
            skip_serializing_if = "Option::is_none",
            serialize_with = "as_written"
        )]
        reference: Option<&'a Reference>,
        #[serde(serialize_with = "as_text")]
        id: CommentId,
        offset: u64,
    },
    Error {
        #[serde(
            rename = "ref",
            skip_serializing_if = "Option::is_none",
            serialize_with = "as_written"
        )]
        reference: Option<&'a Reference>,
        code: &'a str,
        message: &'a str,
    },
    Notice(NoticeFrame),
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum NoticeFrame {
    Gap { from: u64, to: u64 },
    Drain { delay_ms: u32 },
}

/// Any command. Each field is read by itself afterwards, so that a refusal can name `ref` whatever
/// is wrong with the others.
#[derive(Deserialize)]
struct Command<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, rename = "ref")]
    reference: Option<&'a RawValue>,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
}

/// Appends the whole WebSocket frame of a comment.
///
/// # Panics
/// If the archive is not a sound comment: those from outside are checked where they come in.
pub fn write_json_frame(archive: &[u8], offset: u64, out: &mut Vec<u8>) {
    write_framed(Codec::Json, out, |out| write_json_comment(archive, offset, out));
}

/// Appends the JSON object of a comment alone.
///
/// # Panics
/// If the archive is not a sound comment: those from outside are checked where they come in.
pub fn write_json_comment(archive: &[u8], offset: u64, out: &mut Vec<u8>) {
    let comment = read_archive(archive).expect("an archive of the log is sound");
    let frame = Frame::Comment {
        offset,
        id: comment.id,
        time: comment.time_ms,
        user: comment.user,
        name: comment.name,
        text: comment.text,
    };
    write(&frame, out);
}

pub(super) fn write_notice(notice: &Notice<'_>, out: &mut Vec<u8>) {
    let frame = match *notice {
        Notice::Welcome { event, node, start, head, recovered, viewers } => {
            Frame::Welcome { event, node, position: start, head, recovered, viewers }
        }
        Notice::You { user } => Frame::You { user },
        Notice::Ack { reference, id, offset } => Frame::Ack { reference, id, offset },
        Notice::Error { reference, refusal } => {
            Frame::Error { reference, code: refusal.code(), message: refusal.message() }
        }
        Notice::Gap { from, to } => Frame::Notice(NoticeFrame::Gap { from, to }),
        Notice::Drain { delay_ms } => Frame::Notice(NoticeFrame::Drain { delay_ms }),
    };
    write_framed(Codec::Json, out, |out| write(&frame, out));
}

pub(super) fn read_command(payload: &[u8]) -> Result<Post, CommandFault> {
    // serde would also take an array of the values for the object.
    if !payload.trim_ascii_start().starts_with(b"{") {
        return Err(CommandFault::nameless());
    }
    let Command { kind, reference, key, text } =
        serde_json::from_slice(payload).map_err(|_| CommandFault::nameless())?;
    let reference = match reference {
        Some(raw) => Some(self::reference(raw).ok_or_else(CommandFault::nameless)?),
        None => None,
    };
    let refused = |reference: Option<Reference>, refusal| {
        let reference = reference.and_then(Reference::within_limit);
        Err(CommandFault::Refused { reference, refusal })
    };
    if kind.and_then(string).as_deref() != Some("post") {
        return refused(reference, PostRefusal::BadCommand);
    }
    let (Some(text), None | Some(b'"')) = (text, key.map(first_byte)) else {
        return refused(reference, PostRefusal::BadCommand);
    };
    if first_byte(text) != b'"' {
        return refused(reference, PostRefusal::BadCommand);
    }
    // What is a string and cannot be read holds half a surrogate pair.
    match (string(text), key.map(string)) {
        (Some(text), None) => post(reference, None, text.into()),
        (Some(text), Some(Some(key))) => post(reference, Some(key.into()), text.into()),
        _ => refused(reference, PostRefusal::BadText),
    }
}

/// A `ref`: a string, or a number as it is written.
fn reference(raw: &RawValue) -> Option<Reference> {
    match first_byte(raw) {
        b'"' => string(raw).map(|text| Reference::Text(text.into())),
        b'-' | b'0'..=b'9' => Some(Reference::Number(raw.get().into())),
        _ => None,
    }
}

/// The string that `raw` is; none when it is something else, or holds half a surrogate pair.
fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str(raw.get()).ok().map(|Borrowed(text)| text)
}

/// What tells strings, numbers and the rest apart.
fn first_byte(raw: &RawValue) -> u8 {
    raw.get().as_bytes().first().copied().unwrap_or_default()
}

fn write(frame: &Frame<'_>, out: &mut Vec<u8>) {
    serde_json::to_writer(out, frame).expect("a Vec takes every byte");
}

fn as_text<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// A `ref` as its client wrote it: the same digits, whatever number they are.
fn as_written<S: Serializer>(
    reference: &Option<&Reference>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match reference {
        Some(Reference::Number(digits)) => {
            let raw: &RawValue = serde_json::from_str(digits).expect("it was read as a number");
            raw.serialize(serializer)
        }
        Some(Reference::Text(text)) => serializer.serialize_str(text),
        None => serializer.serialize_none(),
    }
}
