//! The frame reader: client bytes in any chunking in, whole messages out.
//!
//! A message that lies whole in the receive buffer is unmasked there and handed out from
//! there. Only what a read leaves incomplete is copied into a `Partial`, so a quiet
//! connection costs one null pointer. Limits are decided on the header, and a partial message
//! holds no more memory than twice what has arrived of it, whatever its header announces.
//!
//! Not here: what a ping, a close or a fault is answered with (the session).

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::partial::{Frame, HEADER_BYTES_MAX, Partial};
use super::rest::Rest;
use super::writer::CONTROL_BYTES_MAX;

/// What a connection remembers between two reads: nothing (8 bytes) unless a frame or message
/// is incomplete.
#[derive(Debug, Default)]
pub struct Reader(Option<Box<Partial>>);

/// The reader's share of [`crate::limits::Limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderLimits {
    /// Payload of one frame, in bytes.
    pub frame_bytes_max: u32,
    /// Payload of one reassembled message, in bytes.
    pub message_bytes_max: u32,
    /// Frames of one message without payload that do not end it. They are allowed, mean nothing, and count against
    /// no other limit.
    pub empty_fragments_max: u32,
}

/// A whole message or control frame, unmasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// A ping; to be answered with a pong of the same bytes.
    Ping(&'a [u8]),
    /// A pong.
    Pong(&'a [u8]),
    /// The peer closes; nothing that follows it counts.
    Close {
        /// The peer's code; `None` when it gave none.
        code: Option<u16>,
        /// The peer's reason, often empty.
        reason: &'a str,
    },
}

/// How a peer broke RFC 6455. The connection is over: the reader is not to be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A broken rule, in a few words.
    Protocol(&'static str),
    /// A frame over `frame_bytes_max`.
    FrameTooBig,
    /// A message over `message_bytes_max`.
    MessageTooBig,
    /// Text or a close reason that is not UTF-8.
    NotUtf8,
    /// A message of hardly anything but empty fragments.
    EmptyFragments,
}

impl Fault {
    /// The close code it is answered with (RFC 6455 §7.4.1).
    #[must_use]
    pub fn code(self) -> u16 {
        CloseCode::into(match self {
            Self::Protocol(_) => CloseCode::Protocol,
            Self::FrameTooBig | Self::MessageTooBig => CloseCode::Size,
            Self::NotUtf8 => CloseCode::Invalid,
            Self::EmptyFragments => CloseCode::Policy,
        })
    }

    /// The reason that goes with the code.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Protocol(rule) => rule,
            Self::FrameTooBig => "the frame is longer than this node takes",
            Self::MessageTooBig => "the message is longer than this node takes",
            Self::NotUtf8 => "the text is not UTF-8",
            Self::EmptyFragments => "too many empty fragments",
        }
    }
}

/// What one step over the input found; borrows nothing from the reader.
enum Step<'i> {
    /// The input is used up.
    Starved,
    /// A frame that was a message by itself, whole in the input.
    InPlace(Incoming<'i>),
    /// A message or control frame whose last bytes have just joined the rest.
    Held(OpCode),
}

