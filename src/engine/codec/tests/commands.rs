//! Commands of the client, sound and not.

use super::*;

fn refused(reference: Option<&str>, refusal: PostRefusal) -> Result<Post, CommandFault> {
    Err(CommandFault::Refused { reference: reference.map(named), refusal })
}

fn posted(reference: Option<&str>, key: Option<&str>, text: &str) -> Result<Post, CommandFault> {
    Ok(Post { reference: reference.map(named), key: key.map(Box::from), text: text.into() })
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
        (r#"{"ref":"7","text":"x"}"#, bad(Some("7"))),
        (r#"{"type":"post","ref":true,"text":"x"}"#, bad(None)),
        (r#"{"type":"post","ref":["7"],"text":"x"}"#, bad(None)),
        (r#"{"type":"post","ref":"7","text":5}"#, bad(Some("7"))),
        (r#"{"type":"post","ref":"7","text":"x","key":5}"#, bad(Some("7"))),
        (r#"{"type":7,"ref":"7","text":"x"}"#, bad(Some("7"))),
        // Half a surrogate pair is no character, and a `ref` with one cannot be echoed.
        (r#"{"type":"post","ref":"7","text":"a\ud83d"}"#, refused(Some("7"), PostRefusal::BadText)),
        (
            r#"{"type":"post","ref":"7","text":"\udc00\ud83d"}"#,
            refused(Some("7"), PostRefusal::BadText),
        ),
        (
            r#"{"type":"post","ref":"7","key":"\ud83d","text":"x"}"#,
            refused(Some("7"), PostRefusal::BadText),
        ),
        (r#"{"type":"\ud83d","ref":"7","text":"x"}"#, bad(Some("7"))),
        (r#"{"type":"post","ref":"\ud83d","text":"x"}"#, bad(None)),
        (r#"{"type":"post","text":"\ud83d\ude00"}"#, posted(None, None, "😀")),
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

/// The number is the client's: its digits come back, whatever they are.
#[test]
fn a_ref_may_be_a_number_and_comes_back_as_it_was_written() {
    for digits in ["7", "-0", "1.50", "1e400", "12345678901234567890123", &"9".repeat(64)] {
        let number = Reference::Number(digits.into());
        let command = format!(r#"{{"type":"post","ref": {digits} ,"text":"x"}}"#);
        let read = read_command(Codec::Json, command.as_bytes());
        let post = Post { reference: Some(number.clone()), key: None, text: "x".into() };
        assert_eq!(read, Ok(post), "{digits}");
        let mut frame = Vec::new();
        let notice = Notice::Error { reference: Some(&number), refusal: PostRefusal::Empty };
        write_notice(Codec::Json, &notice, &mut frame);
        let text = String::from_utf8_lossy(&frame).into_owned();
        assert!(text.contains(&format!(r#","ref":{digits},"#)), "{text}");
    }
    let long = format!(r#"{{"type":"post","ref":{},"text":"x"}}"#, "9".repeat(65));
    let read = read_command(Codec::Json, long.as_bytes());
    assert_eq!(read, refused(None, PostRefusal::BadText));
    for no_number in ["01", "+1", "1.", ".5", "0x7", "NaN", "- 1"] {
        let command = format!(r#"{{"type":"post","ref":{no_number},"text":"x"}}"#);
        let read = read_command(Codec::Json, command.as_bytes());
        assert_eq!(read, refused(None, PostRefusal::BadCommand), "{no_number}");
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
