//! What the load generator notices: each kind of damage, one delivery in ten thousand.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::process::Command;

use support::{Double, folder, loadgen, outcome, report};

/// A run against a double with this fault: its report, whether it passed, and what it printed.
fn run_with(fault: [&str; 2], args: &[&str]) -> (serde_json::Value, bool, String) {
    let double = Double::start(&fault);
    let out = folder(&format!("verify-{}", fault[0]));
    let output =
        loadgen("hot", &double.address).args(args).arg("--out").arg(&out).output().unwrap();
    let (text, passed) = outcome(&output);
    (report(&out), passed, text)
}

/// Thirty thousand deliveries, of which three are damaged.
fn counters_with(fault: &str) -> (serde_json::Value, bool, String) {
    let args = ["--viewers", "500", "--rate", "40", "--duration-secs", "1.5", "--drain-secs", "20"];
    let (report, passed, text) = run_with([fault, "10000"], &args);
    (report["steps"][0]["counters"].clone(), passed, text)
}

/// Forty posts, of which four meet the fault.
fn posts_with(fault: &str) -> (serde_json::Value, bool, String) {
    let args = ["--viewers", "20", "--rate", "40", "--duration-secs", "1", "--drain-secs", "1"];
    let (report, passed, text) = run_with([fault, "10"], &args);
    (report["counters"].clone(), passed, text)
}

#[test]
fn one_dropped_comment_in_ten_thousand_is_noticed() {
    let (counters, passed, text) = counters_with("drop");
    assert!(!passed && counters["lost"].as_u64() >= Some(1), "{text}");
    assert_eq!((&counters["duplicates"], &counters["reordered"]), (&0.into(), &0.into()));
}

#[test]
fn one_reordered_comment_in_ten_thousand_is_noticed() {
    let (counters, passed, text) = counters_with("reorder");
    assert!(!passed && counters["reordered"].as_u64() >= Some(1), "{text}");
    assert_eq!(counters["duplicates"], 0);
}

#[test]
fn one_duplicate_in_ten_thousand_is_noticed() {
    let (counters, passed, text) = counters_with("duplicate");
    assert!(!passed && counters["duplicates"].as_u64() >= Some(1), "{text}");
    assert_eq!(counters["lost"], 0);
}

#[test]
fn one_comment_in_ten_thousand_that_is_not_the_one_others_saw_is_noticed() {
    let (counters, passed, text) = counters_with("rewrite");
    assert!(!passed && counters["disagreements"].as_u64() >= Some(1), "{text}");
}

#[test]
fn a_post_that_vanishes_for_everyone_is_noticed() {
    let (counters, passed, text) = posts_with("swallow");
    assert!(!passed && counters["posts_unanswered"].as_u64() >= Some(1), "{text}");
    assert!(text.contains("posts unanswered"), "{text}");
}

#[test]
fn each_post_needs_an_answer_of_its_own() {
    for fault in ["swallow2", "doubleack", "swallownoref"] {
        let (counters, passed, text) = posts_with(fault);
        assert!(!passed && counters["acks_stray"].as_u64() >= Some(3), "{fault}: {text}");
        assert!(counters["posts_unanswered"].as_u64() >= Some(3), "{fault}: {text}");
        assert!(text.contains("for which its publisher does not wait"), "{fault}: {text}");
    }
}

#[test]
fn a_post_that_is_acknowledged_and_delivered_to_nobody_is_noticed() {
    let (counters, passed, text) = posts_with("swallowold");
    assert!(!passed && counters["posts_unseen"].as_u64() >= Some(3), "{text}");
    assert_eq!((&counters["posts_unanswered"], &counters["acks_stray"]), (&0.into(), &0.into()));
}

#[test]
fn comments_that_nobody_posted_are_noticed() {
    let (counters, passed, text) = posts_with("junk");
    assert!(!passed && counters["deliveries_foreign"].as_u64() >= Some(60), "{text}");
    assert!(text.contains(" not ours,"), "{text}");
}

#[test]
fn a_refused_post_fails_the_run() {
    let (counters, passed, text) = posts_with("refuse");
    assert!(!passed && counters["posts_refused"].as_u64() >= Some(1), "{text}");
    assert_eq!(counters["posts_unanswered"], 0, "{text}");
}

#[test]
fn viewers_who_cannot_come_back_fail_the_run() {
    let double = Double::start(&["full", "60"]);
    let output = loadgen("churn", &double.address)
        .args(["--viewers", "50", "--events", "2", "--bounce-share", "0.5", "--bounce-secs", "0.5"])
        .args(["--duration-secs", "2", "--drain-secs", "4"])
        .output()
        .unwrap();
    let (text, passed) = outcome(&output);
    assert!(!passed && text.contains("upgrades refused"), "{text}");
}