impl Reader {
    /// Takes the next whole message out of `input`, advancing it and unmasking in place; `None`
    /// when the input is used up. Call it until then: a message that had to be pieced together
    /// is freed by the call after the one that returned it.
    ///
    /// # Errors
    /// A [`Fault`] as soon as the bytes are known to be bad; nothing is held any more.
    pub fn read<'r, 'i: 'r>(
        &'r mut self,
        input: &mut &'i mut [u8],
        limits: &ReaderLimits,
    ) -> Result<Option<Incoming<'r>>, Fault> {
        match self.step(input, limits) {
            Ok(Step::Starved) => Ok(None),
            Ok(Step::InPlace(incoming)) => Ok(Some(incoming)),
            Ok(Step::Held(opcode)) => {
                let partial = self.0.as_deref().expect("a held message has a partial");
                match opcode {
                    OpCode::Control(_) => decode(opcode, partial.control()).map(Some),
                    OpCode::Data(_) => Ok(Some(partial.message())),
                }
            }
            Err(fault) => {
                self.0 = None;
                Err(fault)
            }
        }
    }

    /// Where in a frame the next byte is, for whoever reads on without looking at messages.
    #[must_use]
    pub fn rest(&self) -> Rest {
        self.0.as_deref().map_or_else(Rest::default, Partial::rest)
    }

    /// Whether nothing is held between reads.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.0.is_none()
    }

    /// The tick at which the unfinished message or frame began, as [`Self::begin`] was told; `None` when there is
    /// none.
    #[must_use]
    pub fn since(&self) -> Option<u32> {
        self.0.as_deref().map(|partial| partial.since_tick)
    }

    /// Notes that what is unfinished began now, unless it has begun before. True if it begins now.
    pub fn begin(&mut self, tick: u32) -> bool {
        let fresh = self.0.as_deref_mut().filter(|partial| partial.since_tick == 0);
        fresh.map(|partial| partial.since_tick = tick).is_some()
    }

    /// Takes what is unfinished to have begun now: until now nobody read on.
    pub fn begin_again(&mut self, tick: u32) {
        if let Some(partial) = self.0.as_deref_mut() {
            partial.since_tick = tick;
        }
    }

    /// User memory behind this reader, in bytes.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        self.0.as_deref().map_or(0, Partial::bytes_held)
    }

    fn step<'i>(
        &mut self,
        input: &mut &'i mut [u8],
        limits: &ReaderLimits,
    ) -> Result<Step<'i>, Fault> {
        self.release(Partial::forget_delivered);
        loop {
            // A header that came in pieces is freed once it is whole; its message began with it.
            let since_tick = self.since().unwrap_or(0);
            let mut kept = None;
            self.release(|partial| kept = partial.take_frame());
            let Some(mut frame) = (match kept {
                Some(frame) => Some(frame),
                None => self.next_header(input, limits)?,
            }) else {
                return Ok(Step::Starved);
            };
            let is_whole = frame.is_untouched && frame.left <= input.len();
            let piece = take(input, frame.left);
            unmask(piece, frame.mask);
            if is_whole && frame.is_final && frame.opcode != OpCode::Data(Data::Continue) {
                return decode(frame.opcode, piece).map(Step::InPlace);
            }
            frame.advance(piece.len());
            let partial = self.0.get_or_insert_default();
            partial.since_tick = since_tick;
            partial.append(&frame, piece, limits)?;
            if frame.left > 0 {
                partial.keep_frame(frame);
                return Ok(Step::Starved);
            }
            if frame.is_final {
                partial.finish(frame.opcode)?;
                if let OpCode::Control(_) = frame.opcode {
                    // Decoded again on the way out; here a fault still frees the partial.
                    decode(frame.opcode, partial.control())?;
                }
                return Ok(Step::Held(frame.opcode));
            }
        }
    }

    /// Reads and checks the next frame header; `None` when the input ends before it does.
    fn next_header(
        &mut self,
        input: &mut &mut [u8],
        limits: &ReaderLimits,
    ) -> Result<Option<Frame>, Fault> {
        let mut bytes = [0; HEADER_BYTES_MAX];
        let held = self.0.as_deref_mut().map_or(0, |partial| partial.take_header(&mut bytes));
        let fresh = input.len().min(HEADER_BYTES_MAX - held);
        bytes[held..held + fresh].copy_from_slice(&input[..fresh]);
        let mut cursor = Cursor::new(&bytes[..held + fresh]);
        let parsed = FrameHeader::parse(&mut cursor)
            .map_err(|_| Fault::Protocol("an opcode that RFC 6455 reserves"))?;
        let Some((header, len)) = parsed else {
            take(input, fresh);
            if held + fresh > 0 {
                self.0.get_or_insert_default().keep_header(&bytes[..held + fresh]);
            }
            return Ok(None);
        };
        // The header was incomplete before, so it ends in the fresh bytes.
        take(input, cursor.position() as usize - held);
        self.release(|_| ());
        let shortest = match bytes[1] & 0x7f {
            126 => 126,
            127 => 1 << 16,
            _ => 0,
        };
        if len < shortest {
            return Err(Fault::Protocol("a frame length in a longer form than it needs"));
        }
        let message_len = self.0.as_deref().and_then(Partial::message_len);
        check(&header, len, message_len, limits).map(Some)
    }

    /// Changes the partial and frees it if nothing is left in it.
    fn release(&mut self, change: impl FnOnce(&mut Partial)) {
        if let Some(partial) = self.0.as_deref_mut() {
            change(partial);
            if partial.is_empty() {
                self.0 = None;
            }
        }
    }
}

