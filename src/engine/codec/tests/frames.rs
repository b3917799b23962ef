//! Frames of the node, byte for byte and as the client's records.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;

use super::*;

const ID: CommentId = CommentId([
    0x01, 0x97, 0x65, 0x43, 0x21, 0x00, 0x75, 0x67, 0xaa, 0xf3, 0x7b, 0xc0, 0x48, 0xc0, 0xd2, 0x34,
]);

const ANN: Comment<'_> = Comment {
    id: ID,
    origin: "node-one-of-many",
    time_ms: 1_764_000_000_000,
    user: "u1",
    name: Some("Ann"),
    text: "hi \"there\"\n🎉",
};

const WELCOME: Notice<'_> = Notice::Welcome {
    event: "e",
    node: "n1",
    start: Position { epoch: 0x5f3a, offset: 1154 },
    head: 1204,
    recovered: true,
    viewers: 812,
};

fn archive_of(comment: &Comment<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    write_archive(comment, &mut out);
    out
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    // Something is already in the buffer, at an odd length: frames are appended anywhere.
    let mut out = b"before".to_vec();
    write(&mut out);
    out.split_off(6)
}

/// Splits a frame of this node into opcode and payload; one frame, whole.
fn payload(frame: &[u8]) -> (OpCode, &[u8]) {
    let mut cursor = Cursor::new(frame);
    let (header, len) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
    assert!(header.is_final && header.mask.is_none());
    let payload = &frame[cursor.position() as usize..];
    assert_eq!(payload.len() as u64, len);
    (header.opcode, payload)
}

fn json(frame: &[u8]) -> &str {
    let (opcode, payload) = payload(frame);
    assert_eq!(opcode, OpCode::Data(Data::Text));
    std::str::from_utf8(payload).unwrap()
}

/// Splits a binary frame into kind, offset and archive, checking the rest of the envelope.
fn binary(frame: &[u8]) -> (u8, u64, &[u8]) {
    let (opcode, payload) = payload(frame);
    assert_eq!(opcode, OpCode::Data(Data::Binary));
    let (envelope, archive) = payload.split_at(16);
    assert_eq!((envelope[0], &envelope[2..4]), (1, &[0, 0][..]));
    assert_eq!(u32::from_le_bytes(envelope[4..8].try_into().unwrap()) as usize, archive.len());
    (envelope[1], u64::from_le_bytes(envelope[8..].try_into().unwrap()), archive)
}

/// A record as the client declares it, checked on the way in.
macro_rules! record {
    ($record:ident, $archive:expr) => {
        rkyv::from_bytes::<client::$record, Error>($archive).unwrap()
    };
}

#[test]
fn json_frames_are_those_of_the_protocol() {
    let notice = |notice: &Notice<'_>| {
        json(&written(|out| write_notice(Codec::Json, notice, out))).to_owned()
    };
    assert_eq!(
        notice(&WELCOME),
        r#"{"type":"welcome","event":"e","node":"n1","position":"5f3a-1154","head":1204,"recovered":true,"viewers":812}"#
    );
    assert_eq!(
        notice(&Notice::You { user: "guest-0123456789ab" }),
        r#"{"type":"you","user":"guest-0123456789ab"}"#
    );
    assert_eq!(
        notice(&Notice::Ack { reference: Some(&named("7")), id: ID, offset: 1301 }),
        r#"{"type":"ack","ref":"7","id":"01976543-2100-7567-aaf3-7bc048c0d234","offset":1301}"#
    );
    assert_eq!(
        notice(&Notice::Ack { reference: None, id: ID, offset: 1 }),
        r#"{"type":"ack","id":"01976543-2100-7567-aaf3-7bc048c0d234","offset":1}"#
    );
    assert_eq!(
        notice(&Notice::Error { reference: Some(&named("7")), refusal: PostRefusal::TooLong }),
        r#"{"type":"error","ref":"7","code":"too_long","message":"the text is longer than this node takes"}"#
    );
    assert_eq!(
        notice(&Notice::Error { reference: None, refusal: PostRefusal::Empty }),
        r#"{"type":"error","code":"empty","message":"the text has nothing that anybody can see"}"#
    );
    assert_eq!(
        notice(&Notice::Gap { from: 1206, to: 1300 }),
        r#"{"type":"notice","kind":"gap","from":1206,"to":1300}"#
    );
    assert_eq!(
        notice(&Notice::Drain { delay_ms: 4200 }),
        r#"{"type":"notice","kind":"drain","delay_ms":4200}"#
    );
}

