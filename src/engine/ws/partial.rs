//! What the reader keeps of a frame or message that a read left incomplete.
//!
//! ```text
//! ... data frame, final=0 | data frame, cont| ping (whole or cut) | data frame, co...
//!     └────── message ───────────────────┘    └─── control ───┘    └ header, then frame
//! ```
//!
//! Text is checked piece by piece as it arrives, so it fails on the first byte that cannot be
//! UTF-8 any more and is never checked twice; at most three bytes wait for the rest of their
//! character.

use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::reader::{Fault, Incoming, ReaderLimits};
use super::rest::Rest;
use super::writer::CONTROL_BYTES_MAX;

/// The longest header of a client frame: 2 bytes, 8 of length, 4 of mask.
pub(super) const HEADER_BYTES_MAX: usize = 14;

/// A frame whose header has been read and checked, and what is left of its payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) opcode: OpCode,
    pub(super) is_final: bool,
    /// Rotated so that its first byte meets the next payload byte.
    pub(super) mask: [u8; 4],
    /// Payload bytes that have not arrived.
    pub(super) left: usize,
    /// Whether no payload byte has been taken.
    pub(super) is_untouched: bool,
}

impl Frame {
    pub(super) fn new(opcode: OpCode, is_final: bool, mask: [u8; 4], len: usize) -> Self {
        Self { opcode, is_final, mask, left: len, is_untouched: true }
    }

    /// Steps over `len` payload bytes.
    pub(super) fn advance(&mut self, len: usize) {
        self.mask.rotate_left(len % 4);
        self.left -= len;
        self.is_untouched &= len == 0;
    }
}

/// Everything held between two reads; empty only for a moment, then it is freed.
#[derive(Debug, Default)]
pub(super) struct Partial {
    /// A header's first bytes, `header[..header_len]`.
    header: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    /// The frame in the middle of whose payload the input ended.
    frame: Option<Frame>,
    /// The message whose final frame is not whole.
    message: Option<Body>,
    /// Its empty fragments.
    empty_fragments: u32,
    /// The payload of a cut control frame; none of its frames is longer than 125 bytes.
    control: Vec<u8>,
    /// What the last read handed out from here.
    delivered: Option<OpCode>,
    /// When it began, for the deadline of a message; 0 until its owner has said so.
    pub(super) since_tick: u32,
}

/// The payload of a message so far.
#[derive(Debug)]
enum Body {
    Text {
        text: String,
        /// The first bytes of a character, `pending[..pending_len]`, at most three.
        pending: [u8; 4],
        pending_len: u8,
    },
    Binary(Vec<u8>),
}

impl Partial {
    pub(super) fn is_empty(&self) -> bool {
        self.header_len == 0
            && self.frame.is_none()
            && self.message.is_none()
            && self.control.is_empty()
    }

    pub(super) fn bytes_held(&self) -> usize {
        let body = match &self.message {
            Some(Body::Text { text, .. }) => text.capacity(),
            Some(Body::Binary(bytes)) => bytes.capacity(),
            None => 0,
        };
        size_of::<Self>() + body + self.control.capacity()
    }

    /// What has arrived of the message in progress, in bytes; `None` between messages.
    pub(super) fn message_len(&self) -> Option<usize> {
        self.message.as_ref().map(Body::len)
    }

    /// Where in a frame the next byte is.
    pub(super) fn rest(&self) -> Rest {
        match &self.frame {
            Some(Frame { left, opcode, .. }) => {
                Rest::within(*left as u64, *opcode == OpCode::Control(Control::Close))
            }
            None => Rest::behind(&self.header[..usize::from(self.header_len)]),
        }
    }

    pub(super) fn keep_header(&mut self, bytes: &[u8]) {
        self.header[..bytes.len()].copy_from_slice(bytes);
        self.header_len = bytes.len() as u8;
    }

    /// Moves the kept header bytes to the front of `bytes`; says how many.
    pub(super) fn take_header(&mut self, bytes: &mut [u8; HEADER_BYTES_MAX]) -> usize {
        *bytes = self.header;
        usize::from(std::mem::take(&mut self.header_len))
    }

    pub(super) fn keep_frame(&mut self, frame: Frame) {
        self.frame = Some(frame);
    }

    pub(super) fn take_frame(&mut self) -> Option<Frame> {
        self.frame.take()
    }

