//! What cannot be measured is refused in a sentence, before any load; exit code 2.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::process::Command;

use support::{Double, folder, loadgen, outcome, report};

/// What a refused run said; it must be one sentence.
fn refusal(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(output.stdout.is_empty() && text.lines().count() == 1, "{text}");
    text
}

#[test]
fn cpus_that_this_process_may_not_use_are_refused() {
    let double = Double::start(&[]);
    for cpu in ["1023", "1024", "70000"] {
        let text = refusal(loadgen("hot", &double.address).args(["--cpus", cpu]));
        assert!(text.contains(&format!("may not use CPU {cpu};")), "{text}");
    }
    let text = refusal(
        Command::new(env!("CARGO_BIN_EXE_uproar-loadgen")).args(["floor", "--cpu", "1024"]),
    );
    assert!(text.contains("may not use CPU 1024;"), "{text}");
}

#[test]
fn the_cpus_of_the_host_are_counted_whatever_the_run_keeps_to() {
    let double = Double::start(&[]);
    let out = folder("refusals-cpus");
    let output = loadgen("hot", &double.address)
        .args(["--viewers", "20", "--duration-secs", "0.2", "--out"])
        .arg(&out)
        .output()
        .unwrap();
    let (text, held) = outcome(&output);
    assert!(held, "{text}");
    let machine = &report(&out)["machine"];
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let processors = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    assert_eq!(machine["cpus"].as_u64(), Some(processors as u64));
    assert_eq!(machine["loadgen_cpus"].as_array().unwrap().len(), 1);
}

#[test]
fn parameters_that_mean_nothing_are_refused() {
    let double = Double::start(&[]);
    for (scenario, flag) in [
        ("hot", "--duration-secs=NaN"),
        ("hot", "--duration-secs=0"),
        ("hot", "--drain-secs=inf"),
        ("churn", "--bounce-secs=1e-10"),
        ("ramp", "--rate=0"),
    ] {
        let text = refusal(loadgen(scenario, &double.address).arg(flag));
        let name = flag.split_once('=').unwrap().0;
        assert!(text.contains(name), "{flag}: {text}");
    }
}

#[test]
fn a_negative_rate_is_refused_as_such() {
    let double = Double::start(&[]);
    let text = refusal(loadgen("hot", &double.address).args(["--rate", "-1"]));
    assert!(text.contains("--rate cannot be negative"), "{text}");
}

#[test]
fn the_version_and_the_report_name_the_commit_of_the_build() {
    let double = Double::start(&[]);
    let output = Command::new(env!("CARGO_BIN_EXE_uproar-loadgen")).arg("--version").output();
    let version = String::from_utf8(output.unwrap().stdout).unwrap();
    let (_, commit) = version.trim_end().strip_suffix(')').unwrap().split_once('(').unwrap();
    let out = folder("refusals-commit");
    // Not in the repository, whose commit may be another by then.
    let mut command = loadgen("hot", &double.address);
    command.current_dir("/").args(["--viewers", "5", "--duration-secs", "0.2", "--out"]);
    command.arg(&out).output().unwrap();
    let told = report(&out)["machine"]["commit"].clone();
    assert_eq!(told.as_str(), Some(commit).filter(|&commit| commit != "unknown"));
}

#[test]
fn an_admin_address_without_metrics_is_refused() {
    let double = Double::start(&[]);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for admin in [closed.to_string(), double.address.clone()] {
        let text = refusal(loadgen("hot", &double.address).args(["--admin", &admin]));
        assert!(text.contains(&format!("http://{admin}/metrics of --admin")), "{text}");
    }
}

#[test]
fn a_worker_named_twice_is_refused_at_once() {
    let double = Double::start(&[]);
    let begun = std::time::Instant::now();
    let workers = ["--workers", "127.0.0.1:7,127.0.0.1:7"];
    let text = refusal(loadgen("hot", &double.address).args(workers));
    assert!(text.contains("worker 127.0.0.1:7 is named twice"), "{text}");
    assert!(begun.elapsed().as_secs() < 5, "it waited for something");
}

#[test]
fn a_peer_that_is_no_worker_is_refused() {
    let double = Double::start(&[]);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let text = refusal(loadgen("hot", &double.address).args(["--workers", &address]));
    assert!(text.contains(&format!("worker {address} did not greet within 5 s")), "{text}");
}

#[test]
fn a_folder_that_cannot_be_written_is_refused_before_the_run() {
    let double = Double::start(&[]);
    let file = folder("refusals-file");
    std::fs::write(&file, []).unwrap();
    let text = refusal(loadgen("hot", &double.address).arg("--out").arg(&file));
    assert!(text.contains("refusals-file of --out"), "{text}");
    std::fs::remove_file(file).unwrap();
}

#[test]
fn too_little_lockable_memory_says_where_it_is_raised() {
    let double = Double::start(&[]);
    let mut command = Command::new("prlimit");
    command.args(["--memlock=65536:65536", env!("CARGO_BIN_EXE_uproar-loadgen"), "run", "hot"]);
    let output = command.args(["--viewers", "5", "--target", &double.address]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("may lock 65536 bytes of memory, and 524288 is the least"), "{text}");
    assert!(text.contains("ulimit -l 262144 in a shell"), "{text}");
}
