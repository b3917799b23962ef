//! Viewers that do not keep up: skipped with a gap, evicted, or given up on.

use std::io::Write;

use serde_json::Value;

use crate::node::{Node, wait_until};

/// Small everything, so that a few hundred comments push a reader who looks away out of the log.
const NARROW: [&str; 12] = [
    "--room-log-frames-max",
    "32",
    "--history-frames",
    "0",
    "--history-frames-max",
    "32",
    "--send-buffer-bytes",
    "4608",
    "--posts-per-sec-connection",
    "0",
    "--posts-per-sec-event",
    "0",
];

fn flood(node: &Node, count: usize) {
    let mut author = node.join("e", "?history=0");
    let text = "x".repeat(1_900);
    for _ in 0..count {
        author.post_acked(&text);
    }
}

#[test]
fn a_viewer_that_looked_away_is_told_the_gap_and_goes_on() {
    let node = Node::start(&NARROW);
    let mut slow = node.join_narrow("e", "?history=0");
    flood(&node, 200);
    node.wait_metric("uproar_blocked_connections", "", 1.0);
    let (mut expected, mut gaps) = (1, 0);
    while expected <= 200 {
        let frame: Value = slow.next();
        if frame["type"] == "notice" {
            assert_eq!(frame["kind"], "gap");
            assert_eq!(frame["from"].as_u64(), Some(expected), "a gap begins at the next comment");
            expected = frame["to"].as_u64().unwrap() + 1;
            gaps += 1;
        } else {
            assert_eq!(frame["offset"].as_u64(), Some(expected), "no hole goes unannounced");
            expected += 1;
        }
    }
    assert!(gaps > 0);
    assert!(node.metric("uproar_gaps_total", "") >= f64::from(gaps));
    assert!(node.metric("uproar_gap_comments_total", "") > 0.0);
}

#[test]
fn under_the_evict_policy_it_is_closed_instead() {
    let node = Node::start(&[&NARROW[..], &["--lag-policy", "evict"]].concat());
    let mut slow = node.join_narrow("e", "?history=0");
    flood(&node, 200);
    // It is found out when it takes bytes again; until then only the stall timer runs.
    assert_eq!(slow.closing().map(|(code, _)| code), Some(4000));
    node.wait_metric("uproar_closes_total", "\"lag\"", 1.0);
    assert_eq!(node.metric("uproar_gaps_total", ""), 0.0);
}

#[test]
fn a_viewer_that_accepts_nothing_is_given_up_on() {
    let node = Node::start(&[&NARROW[..], &["--stall-ms-max", "1000"]].concat());
    let _stalled = node.join_narrow("e", "?history=0");
    flood(&node, 60);
    node.wait_metric("uproar_closes_total", "\"stalled\"", 1.0);
    wait_until("it is forgotten", || node.metric("uproar_connections", "") == 0.0);
}

#[test]
fn answers_nobody_reads_fill_a_bounded_queue() {
    // Pings are the cheapest way to ask; how many a second is another limit's affair.
    let limits = ["--private-queue-bytes-max", "4096", "--control-frames-per-sec-max", "0"];
    let node = Node::start(&[&NARROW[..], &limits].concat());
    let mut deaf = node.join_narrow("e", "?history=0");
    // One read of these is answered with some ten times its bytes.
    let burst = [&[0x81, 0x82, 0, 0, 0, 0][..], b"{}"].concat().repeat(500);
    wait_until("the queue overflows", || {
        let is_cut = deaf.socket.get_mut().write_all(&burst).is_err();
        is_cut || node.metric("uproar_closes_total", "\"queue_full\"") > 0.0
    });
    node.wait_metric("uproar_closes_total", "\"queue_full\"", 1.0);
}

#[test]
fn silent_peers_are_pinged_and_then_dropped() {
    let node = Node::start(&["--keepalive-ms", "1000"]);
    let mut living = node.join("e", "");
    let _dead = node.join("e", "");
    // The living one answers pings as it reads; the dead one never reads.
    node.wait_metric("uproar_pings_total", "", 1.0);
    let frame = living.socket.read().unwrap();
    assert!(matches!(frame, tungstenite::Message::Ping(_)), "{frame:?}");
    wait_until("the dead one is dropped", || {
        // Reading answers the pings that have come.
        let _ = living.socket.read();
        node.metric("uproar_closes_total", "\"silent\"") >= 1.0
    });
    assert_eq!(node.metric("uproar_closes_total", "\"silent\""), 1.0, "and only that one");
}
