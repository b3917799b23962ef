//! What people write, made fit to stand beside what others write.
//!
//! A text or a name is shown on screens that are not ours, between other people's. So line ends
//! become line feeds, what nobody could see is nothing, and a bidi control that its own text does
//! not pair is taken out: it would turn around what the viewer shows next, or end the isolation
//! that the viewer put around it. Characters that join or vary others (ZWJ, variation selectors)
//! stay: emoji are made of them.

use icu_properties::props::{BidiControl, DefaultIgnorableCodePoint, WhiteSpace};
use icu_properties::{CodePointSetData, CodePointSetDataBorrowed};

use crate::control::PostRefusal;
use crate::limits::LABEL_BYTES_MAX;

/// Sets of characters that show nothing by themselves.
const INVISIBLE: [CodePointSetDataBorrowed<'static>; 3] = [
    CodePointSetData::new::<WhiteSpace>(),
    CodePointSetData::new::<DefaultIgnorableCodePoint>(),
    CodePointSetData::new::<BidiControl>(),
];
/// BRAILLE PATTERN BLANK and HANGUL FILLER: letters by their properties, blanks to the eye.
const BLANK_LETTERS: [char; 2] = ['\u{2800}', '\u{3164}'];

/// The text of a comment as it is kept: with line feeds for CR LF, at most `comment_bytes_max`
/// bytes, and without unpaired bidi controls.
///
/// # Errors
/// `TooLong`, `Empty` (also when nobody could see any of it) or `BadText` (control characters
/// other than line feed and tab).
pub fn clean_text(text: Box<str>, comment_bytes_max: u32) -> Result<Box<str>, PostRefusal> {
    let bytes_max = comment_bytes_max as usize;
    let glance = Glance::at(&text);
    if text.len() <= bytes_max && glance.is_plain() {
        return Ok(text);
    }
    // CR LF is two bytes for one.
    if text.len() > 2 * bytes_max {
        return Err(PostRefusal::TooLong);
    }
    let may_have_lines = glance.has_control && text.contains("\r\n");
    let text = if may_have_lines { text.replace("\r\n", "\n").into() } else { text };
    if text.len() > bytes_max {
        return Err(PostRefusal::TooLong);
    }
    if !is_visible(&text) {
        Err(PostRefusal::Empty)
    } else if glance.has_control && text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        Err(PostRefusal::BadText)
    } else if glance.has_bidi {
        Ok(pair_bidi(text))
    } else {
        Ok(text)
    }
}

/// A user id or a name as it is kept, without unpaired bidi controls; one that nobody could see,
/// as an empty one, is none.
///
/// # Errors
/// `BadText`: over `LABEL_BYTES_MAX` bytes, or control characters.
pub fn clean_label(label: Box<str>) -> Result<Option<Box<str>>, PostRefusal> {
    if label.len() > LABEL_BYTES_MAX || label.chars().any(char::is_control) {
        return Err(PostRefusal::BadText);
    }
    Ok(is_visible(&label).then(|| pair_bidi(label)))
}

/// Checks a key, which nobody is shown: 1 to `LABEL_BYTES_MAX` bytes, no control characters.
///
/// # Errors
/// `BadText`.
pub fn check_key(key: &str) -> Result<(), PostRefusal> {
    let fits = (1..=LABEL_BYTES_MAX).contains(&key.len());
    if fits && !key.chars().any(char::is_control) { Ok(()) } else { Err(PostRefusal::BadText) }
}

/// What one look at each byte says of a text. It has no early end, so that the compiler takes many
/// bytes at once: what costs more is then done to the few texts that may need it.
struct Glance {
    /// ASCII that shows.
    has_ink: bool,
    /// Perhaps a control character, or half a CR LF.
    has_control: bool,
    /// Perhaps a bidi control: all of them begin so in UTF-8.
    has_bidi: bool,
    is_ascii: bool,
}

