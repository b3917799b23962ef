//! What must not flatter: servers that cheat, runs that measured nothing, verdicts of another run or process.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rustix::process::{Pid, Signal, kill_process};
use support::{Double, folder, loadgen, outcome, report};

fn run(command: &mut Command, out: &Path) -> (Output, String) {
    let output = command.arg("--out").arg(out).output().unwrap();
    let text = outcome(&output).0;
    (output, text)
}

#[test]
fn a_server_that_appends_every_tenth_post_twice_fails() {
    let double = Double::start(&["twice", "10"]);
    let out = folder("flattery-twice");
    let mut command = loadgen("hot", &double.address);
    command.args(["--viewers", "20", "--rate", "40", "--duration-secs", "1"]);
    let (output, text) = run(&mut command, &out);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let counters = &report(&out)["steps"][0]["counters"];
    assert!(counters["appended_twice"].as_u64() >= Some(4), "{text}");
    assert_eq!((&counters["lost"], &counters["duplicates"]), (&0.into(), &0.into()), "{text}");
    assert!(text.contains("a post that stands in the log already"), "{text}");
}

#[test]
fn a_run_whose_window_measured_nothing_does_not_pass() {
    let double = Double::start(&[]);
    let out = folder("flattery-nothing");
    let mut command = loadgen("hot", &double.address);
    command.args(["--viewers", "20", "--rate", "0.001", "--duration-secs", "0.3"]);
    let (output, text) = run(&mut command, &out);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("\nNOT MEASURED"), "{text}");
    let limit = report(&out)["steps"][0]["limit"].as_str().unwrap().to_owned();
    assert!(
        limit.starts_with("nothing measured") || limit.starts_with("client-limited"),
        "{limit}"
    );
}

#[test]
fn events_with_fewer_viewers_than_publishers_get_their_whole_rate() {
    let double = Double::start(&[]);
    let out = folder("flattery-rate");
    let mut command = loadgen("hot", &double.address);
    command.args(["--viewers", "10", "--events", "5", "--publishers", "4", "--rate", "20"]);
    let (_, text) = run(command.args(["--duration-secs", "2"]), &out);
    let step = &report(&out)["steps"][0];
    assert_eq!(step["posts_stated_per_sec"].as_f64(), Some(100.0), "{text}");
    let posted = step["posts_per_sec"].as_f64().unwrap();
    // Each of ten publishers may have one more or less.
    assert!((95.0..=105.0).contains(&posted), "{posted}: {text}");
}

#[test]
fn what_is_due_while_everybody_is_away_is_posted_and_counts_from_then() {
    let double = Double::start(&[]);
    let out = folder("flattery-storm");
    let mut command = loadgen("storm", &double.address);
    command.args(["--viewers", "40", "--events", "4", "--rate", "50", "--duration-secs", "2"]);
    // Slowly, so that it takes two seconds until all are back, and most of one until those who post are.
    command.args(["--bounce-secs", "1.9", "--connects-per-sec", "20"]);
    let (_, text) = run(&mut command, &out);
    let step = &report(&out)["steps"][0];
    let counters = &step["counters"];
    assert!(counters["posts_deferred"].as_u64() > Some(5), "{text}");
    assert_eq!(counters["posts_skipped"], 0, "{text}");
    assert!(text.contains("posts were due while their publisher was away by plan"), "{text}");
    let posted = step["posts_per_sec"].as_f64().unwrap();
    assert!((190.0..=210.0).contains(&posted), "{posted}: {text}");
    assert!(step["latency"]["max"].as_f64() > Some(0.2), "{text}");
}

#[test]
fn several_publications_in_a_frame_are_no_loss() {
    let double = Double::start(&["gathered"]);
    let out = folder("flattery-gathered");
    let mut command = loadgen("hot", &double.address);
    command.args(["--speak", "generic", "--publishers", "1", "--path", "/any/x/{event}"]);
    command.args(["--publish", "{\"say\":\"{marker}\"}", "--viewers", "50", "--rate", "100"]);
    let (_, text) = run(command.args(["--duration-secs", "1"]), &out);
    let report = report(&out);
    assert_ne!(report["outcome"], "failed", "{text}");
    let counters = &report["steps"][0]["counters"];
    assert!(counters["posts"].as_u64() > Some(90), "{text}");
    assert_eq!(counters["deliveries"].as_u64(), counters["posts"].as_u64().map(|posts| posts * 50));
    assert_eq!(counters["lost"], 0, "{text}");
    assert!(counters["checked"].as_u64() > Some(10), "their text is compared too: {text}");
}

