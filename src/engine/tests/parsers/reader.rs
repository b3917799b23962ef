//! The frame reader, against tungstenite's server on the same bytes.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read, Write};

use tungstenite::protocol::frame::{Frame, FrameHeader};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};
use uproar_engine::ws::reader::{Fault, Incoming, Reader, ReaderLimits};

use super::{Dice, for_seeds};

const LIMITS: ReaderLimits =
    ReaderLimits { frame_bytes_max: 300, message_bytes_max: 400, empty_fragments_max: 100 };
/// What a partial message may cost beyond its payload, in bytes.
const PARTIAL_BYTES_MAX: usize = 256;

/// Opcodes with and without the final bit, and lengths where the header changes form.
const FAVOURITES: &[u8] =
    &[0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8a, 0xfd, 0xfe, 0xff, 0x7e, 0x7f, 0xc1];

/// What a stream of bytes says, up to its end, its close frame or its first fault.
#[derive(Debug, PartialEq)]
struct Verdict<F> {
    messages: Vec<Message>,
    fault: Option<F>,
}

/// Reads the chunks with our reader, watching what it holds.
fn by_us(chunks: &[&[u8]]) -> Verdict<Fault> {
    let mut reader = Reader::default();
    let mut messages = Vec::new();
    for chunk in chunks {
        let mut chunk = chunk.to_vec();
        let mut input = chunk.as_mut_slice();
        loop {
            let message = match reader.read(&mut input, &LIMITS) {
                Ok(Some(incoming)) => message(incoming),
                Ok(None) => break,
                Err(fault) => {
                    assert!(reader.is_idle(), "a fault leaves nothing behind");
                    return Verdict { messages, fault: Some(fault) };
                }
            };
            let is_close = message.is_close();
            messages.push(message);
            if is_close {
                return Verdict { messages, fault: None };
            }
            let held = reader.bytes_held();
            assert!(held <= LIMITS.message_bytes_max as usize + PARTIAL_BYTES_MAX, "{held}");
        }
        assert!(input.is_empty());
    }
    Verdict { messages, fault: None }
}

fn message(incoming: Incoming<'_>) -> Message {
    match incoming {
        Incoming::Text(text) => Message::Text(text.into()),
        Incoming::Binary(bytes) => Message::Binary(bytes.to_vec().into()),
        Incoming::Ping(bytes) => Message::Ping(bytes.to_vec().into()),
        Incoming::Pong(bytes) => Message::Pong(bytes.to_vec().into()),
        Incoming::Close { code: None, .. } => Message::Close(None),
        Incoming::Close { code: Some(code), reason } => {
            Message::Close(Some(tungstenite::protocol::CloseFrame {
                code: code.into(),
                reason: reason.into(),
            }))
        }
    }
}

/// A peer that has sent all it will send and does not hang up.
struct Peer<'b>(&'b [u8]);

impl Read for Peer<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.0.read(into) }
    }
}

impl Write for Peer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads the bytes with tungstenite; its faults as the close codes they mean.
fn by_tungstenite(bytes: &[u8]) -> Verdict<u16> {
    let config = WebSocketConfig::default()
        .read_buffer_size(512)
        .max_frame_size(Some(LIMITS.frame_bytes_max as usize))
        .max_message_size(Some(LIMITS.message_bytes_max as usize));
    let mut server = WebSocket::from_raw_socket(Peer(bytes), Role::Server, Some(config));
    let mut messages = Vec::new();
    loop {
        let fault = match server.read() {
            // It answers a forbidden close code for us instead of naming the fault.
            Ok(Message::Close(Some(close))) if close.reason == "Protocol violation" => Some(1002),
            Ok(message) => {
                let is_close = message.is_close();
                messages.push(message);
                if !is_close {
                    continue;
                }
                None
            }
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(Error::Protocol(_)) => Some(1002),
            Err(Error::Utf8(_)) => Some(1007),
            Err(Error::Capacity(_)) => Some(1009),
            Err(other) => panic!("{other}"),
        };
        return Verdict { messages, fault };
    }
}

/// Payload bytes that the last frame has announced and that are not there.
fn missing(bytes: &[u8]) -> usize {
    let mut cursor = Cursor::new(bytes);
    while let Ok(Some((_, len))) = FrameHeader::parse(&mut cursor) {
        let end = cursor.position().saturating_add(len);
        if end > bytes.len() as u64 {
            return (end - bytes.len() as u64) as usize;
        }
        cursor.set_position(end);
    }
    0
}

/// A few masked frames in a sound order: messages in fragments, control frames between them.
fn sound_stream(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..1 + dice.roll(4) {
        let opcode = dice.pick(&[1_u8, 1, 2]);
        let chars = dice.pick(&[0, 3, 30, 60, 130, 170]);
        let mut payload = dice.text(chars).into_bytes();
        let fragments = 1 + dice.roll(3);
        for fragment in 0..fragments {
            let is_final = fragment + 1 == fragments;
            let cut = if is_final { payload.len() } else { dice.roll(payload.len() + 1) };
            let piece: Vec<u8> = payload.drain(..cut).collect();
            push(dice, &mut bytes, if fragment == 0 { opcode } else { 0 }, is_final, piece);
            if dice.roll(3) == 0 {
                let control = dice.pick(&[9_u8, 10]);
                let len = dice.pick(&[0, 4, 125]);
                let payload = dice.bytes(len);
                push(dice, &mut bytes, control, true, payload);
            }
        }
    }
    if dice.roll(3) == 0 {
        let code = dice.pick(&[1000_u16, 1005, 1011, 1014, 2999, 4000]).to_be_bytes().to_vec();
        push(dice, &mut bytes, 8, true, code);
    }
    bytes
}