#[test]
fn a_comment_says_the_same_in_both_codecs() {
    let archive = archive_of(&ANN);
    let frame = written(|out| write_json_frame(&archive, 1205, out));
    let expected = r#"{"type":"comment","offset":1205,"id":"01976543-2100-7567-aaf3-7bc048c0d234","time":1764000000000,"user":"u1","name":"Ann","text":"hi \"there\"\n🎉"}"#;
    assert_eq!(json(&frame), expected);
    assert_eq!(written(|out| write_json_comment(&archive, 1205, out)), expected.as_bytes());

    let frame = written(|out| write_binary_frame(&archive, 1205, out));
    assert_eq!(binary(&frame), (1, 1205, archive.as_slice()));
    assert_eq!(archive_of_frame(&frame), archive);
    assert_eq!(
        record!(Comment, &archive),
        client::Comment {
            id: ID.0,
            origin: ANN.origin.into(),
            time: ANN.time_ms,
            user: ANN.user.into(),
            name: owned(ANN.name),
            text: ANN.text.into(),
        }
    );
    assert_eq!(read_archive(&archive), Some(ANN));
}

#[test]
fn a_comment_without_a_name_has_no_name_field() {
    let archive = archive_of(&Comment { name: None, text: "x", ..ANN });
    let frame = written(|out| write_json_frame(&archive, 1, out));
    assert_eq!(
        json(&frame),
        r#"{"type":"comment","offset":1,"id":"01976543-2100-7567-aaf3-7bc048c0d234","time":1764000000000,"user":"u1","text":"x"}"#
    );
    assert_eq!(record!(Comment, &archive).name, None);
}

/// The bytes themselves: a client in another language can be written from this and PROTOCOL.md.
#[test]
fn the_binary_form_of_a_small_frame_is_fixed() {
    let frame = written(|out| write_notice(Codec::Binary, &Notice::Gap { from: 2, to: 3 }, out));
    let expected = [
        &[0x82, 32][..],
        &[1, 5, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    assert_eq!(frame, expected);
    let frame = written(|out| write_notice(Codec::Binary, &Notice::Drain { delay_ms: 4200 }, out));
    assert_eq!(frame[..4], [0x82, 20, 1, 6]);
    assert_eq!(frame[18..], 4200_u32.to_le_bytes());
}

#[test]
fn binary_notices_are_the_records_of_the_protocol() {
    let notice = |notice: &Notice<'_>| written(|out| write_notice(Codec::Binary, notice, out));
    let frame = notice(&WELCOME);
    let (kind, offset, archive) = binary(&frame);
    assert_eq!((kind, offset), (2, 0));
    let (event, node) = ("e".into(), "n1".into());
    let (epoch, start, head) = (0x5f3a, 1154, 1204);
    assert_eq!(
        record!(Welcome, archive),
        client::Welcome { event, node, epoch, start, head, recovered: true, viewers: 812 }
    );

    for reference in [None, Some("7"), Some("a reference that is not inline")] {
        let echoed = reference.map(named);
        let frame = notice(&Notice::Ack { reference: echoed.as_ref(), id: ID, offset: 1301 });
        let (kind, offset, archive) = binary(&frame);
        assert_eq!((kind, offset), (3, 1301));
        assert_eq!(record!(Ack, archive), client::Ack { reference: owned(reference), id: ID.0 });

        let refusal = PostRefusal::RateLimited;
        let frame = notice(&Notice::Error { reference: echoed.as_ref(), refusal });
        let (kind, offset, archive) = binary(&frame);
        assert_eq!((kind, offset), (4, 0));
        let (code, message) = ("rate_limited".into(), "too many posts; wait a second".into());
        assert_eq!(
            record!(Refusal, archive),
            client::Refusal { reference: owned(reference), code, message }
        );
    }

    for user in ["u1", "guest-0123456789ab"] {
        let frame = notice(&Notice::You { user });
        let (kind, offset, archive) = binary(&frame);
        assert_eq!((kind, offset), (7, 0));
        assert_eq!(
            record!(You, archive),
            client::You { user: user.into(), role: None, can: Vec::new(), expires_ms: None }
        );
    }

    let frame = notice(&Notice::Gap { from: 1206, to: 1300 });
    let (kind, offset, archive) = binary(&frame);
    assert_eq!((kind, offset), (5, 0));
    assert_eq!(record!(Gap, archive), client::Gap { from: 1206, to: 1300 });

    let frame = notice(&Notice::Drain { delay_ms: 4200 });
    let (kind, offset, archive) = binary(&frame);
    assert_eq!((kind, offset), (6, 0));
    assert_eq!(record!(Drain, archive), client::Drain { delay_ms: 4200 });
}

#[test]
fn frames_of_every_header_size_are_taken_apart_again() {
    for len in [0, 1, 20, 60, 125, 2_000, 65_400, 65_535, 70_000] {
        let text = "t".repeat(len);
        let archive = archive_of(&Comment { text: &text, ..ANN });
        let frame = written(|out| write_binary_frame(&archive, 9, out));
        assert_eq!(archive_of_frame(&frame), archive, "{len}");
        let frame = written(|out| write_json_frame(&archive, 9, out));
        assert!(json(&frame).ends_with(&format!(r#""text":"{text}"}}"#)), "{len}");
    }
}

#[test]
fn a_broken_archive_is_not_a_comment() {
    let archive = archive_of(&ANN);
    assert_eq!(read_archive(&[]), None);
    assert_eq!(read_archive(&archive[1..]), None);
    assert_eq!(read_archive(&archive[..archive.len() - 1]), None);
}
