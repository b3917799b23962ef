//! Text that others wrote, on the terminal of whoever reads it: shown, never obeyed.
//!
//! A terminal acts on control characters (C0, DEL, C1, and so on escape sequences), and a line that
//! has a bidi control in it is drawn in another order than it was written, up to the prompt. Such
//! characters are printed as Rust escapes them, `\u{1b}`; everything else stays, emoji too.
//!
//! Not here: which comments a node takes (`codec::text` of the engine). What a node sends is not
//! believed, as there may be something else at the address.

use std::fmt::Write;

/// Whether a terminal does something for it instead of showing it.
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Marks, embeddings, overrides, isolates; and the deprecated ones behind them.
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}'
            // Separators of lines and paragraphs, annotations between lines.
            | '\u{2028}' | '\u{2029}' | '\u{fff9}'..='\u{fffb}')
}

/// One line of it.
pub(crate) fn line(text: &str) -> String {
    escaped(text, |_| false)
}

/// Several lines, which may have tabs in them.
pub(crate) fn lines(text: &str) -> String {
    escaped(text, |c| c == '\n' || c == '\t')
}

fn escaped(text: &str, stays: fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) && !stays(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// A JSON text as one line that means the same. Outside strings it has ASCII only, and of control
/// characters those that mean a blank.
pub(crate) fn json_line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_ascii_control() => shown.push(' '),
            // All of these have one unit of UTF-16.
            c if is_obeyed(c) => {
                let _ = write!(shown, "\\u{:04x}", u32::from(c));
            }
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_spelled_out() {
        for (text, shown) in [
            ("plain é 末 👩\u{200d}👧 ❤\u{fe0f}", "plain é 末 👩\u{200d}👧 ❤\u{fe0f}"),
            ("\u{1b}[2J\u{7}", "\\u{1b}[2J\\u{7}"),
            ("\u{9b}31m\u{90}\u{7f}", "\\u{9b}31m\\u{90}\\u{7f}"),
            ("a\rb\nc\td", "a\\rb\\nc\\td"),
            ("\u{202e}abc\u{202c} \u{2067}d\u{2069}", "\\u{202e}abc\\u{202c} \\u{2067}d\\u{2069}"),
            (
                "\u{61c}\u{200e}\u{2028}\u{206a}\u{fff9}",
                "\\u{61c}\\u{200e}\\u{2028}\\u{206a}\\u{fff9}",
            ),
        ] {
            assert_eq!(line(text), shown);
        }
        assert_eq!(lines("a\n\tb\r\u{1b}"), "a\n\tb\\r\\u{1b}");
    }

    #[test]
    fn every_control_and_bidi_character_is_obeyed_by_somebody() {
        use uproar_engine::codec::clean_text;
        let bidi = ['\u{202a}'..='\u{202e}', '\u{2066}'..='\u{2069}'].into_iter().flatten();
        for c in ('\0'..='\u{1f}').chain('\u{7f}'..='\u{9f}').chain(bidi) {
            assert!(!line(&format!("a{c}b")).contains(c), "{c:?}");
            assert!(!json_line(&format!("a{c}b")).contains(c), "{c:?}");
        }
        // Paired bidi controls are a good comment, and still not for a terminal.
        let paired = "\u{2067}a\u{2069}";
        assert_eq!(clean_text(paired.into(), 99).as_deref(), Ok(paired));
    }

    #[test]
    fn json_stays_the_same_json() {
        let value = serde_json::json!({ "text": "a\u{9b}\u{202e}é\u{1b}\n👧", "n": 1 });
        let text = serde_json::to_string_pretty(&value).unwrap().replace('\n', "\r\n\t");
        let shown = json_line(&text);
        assert!(!shown.chars().any(is_obeyed), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
