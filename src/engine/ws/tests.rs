//! The reader against RFC 6455: single frames (`rules`), what it keeps (`memory`), streams of
//! many frames in any chunking (`streams`).

use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::reader::{Fault, Incoming, Reader, ReaderLimits};

mod memory;
mod rules;
mod streams;

const LIMITS: ReaderLimits =
    ReaderLimits { frame_bytes_max: 1_000, message_bytes_max: 1_500, empty_fragments_max: 100 };
const ROOMY: ReaderLimits =
    ReaderLimits { frame_bytes_max: 1 << 30, message_bytes_max: 1 << 30, ..LIMITS };

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
