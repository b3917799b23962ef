//! A run stopped by hand leaves what it has measured; a second signal, later, ends it at once.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::{Double, folder, loadgen, outcome, report};

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// A run of minutes, in its measured window.
fn long_run(double: &Double, out: &std::path::Path) -> Child {
    let mut child = loadgen("soak", &double.address)
        .args(["--viewers", "100", "--events", "5", "--rate", "5", "--fill-per-event", "0"])
        .args(["--bounce-share", "0", "--duration-secs", "300", "--progress", "lines", "--out"])
        .arg(out)
        .spawn()
        .unwrap();
    let progress = BufReader::new(child.stderr.take().unwrap());
    let mut steady = progress.lines().filter(|line| line.as_ref().unwrap().contains("s steady "));
    assert!(steady.nth(1).is_some(), "the run ended before its measured window");
    // The pipe stays open and is emptied, as a terminal would.
    std::thread::spawn(move || steady.count());
    child
}

#[test]
fn a_run_stopped_by_hand_leaves_what_it_has_measured() {
    let double = Double::start(&[]);
    for (name, sent) in [("interrupt-int", Signal::INT), ("interrupt-term", Signal::TERM)] {
        let out = folder(name);
        let child = long_run(&double, &out);
        signal(&child, sent);
        let begun = Instant::now();
        let output = child.wait_with_output().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(10), "it went on");
        let (text, _) = outcome(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("ended early: interrupted\nFAIL"), "{text}");
        assert!(text.contains("unfinished step: "), "{text}");
        let report = report(&out);
        assert_eq!(report["aborted"].as_str(), Some("interrupted"));
        assert!(report["unfinished"]["latency"]["count"].as_u64() > Some(50), "{text}");
        assert!(report["counters"]["deliveries"].as_u64() > Some(50), "{text}");
        assert!(out.join("unfinished.hdr").exists() && out.join("report.html").exists());
    }
}

#[test]
fn two_signals_at_once_are_one_wish() {
    // `timeout` signals the process and then its group, the process included.
    let double = Double::start(&[]);
    let out = folder("interrupt-timeout");
    let run = loadgen("soak", &double.address);
    let output = Command::new("timeout")
        .arg("6")
        .arg(run.get_program())
        .args(run.get_args())
        .args(["--viewers", "50", "--events", "5", "--rate", "5", "--fill-per-event", "0"])
        .args(["--bounce-share", "0", "--duration-secs", "300", "--out"])
        .arg(&out)
        .output()
        .unwrap();
    let (text, _) = outcome(&output);
    assert_eq!(output.status.code(), Some(124), "{text}");
    assert!(text.contains("ended early: interrupted\nFAIL"), "{text}");
    assert_eq!(report(&out)["aborted"].as_str(), Some("interrupted"));
    // Both pending before either is taken.
    let out = folder("interrupt-both");
    let child = long_run(&double, &out);
    for sent in [Signal::STOP, Signal::INT, Signal::TERM, Signal::CONT] {
        signal(&child, sent);
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", outcome(&output).0);
    assert_eq!(report(&out)["aborted"].as_str(), Some("interrupted"));
}

#[test]
fn a_later_signal_ends_the_process() {
    let double = Double::start(&[]);
    let out = folder("interrupt-later");
    // Its worker is stopped, so the run waits for it and cannot end at the first signal.
    let mut worker = Command::new(env!("CARGO_BIN_EXE_uproar-loadgen"))
        .args(["worker", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut address = String::new();
    BufReader::new(worker.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let mut child = loadgen("hot", &double.address)
        .args(["--viewers", "20", "--rate", "20", "--duration-secs", "60", "--progress", "lines"])
        .args(["--workers", address.trim(), "--out"])
        .arg(&out)
        .spawn()
        .unwrap();
    let mut progress = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(progress.any(|line| line.unwrap().contains("s steady ")), "the window did not begin");
    signal(&worker, Signal::STOP);
    // A line a second comes until the run waits for its worker.
    let (said, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || progress.try_for_each(|line| said.send(line.unwrap())));
    while heard.recv_timeout(Duration::from_secs(3)).is_ok() {}
    signal(&child, Signal::INT);
    // Beyond the second within which two signals are one.
    std::thread::sleep(Duration::from_millis(1_500));
    signal(&child, Signal::INT);
    let status = child.wait().unwrap();
    worker.kill().unwrap();
    worker.wait().unwrap();
    assert_eq!(status.signal(), Some(2), "{status:?}");
    let summary = std::fs::read_to_string(out.join("summary.txt")).unwrap();
    assert!(summary.starts_with("not finished") && !out.join("report.json").exists());
}