/// Checks a header by RFC 6455 §5 and the limits. `message_len` is what has arrived of the
/// fragmented message in progress, if there is one.
fn check(
    header: &FrameHeader,
    len: u64,
    message_len: Option<usize>,
    limits: &ReaderLimits,
) -> Result<Frame, Fault> {
    let broken = |rule| Err(Fault::Protocol(rule));
    if header.rsv1 || header.rsv2 || header.rsv3 {
        return broken("a reserved bit without an extension");
    }
    let Some(mask) = header.mask else {
        return broken("a client frame without a mask");
    };
    if len >> 63 != 0 {
        return broken("a frame length over 63 bits");
    }
    match (header.opcode, message_len) {
        (OpCode::Control(_), _) if !header.is_final => {
            return broken("a fragmented control frame");
        }
        (OpCode::Control(_), _) if len > CONTROL_BYTES_MAX as u64 => {
            return broken("a control frame over 125 bytes");
        }
        (OpCode::Control(Control::Close), _) if len == 1 => {
            return broken("a close frame with half a code");
        }
        (OpCode::Control(_), _) => {}
        (OpCode::Data(Data::Continue), None) => {
            return broken("a continuation of nothing");
        }
        (OpCode::Data(Data::Text | Data::Binary), Some(_)) => {
            return broken("a new message inside a fragmented one");
        }
        (OpCode::Data(_), _) => {
            if len > u64::from(limits.frame_bytes_max) {
                return Err(Fault::FrameTooBig);
            }
            let message_len = message_len.unwrap_or(0) as u64;
            if message_len + len > u64::from(limits.message_bytes_max) {
                return Err(Fault::MessageTooBig);
            }
        }
    }
    Ok(Frame::new(header.opcode, header.is_final, mask, len as usize))
}

/// Gives meaning to a whole, unmasked, unfragmented payload.
fn decode(opcode: OpCode, payload: &[u8]) -> Result<Incoming<'_>, Fault> {
    match opcode {
        OpCode::Data(Data::Text) => utf8(payload).map(Incoming::Text),
        OpCode::Control(Control::Ping) => Ok(Incoming::Ping(payload)),
        OpCode::Control(Control::Pong) => Ok(Incoming::Pong(payload)),
        OpCode::Control(_) => close(payload),
        OpCode::Data(_) => Ok(Incoming::Binary(payload)),
    }
}

fn close(payload: &[u8]) -> Result<Incoming<'_>, Fault> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return Ok(Incoming::Close { code: None, reason: "" });
    };
    let code = u16::from_be_bytes(*code);
    if !may_be_sent(code) {
        return Err(Fault::Protocol("a close code that may not be sent"));
    }
    Ok(Incoming::Close { code: Some(code), reason: utf8(reason)? })
}

/// Whether an endpoint may send this close code: RFC 6455 §7.4 and the codes that IANA has
/// registered since. 1004 has no meaning; 1005, 1006 and 1015 are for what was not sent.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

fn utf8(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|_| Fault::NotUtf8)
}

/// Cuts at most `len` bytes off the front of `input`.
fn take<'i>(input: &mut &'i mut [u8], len: usize) -> &'i mut [u8] {
    let whole = std::mem::take(input);
    let (front, rest) = whole.split_at_mut(len.min(whole.len()));
    *input = rest;
    front
}

/// Applies a mask whose first byte meets the first byte of `piece` (RFC 6455 §5.3).
fn unmask(piece: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = piece.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= key;
    }
}