    /// Adds unmasked payload of `frame` to the message or control frame it belongs to.
    pub(super) fn append(
        &mut self,
        frame: &Frame,
        piece: &[u8],
        limits: &ReaderLimits,
    ) -> Result<(), Fault> {
        if frame.is_untouched && frame.left > 0 {
            return Ok(());
        }
        if let OpCode::Control(_) = frame.opcode {
            self.control.reserve_exact(piece.len().min(CONTROL_BYTES_MAX));
            self.control.extend_from_slice(piece);
            return Ok(());
        }
        if self.message.is_none() {
            self.empty_fragments = 0;
        }
        if frame.is_untouched && !frame.is_final {
            self.empty_fragments += 1;
            if self.empty_fragments > limits.empty_fragments_max {
                return Err(Fault::EmptyFragments);
            }
        }
        let body = self.message.get_or_insert_with(|| Body::new(frame.opcode));
        body.append(piece, limits.message_bytes_max as usize)
    }

    /// Marks what `opcode` completes as handed out.
    pub(super) fn finish(&mut self, opcode: OpCode) -> Result<(), Fault> {
        if let (OpCode::Data(_), Some(Body::Text { pending_len: 1.., .. })) =
            (opcode, &self.message)
        {
            return Err(Fault::NotUtf8);
        }
        self.delivered = Some(opcode);
        Ok(())
    }

    /// Frees what the last read handed out.
    pub(super) fn forget_delivered(&mut self) {
        match self.delivered.take() {
            Some(OpCode::Data(_)) => self.message = None,
            Some(OpCode::Control(_)) => self.control = Vec::new(),
            None => {}
        }
    }

    pub(super) fn control(&self) -> &[u8] {
        &self.control
    }

    pub(super) fn message(&self) -> Incoming<'_> {
        match self.message.as_ref().expect("a finished message is held") {
            Body::Text { text, .. } => Incoming::Text(text),
            Body::Binary(bytes) => Incoming::Binary(bytes),
        }
    }
}

impl Body {
    fn new(opcode: OpCode) -> Self {
        if opcode == OpCode::Data(Data::Text) {
            Self::Text { text: String::new(), pending: [0; 4], pending_len: 0 }
        } else {
            Self::Binary(Vec::new())
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Text { text, pending_len, .. } => text.len() + usize::from(*pending_len),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    fn append(&mut self, mut piece: &[u8], bytes_max: usize) -> Result<(), Fault> {
        let len = self.len() + piece.len();
        match self {
            Self::Binary(bytes) => {
                let room = grown(bytes.capacity(), len, bytes_max) - bytes.len();
                bytes.reserve_exact(room);
                bytes.extend_from_slice(piece);
            }
            Self::Text { text, pending, pending_len } => {
                let room = grown(text.capacity(), len, bytes_max) - text.len();
                text.reserve_exact(room);
                while let ([byte, rest @ ..], waiting @ 1..) = (piece, usize::from(*pending_len)) {
                    piece = rest;
                    pending[waiting] = *byte;
                    *pending_len += 1;
                    let (character, cut) = valid_prefix(&pending[..=waiting])?;
                    if cut.is_empty() {
                        text.push_str(character);
                        *pending_len = 0;
                    }
                }
                let (valid, cut) = valid_prefix(piece)?;
                text.push_str(valid);
                if !cut.is_empty() {
                    pending[..cut.len()].copy_from_slice(cut);
                    *pending_len = cut.len() as u8;
                }
            }
        }
        Ok(())
    }
}

/// The capacity that holds `len` bytes: doubling, so that a message of many pieces is not
/// copied for each, but never past `len_max` and never by what has only been announced.
fn grown(capacity: usize, len: usize, len_max: usize) -> usize {
    if len <= capacity { capacity } else { len.max((2 * capacity).min(len_max)) }
}

/// Splits bytes into text and the one to three first bytes of a character that is cut off.
fn valid_prefix(bytes: &[u8]) -> Result<(&str, &[u8]), Fault> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok((text, &[])),
        Err(error) if error.error_len().is_none() => {
            let (valid, cut) = bytes.split_at(error.valid_up_to());
            let text = std::str::from_utf8(valid).expect("checked up to here");
            Ok((text, cut))
        }
        Err(_) => Err(Fault::NotUtf8),
    }
}
