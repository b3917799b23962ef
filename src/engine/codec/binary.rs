//! `uproar.rkyv.v1`: a fixed envelope, then an rkyv archive.
//!
//! ```text
//! | version | kind | flags u16 | archive length u32 | offset u64 | archive, root at its end |
//! ```
//!
//! The records mirror PROTOCOL.md field by field: their order is the format. They borrow, so
//! archiving copies each text once, into the frame. With `unaligned` an archive is valid at any
//! address. Archives from outside are checked before a field is read; our own are too, because
//! it costs little and one of them may have crossed the bus.

use std::borrow::Cow;
use std::io::Cursor;

use rkyv::rancor::{Failure, Panic, Strategy};
use rkyv::with::{AsOwned, Map};
use rkyv::{Archive, Serialize};
use tungstenite::protocol::frame::FrameHeader;

use super::{Codec, CommandFault, Comment, Notice, Post, Reference, post, write_framed};
use crate::ids::CommentId;
use crate::ws::writer;

/// The format this node writes, and the only one it reads.
const FORMAT_VERSION: u8 = 1;
const ENVELOPE_BYTES: usize = 16;

/// The envelope's second byte. Numbers are for ever; clients skip those they do not know.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    Comment = 1,
    Welcome = 2,
    Ack = 3,
    Error = 4,
    Gap = 5,
    Drain = 6,
    You = 7,
    Post = 16,
}

#[derive(Archive, Serialize)]
struct CommentRecord<'a> {
    id: [u8; 16],
    #[rkyv(with = AsOwned)]
    origin: Cow<'a, str>,
    time: u64,
    #[rkyv(with = AsOwned)]
    user: Cow<'a, str>,
    #[rkyv(with = Map<AsOwned>)]
    name: Option<Cow<'a, str>>,
    #[rkyv(with = AsOwned)]
    text: Cow<'a, str>,
}

#[derive(Archive, Serialize)]
struct WelcomeRecord<'a> {
    #[rkyv(with = AsOwned)]
    event: Cow<'a, str>,
    #[rkyv(with = AsOwned)]
    node: Cow<'a, str>,
    epoch: u64,
    start: u64,
    head: u64,
    recovered: bool,
    viewers: u32,
}

#[derive(Archive, Serialize)]
struct AckRecord<'a> {
    #[rkyv(with = Map<AsOwned>)]
    reference: Option<Cow<'a, str>>,
    id: [u8; 16],
}

#[derive(Archive, Serialize)]
struct ErrorRecord<'a> {
    #[rkyv(with = Map<AsOwned>)]
    reference: Option<Cow<'a, str>>,
    #[rkyv(with = AsOwned)]
    code: Cow<'a, str>,
    #[rkyv(with = AsOwned)]
    message: Cow<'a, str>,
}

#[derive(Archive, Serialize)]
struct GapRecord {
    from: u64,
    to: u64,
}

#[derive(Archive, Serialize)]
struct DrainRecord {
    delay_ms: u32,
}

#[derive(Archive, Serialize)]
struct YouRecord<'a> {
    #[rkyv(with = AsOwned)]
    user: Cow<'a, str>,
    #[rkyv(with = Map<AsOwned>)]
    role: Option<Cow<'a, str>>,
    #[rkyv(with = Map<AsOwned>)]
    can: Vec<Cow<'a, str>>,
    expires_ms: Option<u64>,
}

#[derive(Archive)]
#[expect(dead_code, reason = "clients write posts; only the archived form is read here")]
struct PostRecord {
    reference: Option<String>,
    key: Option<String>,
    text: String,
}

/// Appends a comment's archive alone: what a room's log keeps and the bus carries.
pub fn write_archive(comment: &Comment<'_>, out: &mut Vec<u8>) {
    archive(
        &CommentRecord {
            id: comment.id.0,
            origin: comment.origin.into(),
            time: comment.time_ms,
            user: comment.user.into(),
            name: comment.name.map(Cow::from),
            text: comment.text.into(),
        },
        out,
    );
}

/// Reads a comment's archive, from wherever it came; `None` when it is not a sound one.
#[must_use]
pub fn read_archive(archive: &[u8]) -> Option<Comment<'_>> {
    let record = rkyv::access::<ArchivedCommentRecord<'_>, Failure>(archive).ok()?;
    Some(Comment {
        id: CommentId(record.id),
        origin: &record.origin,
        time_ms: record.time.to_native(),
        user: &record.user,
        name: record.name.as_deref(),
        text: &record.text,
    })
}

/// Appends the whole WebSocket frame around a comment's archive.
pub fn write_binary_frame(archive: &[u8], offset: u64, out: &mut Vec<u8>) {
    writer::header(out, Codec::Binary.opcode(), ENVELOPE_BYTES + archive.len());
    out.extend_from_slice(&envelope(Kind::Comment, archive.len(), offset));
    out.extend_from_slice(archive);
}

