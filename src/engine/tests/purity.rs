//! Keeps the engine pure: its sources name no socket, clock, thread, file, randomness or async.
//!
//! The scan is over words, not types, so it is easy to fool on purpose and hard to fool by
//! accident. Comments, literals and `#[cfg(test)]` modules at a file's end are left out.

use std::fs;
use std::path::{Path, PathBuf};

/// What no source may name.
const FORBIDDEN: &[&str] = &[
    "std::fs",
    "std::thread",
    "std::time",
    "std::env",
    "std::process",
    "std::os",
    "std::sync::mpsc",
    "Mutex",
    "RwLock",
    "Condvar",
    "Instant",
    "SystemTime",
    "RandomState",
    "std::collections::HashMap",
    "std::collections::HashSet",
    "thread_local",
    "async",
    "await",
    "glommio",
    "tokio",
    "libc",
    "rustix",
    "rand",
    "println",
    "eprintln",
    "print",
    "dbg",
    "unsafe",
    "static mut",
    "extern",
];
/// What may be named of modules that are otherwise forbidden.
const ALLOWED: &[(&str, &[&str])] = &[
    ("std::net", &["SocketAddr", "IpAddr", "Ipv4Addr", "Ipv6Addr"]),
    ("std::io", &["Cursor", "Result", "ErrorKind", "Error"]),
];
/// Of `use std::io;`, what may follow `io::` in the rest of the file.
const ALLOWED_OF_IO: &[&str] = &["Result", "Error", "ErrorKind", "Cursor"];
/// What the crate may be built on: parsers, encoders, tables and a hash map, none of which does I/O.
const DEPENDENCIES: &[&str] = &[
    "blake3",
    "hashbrown",
    "httparse",
    "icu_properties",
    "rkyv",
    "serde",
    "serde_json",
    "thiserror",
    "tungstenite",
    "xxhash-rust",
];

/// The program text of a source: no comments, no literals, nothing from `#[cfg(test)]` on.
fn program_of(source: &str) -> String {
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut program = String::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            raw.find("\"#").map_or(rest.len(), |at| at + 5)
        } else if first == '"' {
            string_len(rest)
        } else if rest.starts_with("'\"'") || rest.starts_with("b'\"'") {
            3 + usize::from(first == 'b')
        } else {
            0
        };
        if skipped == 0 {
            program.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            program.push(' ');
            rest = &rest[skipped..];
        }
    }
    program
}

/// The length of the string literal at the front, quotes included.
fn string_len(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            b'"' if !is_escaped => return at + 1,
            b'\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    text.len()
}

/// Where `name` stands as a whole path or word, and what follows it.
fn uses<'p>(program: &'p str, name: &'p str) -> impl Iterator<Item = &'p str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    program.match_indices(name).filter_map(move |(at, _)| {
        let after = &program[at + name.len()..];
        let begins = !program[..at].ends_with(is_word);
        (begins && !after.starts_with(is_word)).then_some(after)
    })
}

/// The names of a path's next step: one, or the members of a group in braces.
fn next_names(after: &str) -> Vec<&str> {
    let Some(after) = after.strip_prefix("::") else { return vec![""] };
    let group = after.strip_prefix('{').and_then(|group| group.split_once('}'));
    let names = group.map_or(after, |(names, _)| names);
    let name = |text: &'_ str| text.find(|c: char| !(c.is_alphanumeric() || c == '_'));
    if group.is_some() {
        return names.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    }
    vec![&names[..name(names).unwrap_or(names.len())]]
}

/// Everything in a source that does not belong into the engine.
fn findings(source: &str) -> Vec<String> {
    // `use std::{fs, io}` would hide a path from a search by words.
    let program = program_of(source);
    let mut found = Vec::new();
    if program.contains("std::{") {
        found.push("a group import of std: write one path a line".to_owned());
    }
    for name in FORBIDDEN {
        if uses(&program, name).next().is_some() {
            found.push((*name).to_owned());
        }
    }
    for (module, allowed) in ALLOWED {
        for name in uses(&program, module).flat_map(next_names) {
            let is_the_module = name.is_empty() && *module == "std::io";
            if !is_the_module && name != "self" && !allowed.contains(&name) {
                found.push(format!("{module}::{name}"));
            }
        }
    }
    for after in uses(&program, "io") {
        for name in next_names(after) {
            if !name.is_empty() && name != "self" && !ALLOWED_OF_IO.contains(&name) {
                found.push(format!("io::{name}"));
            }
        }
    }
    found
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let is_outside =
            ["tests", "examples", "benches", "target"].iter().any(|name| path.ends_with(name));
        if path.is_dir() && !is_outside {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_engine_names_nothing_impure() {
    let mut paths = Vec::new();
    sources(Path::new(env!("CARGO_MANIFEST_DIR")), &mut paths);
    assert!(paths.len() > 30, "the scan sees the crate: {paths:?}");
    for path in paths {
        let source = fs::read_to_string(&path).expect("a readable source");
        assert_eq!(findings(&source), Vec::<String>::new(), "{}", path.display());
    }
}

#[test]
fn the_engine_depends_on_nothing_impure() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    let manifest = manifest.expect("a readable manifest");
    let (_, after) = manifest.split_once("\n[dependencies]\n").expect("dependencies");
    let table = after.split("\n[").next().expect("a table");
    let name_of = |line: &str| line.split(['.', '=', ' ']).next().map(str::to_owned);
    let names: Vec<String> =
        table.lines().filter(|line| !line.is_empty()).filter_map(name_of).collect();
    assert_eq!(names, DEPENDENCIES);
}

#[test]
fn the_scan_finds_what_it_is_for() {
    for (source, expected) in [
        ("use std::fs::File;", "std::fs"),
        ("let t = std::time::Instant::now();", "std::time"),
        ("use std::net::TcpStream;", "std::net::TcpStream"),
        ("use std::net::{SocketAddr, TcpStream};", "std::net::TcpStream"),
        ("use std::io::Read;", "std::io::Read"),
        ("use std::io;\nfn f() -> io::Stdout {}", "io::Stdout"),
        ("use std::{fs, io};", "a group import of std: write one path a line"),
        ("let x = \"//\"; println!(\"{x}\");", "println"),
        ("async fn f() {}", "async"),
        ("unsafe { x }", "unsafe"),
        ("use std::collections::HashMap;", "std::collections::HashMap"),
        ("/* fine */ use tokio::net;", "tokio"),
    ] {
        assert!(findings(source).iter().any(|found| found == expected), "{source}");
    }
}

#[test]
fn the_scan_leaves_alone_what_is_fine() {
    for source in [
        "use std::net::{IpAddr, SocketAddr};",
        "use std::io;\nuse std::io::Cursor;\nfn f() -> io::Result<usize> {}",
        "//! no async, no unsafe, no std::fs\nuse std::sync::Arc;",
        "let text = \"async \\\" unsafe\"; let more = r#\"a \"tokio\" b\"#; let quote = '\"';",
        "let operand = randomness; #![forbid(unsafe_code)]",
        "fn f() {}\n#[cfg(test)]\nmod tests { use std::thread; }",
    ] {
        assert_eq!(findings(source), Vec::<String>::new(), "{source}");
    }
}
