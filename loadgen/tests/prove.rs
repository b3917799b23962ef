//! `scripts/prove-50k`, small: between two namespaces as root, on loopback else, and nothing is left of it.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SMALL: [&str; 14] = [
    "--viewers",
    "60",
    "--events",
    "3",
    "--fill-per-event",
    "0",
    "--warmup-secs",
    "0.3",
    "--repeats",
    "1",
    "--step-secs",
    "0",
    "--slo",
    "loss=0,cpu<=100%",
];

/// A folder of this test's own, empty.
fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    // What an earlier run left would make a missing report look written.
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

/// The script with the programs that cargo has built here; none when the node is not among them.
fn prove(out: &Path) -> Option<Command> {
    let tool = PathBuf::from(env!("CARGO_BIN_EXE_uproar-loadgen"));
    let node = tool.with_file_name("uproar");
    if !node.exists() {
        eprintln!("no {}: build it first (cargo build -p uproar)", node.display());
        return None;
    }
    let target = out.join("target");
    std::fs::create_dir_all(target.join("release")).unwrap();
    for program in [&tool, &node] {
        symlink(program, target.join("release").join(program.file_name().unwrap())).unwrap();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/prove-50k");
    let mut command = Command::new(script);
    command.env("BUILD", "no").env("CARGO_TARGET_DIR", &target).arg(out.join("run")).args(SMALL);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(command)
}

/// What is there of the script's process: namespaces of its name, and processes in them.
fn left_of(pid: u32) -> String {
    let list = Command::new("ip").args(["netns", "list"]).output().unwrap();
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let name = format!("uproar-prove-{pid}-");
    list.lines().filter(|line| line.starts_with(&name)).collect()
}

fn wait_until(what: &str, seconds: u64, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(seconds), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn node_and_viewers_meet_between_two_namespaces_and_nothing_is_left() {
    let out = folder("prove");
    let Some(mut command) = prove(&out) else { return };
    let child: Child = command.args(["--duration-secs", "1"]).spawn().unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let text = String::from_utf8_lossy(&said);
    assert!(matches!(output.status.code(), Some(0 | 2)), "{text}");
    assert_eq!(left_of(pid), "");
    let report = std::fs::read(out.join("run/report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    let network = report["machine"]["network"].as_str().unwrap();
    let cpus = report["machine"]["cpus"].as_u64();
    if is_root() && cpus > Some(1) && !text.contains("no network namespaces here") {
        assert_eq!(network, "between two network namespaces of this host", "{text}");
        assert!(text.contains("each side's receive path on its own CPU"), "{text}");
    } else {
        // What loopback distorts is not measured, whatever the numbers are.
        assert!(network.starts_with("loopback"), "{text}");
        assert_eq!(report["steps"][0]["verdicts"][1]["standing"], "unmeasured", "{text}");
        assert_eq!(output.status.code(), Some(2), "{text}");
    }
}

#[test]
fn a_script_that_is_killed_leaves_nothing() {
    if !is_root() {
        eprintln!("only root makes namespaces");
        return;
    }
    let out = folder("prove-killed");
    let Some(mut command) = prove(&out) else { return };
    let mut child = command.args(["--duration-secs", "60"]).spawn().unwrap();
    let pid = child.id();
    let summary = out.join("run/summary.txt");
    wait_until("the run did not begin", 60, || summary.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("namespaces stay behind", 20, || left_of(pid).is_empty());
    // Neither node nor load generator outlives them.
    let folder = out.to_string_lossy().into_owned();
    wait_until("processes stay behind", 20, || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let mut commands =
            processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        !commands.any(|command| String::from_utf8_lossy(&command).contains(&folder))
    });
}
