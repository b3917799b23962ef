//! The reader against RFC 6455: tables of single frames, then streams of many in any chunking.

use tungstenite::protocol::Role;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::{Message, WebSocket};

use super::reader::{Fault, Incoming, Reader, ReaderLimits};

const LIMITS: ReaderLimits = ReaderLimits { frame_bytes_max: 1_000, message_bytes_max: 1_500 };
const ROOMY: ReaderLimits = ReaderLimits { frame_bytes_max: 1 << 30, message_bytes_max: 1 << 30 };

/// A message that outlives the buffers it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owned {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

impl From<Incoming<'_>> for Owned {
    fn from(incoming: Incoming<'_>) -> Self {
        match incoming {
            Incoming::Text(text) => Self::Text(text.into()),
            Incoming::Binary(bytes) => Self::Binary(bytes.into()),
            Incoming::Ping(bytes) => Self::Ping(bytes.into()),
            Incoming::Pong(bytes) => Self::Pong(bytes.into()),
            Incoming::Close { code, reason } => Self::Close(code, reason.into()),
        }
    }
}

/// Reads one chunk to its end, adding to `read`.
fn feed(
    reader: &mut Reader,
    chunk: &[u8],
    limits: &ReaderLimits,
    read: &mut Vec<Owned>,
) -> Result<(), Fault> {
    let mut chunk = chunk.to_vec();
    let mut input = chunk.as_mut_slice();
    while let Some(incoming) = reader.read(&mut input, limits)? {
        read.push(incoming.into());
    }
    assert!(input.is_empty(), "a starved reader has used up its input");
    Ok(())
}

fn read_all(bytes: &[u8], limits: &ReaderLimits) -> (Vec<Owned>, Result<(), Fault>) {
    let mut read = Vec::new();
    let outcome = feed(&mut Reader::default(), bytes, limits, &mut read);
    (read, outcome)
}

/// A client frame with a fixed mask.
fn frame(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let data = OpCode::Data(Data::Binary);
    let mut frame = Frame::message(payload.to_vec(), data, is_final);
    frame.header_mut().opcode = opcode;
    frame.header_mut().mask = Some([0x37, 0xfa, 0x21, 0x3d]);
    let mut out = Vec::new();
    frame.format(&mut out).unwrap();
    out
}

const TEXT: OpCode = OpCode::Data(Data::Text);
const BINARY: OpCode = OpCode::Data(Data::Binary);
const CONTINUE: OpCode = OpCode::Data(Data::Continue);
const PING: OpCode = OpCode::Control(Control::Ping);
const PONG: OpCode = OpCode::Control(Control::Pong);
const CLOSE: OpCode = OpCode::Control(Control::Close);

/// Deterministic numbers (splitmix64), so that a failure names its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % sides as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.roll(256) as u8).collect()
    }

    fn text(&mut self, chars: usize) -> String {
        (0..chars).map(|_| ['a', ' ', 'é', '€', '\u{ffff}', '🎉'][self.roll(6)]).collect()
    }

    /// Mostly short, sometimes around the lengths where the header changes form.
    fn len(&mut self) -> usize {
        match self.roll(10) {
            0..=6 => self.roll(40),
            7 => 120 + self.roll(12),
            8 => self.roll(2_000),
            _ => 65_530 + self.roll(12),
        }
    }
}

#[test]
fn frames_of_the_rfc_are_read() {
    let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(read_all(&hello, &LIMITS), (vec![Owned::Text("Hello".into())], Ok(())));
    for (bytes, expected) in [
        (frame(TEXT, true, b""), Owned::Text(String::new())),
        (frame(BINARY, true, &[0xff; 300]), Owned::Binary(vec![0xff; 300])),
        (frame(PING, true, b"Hello"), Owned::Ping(b"Hello".into())),
        (frame(PONG, true, &[1; 125]), Owned::Pong(vec![1; 125])),
        (frame(CLOSE, true, b""), Owned::Close(None, String::new())),
        (frame(CLOSE, true, b"\x03\xe8bye"), Owned::Close(Some(1000), "bye".into())),
        (frame(CLOSE, true, b"\x13\x87"), Owned::Close(Some(4999), String::new())),
    ] {
        assert_eq!(read_all(&bytes, &LIMITS), (vec![expected], Ok(())));
    }
}