#[test]
fn a_server_too_small_for_the_viewers_is_a_run_that_could_not_take_place() {
    let double = Double::start(&["full", "30"]);
    let output = loadgen("hot", &double.address).args(["--viewers", "50"]).output().unwrap();
    let (text, _) = outcome(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("only 30 of 50 viewers could connect: an upgrade was answered with status 503: the server is full"), "{text}");
}

#[test]
fn a_comment_lost_in_a_later_step_fails_the_run() {
    let double = Double::start(&["drop", "2000"]);
    let output = loadgen("hot", &double.address)
        .args(["--viewers", "100", "--rate", "10", "--duration-secs", "1", "--repeats", "2"])
        .args(["--slo", "connections>=100"])
        .output()
        .unwrap();
    let (text, held) = outcome(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let is_named = |line: &str| line == "BROKEN        steady.2   what no load excuses";
    assert!(!held && text.lines().any(is_named), "{text}");
}

#[test]
fn a_faultless_server_passes_and_everything_adds_up() {
    let double = Double::start(&[]);
    let out = folder("verify-none");
    let output = loadgen("hot", &double.address)
        .args(["--viewers", "300", "--events", "3", "--rate", "10", "--duration-secs", "1"])
        .args(["--slo", "loss=0,connections>=300,closed=0,p99<5s", "--out"])
        .arg(&out)
        .output()
        .unwrap();
    let (text, passed) = outcome(&output);
    assert!(passed, "{text}");
    let report = report(&out);
    let counters = &report["steps"][0]["counters"];
    let (posts, deliveries) = (counters["posts"].as_u64(), counters["deliveries"].as_u64());
    assert_eq!(counters["acks"].as_u64(), posts);
    assert_eq!(deliveries, posts.map(|posts| posts * 100), "100 viewers watch each event");
    assert_eq!(report["steps"][0]["verdicts"].as_array().map(Vec::len), Some(4));
    for file in ["report.html", "steady.hgrm", "steady.hdr"] {
        assert!(out.join(file).metadata().is_ok_and(|meta| meta.len() > 100), "{file}");
    }
}

#[test]
fn viewers_of_several_rings_are_one_audience() {
    let double = Double::start(&[]);
    let run = loadgen("hot", &double.address);
    // A ring has as many slots as a process may have descriptors.
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 4096; exec \"$0\" \"$@\""])
        .arg(run.get_program())
        .args(run.get_args())
        .args(["--viewers", "4200", "--events", "20", "--rate", "1", "--duration-secs", "1"])
        .output()
        .unwrap();
    let (text, held) = outcome(&output);
    assert!(held, "{text}");
    assert!(text.contains("4200"), "{text}");
}

#[test]
fn a_broken_service_level_is_the_exit_code() {
    let double = Double::start(&[]);
    let output = loadgen("hot", &double.address)
        .args(["--viewers", "50", "--duration-secs", "1", "--slo", "connections>=51"])
        .output()
        .unwrap();
    let (text, _) = outcome(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("BROKEN        steady     connections>=51 (measured 50)"), "{text}");
}

#[test]
fn viewers_that_resume_get_every_comment_exactly_once() {
    let double = Double::start(&[]);
    let out = folder("verify-resume");
    let output = loadgen("resume", &double.address)
        .args(["--viewers", "200", "--events", "4", "--rate", "20", "--duration-secs", "2"])
        .args(["--bounce-share", "0.5", "--bounce-secs", "0.5", "--out"])
        .arg(&out)
        .output()
        .unwrap();
    let (text, passed) = outcome(&output);
    assert!(passed, "{text}");
    let counters = &report(&out)["steps"][0]["counters"];
    assert!(counters["resumes_recovered"].as_u64() > Some(100), "{text}");
    assert_eq!(counters["resumes_incomplete"], 0);
    // What came while a viewer was away is checked, but says nothing about the server's speed.
    let (replayed, deliveries) =
        (counters["deliveries_replayed"].as_u64(), counters["deliveries"].as_u64());
    assert!(replayed > Some(0) && replayed < deliveries, "{text}");
    let timed = report(&out)["steps"][0]["latency"]["count"].as_u64();
    assert!(timed <= deliveries.zip(replayed).map(|(all, replayed)| all - replayed), "{text}");
}
