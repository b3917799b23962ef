//! The table as text: the commented file of defaults, and the effective values.

use std::fmt::Write;

use super::{Loaded, documented, table};

/// Width of comment lines in the generated file.
const COLUMNS: usize = 98;

/// `uproar config default`: every setting, explained, with its default commented out.
#[must_use]
pub fn commented_default() -> String {
    let mut text = String::from(
        "# uproar.toml: every setting, at its default. Remove the # before a key to change it.\n\
         # A flag (--frame-bytes-max) wins over a variable (UPROAR_FRAME_BYTES_MAX), that over\n\
         # this file. `uproar config check FILE` checks a file, `uproar config show` shows what\n\
         # is in effect. Sizes are in bytes, times in milliseconds.\n",
    );
    let mut group = "";
    for setting in documented() {
        if setting.group != group {
            group = setting.group;
            let _ = write!(text, "\n\n## {group}\n");
        }
        text.push('\n');
        for paragraph in setting.paragraph().lines() {
            for line in wrap(paragraph, COLUMNS) {
                let _ = writeln!(text, "# {line}");
            }
        }
        let _ = writeln!(text, "#{} = {}", setting.name, setting.toml_value(setting.default));
    }
    text
}

/// `uproar config show`: a valid file of the effective values, each with its origin. A
/// test-only setting shows only when it is set.
#[must_use]
pub fn effective(loaded: &Loaded) -> String {
    let mut text = String::new();
    for setting in table() {
        let value = setting.value(&loaded.config);
        if setting.is_hidden && value == setting.default {
            continue;
        }
        let line = format!("{} = {}", setting.name, setting.toml_value(&value));
        let _ = writeln!(text, "{line:<44} # {}", loaded.origin(setting));
    }
    text
}

fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
