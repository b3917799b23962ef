//! The text form, `uproar.json.v1`.

use serde::Deserialize;

use super::frame::WireError;
use super::{Heard, Reader};
use crate::marker::Marker;

/// How a comment usually begins. JSON objects have no order, so a frame that begins otherwise is parsed whole.
const COMMENT_LEAD: &[u8] = br#"{"type":"comment","offset":"#;

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Frame {
    Welcome {
        event: String,
        position: String,
        head: u64,
        recovered: bool,
        viewers: u32,
    },
    Comment {
        offset: u64,
        id: String,
        time: u64,
        user: String,
        text: String,
    },
    Ack {
        r#ref: Option<String>,
        offset: u64,
    },
    Error {
        r#ref: Option<String>,
        code: String,
    },
    Notice(Notice),
    #[serde(other)]
    Unknown,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Notice {
    Gap {
        from: u64,
        to: u64,
    },
    Drain {
        delay_ms: u64,
    },
    #[serde(other)]
    Unknown,
}

pub(super) fn read(reader: &mut Reader, payload: &[u8]) -> Result<Heard, WireError> {
    let Some(offset) = quick_offset(payload) else { return read_whole(reader, payload) };
    let heard = Heard::Comment { offset, marker: reader.finder.find(payload) };
    if reader.is_check_due() && read_whole(reader, payload)? != heard {
        return Err(WireError::Payload);
    }
    Ok(heard)
}

/// The offset of a comment that begins the usual way.
fn quick_offset(payload: &[u8]) -> Option<u64> {
    let rest = payload.strip_prefix(COMMENT_LEAD)?;
    let mut offset = 0u64;
    for (i, byte) in rest.iter().enumerate() {
        match byte {
            b'0'..=b'9' if i < 19 => offset = offset * 10 + u64::from(byte - b'0'),
            b',' if i > 0 => return Some(offset),
            _ => return None,
        }
    }
    None
}

fn read_whole(reader: &Reader, payload: &[u8]) -> Result<Heard, WireError> {
    let frame = serde_json::from_slice(payload).map_err(|_| WireError::Payload)?;
    Ok(match frame {
        Frame::Welcome { event, position, head, recovered, viewers } => {
            let (epoch, start) = parse_position(&position).ok_or(WireError::Payload)?;
            if event.is_empty() || viewers == 0 || head < start {
                return Err(WireError::Payload);
            }
            Heard::Welcome { epoch, start, head, recovered }
        }
        Frame::Comment { offset, id, time, user, text } => {
            let marker = reader.finder.find(text.as_bytes());
            let is_damaged = marker.is_some_and(|marker| !reader.is_own_text(marker, &text));
            if id.len() != 36 || time == 0 || user.is_empty() || is_damaged {
                return Err(WireError::Payload);
            }
            Heard::Comment { offset, marker }
        }
        Frame::Ack { r#ref, offset } => {
            Heard::Ack { sequence: r#ref.and_then(|text| text.parse().ok()), offset }
        }
        Frame::Error { r#ref, code } => {
            Heard::Refused { sequence: r#ref.and_then(|text| text.parse().ok()), code }
        }
        Frame::Notice(Notice::Gap { from, to }) => Heard::Gap { from, to },
        Frame::Notice(Notice::Drain { delay_ms }) => Heard::Drain { delay_ms },
        Frame::Notice(Notice::Unknown) | Frame::Unknown => Heard::Unknown,
    })
}

/// Takes `{epoch in hex}-{offset}` apart.
fn parse_position(text: &str) -> Option<(u64, u64)> {
    let (epoch, offset) = text.split_once('-')?;
    Some((u64::from_str_radix(epoch, 16).ok()?, offset.parse().ok()?))
}

pub(super) fn post(marker: Marker, text_bytes: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"post","ref":""#);
    out.extend_from_slice(marker.sequence.to_string().as_bytes());
    out.extend_from_slice(br#"","text":""#);
    marker.write(text_bytes, out);
    out.extend_from_slice(br#""}"#);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKER: Marker = Marker { run: 1, publisher: 2, sequence: 3, due_ns: 4 };

    fn comment(offset: &str) -> Vec<u8> {
        let mut frame = format!(
            r#"{{"type":"comment","offset":{offset},"id":"01976543-2100-7567-aaf3-7bc048c0d234","time":1,"user":"u","text":""#
        )
        .into_bytes();
        MARKER.write(60, &mut frame);
        frame.extend_from_slice(br#""}"#);
        frame
    }

    #[test]
    fn the_quick_and_the_whole_reading_agree() {
        let mut reader = Reader::new(60);
        let heard = Heard::Comment { offset: 1205, marker: Some(MARKER) };
        for _ in 0..200 {
            assert_eq!(
                read(&mut reader, &comment("1205")),
                Ok(Heard::Comment { offset: 1205, marker: Some(MARKER) })
            );
        }
        assert_eq!(reader.checked, 3);
        assert_eq!(read_whole(&reader, &comment("1205")), Ok(heard));
    }

    #[test]
    fn a_changed_letter_is_noticed_by_the_sampled_check() {
        let mut reader = Reader::new(60);
        let mut frame = comment("9");
        let at = frame.len() - 4;
        frame[at] = b'!';
        let damaged = (0..64).filter(|_| read(&mut reader, &frame).is_err()).count();
        assert_eq!(damaged, 1);
    }

    #[test]
    fn the_other_frames_of_the_protocol_are_understood() {
        let mut reader = Reader::new(60);
        let cases: [(&str, Heard); 8] = [
            (
                r#"{"type":"welcome","event":"e","node":"n1","position":"5f3a-1154","head":1204,"recovered":true,"viewers":812}"#,
                Heard::Welcome { epoch: 0x5f3a, start: 1154, head: 1204, recovered: true },
            ),
            (
                r#"{"type":"ack","ref":"7","id":"x","offset":1301}"#,
                Heard::Ack { sequence: Some(7), offset: 1301 },
            ),
            (
                r#"{"type":"error","ref":"7","code":"too_long","message":"m"}"#,
                Heard::Refused { sequence: Some(7), code: "too_long".into() },
            ),
            (r#"{"type":"notice","kind":"gap","from":6,"to":9}"#, Heard::Gap { from: 6, to: 9 }),
            (r#"{"type":"notice","kind":"drain","delay_ms":42}"#, Heard::Drain { delay_ms: 42 }),
            (r#"{"type":"notice","kind":"slow_mode"}"#, Heard::Unknown),
            (r#"{"type":"reaction","count":3}"#, Heard::Unknown),
            (r#"{"type":"you","user":"guest-0123456789ab"}"#, Heard::Unknown),
        ];
        for (text, heard) in cases {
            assert_eq!(read(&mut reader, text.as_bytes()), Ok(heard), "{text}");
        }
        assert_eq!(read(&mut reader, b"hello"), Err(WireError::Payload));
    }
}
