//! Both codecs against PROTOCOL.md: literal frames, and records declared here once more.

use std::io::Cursor;

use rkyv::rancor::Error;
use tungstenite::protocol::frame::FrameHeader;

use super::*;

/// PROTOCOL.md's table of archived structs, as a client would declare them.
mod client {
    use rkyv::{Archive, Deserialize, Serialize};

    #[derive(Archive, Deserialize, Serialize, Debug, PartialEq)]
    pub(super) struct Comment {
        pub(super) id: [u8; 16],
        pub(super) origin: String,
        pub(super) time: u64,
        pub(super) user: String,
        pub(super) name: Option<String>,
        pub(super) text: String,
    }

    #[derive(Archive, Deserialize, Serialize, Debug, PartialEq)]
    pub(super) struct Welcome {
        pub(super) event: String,
        pub(super) node: String,
        pub(super) epoch: u64,
        pub(super) start: u64,
        pub(super) head: u64,
        pub(super) recovered: bool,
        pub(super) viewers: u32,
    }

    #[derive(Archive, Deserialize, Serialize, Debug, PartialEq)]
    pub(super) struct Ack {
        pub(super) reference: Option<String>,
        pub(super) id: [u8; 16],
    }

    #[derive(Archive, Deserialize, Serialize, Debug, PartialEq)]
    pub(super) struct Refusal {
        pub(super) reference: Option<String>,
        pub(super) code: String,
        pub(super) message: String,
    }

    #[derive(Archive, Deserialize, Serialize, Debug, PartialEq)]
    pub(super) struct Gap {
        pub(super) from: u64,
        pub(super) to: u64,
    }

    #[derive(Archive, Deserialize, Serialize, Debug, PartialEq)]
    pub(super) struct Drain {
        pub(super) delay_ms: u32,
    }

    #[derive(Archive, Deserialize, Serialize, Debug, PartialEq)]
    pub(super) struct Post {
        pub(super) reference: Option<String>,
        pub(super) key: Option<String>,
        pub(super) text: String,
    }
}

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

