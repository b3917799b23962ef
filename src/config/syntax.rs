//! What to do about a line that is no TOML.
//!
//! The parser says what it stumbled over, in words of its grammar ("invalid float, expected nothing" for an
//! address without quotes). Whoever wrote the line wants to know what to write instead, and the table of
//! settings knows that.

use super::setting::{Kind, Setting};
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
    match line.split_once('=') {
        Some((key, value)) => unreadable(key.trim(), value.trim()),
        None => without_equals(line),
    }
}

/// A line without the sign between key and value.
fn without_equals(line: &str) -> String {
    let key = line.split([' ', ':', '\t']).next().unwrap_or_default();
    match meant(key) {
        Some(setting) => {
            format!("{key} has no =; write {}", example(setting, line[key.len()..].trim()))
        }
        None => no_setting(line),
    }
}

fn no_setting(line: &str) -> String {
    format!("{line:?} is no setting; write KEY = VALUE, as in {}", example_of("rooms_max"))
}

/// A key with a value, of which one or the other cannot be read.
fn unreadable(key: &str, value: &str) -> String {
    let Some(setting) = meant(key) else {
        return match nearest(key) {
            Some(near) => format!("{key} is not a setting; did you mean {near}?"),
            None => no_setting(&format!("{key} = {value}")),
        };
    };
    let (takes, example) = (setting.kind.range(), example(setting, value));
    if key != setting.name && key != format!("\"{}\"", setting.name) {
        return format!("{key} is written {} in the file, as in {example}", setting.name);
    }
    if value.is_empty() {
        return format!("{key} has no value; it takes {takes}, as in {example}");
    }
    if value.contains('=') {
        return format!(
            "{key} = {value} cannot be read; write one setting a line, as in {example}"
        );
    }
    format!("{key} = {value} cannot be read; it takes {takes}, written as {example}")
}

/// The setting of a key, also where it is written as the flag or the variable is.
fn meant(key: &str) -> Option<&'static Setting> {
    let key = key.strip_prefix("export ").unwrap_or(key).trim_matches(['"', '\'', ' ', '-']);
    let name = key.strip_prefix("UPROAR_").unwrap_or(key).to_lowercase().replace('-', "_");
    find(&name)
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
pub(super) fn example(setting: &Setting, meant: &str) -> String {
    let bare = meant.trim_matches(|c: char| "\"'=: \t".contains(c));
    let mut config = Config::default();
    let mut value_of = |text: &str| {
        let is_good =
            !text.is_empty() && (setting.assign)(&mut config, text, &setting.kind).is_ok();
        is_good.then(|| setting.value(&config))
    };
    let value = value_of(bare).or_else(|| value_of(&in_unit(bare, &setting.kind)?));
    let value = value.unwrap_or_else(|| setting.default.to_owned());
    format!("{} = {}", setting.name, setting.toml_value(&value))
}

/// A number with a unit of its own, or with commas, in the setting's unit: `64 MiB` in bytes, `2s` in milliseconds.
fn in_unit(text: &str, kind: &Kind) -> Option<String> {
    let (unit, ..) = kind.bounds()?;
    let plain = text.replace([',', '_', ' '], "").to_lowercase();
    let digits = plain.find(|c: char| !c.is_ascii_digit()).unwrap_or(plain.len());
    let (number, suffix) = plain.split_at(digits);
    let factor = match (unit, suffix) {
        (_, "") | ("ms", "ms") | ("bytes", "b") => 1,
        ("ms", "s") => 1_000,
        ("ms", "m" | "min") => 60_000,
        ("bytes", "k" | "kb" | "kib") => 1 << 10,
        ("bytes", "m" | "mb" | "mib") => 1 << 20,
        ("bytes", "g" | "gb" | "gib") => 1 << 30,
        (_, "k") => 1_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor).map(|n| n.to_string())
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
            ("drain_delay_ms = 3s", "it takes 0 to 3600000 ms, written as drain_delay_ms = 3000"),
            ("log_bytes_max = 32 MiB", "written as log_bytes_max = 33554432"),
            ("rooms_max = 1,000", "written as rooms_max = 1000"),
            ("rooms_max = 1 mile", "written as rooms_max = 65536"),
            ("\"listen\" = 127.0.0.1:80", "written as listen = \"127.0.0.1:80\""),
            (
                "UPROAR_LISTEN=127.0.0.1:80",
                "is written listen in the file, as in listen = \"127.0.0.1:80\"",
            ),
            ("export UPROAR_ROOMS_MAX=5", "is written rooms_max in the file, as in rooms_max = 5"),
            ("--listen 127.0.0.1:80", "--listen has no =; write listen = \"127.0.0.1:80\""),
            ("rooms_max = 1, shards = 2", "write one setting a line"),
            ("colour = blue", "\"colour = blue\" is no setting"),
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
            ("= 5", "\" = 5\" is no setting; write KEY = VALUE"),
            ("nonsense", "\"nonsense\" is no setting; write KEY = VALUE, as in rooms_max = 65536"),
        ] {
            let told = sentence(line, 0, why);
            assert!(told.contains(part), "{line}: {told}");
            assert!(!told.contains('\n') && !told.contains("expected"), "{told}");
        }
        let text = "rooms_max = 1\n\nrooms_max = 2\n";
        let told = sentence(text, 2, "duplicate key");
        assert_eq!(told, "rooms_max is set on line 1 already; keep one of the two");
    }
}
