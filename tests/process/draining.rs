//! The end of a node: drained on SIGTERM, or killed and started anew.

use rustix::process::Signal;

use crate::node::Node;

#[test]
fn a_drain_tells_everyone_closes_with_1012_and_ends_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut node = Node::start(&[
            "--drain-delay-ms",
            "200",
            "--drain-spread-ms",
            "500",
            "--shards",
            "2",
            "--cpus",
            "0,1",
        ]);
        let mut viewers: Vec<_> = (0..20).map(|n| node.join(&format!("e{}", n % 5), "")).collect();
        node.signal(signal);
        for viewer in &mut viewers {
            let notice = viewer.next_of("notice");
            assert_eq!(notice["kind"], "drain");
            assert!(notice["delay_ms"].as_u64().unwrap() <= 500);
            assert_eq!(viewer.closing().map(|(code, _)| code), Some(1012));
        }
        drop(viewers);
        assert_eq!(node.ended().code(), Some(0));
    }
}

#[test]
fn a_viewer_that_never_reads_does_not_outlast_the_deadline() {
    let mut node = Node::start(&[
        "--drain-delay-ms",
        "0",
        "--drain-spread-ms",
        "100",
        "--drain-deadline-ms",
        "1500",
        "--send-buffer-bytes",
        "4608",
        "--posts-per-sec-event",
        "0",
    ]);
    let _stalled = node.join_narrow("e", "?history=0");
    let text = "x".repeat(1_900);
    (0..40).for_each(|_| drop(node.comment("e", &text)));
    node.signal(Signal::TERM);
    assert_eq!(node.ended().code(), Some(0));
}

#[test]
fn a_draining_node_admits_nobody() {
    let node = Node::start(&["--drain-delay-ms", "0", "--drain-spread-ms", "5000"]);
    let mut viewer = node.join("e", "");
    // A stream opened before the drain whose request comes after it.
    let late = node.connect();
    node.signal(Signal::TERM);
    viewer.next_of("notice");
    assert_eq!(node.upgrade("e", "", &[], late).err(), Some(503));
    viewer.post("1", "too late");
    assert_eq!(viewer.next_of("error")["code"], "draining");
}

#[test]
fn a_killed_node_comes_back_with_a_new_epoch_and_says_so() {
    let mut node = Node::start(&[]);
    let viewer = node.join("e", "");
    node.comment("e", "lost");
    let (epoch, since) = (viewer.epoch(), format!("{}-1", viewer.epoch()));
    node.signal(Signal::KILL);
    assert!(!node.ended().success());
    let node = Node::start(&[]);
    let viewer = node.join("e", &format!("?since={since}"));
    assert_eq!(viewer.welcome["recovered"], false);
    assert_eq!(viewer.welcome["head"], 0);
    assert_ne!(viewer.epoch(), epoch);
}
