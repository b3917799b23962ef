//! Which commit this is, for `--version` and reports: BUILD_COMMIT where there is no repository, else what git says,
//! else unknown. As the node's `build.rs`, which knows only its own folder.

use std::path::Path;
use std::process::Command;

/// Digits of a commit that tell it from all others for a long time.
const DIGITS: usize = 12;

fn main() {
    println!("cargo::rerun-if-env-changed=BUILD_COMMIT");
    let given = std::env::var("BUILD_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(from_git).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=BUILD_COMMIT={commit}");
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn from_git() -> Option<String> {
    // An archive inside somebody else's repository is not of its commit.
    let top = git(&["rev-parse", "--show-toplevel"])?;
    let here = std::env::var("CARGO_MANIFEST_DIR").ok()?;
    let workspace = Path::new(&here).parent()?;
    if Path::new(&top).canonicalize().ok()? != workspace.canonicalize().ok()? {
        return None;
    }
    // HEAD names a branch or a commit; the branch moves with each commit, and so does the log of HEAD.
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    commit.get(..DIGITS).map(str::to_owned)
}
