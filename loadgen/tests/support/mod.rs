//! The test double and the load generator as processes.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

/// A running test double; it ends with its standard input.
pub(crate) struct Double {
    pub(crate) child: Child,
    pub(crate) address: String,
}

impl Double {
    /// Starts one; `fault` as its arguments.
    pub(crate) fn start(fault: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", fault)
    }

    /// Starts one that listens at `address`.
    pub(crate) fn start_at(address: &str, fault: &[&str]) -> Self {
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_uproar-loadgen"));
        let double = binary.with_file_name("examples").join("double");
        let mut child = Command::new(double)
            .arg(address)
            .args(fault)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cargo test builds examples; with --test, build the example double first");
        let mut address = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut address).unwrap();
        Self { child, address: address.trim().to_owned() }
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        // It may have been ended by the test already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The load generator against `target`, not started yet.
pub(crate) fn loadgen(scenario: &str, target: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uproar-loadgen"));
    command.args(["run", scenario, "--target", target, "--warmup-secs", "0.3"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Its standard output, and whether nothing failed. On a busy machine the load generator may say that it, or others,
/// distorted what it measured, whatever the server did; what the verdicts make of that is `judge`'s tests.
pub(crate) fn outcome(output: &Output) -> (String, bool) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let last = text.trim_end().lines().last().unwrap_or_default();
    let held = match output.status.code() {
        Some(0) => last == "PASS",
        Some(2) => last == "NOT MEASURED",
        _ => false,
    };
    (format!("{text}\n{errors}"), held)
}

/// The report a run left in `folder`.
pub(crate) fn report(folder: &std::path::Path) -> serde_json::Value {
    let text = std::fs::read(folder.join("report.json")).expect("the run wrote its report");
    serde_json::from_slice(&text).unwrap()
}

/// A folder of this test's own below Cargo's directory for them.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    // What an earlier run left would make a missing report look written.
    let _ = std::fs::remove_dir_all(&folder);
    folder
}
