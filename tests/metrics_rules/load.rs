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

use crate::node::{Node, raise_descriptors, wait_until};
use crate::series::{assert_fires, constant, growing, sum};

const UNLIMITED: [&str; 4] = ["--posts-per-sec-connection", "0", "--posts-per-sec-event", "0"];

/// A masked text frame (RFC 6455 §5.2) of a post of one letter; the mask is zero.
fn post_frame() -> Vec<u8> {
    let text = br#"{"type":"post","text":"x"}"#;
    [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0], &text[..]].concat()
}

/// The same of a post of 1,900 bytes.
fn long_post_frame() -> Vec<u8> {
    let text = format!(r#"{{"type":"post","text":"{}"}}"#, "x".repeat(1_900));
    let len = (text.len() as u16).to_be_bytes();
    [&[0x81, 0x80 | 126, len[0], len[1], 0, 0, 0, 0], text.as_bytes()].concat()
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

/// More is appended while one pass goes on than all logs may hold.
#[test]
fn passes_that_the_logs_cannot_wait_for_fire_what_they_should() {
    raise_descriptors();
    let args = ["--shards", "1", "--connections-max", "2000", "--log-bytes-max", "1048576"];
    let room = ["--room-log-bytes-max", "1048576"];
    let node = Node::start(&[&args[..], &room, &UNLIMITED].concat());
    // A pass over so many takes a dozen turns, and each turn reads from the authors as well.
    let unblocked = |stream: TcpStream| {
        stream.set_nonblocking(true).unwrap();
        stream
    };
    let mut viewers: Vec<_> = (0..1_500).map(|_| unblocked(node.upgraded("e"))).collect();
    let mut authors: Vec<_> = (0..150).map(|_| (unblocked(node.upgraded("e")), 0)).collect();
    let before = node.metrics();
    let burst = long_post_frame().repeat(15);
    let after = RefCell::new(String::new());
    let mut rest = [0; 65_536];
    wait_until("comments dropped before their pass", || {
        for (author, sent) in &mut authors {
            while author.read(&mut rest).is_ok_and(|len| len > 0) {}
            // What its socket does not take now goes on where it was cut.
            *sent = (*sent + author.write(&burst[*sent..]).unwrap_or(0)) % burst.len();
        }
        for viewer in &mut viewers {
            while viewer.read(&mut rest).is_ok_and(|len| len > 0) {}
        }
        *after.borrow_mut() = node.metrics();
        sum(&after.borrow(), &["uproar_gap_comments_total", "pass"]) > 0.0
    });
    let mut series = growing(&before, &after.borrow());
    // Nobody reads here; whether some are slow by then as well is another alert's matter.
    for (name, values) in &mut series {
        if name.starts_with("uproar_gap_comments_total") && name.contains("viewer") {
            "0x300".clone_into(values);
        }
    }
    assert_fires("unsent", &series, &["UproarPassesTooSlow"]);
}
