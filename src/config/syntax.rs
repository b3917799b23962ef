//! What to do about a line that is no TOML.
//!
//! The parser says what it stumbled over, in words of its grammar ("invalid float, expected nothing" for an
//! address without quotes). Whoever wrote the line wants to know what to write instead, and the table of
//! settings knows that.

use super::setting::Setting;
use super::{Config, find, nearest};

/// One sentence about line `number` (from 0), at which the parser said `why`.
pub(super) fn sentence(text: &str, number: usize, why: &str) -> String {
    let line = text.lines().nth(number).unwrap_or_default();
    let line = line.split(" #").next().unwrap_or(line).trim();
    if why.starts_with("duplicate key") {
        return twice(text, number, line);
    }
    if line.starts_with('[') {
        return format!("{line} begins a table, but the file is flat: take the line out");
    }
    let Some((key, value)) = line.split_once('=') else {
        let key = line.split([' ', ':', '\t']).next().unwrap_or_default();
        return match find(key) {
            Some(setting) => {
                format!("{key} has no =; write {}", example(setting, line[key.len()..].trim()))
            }
            None => format!(
                "{line:?} is no setting; write KEY = VALUE, as in {}",
                example_of("rooms_max")
            ),
        };
    };
    let (key, value) = (key.trim(), value.trim());
    match (find(key), nearest(key)) {
        (Some(setting), _) if value.is_empty() => {
            format!(
                "{key} has no value; it takes {}, as in {}",
                setting.kind.range(),
                example(setting, value)
            )
        }
        (Some(setting), _) => {
            let takes = setting.kind.range();
            format!(
                "{key} = {value} cannot be read; it takes {takes}, written as {}",
                example(setting, value)
            )
        }
        (None, Some(near)) => format!("{key} is not a setting; did you mean {near}?"),
        (None, None) => format!(
            "{line:?} cannot be read ({}); write KEY = VALUE, as in {}",
            why.replace('\n', ", "),
            example_of("listen")
        ),
    }
}

/// A key that an earlier line has as well.
fn twice(text: &str, number: usize, line: &str) -> String {
    let key_of = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    let key = key_of(line);
    let first = text.lines().position(|other| key_of(other) == key).filter(|&at| at < number);
    match first {
        Some(at) => format!("{key} is set on line {} already; keep one of the two", at + 1),
        None => format!("{key} is set twice; keep one"),
    }
}

/// The setting as the file would have it: with what was meant, if that can be told, or its default.
fn example(setting: &Setting, meant: &str) -> String {
    let bare = meant.trim_matches(|c: char| "\"'=: \t".contains(c));
    let mut config = Config::default();
    let is_good = !bare.is_empty() && (setting.assign)(&mut config, bare, &setting.kind).is_ok();
    let value = if is_good { setting.value(&config) } else { setting.default.to_owned() };
    format!("{} = {}", setting.name, setting.toml_value(&value))
}

fn example_of(name: &str) -> String {
    find(name).map_or_else(String::new, |setting| example(setting, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_no_toml_gets_what_to_write_instead() {
        let why = "invalid float\nexpected nothing";
        for (line, part) in [
            ("listen = 127.0.0.1:80", "written as listen = \"127.0.0.1:80\""),
            ("lag_policy = evict # all of them", "written as lag_policy = \"evict\""),
            ("drain_delay_ms = 2s", "it takes 0 to 3600000 ms, written as drain_delay_ms = 2000"),
            (
                "rooms_max =",
                "rooms_max has no value; it takes 1 to 16777216 rooms, as in rooms_max = 65536",
            ),
            ("rooms_max = 05", "written as rooms_max = 5"),
            ("rooms_max 5", "rooms_max has no =; write rooms_max = 5"),
            ("rooms_max: 5", "rooms_max has no =; write rooms_max = 5"),
            ("log_level = \"warn", "written as log_level = \"warn\""),
            ("[server", "the file is flat: take the line out"),
            ("rooms_maxx = 5x", "did you mean rooms_max?"),
            ("= 5", "write KEY = VALUE, as in listen = \"127.0.0.1:8080\""),
            ("nonsense", "\"nonsense\" is no setting; write KEY = VALUE, as in rooms_max = 65536"),
        ] {
            let told = sentence(line, 0, why);
            assert!(told.contains(part), "{line}: {told}");
            assert!(!told.contains('\n'), "{told}");
        }
        let text = "rooms_max = 1\n\nrooms_max = 2\n";
        let told = sentence(text, 2, "duplicate key");
        assert_eq!(told, "rooms_max is set on line 1 already; keep one of the two");
    }
}