impl Glance {
    fn at(text: &str) -> Self {
        let mut seen = Self { has_ink: false, has_control: false, has_bidi: false, is_ascii: true };
        for byte in text.bytes() {
            seen.has_ink |= byte > b' ' && byte < 0x7f;
            let is_c0 = byte < b' ' && byte != b'\n' && byte != b'\t';
            // 0xc2 begins the C1 controls.
            seen.has_control |= is_c0 || byte == 0x7f || byte == 0xc2;
            seen.has_bidi |= byte == 0xe2;
            seen.is_ascii &= byte < 0x80;
        }
        seen
    }

    /// Whether the text needs nothing done to it.
    fn is_plain(&self) -> bool {
        self.is_ascii && self.has_ink && !self.has_control
    }
}

/// Whether anything of the text shows.
fn is_visible(text: &str) -> bool {
    text.chars().any(|c| match c {
        '\0'..='\u{7f}' => !c.is_ascii_whitespace() && c != '\u{b}',
        _ => !BLANK_LETTERS.contains(&c) && !INVISIBLE.iter().any(|set| set.contains(c)),
    })
}

/// Takes out the bidi controls that are not paired within their paragraph.
///
/// Pairs are those of UAX #9, X1 to X7: a PDI ends the last isolate and every embedding opened
/// since; a PDF ends the last embedding, unless an isolate was opened after it; the end of a
/// paragraph ends everything. A viewer that sets a line feed as a blank shows pairs as well.
fn pair_bidi(text: Box<str>) -> Box<str> {
    let mut open: Vec<(usize, bool)> = Vec::new();
    let mut isolates = 0;
    let mut lone: Vec<usize> = Vec::new();
    for (at, c) in text.char_indices() {
        match c {
            // LRE, RLE, LRO, RLO
            '\u{202a}' | '\u{202b}' | '\u{202d}' | '\u{202e}' => open.push((at, false)),
            // LRI, RLI, FSI
            '\u{2066}'..='\u{2068}' => {
                open.push((at, true));
                isolates += 1;
            }
            // PDF
            '\u{202c}' => match open.last() {
                Some((_, false)) => drop(open.pop()),
                _ => lone.push(at),
            },
            // PDI; without an isolate to end, nothing is looked through.
            '\u{2069}' if isolates == 0 => lone.push(at),
            '\u{2069}' => {
                while let Some((_, false)) = open.pop() {}
                isolates -= 1;
            }
            '\n' | '\u{2029}' => {
                lone.extend(open.drain(..).map(|(at, _)| at));
                isolates = 0;
            }
            _ => {}
        }
    }
    lone.extend(open.into_iter().map(|(at, _)| at));
    if lone.is_empty() {
        return text;
    }
    lone.sort_unstable();
    let mut kept = String::with_capacity(text.len());
    let mut from = 0;
    for at in lone {
        kept.push_str(&text[from..at]);
        from = at + '\u{202a}'.len_utf8();
    }
    kept.push_str(&text[from..]);
    kept.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(text: &str) -> Result<String, PostRefusal> {
        clean_text(text.into(), 2_000).map(String::from)
    }

    #[test]
    fn texts_are_kept_or_refused_as_documented() {
        for kept in [
            "x",
            "two\nlines\tand a tab",
            "ééééé",
            "a\u{2028}b",
            "\u{2800}x",
            // A family, a heart and a flag of tags, as keyboards send them.
            "👩\u{200d}👩\u{200d}👧",
            "❤\u{fe0f}",
            "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
        ] {
            assert_eq!(cleaned(kept).as_deref(), Ok(kept));
        }
        for (text, refusal) in [
            ("", PostRefusal::Empty),
            (" \n\t\u{3000}", PostRefusal::Empty),
            ("\r\n", PostRefusal::Empty),
            ("\u{200b}\u{200d}\u{feff}", PostRefusal::Empty),
            ("\u{2800} \u{3164}", PostRefusal::Empty),
            ("\u{115f}\u{ffa0}\u{34f}\u{ad}\u{61c}", PostRefusal::Empty),
            ("\u{200d}\u{fe0f}", PostRefusal::Empty),
            ("\u{202e}\u{202c}", PostRefusal::Empty),
            ("\u{e0020}", PostRefusal::Empty),
            ("a\rb", PostRefusal::BadText),
            ("a\r", PostRefusal::BadText),
            ("a\0", PostRefusal::BadText),
            ("\u{1b}[31m", PostRefusal::BadText),
            ("a\u{7f}", PostRefusal::BadText),
            ("a\u{85}b", PostRefusal::BadText),
        ] {
            assert_eq!(cleaned(text), Err(refusal), "{text:?}");
        }
    }

    #[test]
    fn line_ends_are_line_feeds_before_they_are_counted() {
        assert_eq!(cleaned("a\r\nb\r\n").as_deref(), Ok("a\nb\n"));
        let lines = "é\r\n".repeat(500);
        assert_eq!(clean_text(lines.as_str().into(), 1_500).as_deref(), Ok(&*"é\n".repeat(500)));
        assert_eq!(clean_text(lines.into(), 1_499), Err(PostRefusal::TooLong));
        assert_eq!(cleaned(&"é".repeat(1_000)).as_deref(), Ok(&*"é".repeat(1_000)));
        assert_eq!(cleaned(&"x".repeat(2_001)), Err(PostRefusal::TooLong));
        assert_eq!(cleaned(&" ".repeat(2_001)), Err(PostRefusal::TooLong));
        assert_eq!(cleaned(&"\r\n".repeat(2_001)), Err(PostRefusal::TooLong));
    }

    #[test]
    fn labels_are_kept_none_or_refused() {
        for kept in ["u", "Ann é", &"x".repeat(64)] {
            assert_eq!(clean_label(kept.into()), Ok(Some(kept.into())));
            assert_eq!(check_key(kept), Ok(()));
        }
        for none in ["", " ", "\u{200b}", "\u{3164}", "\u{2066}\u{2069}"] {
            assert_eq!(clean_label(none.into()), Ok(None), "{none:?}");
        }
        assert_eq!(clean_label("\u{202e}nnA".into()), Ok(Some("nnA".into())));
        for bad in ["a\nb", "\u{9f}", &"x".repeat(65), &"é".repeat(33)] {
            assert_eq!(clean_label(bad.into()), Err(PostRefusal::BadText), "{bad}");
            assert_eq!(check_key(bad), Err(PostRefusal::BadText), "{bad}");
        }
        assert_eq!(check_key(""), Err(PostRefusal::BadText));
    }

    /// Letters for controls: E opens an embedding, I an isolate; e and i end them.
    fn spelled(text: &str) -> String {
        text.replace('E', "\u{202e}")
            .replace('I', "\u{2067}")
            .replace('e', "\u{202c}")
            .replace('i', "\u{2069}")
    }

    #[test]
    fn only_paired_bidi_controls_stay() {
        for (text, kept) in [
            ("aEbec", "aEbec"),
            ("aIbic", "aIbic"),
            ("aIbEcedif", "aIbEcedif"),
            // An isolate's end ends what was opened in it.
            ("IaEbi", "IaEbi"),
            ("EaIbi", "aIbi"),
            ("aEb", "ab"),
            ("aIb", "ab"),
            ("aeb", "ab"),
            ("aib", "ab"),
            ("EEae", "Eae"),
            ("Eaee", "Eae"),
            // A PDF does not reach out of an isolate.
            ("EaIbeci", "aIbci"),
            ("IaEbiced", "IaEbicd"),
            // A paragraph's end is the end of everything.
            ("Ea\nbe", "a\nb"),
            ("Ia\u{2029}bi", "a\u{2029}b"),
            ("EaIb\nIcid", "ab\nIcid"),
        ] {
            let expected = Ok(spelled(kept));
            assert_eq!(cleaned(&spelled(text)), expected, "{text}");
        }
        let marks = "a\u{200e}b\u{200f}c\u{61c}";
        assert_eq!(cleaned(marks).as_deref(), Ok(marks), "a mark opens nothing");
    }
}
