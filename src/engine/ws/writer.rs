//! Server frames: final, unmasked, appended to a buffer.
//!
//! A server frame carries no mask, so its bytes are the same for every subscriber: this is
//! what lets a room's log hold frames instead of payloads.

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// The most bytes a control frame may carry (RFC 6455 §5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// Appends the header of a frame whose `payload_len` bytes the caller appends next.
pub fn header(out: &mut Vec<u8>, opcode: OpCode, payload_len: usize) {
    FrameHeader { opcode, ..FrameHeader::default() }
        .format(payload_len as u64, out)
        .expect("a Vec takes every byte");
}

/// Appends a text frame; `payload` is UTF-8.
pub fn text(out: &mut Vec<u8>, payload: &[u8]) {
    frame(out, OpCode::Data(Data::Text), payload);
}

/// Appends a binary frame.
pub fn binary(out: &mut Vec<u8>, payload: &[u8]) {
    frame(out, OpCode::Data(Data::Binary), payload);
}

/// Appends a ping of at most [`CONTROL_BYTES_MAX`] bytes.
pub fn ping(out: &mut Vec<u8>, payload: &[u8]) {
    control(out, Control::Ping, payload);
}

/// Appends a pong of at most [`CONTROL_BYTES_MAX`] bytes, as every ping that was read has.
pub fn pong(out: &mut Vec<u8>, payload: &[u8]) {
    control(out, Control::Pong, payload);
}

/// Appends a close frame. A `reason` over 123 bytes is cut at a character boundary.
pub fn close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let reason = &reason[..reason.floor_char_boundary(CONTROL_BYTES_MAX - 2)];
    header(out, OpCode::Control(Control::Close), 2 + reason.len());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

fn control(out: &mut Vec<u8>, opcode: Control, payload: &[u8]) {
    assert!(payload.len() <= CONTROL_BYTES_MAX, "a control frame of {} bytes", payload.len());
    frame(out, OpCode::Control(opcode), payload);
}

fn frame(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    header(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_bytes_of_the_rfc() {
        let written = |write: fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            out
        };
        assert_eq!(written(|out| text(out, b"Hello")), b"\x81\x05Hello");
        assert_eq!(written(|out| binary(out, &[7])), b"\x82\x01\x07");
        assert_eq!(written(|out| ping(out, b"Hello")), b"\x89\x05Hello");
        assert_eq!(written(|out| pong(out, b"")), b"\x8a\x00");
        assert_eq!(written(|out| close(out, 1002, "why")), b"\x88\x05\x03\xeawhy");
    }

    #[test]
    fn lengths_take_the_shortest_form() {
        let data = OpCode::Data(Data::Binary);
        for (len, bytes) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 0xff, 0xff]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            header(&mut out, data, len);
            assert_eq!(out, bytes, "{len}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        for (reason, kept) in
            [("x".repeat(123), 123), ("x".repeat(124), 123), ("é".repeat(80), 122)]
        {
            let mut out = Vec::new();
            close(&mut out, 1008, &reason);
            assert_eq!(usize::from(out[1]), 2 + kept);
            assert_eq!(std::str::from_utf8(&out[4..]), Ok(&reason[..kept]));
        }
    }

    #[test]
    #[should_panic(expected = "a control frame of 126 bytes")]
    fn an_oversized_pong_is_a_bug() {
        pong(&mut Vec::new(), &[0; 126]);
    }
}
