//! Stalls that must show: a stopped server, a stopped load generator, a server that dies.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use support::{Double, folder, loadgen, outcome, report};

const STALL: Duration = Duration::from_millis(2_000);

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id() as i32).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Waits until the measured window has begun, by the progress lines of `child`.
fn wait_until_steady(child: &mut Child) {
    let lines = BufReader::new(child.stderr.take().unwrap());
    for line in lines.lines() {
        if line.unwrap().contains("s steady ") {
            return;
        }
    }
    panic!("the run ended before its measured window");
}

/// A run of five seconds in the middle of which `stall` is called with the two processes.
fn run_with(name: &str, stall: impl Fn(&Child, &Child)) -> (serde_json::Value, String) {
    let double = Double::start(&[]);
    let out = folder(name);
    let mut child = loadgen("hot", &double.address)
        .args(["--viewers", "100", "--rate", "50", "--duration-secs", "5", "--progress", "lines"])
        .arg("--out")
        .arg(&out)
        .spawn()
        .unwrap();
    wait_until_steady(&mut child);
    stall(&double.child, &child);
    let (text, _) = outcome(&child.wait_with_output().unwrap());
    (report(&out), text)
}

fn stall(child: &Child) {
    signal(child, Signal::STOP);
    std::thread::sleep(STALL);
    signal(child, Signal::CONT);
}

/// Comments due evenly over two of five seconds waited up to two seconds each.
fn assert_stall_shows(report: &serde_json::Value, text: &str) {
    let latency = &report["steps"][0]["latency"];
    let (p90, max) = (latency["p90"].as_f64().unwrap(), latency["max"].as_f64().unwrap());
    assert!(max > 1.5, "the longest wait was {max} s\n{text}");
    assert!(p90 > 0.7, "a fifth of all comments waited over a second, yet p90 is {p90} s\n{text}");
    assert_eq!(report["steps"][0]["counters"]["lost"], 0);
}

#[test]
fn a_server_stopped_for_two_seconds_shows_in_the_tail() {
    let (report, text) = run_with("stopped-server", |server, _| stall(server));
    assert_stall_shows(&report, &text);
}

#[test]
fn a_server_that_is_stopped_and_stays_so_does_not_pass() {
    let (report, text) = run_with("stays-stopped", |server, _| signal(server, Signal::STOP));
    assert_eq!(report["outcome"], "failed", "{text}");
    assert!(report["counters"]["posts_unanswered"].as_u64() > Some(0), "{text}");
}

#[test]
fn a_stalled_publisher_shows_in_the_tail_and_in_the_slippage() {
    let (report, text) = run_with("stopped-loadgen", |_, loadgen| stall(loadgen));
    assert_stall_shows(&report, &text);
    assert!(report["slippage"]["max"].as_f64() > Some(1.5), "{text}");
    assert_eq!(report["steps"][0]["is_client_limited"], true, "{text}");
}

#[test]
fn a_server_that_dies_leaves_a_partial_report() {
    let (report, text) = run_with("dead-server", |server, _| signal(server, Signal::KILL));
    assert!(text.contains("the server process has ended"), "{text}");
    assert_eq!(report["outcome"], "failed", "{text}");
    assert!(report["samples"].as_array().is_some_and(|samples| !samples.is_empty()));
    assert!(report["unfinished"]["latency"]["count"].as_u64() > Some(0), "{text}");
}

#[test]
fn a_wrong_address_is_one_sentence() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let output = loadgen("hot", &address).output().unwrap();
    let (text, _) = outcome(&output);
    assert_eq!(output.status.code(), Some(2));
    assert!(text.contains("nothing listens at the target"), "{text}");
    assert_eq!(text.trim().lines().count(), 1, "{text}");
}