fn push(dice: &mut Dice, bytes: &mut Vec<u8>, opcode: u8, is_final: bool, payload: Vec<u8>) {
    if dice.roll(60) == 0 {
        return push_long(dice, bytes, opcode, is_final, &payload);
    }
    let mask = dice.bytes(4).try_into().ok();
    let header = FrameHeader { is_final, opcode: opcode.into(), mask, ..FrameHeader::default() };
    Frame::from_payload(header, payload.into()).format(bytes).expect("a Vec takes every byte");
}

/// The frame with its length in a longer form than it needs (RFC 6455 §5.2), which
/// tungstenite takes.
fn push_long(dice: &mut Dice, bytes: &mut Vec<u8>, opcode: u8, is_final: bool, payload: &[u8]) {
    bytes.push(opcode | if is_final { 0x80 } else { 0 });
    if payload.len() < 126 && dice.roll(2) == 0 {
        bytes.push(0xfe);
        bytes.extend((payload.len() as u16).to_be_bytes());
    } else {
        bytes.push(0xff);
        bytes.extend((payload.len() as u64).to_be_bytes());
    }
    let mask = dice.bytes(4);
    bytes.extend(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
}

/// Whether a frame of the stream has its length in a longer form than it needs.
fn has_long_length(bytes: &[u8]) -> bool {
    let mut cursor = Cursor::new(bytes);
    loop {
        let start = cursor.position() as usize;
        let Ok(Some((_, len))) = FrameHeader::parse(&mut cursor) else { return false };
        match bytes[start + 1] & 0x7f {
            126 if len < 126 => return true,
            127 if len < 1 << 16 => return true,
            _ => {}
        }
        let end = cursor.position().saturating_add(len);
        if end > bytes.len() as u64 {
            return false;
        }
        cursor.set_position(end);
    }
}

fn damaged_stream(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = sound_stream(dice);
    dice.damage(&mut bytes, FAVOURITES);
    bytes
}

#[test]
fn the_cuts_between_reads_change_nothing() {
    for_seeds(0..3_000, |dice| {
        let bytes = damaged_stream(dice);
        let whole = by_us(&[&bytes]);
        assert_eq!(by_us(&dice.chunks(&bytes)), whole, "{bytes:02x?}");
    });
}

#[test]
fn tungstenite_reads_the_same() {
    let mut outcomes = BTreeMap::<Option<u16>, u32>::new();
    let mut long_lengths = 0;
    for_seeds(0..3_000, |dice| {
        let mut bytes = damaged_stream(dice);
        let ours = by_us(&[&bytes]);
        let mut theirs = by_tungstenite(&bytes);
        if ours.fault == Some(Fault::Protocol("a frame length in a longer form than it needs")) {
            assert!(has_long_length(&bytes), "{bytes:02x?}");
            assert!(theirs.messages.starts_with(&ours.messages), "{bytes:02x?}");
            long_lengths += 1;
            return;
        }
        if ours.fault.is_some() && theirs.fault.is_none() {
            // We need not see a whole frame to refuse it; given the whole, they refuse it too.
            bytes.resize(bytes.len() + missing(&bytes), 0);
            theirs = by_tungstenite(&bytes);
        }
        // It does not know 1014, which IANA has registered since.
        if let Some((Message::Close(Some(close)), before)) = ours.messages.split_last()
            && u16::from(close.code) == 1014
        {
            assert_eq!((before, theirs.fault), (&*theirs.messages, Some(1002)), "{bytes:02x?}");
            return;
        }
        assert_eq!(ours.messages, theirs.messages, "{bytes:02x?}");
        let code = ours.fault.map(Fault::code);
        // One frame may break a rule and be too long or not UTF-8: we name the rule first.
        if !matches!((code, theirs.fault), (Some(1002), Some(1007 | 1009))) {
            assert_eq!(code, theirs.fault, "{:?} of {bytes:02x?}", ours.fault);
        }
        *outcomes.entry(code).or_default() += 1;
    });
    for code in [None, Some(1002), Some(1007), Some(1009)] {
        assert!(outcomes[&code] >= 30, "the cases hardly reach {code:?}: {outcomes:?}");
    }
    assert!(long_lengths >= 30, "{long_lengths}");
}

#[test]
fn noise_is_survived() {
    for_seeds(0..3_000, |dice| {
        let len = dice.roll(200);
        let mut bytes = dice.bytes(len);
        for _ in 0..len / 8 {
            let at = dice.roll(len);
            bytes[at] = dice.pick(FAVOURITES);
        }
        let whole = by_us(&[&bytes]);
        assert_eq!(by_us(&dice.chunks(&bytes)), whole, "{bytes:02x?}");
    });
}
