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

/// A sum that wraps in what is shipped would go on with a wrong limit; only debug builds check by default.
#[test]
fn what_is_shipped_aborts_at_a_sum_that_wraps() {
    let manifest = fs::read_to_string(source("Cargo.toml")).unwrap();
    let (_, rest) = manifest.split_once("\n[profile.release]\n").unwrap();
    let release: Vec<&str> = rest.lines().take_while(|line| !line.starts_with('[')).collect();
    assert!(release.contains(&"overflow-checks = true"), "{release:?}");
}

/// Where each file of the package goes, by its place in the repository.
fn assets() -> Vec<(String, String)> {
    let manifest = fs::read_to_string(source("Cargo.toml")).unwrap();
    let mut assets = Vec::new();
    for line in manifest.lines().filter(|line| line.starts_with("    [\"")) {
        let fields: Vec<&str> = line.split('"').collect();
        let [_, from, _, to, ..] = fields[..] else { continue };
        let Some(dir) = from.strip_suffix("/*") else {
            let name = from.rsplit('/').next().unwrap();
            let to = if to.ends_with('/') { format!("{to}{name}") } else { to.to_owned() };
            assets.push((from.to_owned(), to));
            continue;
        };
        for entry in fs::read_dir(source(dir)).into_iter().flatten() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assets.push((format!("{dir}/{name}"), format!("{to}{name}")));
        }
    }
    assets
}

/// The targets of a document's links, without their anchors, that are no addresses.
fn links(text: &str) -> Vec<&str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.split('#').next().unwrap())
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .collect()
}

#[test]
fn links_of_installed_documents_stay_inside_the_package() {
    let assets = assets();
    let mut checked = 0;
    for (from, to) in assets.iter().filter(|(from, _)| from.ends_with(".md")) {
        let text = fs::read_to_string(source(from)).unwrap();
        for link in links(&text) {
            let target = Path::new(to).parent().unwrap().join(link);
            // Taken up again for each "..".
            let mut path = PathBuf::new();
            for part in target.components() {
                match part {
                    std::path::Component::ParentDir => _ = path.pop(),
                    part => path.push(part),
                }
            }
            let path = path.to_str().unwrap().trim_end_matches('/');
            let is_there =
                assets.iter().any(|(_, to)| to == path || to.starts_with(&format!("{path}/")));
            assert!(is_there, "{to}: {link} is not in the package");
            assert!(source(from).parent().unwrap().join(link).exists(), "{from}: {link}");
            checked += 1;
        }
    }
    assert!(checked > 10, "{checked}");
}

/// One table row may be long; what is read as text must fit a terminal.
#[test]
fn lines_of_the_readme_can_be_scanned() {
    let text = fs::read_to_string(source("README.md")).unwrap();
    let long: Vec<&str> =
        text.lines().filter(|line| line.chars().count() > 120 && !line.starts_with('|')).collect();
    assert_eq!(long, [""; 0]);
}

#[test]
fn the_manual_has_signals_files_and_exit_codes_and_is_good_roff() {
    let manual = uproar::cli::MANUAL;
    for part in
        [".SH SIGNALS", ".SH FILES", ".SH EXIT STATUS", "SIGHUP", "/etc/uproar/uproar.toml", "78"]
    {
        assert!(manual.contains(part), "{part}");
    }
    // Nothing that man would take for a command of its own, and no blank lines.
    let known = [".SH ", ".TP", ".B ", ".I ", ".BR "];
    for line in manual.lines() {
        let is_request = line.starts_with('.');
        assert!(!line.is_empty() && !line.starts_with('\''), "{line:?}");
        assert!(!is_request || known.iter().any(|k| line.starts_with(k)), "{line}");
    }
}
