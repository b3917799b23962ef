//! The configuration file: flat TOML, read with the line of every key.
//!
//! Reading stops at nothing: syntax errors, unknown keys and values of the wrong type are all
//! collected, so one run of `config check` shows everything there is to fix.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::setting::{Kind, Setting};
use super::sources::{Origin, Problem, Typed};
use super::{find, nearest};

/// What a file says, and what is wrong with it.
#[must_use]
pub fn read(path: &Path) -> (Vec<Typed>, Vec<Problem>) {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(path, &text),
        Err(why) => {
            let sentence = format!("cannot read the configuration file {}: {why}", path.display());
            (Vec::new(), vec![Problem { origin: Origin::Default, sentence }])
        }
    }
}

pub(super) fn parse(path: &Path, text: &str) -> (Vec<Typed>, Vec<Problem>) {
    let at = |offset: usize| {
        let before = text.get(..offset).unwrap_or(text);
        Origin::File(path.to_owned(), before.matches('\n').count() + 1)
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut problems: Vec<Problem> = errors
        .iter()
        .map(|error| Problem {
            origin: at(error.span().map_or(0, |span| span.start)),
            sentence: format!("not valid TOML: {}", error.message().replace('\n', ", ")),
        })
        .collect();
    let mut typed = Vec::new();
    for (key, value) in table.get_ref() {
        let origin = at(key.span().start);
        // What the parser made of a broken line is nothing that was typed.
        if problems.iter().any(|problem| problem.origin == origin) {
            continue;
        }
        let Some(setting) = find(key.get_ref()) else {
            problems.push(Problem { origin, sentence: unknown(key.get_ref(), value.get_ref()) });
            continue;
        };
        match value_text(setting, value.get_ref()) {
            Ok(text) => typed.push(Typed { name: setting.name, text, origin }),
            Err(sentence) => problems.push(Problem { origin, sentence }),
        }
    }
    // The parser's table is sorted by key; an operator reads by line.
    problems.sort_by_key(|problem| match problem.origin {
        Origin::File(_, line) => line,
        _ => 0,
    });
    (typed, problems)
}

fn unknown(key: &str, value: &DeValue<'_>) -> String {
    let hint = match nearest(key) {
        Some(name) => format!("; did you mean {name}?"),
        None if value.is_table() => "; the file is flat, without [tables]".to_owned(),
        None => "; `uproar config default` lists them all".to_owned(),
    };
    format!("{key} is not a setting{hint}")
}

/// The text one would have typed as a flag for this value.
fn value_text(setting: &Setting, value: &DeValue<'_>) -> Result<String, String> {
    let is_number = setting.kind.bounds().is_some();
    let wrong = || {
        let article = if value.type_str().starts_with(['a', 'i']) { "an" } else { "a" };
        Err(format!(
            "{} is {article} {} here, but takes {}",
            setting.name,
            value.type_str(),
            setting.kind.range()
        ))
    };
    match (value, setting.kind) {
        (DeValue::Integer(n), _) if is_number && n.radix() == 10 => Ok(n.as_str().to_owned()),
        (DeValue::Integer(n), _) if is_number => {
            i64::from_str_radix(n.as_str(), n.radix()).map(|n| n.to_string()).or_else(|_| wrong())
        }
        (DeValue::Boolean(b), Kind::Switch) => Ok(b.to_string()),
        (DeValue::String(text), Kind::NumberOrAuto { .. }) if text == "auto" => Ok("auto".into()),
        (DeValue::String(_), Kind::Switch) => wrong(),
        (DeValue::String(text), _) if !is_number => Ok(text.to_string()),
        (DeValue::Integer(n), Kind::CpusOrAuto) => Ok(n.as_str().to_owned()),
        (DeValue::Array(cpus), Kind::CpusOrAuto) => {
            let parts = cpus.iter().map(|cpu| match cpu.get_ref() {
                DeValue::Integer(n) => Some(n.as_str()),
                DeValue::String(text) => Some(text.as_ref()),
                _ => None,
            });
            parts.collect::<Option<Vec<_>>>().map_or_else(wrong, |parts| Ok(parts.join(",")))
        }
        _ => wrong(),
    }
}