#[test]
fn control_frames_may_stand_between_fragments() {
    let bytes = [
        frame(TEXT, false, b"Hel"),
        frame(PING, true, b"1"),
        frame(CONTINUE, false, b""),
        frame(PONG, true, b""),
        frame(CONTINUE, true, b"lo"),
        frame(BINARY, false, b""),
        frame(CONTINUE, true, b""),
    ]
    .concat();
    let expected = vec![
        Owned::Ping(b"1".into()),
        Owned::Pong(Vec::new()),
        Owned::Text("Hello".into()),
        Owned::Binary(Vec::new()),
    ];
    assert_eq!(read_all(&bytes, &LIMITS), (expected, Ok(())));
}

/// Headers alone, without a byte of payload: a broken rule needs no more to be seen.
#[test]
fn broken_rules_are_faults_on_the_header() {
    let protocol = Fault::Protocol;
    for (bytes, fault) in [
        (&[0x81, 0x05][..], protocol("a client frame without a mask")),
        (&[0xc1, 0x85, 0, 0, 0, 0], protocol("a reserved bit without an extension")),
        (&[0xa1, 0x85, 0, 0, 0, 0], protocol("a reserved bit without an extension")),
        (&[0x91, 0x85, 0, 0, 0, 0], protocol("a reserved bit without an extension")),
        (&[0x83, 0x80, 0, 0, 0, 0], protocol("an opcode that RFC 6455 reserves")),
        (&[0x87, 0x80, 0, 0, 0, 0], protocol("an opcode that RFC 6455 reserves")),
        (&[0x8b, 0x80, 0, 0, 0, 0], protocol("an opcode that RFC 6455 reserves")),
        (&[0x8f, 0x80, 0, 0, 0, 0], protocol("an opcode that RFC 6455 reserves")),
        (&[0x09, 0x80, 0, 0, 0, 0], protocol("a fragmented control frame")),
        (&[0x89, 0xfe, 0, 126, 0, 0, 0, 0], protocol("a control frame over 125 bytes")),
        (&[0x88, 0x81, 0, 0, 0, 0], protocol("a close frame with half a code")),
        (&[0x80, 0x85, 0, 0, 0, 0], protocol("a continuation of nothing")),
        (&[0x00, 0x85, 0, 0, 0, 0], protocol("a continuation of nothing")),
        (
            &[0x01, 0x80, 0, 0, 0, 0, 0x81, 0x80, 0, 0, 0, 0],
            protocol("a new message inside a fragmented one"),
        ),
        (
            &[0x02, 0x80, 0, 0, 0, 0, 0x01, 0x80, 0, 0, 0, 0],
            protocol("a new message inside a fragmented one"),
        ),
        (
            &[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4],
            protocol("a frame length over 63 bits"),
        ),
        (&[0x82, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4], Fault::FrameTooBig),
        (&[0x81, 0xfe, 0x03, 0xe9, 0, 0, 0, 0], Fault::FrameTooBig),
    ] {
        assert_eq!(read_all(bytes, &LIMITS), (Vec::new(), Err(fault)), "{bytes:02x?}");
        let mut reader = Reader::default();
        let mut read = Vec::new();
        let mut one_by_one =
            bytes.chunks(1).map(|byte| feed(&mut reader, byte, &LIMITS, &mut read));
        assert_eq!(one_by_one.find(Result::is_err), Some(Err(fault)), "{bytes:02x?}");
        assert!(reader.is_idle(), "a fault leaves nothing behind");
    }
}

