//! `uproar.json.v1`: one JSON object per text message.
//!
//! The order of the fields is that of PROTOCOL.md; an optional field that has no value is left
//! out. A comment's object is derived from its archive, never encoded from elsewhere.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use super::binary::read_archive;
use super::{Codec, CommandFault, Notice, Post, post, write_framed};
use crate::control::PostRefusal;
use crate::ids::{CommentId, Position};
use crate::limits::LABEL_BYTES_MAX;

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
    Ack {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
        #[serde(serialize_with = "as_text")]
        id: CommentId,
        offset: u64,
    },
    Error {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
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

/// Any command; what its kind requires is checked afterwards, so that a refusal can name `ref`.
#[derive(Deserialize)]
struct Command<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(rename = "ref")]
    reference: Option<Box<str>>,
    key: Option<Box<str>>,
    text: Option<Box<str>>,
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
    let command: Command<'_> =
        serde_json::from_slice(payload).map_err(|_| CommandFault::nameless())?;
    match (&*command.kind, command.text) {
        ("post", Some(text)) => post(command.reference, command.key, text),
        _ => Err(CommandFault::Refused {
            reference: command.reference.filter(|label| label.len() <= LABEL_BYTES_MAX),
            refusal: PostRefusal::BadCommand,
        }),
    }
}

fn write(frame: &Frame<'_>, out: &mut Vec<u8>) {
    serde_json::to_writer(out, frame).expect("a Vec takes every byte");
}

fn as_text<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
