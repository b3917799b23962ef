//! The configuration file: flat TOML, read with the line of every key.
//!
//! Reading stops at nothing: syntax errors, unknown keys and values of the wrong type are all
//! collected, so one run of `config check` shows everything there is to fix.

use std::collections::BTreeSet;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::setting::{Kind, Setting};
use super::sources::{Origin, Problem, Typed};
use super::{find, nearest, syntax};
use crate::words::unreadable;

/// What a file says, and what is wrong with it.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) typed: Vec<Typed>,
    pub(super) problems: Vec<Problem>,
    /// Settings whose value the file may have meant to give, and did not.
    pub(super) missing: BTreeSet<&'static str>,
    /// Something is wrong that may have been about any setting.
    pub(super) is_any_missing: bool,
}

impl Read {
    fn miss(&mut self, name: Option<&'static str>) {
        self.is_any_missing |= name.is_none();
        self.missing.extend(name);
    }
}

pub(super) fn read(path: &Path) -> Read {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(path, &text),
        Err(why) => {
            let sentence = unreadable(path, &why);
            let problems = vec![Problem { origin: Origin::Default, sentence }];
            Read { problems, is_any_missing: true, ..Read::default() }
        }
    }
}

fn parse(path: &Path, text: &str) -> Read {
    let line = |offset: usize| text.get(..offset).unwrap_or(text).matches('\n').count();
    let at = |offset: usize| Origin::File(path.to_owned(), line(offset) + 1);
    let mut read = Read::default();
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let offset = error.span().map_or(0, |span| span.start);
        // One mistake may make the parser stumble twice.
        if read.problems.iter().any(|problem| problem.origin == at(offset)) {
            continue;
        }
        let number = line(offset);
        let sentence = syntax::sentence(text, number, error.message());
        read.problems.push(Problem { origin: at(offset), sentence });
        let key = text.lines().nth(number).and_then(|line| line.split('=').next());
        read.miss(key.and_then(|key| find(key.trim())).map(|setting| setting.name));
    }
    for (key, value) in table.get_ref() {
        let origin = at(key.span().start);
        // What the parser made of a broken line is nothing that was typed.
        if read.problems.iter().any(|problem| problem.origin == origin) {
            continue;
        }
        // A header that was not closed swallows the settings after it.
        let swallowed =
            find(key.get_ref()).filter(|_| !errors.is_empty() && value.get_ref().is_table());
        if let Some(setting) = swallowed {
            read.miss(Some(setting.name));
            continue;
        }
        let Some(setting) = find(key.get_ref()) else {
            let sentence = unknown(key.get_ref(), value.get_ref());
            read.problems.push(Problem { origin, sentence });
            read.miss(nearest(key.get_ref()));
            continue;
        };
        match value_text(setting, value.get_ref()) {
            Ok(text) => read.typed.push(Typed { name: setting.name, text, origin }),
            Err(sentence) => {
                read.problems.push(Problem { origin, sentence });
                read.miss(Some(setting.name));
            }
        }
    }
    read
}

fn unknown(key: &str, value: &DeValue<'_>) -> String {
    let hint = match nearest(key) {
        Some(name) => format!("; did you mean {name}?"),
        None if value.is_table() || value.is_array() => {
            "; the file is flat, without [tables]".to_owned()
        }
        None => "; `uproar config default` lists them all".to_owned(),
    };
    format!("{key} is not a setting{hint}")
}

/// What somebody wrote, for who does not know the words of TOML.
fn kind_in_words(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text in quotes",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The text one would have typed as a flag for this value.
fn value_text(setting: &Setting, value: &DeValue<'_>) -> Result<String, String> {
    let is_number = setting.kind.bounds().is_some();
    let wrong = || {
        let meant = value.as_str().unwrap_or_default();
        Err(format!(
            "{} is {} here, but takes {}, written as {}",
            setting.name,
            kind_in_words(value),
            setting.kind.range(),
            syntax::example(setting, meant)
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
