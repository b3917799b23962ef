//! WebSocket framing from the client's side, on tungstenite's frame-header codec.
//!
//! Reading borrows: a frame is a header and a range of the caller's buffer. Writing masks,
//! as RFC 6455 §5.3 demands of clients.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// The most a server frame may carry here, in bytes; an honest server stays far below.
const PAYLOAD_BYTES_MAX: u64 = 1 << 20;

/// What the bytes of a server did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("the server sent a frame header that RFC 6455 does not allow")]
    Header,
    #[error("the server sent a masked frame")]
    Masked,
    #[error("the server sent a frame of more than 1 MiB")]
    TooLong,
    #[error("the server sent a message that its subprotocol does not define")]
    Payload,
}

/// One frame at the front of a buffer.
#[derive(Debug)]
pub(crate) struct FrameView<'a> {
    pub(crate) opcode: OpCode,
    pub(crate) is_final: bool,
    pub(crate) payload: &'a [u8],
    /// Header and payload, in bytes: how far to advance.
    pub(crate) frame_bytes: usize,
}

/// Reads the frame at the front of `bytes`; `None` when it is not whole yet.
pub(crate) fn next_frame(bytes: &[u8]) -> Result<Option<FrameView<'_>>, WireError> {
    let mut cursor = Cursor::new(bytes);
    let parsed = FrameHeader::parse(&mut cursor).map_err(|_| WireError::Header)?;
    let Some((header, payload_bytes)) = parsed else { return Ok(None) };
    if header.mask.is_some() {
        return Err(WireError::Masked);
    }
    if header.rsv1 || header.rsv2 || header.rsv3 {
        return Err(WireError::Header);
    }
    if payload_bytes > PAYLOAD_BYTES_MAX {
        return Err(WireError::TooLong);
    }
    let start = cursor.position() as usize;
    let end = start + payload_bytes as usize;
    let Some(payload) = bytes.get(start..end) else { return Ok(None) };
    Ok(Some(FrameView {
        opcode: header.opcode,
        is_final: header.is_final,
        payload,
        frame_bytes: end,
    }))
}

/// Appends one whole masked frame.
pub(crate) fn write_frame(opcode: OpCode, payload: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    let header = FrameHeader { is_final: true, opcode, mask: Some(mask), ..FrameHeader::default() };
    header.format(payload.len() as u64, out).expect("writing into a Vec does not fail");
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// The text opcode.
pub(crate) const TEXT: OpCode = OpCode::Data(Data::Text);
/// The binary opcode.
pub(crate) const BINARY: OpCode = OpCode::Data(Data::Binary);
/// The opcode of later fragments.
pub(crate) const CONTINUATION: OpCode = OpCode::Data(Data::Continue);
/// The ping opcode.
pub(crate) const PING: OpCode = OpCode::Control(Control::Ping);
/// The pong opcode.
pub(crate) const PONG: OpCode = OpCode::Control(Control::Pong);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_only_when_whole() {
        let mut bytes = vec![0x81, 126, 0, 200];
        bytes.extend([b'x'; 200]);
        bytes.extend([0x89, 0]);
        for cut in 0..204 {
            assert!(next_frame(&bytes[..cut]).unwrap().is_none(), "{cut}");
        }
        let frame = next_frame(&bytes).unwrap().unwrap();
        assert_eq!((frame.opcode, frame.payload.len(), frame.frame_bytes), (TEXT, 200, 204));
        let ping = next_frame(&bytes[204..]).unwrap().unwrap();
        assert_eq!((ping.opcode, ping.frame_bytes), (PING, 2));
    }

    #[test]
    fn masked_reserved_and_huge_frames_are_refused() {
        assert_eq!(next_frame(&[0x81, 0x80, 0, 0, 0, 0]).unwrap_err(), WireError::Masked);
        assert_eq!(next_frame(&[0xc1, 0]).unwrap_err(), WireError::Header);
        assert_eq!(next_frame(&[0x83, 0]).unwrap_err(), WireError::Header);
        let huge = [0x82, 127, 0, 0, 0, 0, 0, 0x20, 0, 0];
        assert_eq!(next_frame(&huge).unwrap_err(), WireError::TooLong);
    }

    #[test]
    fn written_frames_unmask_to_their_payload() {
        let mut out = Vec::new();
        write_frame(TEXT, b"hello there", [1, 2, 3, 4], &mut out);
        let (header, length) = FrameHeader::parse(&mut Cursor::new(&out)).unwrap().unwrap();
        assert_eq!((header.mask, length), (Some([1, 2, 3, 4]), 11));
        let plain: Vec<u8> =
            out[6..].iter().zip([1u8, 2, 3, 4].iter().cycle()).map(|(b, m)| b ^ m).collect();
        assert_eq!(plain, b"hello there");
    }
}
