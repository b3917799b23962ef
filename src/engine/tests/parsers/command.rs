//! Commands in both codecs, and archives of comments from elsewhere.

use rkyv::rancor::Error;
use serde_json::Value;
use uproar_engine::codec::{
    Codec, CommandFault, Comment, Post, Reference, check_key, clean_label, clean_text,
    read_archive, read_command, write_archive, write_json_comment,
};
use uproar_engine::control::PostRefusal;
use uproar_engine::ids::CommentId;

use super::{Dice, for_seeds};

#[derive(rkyv::Archive, rkyv::Serialize)]
struct PostRecord {
    reference: Option<String>,
    key: Option<String>,
    text: String,
}

fn label(dice: &mut Dice) -> Option<String> {
    let chars = dice.pick(&[0, 1, 5, 15, 30]);
    (dice.roll(3) > 0).then(|| dice.text(chars))
}

fn record(dice: &mut Dice) -> PostRecord {
    let chars = dice.roll(60);
    PostRecord { reference: label(dice), key: label(dice), text: dice.text(chars) }
}

/// What holds of every command that was read or refused.
fn check(read: &Result<Post, CommandFault>, payload: &[u8]) {
    let reference = match read {
        Ok(post) => {
            assert!(post.key.as_ref().is_none_or(|key| check_key(key).is_ok()));
            // Every byte of UTF-8 comes from at least one of the payload.
            assert!(post.text.len() <= payload.len());
            &post.reference
        }
        Err(CommandFault::Refused { reference, refusal }) => {
            assert!(matches!(refusal, PostRefusal::BadCommand | PostRefusal::BadText));
            reference
        }
        Err(CommandFault::UnknownVersion) => return,
    };
    assert!(reference.as_ref().is_none_or(|reference| reference.as_str().len() <= 64));
}

/// The same command by way of a JSON tree; `None` when it is not a post, or not a sound one.
fn by_tree(payload: &[u8]) -> Option<Post> {
    let Value::Object(fields) = serde_json::from_slice(payload).ok()? else { return None };
    let text = |name| match fields.get(name) {
        None | Some(Value::Null) => Some(None),
        Some(Value::String(text)) => Some(Some(text.as_str())),
        Some(_) => None,
    };
    let reference = match fields.get("ref") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(Reference::Text(text.as_str().into())),
        // A tree forgets how a number was written; a small one is written in one way only.
        Some(Value::Number(number)) => Some(Reference::Number(number.to_string().into())),
        Some(_) => return None,
    };
    let key = text("key")?;
    let is_sound = text("type")? == Some("post")
        && reference.as_ref().is_none_or(|reference| reference.as_str().len() <= 64)
        && key.is_none_or(|key| check_key(key).is_ok());
    let post = Post { reference, key: key.map(Box::from), text: text("text")??.into() };
    is_sound.then_some(post)
}

/// Whether a field is there twice, which a tree forgets and we refuse.
fn repeats_a_field(payload: &str) -> bool {
    ["\"type\"", "\"ref\"", "\"key\"", "\"text\""]
        .into_iter()
        .any(|name| payload.matches(name).count() > 1)
}

#[test]
fn json_commands_are_what_a_json_tree_says() {
    let (mut posted, mut numbered) = (0, 0);
    for_seeds(0..6_000, |dice| {
        let record = record(dice);
        let mut fields = vec![("type", Some("post".to_owned()))];
        fields.insert(dice.roll(2), ("text", Some(record.text)));
        fields.insert(dice.roll(3), ("ref", record.reference));
        fields.push(("key", record.key));
        let mut fields: Vec<String> = fields
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name:?}: {}", Value::String(value?))))
            .collect();
        if dice.roll(4) == 0 {
            let digits = dice.pick(&["7", "-12", "40000000000"]);
            fields.retain(|field| !field.starts_with("\"ref\""));
            fields.push(format!("\"ref\": {digits}"));
        }
        let mut payload = format!("{{{}}}", fields.join(", ")).into_bytes();
        dice.damage(&mut payload, b"{}[]\",:\\u0nt \xff");
        let read = read_command(Codec::Json, &payload);
        check(&read, &payload);
        posted += u32::from(read.is_ok());
        // The frame reader hands out UTF-8 only; without it, skipped fields are not looked at.
        let Ok(text) = std::str::from_utf8(&payload) else { return };
        let number = match &read {
            Ok(Post { reference: Some(Reference::Number(digits)), .. }) => Some(digits.clone()),
            _ => None,
        };
        if let Some(digits) = number {
            assert!(text.contains(&*digits) && digits.parse::<f64>().is_ok(), "{text}");
            numbered += 1;
            // A tree writes a number in its own way, if it has a type for it at all.
            if serde_json::from_str::<Value>(&digits).map(|tree| tree.to_string()).ok()
                != Some(digits.into())
            {
                return;
            }
        }
        if !repeats_a_field(text) {
            assert_eq!(read.ok(), by_tree(&payload), "{text}");
        }
    });
    assert!(posted > 1_000 && numbered > 300, "{posted} {numbered}");
}

