//! A run stopped by hand leaves what it has measured; a second signal ends it at once.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
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
fn a_second_signal_ends_the_process() {
    let double = Double::start(&[]);
    let out = folder("interrupt-twice");
    let mut child = long_run(&double, &out);
    // Different ones are never merged; both are pending before either is taken.
    signal(&child, Signal::STOP);
    signal(&child, Signal::INT);
    signal(&child, Signal::TERM);
    signal(&child, Signal::CONT);
    let status = child.wait().unwrap();
    assert!(matches!(status.signal(), Some(2 | 15)), "{status:?}");
    assert!(!out.join("report.json").exists());
}