#[test]
fn broken_payloads_are_faults_too() {
    for (bytes, fault) in [
        (frame(TEXT, true, b"\xff"), Fault::NotUtf8),
        (frame(TEXT, true, "é".as_bytes().split_at(1).0), Fault::NotUtf8),
        (frame(CLOSE, true, b"\x03\xe8\xff"), Fault::NotUtf8),
    ] {
        assert_eq!(read_all(&bytes, &LIMITS), (Vec::new(), Err(fault)));
    }
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        let bytes = [frame(TEXT, false, b"held"), frame(CLOSE, true, &code.to_be_bytes())].concat();
        let fault = Fault::Protocol("a close code that may not be sent");
        for chunk_bytes in [1, bytes.len()] {
            let mut reader = Reader::default();
            let mut read = Vec::new();
            let failed = bytes
                .chunks(chunk_bytes)
                .find_map(|chunk| feed(&mut reader, chunk, &LIMITS, &mut read).err());
            assert_eq!((failed, read), (Some(fault), Vec::new()), "{code}");
            assert!(reader.is_idle(), "a fault leaves nothing behind");
        }
    }
}

#[test]
fn faults_have_the_close_codes_of_the_rfc() {
    assert_eq!(Fault::Protocol("a rule").code(), 1002);
    assert_eq!(Fault::Protocol("a rule").reason(), "a rule");
    assert_eq!(Fault::FrameTooBig.code(), 1009);
    assert_eq!(Fault::MessageTooBig.code(), 1009);
    assert_eq!(Fault::NotUtf8.code(), 1007);
}

#[test]
fn limits_are_reached_exactly() {
    let fits = [frame(BINARY, false, &[7; 1_000]), frame(CONTINUE, true, &[8; 500])].concat();
    let message = [vec![7; 1_000], vec![8; 500]].concat();
    assert_eq!(read_all(&fits, &LIMITS), (vec![Owned::Binary(message)], Ok(())));

    let too_long = frame(BINARY, true, &[7; 1_001]);
    assert_eq!(read_all(&too_long, &LIMITS), (Vec::new(), Err(Fault::FrameTooBig)));

    let first = frame(TEXT, false, &[b'x'; 1_000]);
    let header_only = &frame(CONTINUE, true, &[b'x'; 501])[..8];
    let too_long = [&first, header_only].concat();
    assert_eq!(read_all(&too_long, &LIMITS), (Vec::new(), Err(Fault::MessageTooBig)));
}

#[test]
fn a_whole_message_is_handed_out_of_the_input_itself() {
    for opcode in [TEXT, BINARY, PING] {
        let mut bytes = frame(opcode, true, b"where am I");
        let home = bytes.as_ptr_range();
        let mut reader = Reader::default();
        let mut input = bytes.as_mut_slice();
        let payload = match reader.read(&mut input, &LIMITS).unwrap().unwrap() {
            Incoming::Text(text) => text.as_bytes(),
            Incoming::Binary(bytes) | Incoming::Ping(bytes) => bytes,
            other => panic!("{other:?}"),
        };
        assert_eq!(payload, b"where am I");
        assert!(home.contains(&payload.as_ptr()));
        assert!(reader.is_idle());
    }
}

/// Holds for every cut inside the header and right behind it.
#[test]
fn a_cut_header_costs_the_payload_no_copy() {
    let whole = frame(TEXT, true, b"where am I");
    for cut in 1..=6 {
        let mut reader = Reader::default();
        let mut read = Vec::new();
        feed(&mut reader, &whole[..cut], &LIMITS, &mut read).unwrap();
        assert!(!reader.is_idle());
        let mut rest = whole[cut..].to_vec();
        let home = rest.as_ptr_range();
        let mut input = rest.as_mut_slice();
        let Ok(Some(Incoming::Text(text))) = reader.read(&mut input, &LIMITS) else {
            panic!("the rest of the message, cut at {cut}")
        };
        assert_eq!(text, "where am I");
        assert!(home.contains(&text.as_ptr()), "{cut}");
        assert!(reader.is_idle(), "{cut}");
    }
}

