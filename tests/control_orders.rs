//! Orders that a shard misses, because its queue is full while it stands still: they reach it all the same.

mod fake;

use std::fs;
use std::sync::atomic::Ordering::Relaxed;

use fake::{TestNode, request, sources, until};
use rustix::process::{Signal, getpid, kill_process};
use uproar::config::Sources;

/// Shard 0 stands still, and takes no order.
fn deafen(node: &TestNode) {
    node.is_stuck.store(true, Relaxed);
    node.fill_queue();
}

#[test]
fn a_shard_that_missed_a_drain_or_its_end_hears_of_it_when_it_answers() {
    let node = TestNode::start(&[("drain_delay_ms", "0")]);
    deafen(&node);
    assert_eq!(request(node.admin, "POST", "/drain", "", "").status, 202);
    until("the other shard drains", || node.has_metric("uproar_draining{shard=\"1\"} 1"));
    let told = node.get_admin("/drain").json();
    assert_eq!((&told["draining"], &told["silent"]), (&true.into(), &serde_json::json!([0])));
    node.is_stuck.store(false, Relaxed);
    until("this one does as well", || node.has_metric("uproar_draining{shard=\"0\"} 1"));

    deafen(&node);
    assert_eq!(request(node.admin, "DELETE", "/drain", "", "").status, 200);
    until("the other shard admits", || node.has_metric("uproar_draining{shard=\"1\"} 0"));
    node.is_stuck.store(false, Relaxed);
    until("this one does as well", || node.has_metric("uproar_draining{shard=\"0\"} 0"));
    assert_eq!(node.get_admin("/drain").json()["silent"], serde_json::json!([]));
}

#[test]
fn a_reload_that_a_shard_missed_is_not_complete_until_it_has_it() {
    let file = std::env::temp_dir().join(format!("uproar-orders-{}.toml", std::process::id()));
    fs::write(&file, "comment_bytes_max = 100\n").unwrap();
    let flags = sources(&[]);
    let node = TestNode::start_from(Sources { file: Some(file.clone()), ..flags });
    let hangup = || kill_process(getpid(), Signal::HUP).unwrap();
    // Which of two events is at home on which shard, nobody needs to know.
    let post = |event: usize, text: &str| {
        let body = format!("{{\"text\":\"{text}\"}}");
        node.post(&format!("/v1/events/e{event}/comments"), &body).status
    };
    let short = "x".repeat(50);
    assert!((0..8).all(|event| post(event, &short) == 201));

    deafen(&node);
    fs::write(&file, "comment_bytes_max = 10\n").unwrap();
    hangup();
    until("one of two has not got it", || {
        node.has_metric("uproar_config_shards_behind 1")
            && node.has_metric("uproar_config_last_reload_successful 0")
    });
    assert!(node.has_metric("uproar_config_reloads_total{result=\"applied\"} 0"));
    node.is_stuck.store(false, Relaxed);
    until("both have it", || {
        node.has_metric("uproar_config_reloads_total{result=\"applied\"} 1")
            && node.has_metric("uproar_config_shards_behind 0")
            && node.has_metric("uproar_config_last_reload_successful 1")
    });
    assert!((0..8).all(|event| post(event, &short) == 400), "both go by it");
    fs::remove_file(&file).unwrap();
}
