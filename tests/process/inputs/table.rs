//! Tables of `tests/inputs`: Markdown for people, rows for tests.

use std::path::Path;

/// One line of a table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// File and line, for whoever looks for it.
    pub(crate) place: String,
    /// The cells before the last, code spans without their ticks.
    cells: Vec<String>,
    /// The public report it was taken from, if it was.
    pub(crate) thread: Option<String>,
}

/// Which escapes mean a character here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Escapes {
    /// All.
    All,
    /// Those that JSON has not; the rest is for its reader.
    BesideJson,
}

impl Row {
    pub(crate) fn cell(&self, at: usize) -> &str {
        &self.cells[at]
    }

    /// The bytes a cell stands for.
    pub(crate) fn bytes(&self, at: usize, escapes: Escapes, macros: &[(&str, &str)]) -> Vec<u8> {
        bytes_of(self.cell(at), escapes, macros)
    }

    /// The text a cell stands for.
    pub(crate) fn text(&self, at: usize, escapes: Escapes) -> String {
        String::from_utf8(self.bytes(at, escapes, &[])).expect("the cell is a text")
    }
}

/// The rows of all tables of a file.
pub(crate) fn rows(file: &str) -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inputs").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{file}: {why}"));
    let lines: Vec<&str> = text.lines().collect();
    let is_rule = |line: &str| line.starts_with("|---");
    let mut rows = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let is_header = lines.get(at + 1).is_some_and(|next| is_rule(next));
        let Some(line) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else {
            assert!(!line.starts_with('|') || is_rule(line), "{file}:{}: no row", at + 1);
            continue;
        };
        if is_header {
            continue;
        }
        let mut cells: Vec<String> = line.split(" | ").map(without_ticks).collect();
        let thread = cells.pop().expect("a row has cells");
        rows.push(Row {
            place: format!("{file}:{}", at + 1),
            cells,
            thread: (thread != "-").then_some(thread),
        });
    }
    assert!(!rows.is_empty(), "{file} has no table");
    rows
}

fn without_ticks(cell: &str) -> String {
    let inside = cell.strip_prefix('`').and_then(|cell| cell.strip_suffix('`'));
    inside.unwrap_or(cell).to_owned()
}

/// Undoes the escapes of the tables' README.
pub(crate) fn bytes_of(cell: &str, escapes: Escapes, macros: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = cell;
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '<' => named(rest, escapes, macros, &mut bytes),
            '\\' => escaped(rest, escapes, &mut bytes),
            _ => None,
        };
        let taken = taken.unwrap_or_else(|| {
            bytes.extend(c.to_string().bytes());
            c.len_utf8()
        });
        rest = &rest[taken..];
    }
    bytes
}

/// `<name>`, or `<text*times>`; how much of `rest` it was.
fn named(
    rest: &str,
    escapes: Escapes,
    macros: &[(&str, &str)],
    bytes: &mut Vec<u8>,
) -> Option<usize> {
    let inner = &rest[1..rest.find('>')?];
    if let Some((_, text)) = macros.iter().find(|(name, _)| *name == inner) {
        bytes.extend(bytes_of(text, escapes, &[]));
    } else {
        let (text, times) = inner.rsplit_once('*')?;
        bytes.extend(text.repeat(times.parse().ok()?).bytes());
    }
    Some(inner.len() + 2)
}

fn escaped(rest: &str, escapes: Escapes, bytes: &mut Vec<u8>) -> Option<usize> {
    if let Some(hex) = rest.strip_prefix("\\x") {
        bytes.push(u8::from_str_radix(hex.get(..2)?, 16).ok()?);
        return Some(4);
    }
    if let Some(hex) = rest.strip_prefix("\\u{") {
        let hex = hex.split_once('}')?.0;
        let c = char::from_u32(u32::from_str_radix(hex, 16).ok()?)?;
        bytes.extend(c.to_string().bytes());
        return Some(hex.len() + 4);
    }
    if escapes == Escapes::BesideJson {
        return None;
    }
    bytes.push(match rest.as_bytes().get(1)? {
        b'r' => b'\r',
        b'n' => b'\n',
        b't' => b'\t',
        b'0' => 0,
        b'\\' => b'\\',
        _ => return None,
    });
    Some(2)
}