#[test]
fn a_cut_control_frame_is_forgotten_within_a_message() {
    let mut reader = Reader::default();
    let mut read = Vec::new();
    feed(&mut reader, &frame(BINARY, false, &[7; 20]), &LIMITS, &mut read).unwrap();
    let held = reader.bytes_held();
    for chunk in frame(PING, true, &[9; 125]).chunks(50) {
        feed(&mut reader, chunk, &LIMITS, &mut read).unwrap();
    }
    assert_eq!(read, [Owned::Ping(vec![9; 125])]);
    assert_eq!(reader.bytes_held(), held);
}

#[test]
fn what_is_only_announced_takes_no_memory() {
    let whole = frame(BINARY, true, &vec![1; 16 << 20]);
    let mut reader = Reader::default();
    let mut read = Vec::new();
    let mut arrived = 0;
    for chunk in whole.chunks(1_400) {
        feed(&mut reader, chunk, &ROOMY, &mut read).unwrap();
        arrived += chunk.len();
        if arrived < whole.len() {
            assert!(reader.bytes_held() <= 2 * arrived + 256, "{}", reader.bytes_held());
        }
    }
    assert_eq!(read, [Owned::Binary(vec![1; 16 << 20])]);
    assert!(reader.is_idle());
    assert_eq!(reader.bytes_held(), 0);
}

#[test]
fn doubling_stops_at_the_limit() {
    let mut reader = Reader::default();
    let mut read = Vec::new();
    for (first, chunk) in [(TEXT, "x".repeat(900)), (CONTINUE, "y".repeat(500))] {
        feed(&mut reader, &frame(first, false, chunk.as_bytes()), &LIMITS, &mut read).unwrap();
        assert!(reader.bytes_held() <= 1_500 + 256, "{}", reader.bytes_held());
    }
    assert_eq!(read, []);
}

/// The first byte after which no continuation can be UTF-8.
fn first_bad(bytes: &[u8]) -> Option<usize> {
    (1..=bytes.len()).find(|&len| {
        std::str::from_utf8(&bytes[..len]).is_err_and(|error| error.error_len().is_some())
    })
}

