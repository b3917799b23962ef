//! Several processes as one load generator, other servers, two runs side by side.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use support::{Double, folder, loadgen, outcome, report};

/// A worker process and its address.
struct Worker {
    child: Child,
    address: String,
}

impl Worker {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_uproar-loadgen"))
            .args(["worker", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { child, address: address.trim().to_owned() }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It serves until it is ended; a second kill of an ended one is no harm.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_worker_that_dies_leaves_a_partial_report_and_its_name() {
    let double = Double::start(&[]);
    let (first, mut second) = (Worker::start(), Worker::start());
    let out = folder("fleet-dead-worker");
    let mut child = loadgen("hot", &double.address)
        .args(["--viewers", "100", "--rate", "20", "--duration-secs", "20"])
        .args(["--progress", "lines", "--workers"])
        .arg(format!("{},{}", first.address, second.address))
        .arg("--out")
        .arg(&out)
        .spawn()
        .unwrap();
    let progress = BufReader::new(child.stderr.take().unwrap());
    let mut steady = progress.lines().filter(|line| line.as_ref().unwrap().contains("s steady "));
    assert!(steady.next().is_some(), "the run ended before its measured window");
    second.child.kill().unwrap();
    let (text, passed) = outcome(&child.wait_with_output().unwrap());
    let gone = format!("worker {} is gone", second.address);
    assert!(!passed && text.contains(&gone), "{text}");
    let report = report(&out);
    assert!(report["aborted"].as_str().unwrap().starts_with(&gone));
    assert!(report["counters"]["deliveries"].as_u64() > Some(0), "what was seen is kept");
}

#[test]
fn a_worker_whose_coordinator_says_nothing_any_more_stops_posting() {
    let double = Double::start(&[]);
    let mut worker = Worker::start();
    let mut told = BufReader::new(worker.child.stderr.take().unwrap()).lines();
    let mut child = loadgen("hot", &double.address)
        .args(["--viewers", "50", "--rate", "20", "--duration-secs", "60", "--progress", "lines"])
        .args(["--workers", &worker.address])
        .spawn()
        .unwrap();
    let mut progress = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(progress.any(|line| line.unwrap().contains("s steady ")), "the window did not begin");
    // As if its host were gone: the line does not end.
    kill_process(Pid::from_child(&child), Signal::STOP).unwrap();
    let stopped = told
        .any(|line| line.unwrap().contains("it has said nothing for 5 s; its planes are stopped"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(stopped);
    // It serves the next one.
    let output = loadgen("hot", &double.address)
        .args(["--viewers", "20", "--duration-secs", "0.5", "--workers", &worker.address])
        .output()
        .unwrap();
    let (text, held) = outcome(&output);
    assert!(held, "{text}");
}

#[test]
fn two_workers_share_one_scenario_and_their_numbers_add_up() {
    let double = Double::start(&[]);
    let (first, second) = (Worker::start(), Worker::start());
    let out = folder("fleet-workers");
    let output = loadgen("hot", &double.address)
        .args(["--viewers", "200", "--rate", "20", "--duration-secs", "1.5", "--workers"])
        .arg(format!("{},{}", first.address, second.address))
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    let (text, passed) = outcome(&output);
    assert!(passed, "{text}");
    let report = report(&out);
    let counters = &report["steps"][0]["counters"];
    let (posts, deliveries) = (counters["posts"].as_u64(), counters["deliveries"].as_u64());
    assert_eq!(deliveries, posts.map(|posts| posts * 200), "{text}");
    assert!(report["clock_method"].as_str().unwrap().contains("2 planes on 2 workers"));
    assert!(report["steps"][0]["latency"]["p50"].as_f64() < Some(1.0), "{text}");
    // What the coordinator itself uses is not the load generator's.
    assert!(report["machine"]["loadgen_cpus"].is_null() && text.contains("loadgen - B a viewer"));
    // What the workers' CPUs do is.
    let samples = report["samples"].as_array().unwrap();
    assert!(samples.iter().any(|s| s["loadgen_cpu_percent"].as_f64() > Some(0.0)), "{text}");
}

#[test]
fn a_server_without_a_protocol_of_its_own_is_driven_by_templates() {
    let double = Double::start(&["plain"]);
    let out = folder("fleet-generic");
    let output = loadgen("hot", &double.address)
        .args(["--speak", "generic", "--publishers", "1", "--path", "/any/x/{event}"])
        .args(["--publish", "{\"n\":{sequence},\"say\":\"{marker}\"}"])
        .args(["--viewers", "100", "--rate", "20", "--duration-secs", "1", "--out"])
        .arg(&out)
        .output()
        .unwrap();
    let (text, passed) = outcome(&output);
    assert!(passed, "{text}");
    let counters = &report(&out)["steps"][0]["counters"];
    let (posts, deliveries) = (counters["posts"].as_u64(), counters["deliveries"].as_u64());
    assert!(posts > Some(15), "{text}");
    assert_eq!(deliveries, posts.map(|posts| posts * 100), "{text}");
}

#[test]
fn two_runs_are_set_side_by_side() {
    let double = Double::start(&[]);
    let folders = ["fleet-a", "fleet-b"].map(folder);
    // The second is measured twice.
    for (out, (viewers, repeats)) in folders.iter().zip([("50", "1"), ("100", "2")]) {
        let output = loadgen("hot", &double.address)
            .args(["--viewers", viewers, "--rate", "20", "--duration-secs", "0.5"])
            .args(["--repeats", repeats, "--out"])
            .arg(out)
            .output()
            .unwrap();
        let (text, held) = outcome(&output);
        assert!(held, "{text}");
    }
    // As if the first had run elsewhere, and both had been measured.
    for (out, kernel) in folders.iter().zip(["5.10.0-other", ""]) {
        let mut report = report(out);
        if !kernel.is_empty() {
            report["machine"]["kernel"] = kernel.into();
        }
        report["steps"][0]["is_distorted"] = false.into();
        fs::write(out.join("report.json"), serde_json::to_vec(&report).unwrap()).unwrap();
    }
    let page = folders[1].join("compare.html");
    let output = Command::new(env!("CARGO_BIN_EXE_uproar-loadgen"))
        .arg("compare")
        .args(&folders)
        .arg("--html")
        .arg(&page)
        .output()
        .unwrap();
    let text = outcome(&output).0;
    assert!(output.status.success(), "{text}");
    assert!(text.starts_with("WARNING: these runs were not alike"), "{text}");
    assert!(text.contains("  kernel           A 5.10.0-other\n"), "{text}");
    assert!(text.contains("A viewers              = 50"), "{text}");
    assert!(text.contains("B viewers              = 100"), "{text}");
    let deliveries = text.lines().find(|line| line.starts_with("deliveries a second")).unwrap();
    let ratio: f64 = deliveries.split_whitespace().last().unwrap().parse().unwrap();
    assert!((1.5..2.5).contains(&ratio), "{text}");
    let row = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line[name.len()..].split_whitespace().collect::<Vec<_>>()
    };
    assert_eq!(row("verdict").last(), Some(&"-"), "{text}");
    assert!(!row("limit").is_empty(), "{text}");
    assert!(text.contains("\nonly B has steady.2: ") && !text.contains("only A has"), "{text}");
    let page = fs::read_to_string(page).unwrap();
    assert!(page.matches("<svg view").count() >= 5);
    for cell in ["<td>kernel</td><td>5.10.0-other</td>", "<th>steady</th>", "<td>latency p99</td>"]
    {
        assert!(page.contains(cell), "the page has no {cell}");
    }
}
