//! What the package does to a host, by its scripts run with doubles of the tools they call.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs a maintainer script; the calls of its tools, and what it printed.
fn run(script: &str, args: &[&str]) -> (Vec<String>, String) {
    let dir =
        std::env::temp_dir().join(format!("uproar-{script}-{}-{}", args.len(), std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let calls = dir.join("calls");
    for tool in ["systemctl", "systemd-sysusers", "deb-systemd-invoke", "deb-systemd-helper"] {
        let text = format!("#!/bin/sh\necho \"{tool} $*\" >>{}\n", calls.display());
        fs::write(dir.join(tool), text).unwrap();
        fs::set_permissions(dir.join(tool), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:/usr/bin:/bin", dir.display());
    let output = Command::new("sh")
        .arg(source("scripts/debian").join(script))
        .args(args)
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let calls = fs::read_to_string(calls).unwrap_or_default();
    fs::remove_dir_all(&dir).unwrap();
    (calls.lines().map(str::to_owned).collect(), String::from_utf8(output.stdout).unwrap())
}

/// A restart empties a node, and unattended upgrades ask nobody.
#[test]
fn an_upgrade_restarts_nothing_and_says_so() {
    let (calls, told) = run("postinst", &["configure", "0.1.0-1"]);
    assert!(calls.iter().any(|call| call.starts_with("systemd-sysusers")), "{calls:?}");
    assert!(calls.iter().all(|call| !call.contains("start")), "{calls:?}");
    assert!(told.contains("still version 0.1.0-1") && told.contains("systemctl restart"), "{told}");
    let manifest = fs::read_to_string(source("Cargo.toml")).unwrap();
    let units = manifest.lines().find(|line| line.contains("unit-scripts")).unwrap();
    for part in ["start = false", "stop-on-upgrade = false", "restart-after-upgrade = false"] {
        assert!(units.contains(part), "{units}");
    }
    assert!(manifest.contains("tuning/needrestart/uproar.conf"), "nor does needrestart");
}

#[test]
fn a_first_installation_says_nothing_of_a_running_node() {
    let (_, told) = run("postinst", &["configure"]);
    assert_eq!(told, "");
}
