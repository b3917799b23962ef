//! Alerts over how busy a node is: a core over its target, passes that take too long.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::node::{Node, wait_until};
use crate::series::{assert_fires, constant, growing, sum};

const UNLIMITED: [&str; 4] = ["--posts-per-sec-connection", "0", "--posts-per-sec-event", "0"];

/// A masked text frame (RFC 6455 §5.2) of a post of one letter; the mask is zero.
fn post_frame() -> Vec<u8> {
    let text = br#"{"type":"post","text":"x"}"#;
    [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0], &text[..]].concat()
}

/// Reads until a comment has come.
fn await_comment(viewer: &mut TcpStream) {
    let (mut read, mut bytes) = (Vec::new(), [0; 4_096]);
    while !String::from_utf8_lossy(&read).contains("\"type\":\"comment\"") {
        let len = viewer.read(&mut bytes).unwrap();
        assert_ne!(len, 0, "the node ended a viewer");
        read.extend_from_slice(&bytes[..len]);
    }
}

#[test]
fn a_flooded_shard_fires_what_it_should() {
    let args = [
        "--shards",
        "1",
        "--cpu-target-percent",
        "10",
        "--control-frames-per-sec-max",
        "0",
        "--cpus",
        "0",
    ];
    let node = Node::start(&args);
    let mut flooder = node.upgraded("e");
    // Empty pongs cost a decoding each and are not answered.
    let pongs = [0x8a, 0x80, 0, 0, 0, 0].repeat(10_000);
    // It ends when the node does, at the end of this test.
    thread::spawn(move || while flooder.write_all(&pongs).is_ok() {});
    let is_busy = |metrics: &str| sum(metrics, &["uproar_shard_busy_ratio"]) > 0.6;
    let busy = node.metrics_when("a busy shard", is_busy);
    assert_fires("busy", &constant(&busy), &["UproarOverCpuTarget"]);
    // Somebody else on the shard's core.
    let is_over = Arc::new(AtomicBool::new(false));
    let other = {
        let is_over = Arc::clone(&is_over);
        thread::spawn(move || {
            let mut cpu = CpuSet::new();
            cpu.set(0);
            sched_setaffinity(None, &cpu).unwrap();
            while !is_over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        })
    };
    let waited = |metrics: &str| sum(metrics, &["uproar_shard_run_delay_seconds_total"]);
    let before = node.metrics();
    let after = node.metrics_when("a shard that waits for its core", |metrics| {
        waited(metrics) - waited(&before) > 1.5
    });
    is_over.store(true, Ordering::Relaxed);
    other.join().unwrap();
    assert_fires("waits", &growing(&before, &after), &["UproarShardRunDelay"]);
}

/// Passes that a pause of the whole process makes slow, as a host without CPU time for it would.
#[test]
fn a_node_that_stands_still_in_its_passes_fires_what_it_should() {
    let args = ["--shards", "1", "--connections-max", "2000"];
    let node = Node::start(&[&args[..], &UNLIMITED].concat());
    // More viewers than one chunk of sends has places, so that a pass takes more than one turn.
    let mut viewers: Vec<_> = (0..700).map(|_| node.upgraded("e")).collect();
    let mut author = viewers.pop().unwrap();
    let before = node.metrics();
    let after = RefCell::new(String::new());
    wait_until("one pass in fifty over 0.4 s", || {
        author.write_all(&post_frame()).unwrap();
        // A pass begins with whoever came last; the others are waiting now.
        await_comment(&mut author);
        node.signal(Signal::STOP);
        thread::park_timeout(Duration::from_millis(500));
        node.signal(Signal::CONT);
        *after.borrow_mut() = node.metrics();
        let passes = |label: &str| {
            let parts = ["uproar_pass_duration_seconds_bucket", label];
            sum(&after.borrow(), &parts) - sum(&before, &parts)
        };
        passes("le=\"+Inf\"") - passes("le=\"0.4096") > 0.02 * passes("le=\"+Inf\"")
    });
    let alerts = ["UproarShardStalled", "UproarSlowPasses"];
    assert_fires("passes", &growing(&before, &after.borrow()), &alerts);
}
