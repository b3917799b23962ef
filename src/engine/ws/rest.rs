//! What a peer still sends after the last word was said to it: read only as far as it takes to see its own end.
//!
//! Closing a socket over unread bytes sends a reset, which destroys what was said last before the peer has read
//! it (RFC 9112 §9.6). So the rest is heard and thrown away, until the peer's close frame, or its end of stream.
//! A frame of a known length is stepped over unseen; headers are looked at. After a broken frame the headers may
//! be nonsense, and then a limit of bytes or time ends it.
//!
//! Not here: those limits (`engine/lingering.rs`).

use super::partial::HEADER_BYTES_MAX;

/// The opcode of a close frame (RFC 6455 §11.8).
const CLOSE: u8 = 8;

/// Where in the peer's bytes we are, and how many there were.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rest {
    /// Payload bytes that are still to come of the frame under way.
    left: u64,
    /// A header's first bytes, `header[..header_len]`.
    header: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    /// The frame under way is the peer's close frame.
    is_close: bool,
    /// The bytes are no frames; only the end of stream ends them.
    is_unframed: bool,
    heard_bytes: u32,
}

impl Rest {
    /// Of a peer that speaks HTTP.
    #[must_use]
    pub fn unframed() -> Self {
        Self { is_unframed: true, ..Self::default() }
    }

    /// In the middle of a frame, with this much of its payload to come.
    #[must_use]
    pub fn within(left: u64, is_close: bool) -> Self {
        Self { left, is_close, ..Self::default() }
    }

    /// Behind the first bytes of a header.
    #[must_use]
    pub fn behind(header: &[u8]) -> Self {
        let mut rest = Self::default();
        rest.step(header);
        rest
    }

    /// Bytes heard so far.
    #[must_use]
    pub fn heard_bytes(&self) -> u32 {
        self.heard_bytes
    }

    /// Goes on from another place in the stream; what was heard before counts.
    pub fn go_on_from(&mut self, place: Self) {
        *self = Self { heard_bytes: self.heard_bytes, ..place };
    }

    /// How many of the next bytes need not be looked at.
    #[must_use]
    pub fn unseen_max(&self) -> u64 {
        match () {
            () if self.is_unframed => u64::MAX,
            () if self.is_close => 0,
            () => self.left,
        }
    }

    /// Steps over `len` bytes, at most [`Self::unseen_max`], that nobody has looked at.
    pub fn pass(&mut self, len: u32) {
        self.heard_bytes = self.heard_bytes.saturating_add(len);
        self.left = self.left.saturating_sub(len.into());
    }

    /// Hears the next bytes. True when the peer's close frame is whole: it will say nothing more.
    #[must_use]
    pub fn hear(&mut self, bytes: &[u8]) -> bool {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.heard_bytes = self.heard_bytes.saturating_add(len);
        !self.is_unframed && self.step(bytes)
    }

    fn step(&mut self, mut bytes: &[u8]) -> bool {
        loop {
            let over = self.left.min(bytes.len() as u64);
            bytes = &bytes[over as usize..];
            self.left -= over;
            if self.left == 0 && self.is_close {
                return true;
            }
            let [byte, behind @ ..] = bytes else { return false };
            self.header[usize::from(self.header_len)] = *byte;
            self.header_len += 1;
            bytes = behind;
            if let Some(left) = self.payload_len() {
                self.left = left;
                self.is_close = self.header[0] & 0x0f == CLOSE;
                self.header_len = 0;
            }
        }
    }

    /// The length that a header announces, once it is whole (RFC 6455 §5.2).
    fn payload_len(&self) -> Option<u64> {
        let header = &self.header[..usize::from(self.header_len)];
        let &[_, second, ref length @ ..] = header else { return None };
        let (len_bytes, mask_bytes) = (
            match second & 0x7f {
                126 => 2,
                127 => 8,
                _ => 0,
            },
            usize::from(second >> 7) * 4,
        );
        if length.len() < len_bytes + mask_bytes {
            return None;
        }
        let wide = length[..len_bytes].iter().fold(0, |len, byte| len << 8 | u64::from(*byte));
        Some(if len_bytes == 0 { u64::from(second & 0x7f) } else { wide })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![0x80 | opcode];
        match len {
            0..126 => bytes.push(0x80 | len as u8),
            126..65_536 => {
                bytes.push(0x80 | 126);
                bytes.extend((len as u16).to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend((len as u64).to_be_bytes());
            }
        }
        bytes.extend([1, 2, 3, 4]);
        bytes.resize(bytes.len() + len, 8);
        bytes
    }

    #[test]
    fn the_close_frame_is_seen_behind_frames_of_any_length_in_any_pieces() {
        for len in [0, 1, 125, 126, 70_000] {
            for close in [0, 2, 125] {
                let stream = [frame(1, len), frame(9, 3), frame(8, close)].concat();
                for piece in [1, 2, 7, 4_096, 100_000] {
                    let mut rest = Rest::default();
                    let mut pieces = stream.chunks(piece).peekable();
                    while let Some(piece) = pieces.next() {
                        let is_last = pieces.peek().is_none();
                        assert_eq!(rest.hear(piece), is_last, "{len} {close} {}", piece.len());
                    }
                    assert_eq!(rest.heard_bytes() as usize, stream.len());
                }
            }
        }
    }

    #[test]
    fn payload_may_go_unseen() {
        let stream = frame(1, 70_000);
        let mut rest = Rest::default();
        assert!(!rest.hear(&stream[..20]));
        assert_eq!(rest.unseen_max(), 70_000 - 6);
        rest.pass(69_994);
        assert!(rest.hear(&frame(8, 0)));
        assert_eq!(Rest::within(5, true).unseen_max(), 0, "a close frame is looked at");
    }

    #[test]
    fn bytes_that_are_no_frames_have_no_end() {
        let mut rest = Rest::unframed();
        assert!(!rest.hear(&frame(8, 0)));
        assert_eq!(rest.unseen_max(), u64::MAX);
        rest.pass(u32::MAX);
        assert_eq!(rest.heard_bytes(), u32::MAX);
    }

    #[test]
    fn it_goes_on_in_the_middle_of_a_header() {
        let close = frame(8, 2);
        let mut rest = Rest::behind(&close[..3]);
        assert!(rest.hear(&close[3..]));
        let mut rest = Rest::within(3, false);
        assert!(rest.hear(&[&[0, 0, 0][..], &close].concat()));
    }
}
