//! What the system says about a file, in words: what happened, and what to do next.
//!
//! Not here: limits that rings meet (`uproar_ring`), addresses (`control::bind`, `cli::url`).

use std::fmt::Write;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Why the configuration file at `path` cannot be read.
pub(crate) fn unreadable(path: &Path, why: &io::Error) -> String {
    let mut sentence = format!("cannot read the configuration file {}: ", path.display());
    let user = rustix::process::geteuid().as_raw();
    let written = match why.kind() {
        ErrorKind::NotFound => sentence
            .write_str("there is no such file; `uproar config default` prints one to begin with"),
        ErrorKind::PermissionDenied => write!(
            sentence,
            "user {user} may not read it, or a folder above it; `namei -l {}` shows whose they are",
            path.display()
        ),
        ErrorKind::IsADirectory => sentence.write_str("it is a folder; name a file in it"),
        ErrorKind::InvalidData => sentence
            .write_str("it is not plain text; save it as UTF-8 (`file` shows what it is now)"),
        _ => write!(sentence, "{why}"),
    };
    written.expect("a string takes what is written");
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_says_what_to_do() {
        for (kind, part) in [
            (ErrorKind::NotFound, "`uproar config default` prints one"),
            (ErrorKind::PermissionDenied, "`namei -l /x.toml` shows whose they are"),
            (ErrorKind::IsADirectory, "it is a folder"),
            (ErrorKind::InvalidData, "save it as UTF-8"),
        ] {
            let told = unreadable(Path::new("/x.toml"), &kind.into());
            assert!(told.starts_with("cannot read the configuration file /x.toml: "), "{told}");
            assert!(told.contains(part) && !told.contains("os error"), "{told}");
        }
    }
}
