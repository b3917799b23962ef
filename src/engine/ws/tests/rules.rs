//! Tables of single frames: what they mean, or which rule they break, and how soon that is seen.

use super::*;

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
    // What IANA's registry lists as to be sent, and the ranges that are for others to use.
    for code in [1000..=1003, 1007..=1014, 3000..=4999].into_iter().flatten() {
        let bytes = frame(CLOSE, true, &u16::to_be_bytes(code));
        let expected = Owned::Close(Some(code), String::new());
        assert_eq!(read_all(&bytes, &LIMITS), (vec![expected], Ok(())), "{code}");
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

#[test]
fn a_message_may_have_a_hundred_empty_fragments() {
    let empty = frame(CONTINUE, false, b"");
    let message = |count: usize| {
        [frame(TEXT, false, b"a"), empty.repeat(count), frame(CONTINUE, true, b"b")].concat()
    };
    let twice = [message(100), message(100)].concat();
    let text = || Owned::Text("ab".into());
    assert_eq!(read_all(&twice, &LIMITS), (vec![text(), text()], Ok(())), "each anew");
    assert_eq!(read_all(&message(101), &LIMITS), (vec![], Err(Fault::EmptyFragments)));
    assert_eq!(Fault::EmptyFragments.code(), 1008);
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
        (
            &[0x81, 0xfe, 0, 125, 0, 0, 0, 0],
            protocol("a frame length in a longer form than it needs"),
        ),
        (
            &[0x89, 0xfe, 0, 0, 0, 0, 0, 0],
            protocol("a frame length in a longer form than it needs"),
        ),
        (
            &[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0],
            protocol("a frame length in a longer form than it needs"),
        ),
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
    let unsendable = [0..=999, 1004..=1006, 1015..=2999, 5000..=5100, 65_535..=65_535];
    for code in unsendable.into_iter().flatten() {
        let bytes =
            [frame(TEXT, false, b"held"), frame(CLOSE, true, &u16::to_be_bytes(code))].concat();
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