#[test]
fn bad_text_fails_on_the_byte_that_makes_it_bad() {
    let bad: [&[u8]; 10] = [
        b"ok \x80",
        b"\xc0\xaf",
        b"\xc3(",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xe2\x82(",
        b"\xf0\x80\x80\x80",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80",
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90",
    ];
    for text in bad {
        let bad_at = first_bad(text).expect("bad text");
        // The frame announces more than arrives, so it is never whole.
        let announced = frame(TEXT, true, &[text, &[b'x'; 50]].concat());
        let fragments: Vec<u8> = std::iter::once(frame(TEXT, false, &text[..1]))
            .chain(text[1..].chunks(1).map(|byte| frame(CONTINUE, false, byte)))
            .flatten()
            .collect();
        for (bytes, header, per_byte) in [(&announced, 6, 1), (&fragments, 0, 7)] {
            let mut reader = Reader::default();
            let mut read = Vec::new();
            let failed_at = bytes
                .chunks(1)
                .position(|byte| feed(&mut reader, byte, &LIMITS, &mut read).is_err());
            assert_eq!(failed_at, Some(header + bad_at * per_byte - 1), "{text:02x?}");
        }
    }
}

/// A stream of sound frames and what they say.
fn sound_stream(dice: &mut Dice) -> (Vec<u8>, Vec<Owned>) {
    let mut bytes = Vec::new();
    let mut said = Vec::new();
    for _ in 0..1 + dice.roll(6) {
        let is_text = dice.roll(2) == 0;
        let len = dice.len();
        let payload = if is_text { dice.text(len / 3).into_bytes() } else { dice.bytes(len) };
        let mut rest = payload.as_slice();
        let mut opcode = if is_text { TEXT } else { BINARY };
        loop {
            let cut = if dice.roll(3) == 0 { dice.roll(rest.len() + 1) } else { rest.len() };
            let (piece, left) = rest.split_at(cut);
            rest = left;
            let is_final = rest.is_empty() && dice.roll(4) > 0;
            let mut written = Frame::message(piece.to_vec(), BINARY, is_final);
            written.header_mut().opcode = opcode;
            let mask = dice.bytes(4);
            written.header_mut().mask = mask.try_into().ok();
            written.format(&mut bytes).unwrap();
            opcode = CONTINUE;
            if is_final {
                break;
            }
            while dice.roll(3) == 0 {
                let control = dice.roll(126);
                let control = dice.bytes(control);
                let is_ping = dice.roll(2) == 0;
                bytes.extend(frame(if is_ping { PING } else { PONG }, true, &control));
                said.push(if is_ping { Owned::Ping(control) } else { Owned::Pong(control) });
            }
        }
        said.push(match is_text {
            true => Owned::Text(String::from_utf8(payload).unwrap()),
            false => Owned::Binary(payload),
        });
    }
    if dice.roll(2) == 0 {
        bytes.extend(frame(CLOSE, true, b"\x03\xe9going"));
        said.push(Owned::Close(Some(1001), "going".into()));
    }
    (bytes, said)
}

#[test]
fn the_same_bytes_in_any_chunking_say_the_same() {
    for seed in 0..200 {
        let mut dice = Dice(seed);
        let (bytes, said) = sound_stream(&mut dice);
        assert_eq!(read_all(&bytes, &ROOMY), (said.clone(), Ok(())), "seed {seed}, whole");
        let chunk_bytes_max = [1, 2, 5, 17, 300, 5_000][dice.roll(6)];
        let mut reader = Reader::default();
        let mut read = Vec::new();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (chunk, left) = rest.split_at((1 + dice.roll(chunk_bytes_max)).min(rest.len()));
            feed(&mut reader, chunk, &ROOMY, &mut read).unwrap();
            rest = left;
        }
        assert_eq!(read, said, "seed {seed}, chunks of up to {chunk_bytes_max}");
        assert!(reader.is_idle(), "seed {seed}");
    }
}

/// An in-memory stream that takes what tungstenite's client writes.
#[derive(Default)]
struct Wire(Vec<u8>);

impl std::io::Read for Wire {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::WouldBlock.into())
    }
}

impl std::io::Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn tungstenites_client_is_understood() {
    let mut dice = Dice(1);
    let mut client = WebSocket::from_raw_socket(Wire::default(), Role::Client, None);
    let mut said = Vec::new();
    for turn in 0..300 {
        let len = dice.len();
        let small = dice.roll(126);
        let (message, owned) = match turn % 4 {
            0 => (Message::Ping(vec![9; small].into()), Owned::Ping(vec![9; small])),
            1 => (Message::Pong(vec![8; small].into()), Owned::Pong(vec![8; small])),
            2 => {
                let bytes = dice.bytes(len);
                (Message::Binary(bytes.clone().into()), Owned::Binary(bytes))
            }
            _ => {
                let text = dice.text(len);
                (Message::Text(text.clone().into()), Owned::Text(text))
            }
        };
        client.send(message).unwrap();
        said.push(owned);
    }
    let bye = CloseFrame { code: 1000.into(), reason: "done".into() };
    client.close(Some(bye)).unwrap();
    client.flush().unwrap();
    said.push(Owned::Close(Some(1000), "done".into()));
    let bytes = &client.get_ref().0;
    assert_eq!(read_all(bytes, &ROOMY), (said.clone(), Ok(())));
    let mut reader = Reader::default();
    let mut read = Vec::new();
    for chunk in bytes.chunks(1_399) {
        feed(&mut reader, chunk, &ROOMY, &mut read).unwrap();
    }
    assert_eq!(read, said);
}