/// The archive inside a frame that [`write_binary_frame`] wrote.
///
/// # Panics
/// If this process did not write the frame.
#[must_use]
pub fn archive_of_frame(frame: &[u8]) -> &[u8] {
    let mut cursor = Cursor::new(frame);
    let header = FrameHeader::parse(&mut cursor).ok().flatten();
    let (_, payload_len) = header.expect("a frame of the log starts with a whole header");
    let payload = &frame[cursor.position() as usize..];
    assert_eq!(payload.len() as u64, payload_len, "a frame of the log is whole");
    &payload[ENVELOPE_BYTES..]
}

pub(super) fn write_notice(notice: &Notice<'_>, out: &mut Vec<u8>) {
    match *notice {
        Notice::Welcome { event, node, start, head, recovered, viewers } => {
            let record = WelcomeRecord {
                event: event.into(),
                node: node.into(),
                epoch: start.epoch,
                start: start.offset,
                head,
                recovered,
                viewers,
            };
            write_record(Kind::Welcome, 0, &record, out);
        }
        Notice::You { user } => {
            let record = YouRecord { user: user.into(), role: None, can: vec![], expires_ms: None };
            // A list needs more than a buffer to be archived into.
            let archive = rkyv::to_bytes::<Panic>(&record).expect("memory takes every byte");
            write_enveloped(Kind::You, 0, out, |out| out.extend_from_slice(&archive));
        }
        Notice::Ack { reference, id, offset } => {
            let record = AckRecord { reference: echoed(reference), id: id.0 };
            write_record(Kind::Ack, offset, &record, out);
        }
        Notice::Error { reference, refusal } => {
            let record = ErrorRecord {
                reference: echoed(reference),
                code: refusal.code().into(),
                message: refusal.message().into(),
            };
            write_record(Kind::Error, 0, &record, out);
        }
        Notice::Gap { from, to } => write_record(Kind::Gap, 0, &GapRecord { from, to }, out),
        Notice::Drain { delay_ms } => {
            write_record(Kind::Drain, 0, &DrainRecord { delay_ms }, out);
        }
    }
}

pub(super) fn read_command(payload: &[u8]) -> Result<Post, CommandFault> {
    match payload.first() {
        None => return Err(CommandFault::nameless()),
        Some(&FORMAT_VERSION) => {}
        Some(_) => return Err(CommandFault::UnknownVersion),
    }
    let Some((envelope, archive)) = payload.split_first_chunk::<ENVELOPE_BYTES>() else {
        return Err(CommandFault::nameless());
    };
    let [_, kind, _, _, len @ .., _, _, _, _, _, _, _, _] = envelope;
    if *kind != Kind::Post as u8 || u32::from_le_bytes(*len) as usize != archive.len() {
        return Err(CommandFault::nameless());
    }
    let record = rkyv::access::<ArchivedPostRecord, Failure>(archive)
        .map_err(|_| CommandFault::nameless())?;
    let reference = record.reference.as_deref().map(|text| Reference::Text(text.into()));
    post(reference, record.key.as_deref().map(Box::from), Box::from(&*record.text))
}

/// A client of this form has sent no number; a `ref` is text.
fn echoed(reference: Option<&Reference>) -> Option<Cow<'_, str>> {
    reference.map(|reference| reference.as_str().into())
}

/// Appends a whole WebSocket frame with one record in it.
fn write_record<R>(kind: Kind, offset: u64, record: &R, out: &mut Vec<u8>)
where
    R: Serialize<Strategy<Vec<u8>, Panic>>,
{
    write_enveloped(kind, offset, out, |out| archive(record, out));
}

/// Appends a whole WebSocket frame whose archive `write` appends.
fn write_enveloped(kind: Kind, offset: u64, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    write_framed(Codec::Binary, out, |out| {
        let start = out.len();
        out.extend_from_slice(&[0; ENVELOPE_BYTES]);
        write(out);
        let archive_len = out.len() - start - ENVELOPE_BYTES;
        out[start..start + ENVELOPE_BYTES].copy_from_slice(&envelope(kind, archive_len, offset));
    });
}

fn archive<R>(record: &R, out: &mut Vec<u8>)
where
    R: Serialize<Strategy<Vec<u8>, Panic>>,
{
    let written = rkyv::api::serialize_using::<Vec<u8>, Panic>(record, out);
    written.expect("a Vec takes every byte");
}

fn envelope(kind: Kind, archive_len: usize, offset: u64) -> [u8; ENVELOPE_BYTES] {
    let archive_len = u32::try_from(archive_len).expect("an archive is far below 4 GiB");
    let mut envelope = [0; ENVELOPE_BYTES];
    envelope[0] = FORMAT_VERSION;
    envelope[1] = kind as u8;
    envelope[4..8].copy_from_slice(&archive_len.to_le_bytes());
    envelope[8..].copy_from_slice(&offset.to_le_bytes());
    envelope
}