/// A stranger's text of marks that open and close, blanks, line ends and letters.
fn odd_text(dice: &mut Dice) -> String {
    let chars = dice.roll(40);
    let odd = [
        'a', 'é', ' ', '\n', '\r', '\t', '\u{200b}', '\u{202a}', '\u{202e}', '\u{202c}',
        '\u{2066}', '\u{2068}', '\u{2069}', '\u{2029}', '\u{2800}', '\u{200d}',
    ];
    (0..chars).map(|_| dice.pick(&odd)).collect()
}

/// What is open at the end of a paragraph, or was closed without having been opened: by a rule
/// that is slow and plain, each closer taking the nearest opener that it may close.
fn leaks(paragraph: &str) -> bool {
    let mut open = Vec::new();
    for c in paragraph.chars() {
        match c {
            '\u{202a}' | '\u{202b}' | '\u{202d}' | '\u{202e}' => open.push('e'),
            '\u{2066}'..='\u{2068}' => open.push('i'),
            '\u{202c}' if open.last() == Some(&'e') => drop(open.pop()),
            '\u{202c}' => return true,
            '\u{2069}' => match open.iter().rposition(|kind| *kind == 'i') {
                Some(at) => open.truncate(at),
                None => return true,
            },
            _ => {}
        }
    }
    !open.is_empty()
}

#[test]
fn cleaned_texts_stay_as_they_are_and_let_nothing_out() {
    let (mut kept, mut changed) = (0, 0);
    for_seeds(0..20_000, |dice| {
        let text = odd_text(dice);
        let unix = text.replace("\r\n", "\n");
        let cleaned = match clean_text(text.clone().into(), 60) {
            Ok(cleaned) => cleaned,
            Err(PostRefusal::TooLong) => return assert!(unix.len() > 60),
            Err(PostRefusal::BadText) => return assert!(unix.contains('\r')),
            Err(refusal) => {
                assert_eq!(refusal, PostRefusal::Empty);
                return assert!(!text.contains(['a', 'é']));
            }
        };
        assert!(cleaned.len() <= 60 && !cleaned.split(['\n', '\u{2029}']).any(leaks), "{text:?}");
        let is_other = |c: &char| !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        assert!(unix.chars().filter(is_other).eq(cleaned.chars().filter(is_other)), "{text:?}");
        assert_eq!(clean_text(cleaned.clone(), 60).as_ref(), Ok(&cleaned), "{text:?}");
        if !unix.split(['\n', '\u{2029}']).any(leaks) {
            assert_eq!(*cleaned, *unix, "what leaks nothing is not touched");
            kept += 1;
        }
        changed += u32::from(*cleaned != *unix);
        if let Ok(Some(label)) = clean_label(text.into()) {
            assert!(!label.split('\u{2029}').any(leaks), "{label:?}");
        }
    });
    assert!(kept > 200 && changed > 2_000, "{kept} {changed}");
}

#[test]
fn binary_commands_are_sound_or_refused() {
    let mut posted = 0;
    for_seeds(0..6_000, |dice| {
        let archive = rkyv::to_bytes::<Error>(&record(dice)).expect("a sound record");
        let mut archive = archive.into_vec();
        // Damage inside the archive, under an envelope that still fits; then anywhere.
        dice.damage(&mut archive, &[0, 1, 0x40, 0x80, 0xc0, 0xff]);
        let mut payload = vec![1, 16, 0, 0];
        payload.extend((archive.len() as u32).to_le_bytes());
        payload.extend([0; 8]);
        payload.extend(archive);
        let read = read_command(Codec::Binary, &payload);
        check(&read, &payload);
        posted += u32::from(read.is_ok());
        dice.damage(&mut payload, &[0, 1, 2, 16, 0xff]);
        check(&read_command(Codec::Binary, &payload), &payload);
    });
    assert!(posted > 1_000, "{posted}");
}

#[test]
fn a_damaged_archive_is_refused_or_still_a_comment() {
    for_seeds(0..6_000, |dice| {
        let (user, name, text) = (dice.text(5), label(dice), dice.text(20));
        let comment = Comment {
            id: CommentId::new(1, 2, 3, 4),
            origin: "node-1",
            time_ms: 1_764_000_000_000,
            user: &user,
            name: name.as_deref(),
            text: &text,
        };
        let mut archive = Vec::new();
        write_archive(&comment, &mut archive);
        assert_eq!(read_archive(&archive), Some(comment));
        dice.damage(&mut archive, &[0, 1, 0x40, 0x80, 0xc0, 0xff]);
        let Some(read) = read_archive(&archive) else { return };
        let mut json = Vec::new();
        write_json_comment(&archive, 7, &mut json);
        let json: Value = serde_json::from_slice(&json).expect("what we write is JSON");
        assert_eq!(json["text"], read.text);
        assert_eq!(json["id"], read.id.to_string());
    });
}