fn owned(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
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
        notice(&Notice::Ack { reference: Some("7"), id: ID, offset: 1301 }),
        r#"{"type":"ack","ref":"7","id":"01976543-2100-7567-aaf3-7bc048c0d234","offset":1301}"#
    );
    assert_eq!(
        notice(&Notice::Ack { reference: None, id: ID, offset: 1 }),
        r#"{"type":"ack","id":"01976543-2100-7567-aaf3-7bc048c0d234","offset":1}"#
    );
    assert_eq!(
        notice(&Notice::Error { reference: Some("7"), refusal: PostRefusal::TooLong }),
        r#"{"type":"error","ref":"7","code":"too_long","message":"the text is longer than this node takes"}"#
    );
    assert_eq!(
        notice(&Notice::Error { reference: None, refusal: PostRefusal::Empty }),
        r#"{"type":"error","code":"empty","message":"the text is empty"}"#
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
        let frame = notice(&Notice::Ack { reference, id: ID, offset: 1301 });
        let (kind, offset, archive) = binary(&frame);
        assert_eq!((kind, offset), (3, 1301));
        assert_eq!(record!(Ack, archive), client::Ack { reference: owned(reference), id: ID.0 });

        let frame = notice(&Notice::Error { reference, refusal: PostRefusal::RateLimited });
        let (kind, offset, archive) = binary(&frame);
        assert_eq!((kind, offset), (4, 0));
        let (code, message) = ("rate_limited".into(), "too many posts; wait a second".into());
        assert_eq!(
            record!(Refusal, archive),
            client::Refusal { reference: owned(reference), code, message }
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

fn refused(reference: Option<&str>, refusal: PostRefusal) -> Result<Post, CommandFault> {
    Err(CommandFault::Refused { reference: reference.map(Box::from), refusal })
}

fn posted(reference: Option<&str>, key: Option<&str>, text: &str) -> Result<Post, CommandFault> {
    Ok(Post { reference: reference.map(Box::from), key: key.map(Box::from), text: text.into() })
}

#[test]
fn json_commands() {
    let long = "r".repeat(65);
    let bad = |reference| refused(reference, PostRefusal::BadCommand);
    for (command, expected) in [
        (
            r#"{"type":"post","ref":"7","key":"k-19","text":"hello"}"#,
            posted(Some("7"), Some("k-19"), "hello"),
        ),
        (r#"{"text":"\u00e9\n","type":"post"}"#, posted(None, None, "é\n")),
        (r#" {"type":"post","text":"","new":{"a":[1]}} "#, posted(None, None, "")),
        (r#"{"type":"post","ref":null,"key":null,"text":"x"}"#, posted(None, None, "x")),
        (r#"{"type":"post","ref":"","text":"x"}"#, posted(Some(""), None, "x")),
        (r#"{"type":"wave","ref":"7"}"#, bad(Some("7"))),
        (r#"{"type":"post","ref":"7"}"#, bad(Some("7"))),
        (r#"{"type":"post","ref":"7","text":null}"#, bad(Some("7"))),
        (r#"{"ref":"7","text":"x"}"#, bad(None)),
        (r#"{"type":"post","ref":7,"text":"x"}"#, bad(None)),
        (r#"{"type":"post","text":"x""#, bad(None)),
        (r#"{"type":"post","text":"x"}{}"#, bad(None)),
        (r#"{"type":"post","text":"x","text":"y"}"#, bad(None)),
        (r#"{"t\u0079pe":"p\u006fst","text":"x"}"#, posted(None, None, "x")),
        (r#"["post","7","k","x"]"#, bad(None)),
        (r#"{"type":{"post":null},"text":"x"}"#, bad(None)),
        ("", bad(None)),
        (&format!(r#"{{"type":"wave","ref":"{long}"}}"#), bad(None)),
        (
            &format!(r#"{{"type":"post","ref":"{long}","text":"x"}}"#),
            refused(None, PostRefusal::BadText),
        ),
        (
            &format!(r#"{{"type":"post","ref":"7","key":"{long}","text":"x"}}"#),
            refused(Some("7"), PostRefusal::BadText),
        ),
        (
            r#"{"type":"post","ref":"7","key":"","text":"x"}"#,
            refused(Some("7"), PostRefusal::BadText),
        ),
    ] {
        assert_eq!(read_command(Codec::Json, command.as_bytes()), expected, "{command}");
    }
}

/// A binary command as a client builds it.
fn command(version: u8, kind: u8, post: &client::Post) -> Vec<u8> {
    let archive = rkyv::to_bytes::<Error>(post).unwrap();
    let mut command = vec![version, kind, 0xff, 0xff];
    command.extend((archive.len() as u32).to_le_bytes());
    command.extend([0; 8]);
    command.extend_from_slice(&archive);
    command
}

#[test]
fn binary_commands() {
    let post = |reference: Option<&str>, key: Option<&str>, text: &str| client::Post {
        reference: owned(reference),
        key: owned(key),
        text: text.into(),
    };
    let read = |command: &[u8]| read_command(Codec::Binary, command);
    let sound = post(Some("7"), Some("k-19"), "hello from the other side");
    let whole = command(1, 16, &sound);
    assert_eq!(read(&whole), posted(Some("7"), Some("k-19"), &sound.text));
    assert_eq!(read(&command(1, 16, &post(None, None, ""))), posted(None, None, ""));

    assert_eq!(read(&command(2, 16, &sound)), Err(CommandFault::UnknownVersion));
    assert_eq!(read(&[0]), Err(CommandFault::UnknownVersion));
    let bad = refused(None, PostRefusal::BadCommand);
    assert_eq!(read(&command(1, 1, &sound)), bad);
    for len in 0..whole.len() {
        assert_eq!(read(&whole[..len]), bad, "{len}");
    }
    assert_eq!(read(&[&whole[..], &[0]].concat()), bad);
    // The root is at the end, so without the length a longer archive would read as well.
    assert_eq!(read(&[&whole[..16], &[0], &whole[16..]].concat()), bad);

    let long = "r".repeat(65);
    let refused = |reference| refused(reference, PostRefusal::BadText);
    assert_eq!(read(&command(1, 16, &post(Some(&long), None, "x"))), refused(None));
    assert_eq!(read(&command(1, 16, &post(Some("7"), Some(&long), "x"))), refused(Some("7")));
}

#[test]
fn texts_and_labels_are_checked_as_documented() {
    for (text, expected) in [
        ("x", Ok(())),
        ("two\nlines\tand a tab", Ok(())),
        ("ééééé", Ok(())),
        ("", Err(PostRefusal::Empty)),
        (" \n\t\u{3000}", Err(PostRefusal::Empty)),
        ("a\rb", Err(PostRefusal::BadText)),
        ("a\0", Err(PostRefusal::BadText)),
        ("\u{1b}[31m", Err(PostRefusal::BadText)),
        ("a\u{7f}", Err(PostRefusal::BadText)),
        ("a\u{85}b", Err(PostRefusal::BadText)),
    ] {
        assert_eq!(check_text(text, 2_000), expected, "{text:?}");
    }
    assert_eq!(check_text(&"é".repeat(1_000), 2_000), Ok(()));
    assert_eq!(check_text(&"x".repeat(2_001), 2_000), Err(PostRefusal::TooLong));
    assert_eq!(check_text(&" ".repeat(2_001), 2_000), Err(PostRefusal::TooLong));
    for good in ["u", "Ann é", &"x".repeat(64)] {
        assert_eq!(check_label(good), Ok(()), "{good}");
    }
    for bad in ["", "a\nb", "\u{9f}", &"x".repeat(65), &"é".repeat(33)] {
        assert_eq!(check_label(bad), Err(PostRefusal::BadText), "{bad}");
    }
}

#[test]
fn subprotocols_name_the_codecs() {
    for (index, codec) in Codec::ALL.into_iter().enumerate() {
        assert_eq!(codec.index(), index);
        assert_eq!(Codec::from_subprotocol(codec.subprotocol()), Some(codec));
    }
    assert_eq!(Codec::from_subprotocol("uproar.json.v2"), None);
}
