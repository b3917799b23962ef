//! What frames and commands look like on the wire, in each codec.
//!
//! The binary form is canonical: a comment is archived once, and its JSON frame is derived from
//! the archive, so both codecs say the same by construction. The archive holds nothing that
//! belongs to one node; offset and kind stand in the envelope around it.
//!
//! Not here: WebSocket frames from clients (`ws`), who may post what and how often (sessions).

mod binary;
mod json;
mod text;

use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::control::PostRefusal;
use crate::ids::{CommentId, Position};
use crate::limits::LABEL_BYTES_MAX;
use crate::ws::writer;

pub use binary::{archive_of_frame, read_archive, write_archive, write_binary_frame};
pub use json::{write_json_comment, write_json_frame};
pub use text::{check_key, clean_label, clean_text};

/// How a room's frames are encoded for a class of subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// rkyv archives in binary messages.
    Binary,
    /// JSON objects in text messages.
    Json,
}

impl Codec {
    /// All codecs, in the order of [`Codec::index`].
    pub const ALL: [Self; 2] = [Self::Binary, Self::Json];

    /// The place in [`Codec::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The name clients negotiate it by.
    #[must_use]
    pub fn subprotocol(self) -> &'static str {
        match self {
            Self::Binary => "uproar.rkyv.v1",
            Self::Json => "uproar.json.v1",
        }
    }

    /// The codec of that name.
    #[must_use]
    pub fn from_subprotocol(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.subprotocol() == name)
    }

    fn opcode(self) -> OpCode {
        OpCode::Data(match self {
            Self::Binary => Data::Binary,
            Self::Json => Data::Text,
        })
    }
}

/// A comment on its way into the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comment<'a> {
    /// Its identity across nodes.
    pub id: CommentId,
    /// The node that first accepted it.
    pub origin: &'a str,
    /// The home shard's wall clock, in Unix milliseconds.
    pub time_ms: u64,
    /// Who wrote it.
    pub user: &'a str,
    /// The name to show.
    pub name: Option<&'a str>,
    /// What was written.
    pub text: &'a str,
}

/// A frame for one connection only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice<'a> {
    /// The first frame of every stream.
    Welcome {
        /// The event watched.
        event: &'a str,
        /// The name of this node.
        node: &'a str,
        /// Where the stream starts.
        start: Position,
        /// The newest offset at this moment.
        head: u64,
        /// Whether everything since the position asked for is still here.
        recovered: bool,
        /// Connections watching the event on this node.
        viewers: u32,
    },
    /// The node has made a user id for whoever posts over this connection.
    You {
        /// The id.
        user: &'a str,
    },
    /// A post is in the log.
    Ack {
        /// The post's `ref`.
        reference: Option<&'a Reference>,
        /// The comment's id.
        id: CommentId,
        /// The comment's offset.
        offset: u64,
    },
    /// A command was refused.
    Error {
        /// The command's `ref`.
        reference: Option<&'a Reference>,
        /// Why.
        refusal: PostRefusal,
    },
    /// The comments `from` to `to`, both included, were skipped.
    Gap {
        /// The first skipped offset.
        from: u64,
        /// The last skipped offset.
        to: u64,
    },
    /// This connection will be closed.
    Drain {
        /// In how many milliseconds.
        delay_ms: u32,
    },
}

/// What a client calls a command, echoed in the answer; at most `LABEL_BYTES_MAX` bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A string.
    Text(Box<str>),
    /// A number of JSON, as it was written: it may have more digits than any type of ours. The
    /// binary form has no such thing, and a connection is answered in the form it spoke.
    Number(Box<str>),
}

impl Reference {
    /// Its characters, whichever it is.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Text(text) | Self::Number(text) => text,
        }
    }

    /// None when it is too long to be echoed.
    fn within_limit(self) -> Option<Self> {
        (self.as_str().len() <= LABEL_BYTES_MAX).then_some(self)
    }
}

/// A post as a client wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// Echoed in the answer.
    pub reference: Option<Reference>,
    /// Makes a retry safe; sound by [`check_key`].
    pub key: Option<Box<str>>,
    /// What was written, not checked yet: see [`clean_text`].
    pub text: Box<str>,
}

/// Why a command is not a [`Post`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandFault {
    /// Answered with an `error` frame; the connection stays.
    Refused {
        /// The command's `ref`, where it could be read.
        reference: Option<Reference>,
        /// Why.
        refusal: PostRefusal,
    },
    /// The binary format version is unknown: close with 1003.
    UnknownVersion,
}

impl CommandFault {
    /// A command that cannot be understood and has no `ref` to answer to.
    fn nameless() -> Self {
        Self::Refused { reference: None, refusal: PostRefusal::BadCommand }
    }
}

/// Appends a notice as a whole WebSocket frame.
pub fn write_notice(codec: Codec, notice: &Notice<'_>, out: &mut Vec<u8>) {
    match codec {
        Codec::Binary => binary::write_notice(notice, out),
        Codec::Json => json::write_notice(notice, out),
    }
}

/// Reads a message of the kind that `codec` uses.
///
/// # Errors
/// [`CommandFault`] says how it is answered.
pub fn read_command(codec: Codec, payload: &[u8]) -> Result<Post, CommandFault> {
    match codec {
        Codec::Binary => binary::read_command(payload),
        Codec::Json => json::read_command(payload),
    }
}

/// Puts a post together; a label over its limit is refused, and only a sound `ref` is echoed.
fn post(
    reference: Option<Reference>,
    key: Option<Box<str>>,
    text: Box<str>,
) -> Result<Post, CommandFault> {
    let refused = |reference| CommandFault::Refused { reference, refusal: PostRefusal::BadText };
    let is_named = reference.is_some();
    let reference = reference.and_then(Reference::within_limit);
    if is_named && reference.is_none() {
        return Err(refused(None));
    }
    if key.as_ref().is_some_and(|key| check_key(key).is_err()) {
        return Err(refused(reference));
    }
    Ok(Post { reference, key, text })
}

/// Appends a frame whose payload `write` appends; the header, whose size depends on the
/// payload's, is written behind it and rotated to the front.
fn write_framed(codec: Codec, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    let payload_end = out.len();
    writer::header(out, codec.opcode(), payload_end - start);
    let header_len = out.len() - payload_end;
    out[start..].rotate_right(header_len);
}

#[cfg(test)]
mod tests;
