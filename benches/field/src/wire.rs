//! Just enough of RFC 6455 for a client, written anew so that a bug of the server's codec
//! cannot hide in its twin here.

use memchr::{memchr, memmem};

/// RFC 6455 §1.3: a fixed key, so that the right answer is a constant.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A request to upgrade `path`.
pub(crate) fn upgrade_request(host: &str, path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// What the server said to the request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Incomplete,
    /// 101 with the right accept key; frames start after so many bytes.
    Upgraded(usize),
    /// Another status, or a 101 with a wrong key (reported as 0).
    Refused(u16),
}

pub(crate) fn read_answer(input: &[u8]) -> Answer {
    let Some(end) = memmem::find(input, b"\r\n\r\n") else { return Answer::Incomplete };
    let head = &input[..end];
    let status = head.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
    match status.and_then(|digits| digits.parse().ok()) {
        Some(101) if memmem::find(head, ACCEPT).is_some() => Answer::Upgraded(end + 4),
        Some(101) | None => Answer::Refused(0),
        Some(status) => Answer::Refused(status),
    }
}

/// One frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) opcode: u8,
    pub(crate) payload: &'a [u8],
}

pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
const TEXT: u8 = 1;

/// Takes one whole, unfragmented, unmasked frame off `input`; `Ok(None)` when it is not all there.
///
/// # Errors
/// A sentence when the bytes cannot be such a frame.
pub(crate) fn take_frame<'a>(input: &mut &'a [u8]) -> Result<Option<Frame<'a>>, &'static str> {
    let bytes = *input;
    let [first, second, ..] = *bytes else { return Ok(None) };
    if first & 0xf0 != 0x80 {
        return Err("a fragment, or reserved bits");
    }
    if second & 0x80 != 0 {
        return Err("a masked frame from the server");
    }
    let (head, length) = match second {
        126 => match bytes.get(2..4) {
            Some(raw) => (4, usize::from(u16::from_be_bytes([raw[0], raw[1]]))),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|raw| <[u8; 8]>::try_from(raw).ok()) {
            Some(raw) => (10, usize::try_from(u64::from_be_bytes(raw)).unwrap_or(usize::MAX)),
            None => return Ok(None),
        },
        short => (2, usize::from(short)),
    };
    if length > 1 << 24 {
        return Err("a frame over 16 MiB");
    }
    let Some(payload) = bytes.get(head..head + length) else { return Ok(None) };
    *input = &bytes[head + length..];
    Ok(Some(Frame { opcode: first & 0x0f, payload }))
}

/// Appends a masked frame to `out`.
pub(crate) fn put_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    const MASK: [u8; 4] = [0x5a, 0xc3, 0x19, 0x7e];
    out.push(0x80 | opcode);
    match payload.len() {
        length @ 0..126 => out.push(0x80 | u8::try_from(length).expect("under 126")),
        length @ 126..65_536 => {
            out.push(0x80 | 126);
            out.extend(u16::try_from(length).expect("under 65,536").to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// Appends a comment's text, numbered and stamped, as one masked text frame made from `template`.
pub(crate) fn put_post(out: &mut Vec<u8>, template: &str, number: u32, at_ns: u64, bytes: usize) {
    let mut text = format!("<{number}:{at_ns}>");
    let padding = bytes.saturating_sub(text.len());
    text.extend(std::iter::repeat_n('x', padding));
    put_frame(out, TEXT, template.replace("{text}", &text).as_bytes());
}

/// The number and the intended instant of the comment in `payload`, whatever surrounds them.
pub(crate) fn find_stamp(payload: &[u8]) -> Option<(u32, u64)> {
    let mut rest = payload;
    while let Some(at) = memchr(b'<', rest) {
        rest = &rest[at + 1..];
        if let Some(stamp) = read_stamp(rest) {
            return Some(stamp);
        }
    }
    None
}

fn read_stamp(bytes: &[u8]) -> Option<(u32, u64)> {
    let (number, rest) = read_number(bytes, b':')?;
    let (at_ns, _) = read_number(rest, b'>')?;
    Some((u32::try_from(number).ok()?, at_ns))
}

fn read_number(bytes: &[u8], end: u8) -> Option<(u64, &[u8])> {
    let mut number = 0_u64;
    for (at, &byte) in bytes.iter().enumerate().take(20) {
        match byte {
            b'0'..=b'9' => number = number.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?,
            _ if byte == end && at > 0 => return Some((number, &bytes[at + 1..])),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let good =
            b"HTTP/1.1 101 x\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81";
        assert_eq!(read_answer(good), Answer::Upgraded(good.len() - 1));
        assert_eq!(read_answer(&good[..40]), Answer::Incomplete);
        assert_eq!(read_answer(b"HTTP/1.1 503 Busy\r\n\r\n"), Answer::Refused(503));
        assert_eq!(read_answer(b"HTTP/1.1 101 x\r\n\r\n"), Answer::Refused(0));
    }

    #[test]
    fn frames_of_each_length_form_come_off_one_by_one() {
        let mut bytes = vec![0x81, 2, b'h', b'i', 0x82, 126, 0, 3, 1, 2, 3, 0x89, 0];
        bytes.extend([0x81, 127, 0, 0, 0, 0, 0, 0, 0, 1, b'x', 0x81]);
        let mut input = &bytes[..];
        let mut frames = Vec::new();
        while let Some(frame) = take_frame(&mut input).unwrap() {
            frames.push((frame.opcode, frame.payload.to_vec()));
        }
        let expected =
            [(1, b"hi".to_vec()), (2, vec![1, 2, 3]), (PING, vec![]), (1, b"x".to_vec())];
        assert_eq!(frames, expected);
        assert_eq!(input, [0x81]);
        assert!(take_frame(&mut &[0x81_u8, 0x82][..]).is_err(), "masked");
        assert!(take_frame(&mut &[0x01_u8, 0x02][..]).is_err(), "fragmented");
    }

    #[test]
    fn a_stamp_survives_a_template_and_a_mask() {
        let mut out = Vec::new();
        put_post(&mut out, r#"{"type":"post","text":"{text}"}"#, 17, 123_456_789, 200);
        let length = usize::from(u16::from_be_bytes([out[2], out[3]]));
        assert_eq!(length, 200 + r#"{"type":"post","text":""}"#.len());
        let (mask, body) = (out[4..8].to_vec(), &out[8..]);
        let body: Vec<u8> = body.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b).collect();
        assert_eq!(find_stamp(&body), Some((17, 123_456_789)));
        assert_eq!(find_stamp(b"a < b <3 <1:> <:1> <2:5>"), Some((2, 5)));
        assert_eq!(find_stamp(b"nothing"), None);
    }
}
