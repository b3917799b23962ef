//! Commands of the client, sound and not.

use super::*;

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