#[test]
fn no_verdict_of_an_earlier_run_stays() {
    let double = Double::start(&[]);
    let out = folder("flattery-stale");
    let summary = || fs::read_to_string(out.join("summary.txt")).unwrap();
    let mut command = loadgen("hot", &double.address);
    run(command.args(["--viewers", "20", "--duration-secs", "0.5"]), &out);
    assert!(out.join("report.json").exists() && out.join("steady.hdr").exists());
    // One that is refused.
    let (output, _) = run(loadgen("hot", "127.0.0.1:1").args(["--viewers", "20"]), &out);
    assert_eq!(output.status.code(), Some(2));
    assert!(summary().starts_with("not run: cannot reach 127.0.0.1:1"), "{}", summary());
    assert!(!out.join("report.json").exists() && !out.join("steady.hdr").exists());
    let (output, _) = run(loadgen("hot", &double.address).args(["--slo", "p99<1"]), &out);
    assert_eq!(output.status.code(), Some(2));
    assert!(summary().starts_with("not run: ") && summary().contains("needs a unit"));
    // One whose flags mean nothing, after a report that was damaged.
    let mut command = loadgen("hot", &double.address);
    run(command.args(["--viewers", "20", "--duration-secs", "0.5"]), &out);
    fs::write(out.join("report.json"), "{").unwrap();
    let (output, _) = run(loadgen("hot", &double.address).args(["--viewers", "abc"]), &out);
    assert_eq!(output.status.code(), Some(2));
    assert!(summary().starts_with("not run: invalid value 'abc'"), "{}", summary());
    assert!(!out.join("report.json").exists() && !out.join("steady.hdr").exists());
    // One that is killed.
    let mut command = loadgen("hot", &double.address);
    run(command.args(["--viewers", "20", "--duration-secs", "0.5"]), &out);
    let mut child = loadgen("hot", &double.address).arg("--out").arg(&out).spawn().unwrap();
    let begun = std::time::Instant::now();
    while !summary().starts_with("not finished") {
        assert!(begun.elapsed().as_secs() < 30, "{}", summary());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(summary().starts_with("not finished") && !out.join("report.html").exists());
}

#[test]
fn who_holds_the_port_on_another_address_is_not_measured() {
    let first = Double::start_at("127.0.0.41:0", &[]);
    let port = first.address.rsplit_once(':').unwrap().1;
    let second = Double::start_at(&format!("127.0.0.42:{port}"), &[]);
    for (double, name) in [(&first, "flattery-pid-1"), (&second, "flattery-pid-2")] {
        let out = folder(name);
        let mut command = loadgen("hot", &double.address);
        let (_, text) = run(command.args(["--viewers", "10", "--duration-secs", "0.3"]), &out);
        let machine = &report(&out)["machine"];
        assert_eq!(machine["server_pid"].as_u64(), Some(double.child.id().into()), "{text}");
        assert!(machine["server_program"].as_str().unwrap().starts_with("double "), "{text}");
    }
}

#[test]
fn viewers_that_cannot_connect_say_why() {
    // A run waits 30 s for viewers that hang, so they hang side by side.
    let cases = [
        (&["hang"][..], "the server does not answer their upgrades"),
        (&["mute"][..], "the server sends them no welcome"),
        (&["full", "0"][..], "an upgrade was answered with status 503: the server is full"),
    ];
    let runs = cases.map(|(fault, why)| {
        let double = Double::start(fault);
        let child = loadgen("hot", &double.address).args(["--viewers", "10"]).spawn().unwrap();
        (double, child, why)
    });
    for (_double, child, why) in runs {
        let output = child.wait_with_output().unwrap();
        let text = outcome(&output).0;
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("only 0 of 10 viewers could connect: "), "{text}");
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn memory_of_a_handful_of_connections_is_not_measured() {
    let double = Double::start(&[]);
    let out = folder("flattery-memory");
    let mut command = loadgen("hot", &double.address);
    command.args(["--viewers", "20", "--duration-secs", "0.5", "--slo", "memory<=8KB,loss=0"]);
    let (output, text) = run(&mut command, &out);
    assert_eq!(output.status.code(), Some(2), "{text}");
    let verdicts = &report(&out)["steps"][0]["verdicts"];
    assert_eq!(
        (&verdicts[0]["standing"], &verdicts[1]["standing"]),
        (&"unmeasured".into(), &"holds".into())
    );
    let memory = report(&out)["steps"][0]["memory"]["Err"].as_str().unwrap().to_owned();
    assert!(memory.contains("fewer than 1000") || memory.contains("root"), "{memory}");
}

#[test]
fn a_server_stopped_and_killed_leaves_no_verdict_of_its_own() {
    // The run is stopped before its window, so nothing is there to be judged: it must not pass.
    let double = Double::start(&[]);
    let out = folder("flattery-early");
    let child = loadgen("hot", &double.address)
        .args(["--viewers", "20", "--duration-secs", "5", "--out"])
        .arg(&out)
        .spawn()
        .unwrap();
    kill_process(Pid::from_child(&double.child), Signal::KILL).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_ne!(output.status.code(), Some(0), "{}", outcome(&output).0);
    assert!(!fs::read_to_string(out.join("summary.txt")).unwrap().contains("PASS"));
}
