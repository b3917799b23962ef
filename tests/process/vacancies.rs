//! What a node remembers of events that nobody watches, made small and filled: rooms, and the keys of posts.

use serde_json::{Value, json};

use crate::node::{Node, wait_until};
use crate::viewer::Viewer;

/// Longer than any test: no room goes because of the time.
const NEVER_MS: &str = "3600000";

/// Whether the node knows the event.
fn is_known(node: &Node, event: &str) -> bool {
    node.get(&format!("/v1/events/{event}")).status == 200
}

/// Somebody watches the event and leaves.
fn come_and_go(node: &Node, event: &str) {
    drop(node.join(event, ""));
    let path = format!("/v1/events/{event}");
    wait_until("nobody watches it", || node.get(&path).json()["viewers"] == 0);
}

#[test]
fn room_empty_ms_max() {
    let node = Node::start(&["--room-empty-ms-max", "500"]);
    let watched = node.join("watched", "");
    node.comment("written", "x");
    // One after the other, so that the events beside them have outlived the limit by far.
    for round in 1..=5 {
        drop(node.join(&format!("empty-{round}"), ""));
        node.wait_metric("uproar_rooms_freed_total", "", f64::from(round));
        assert!(!is_known(&node, &format!("empty-{round}")));
    }
    assert!(is_known(&node, "watched"), "an event with a viewer never goes");
    assert!(is_known(&node, "written"), "one with a comment waits for room_idle_ms_max");
    assert_eq!(node.metric("uproar_rooms", ""), 2.0);
    let epoch = watched.epoch();
    assert_eq!(node.join("watched", "").epoch(), epoch, "it is the same log");
    drop(watched);
}

#[test]
fn an_empty_event_makes_place_at_once_when_the_table_is_full() {
    let node = Node::start(&["--rooms-max", "3", "--room-empty-ms-max", NEVER_MS]);
    let _watched = node.join("watched", "");
    node.comment("written", "x");
    for round in 0..20 {
        come_and_go(&node, &format!("made-up-{round}"));
    }
    assert_eq!(node.metric("uproar_rooms_evicted_total", ""), 19.0);
    assert_eq!(node.metric("uproar_rooms_freed_total", ""), 0.0);
    assert!(is_known(&node, "watched") && is_known(&node, "written"));
    node.wait_metric("uproar_rooms", "", 3.0);
}

#[test]
fn the_event_with_the_fewest_comments_goes_first_and_of_those_the_longest_untouched() {
    let node = Node::start(&[
        "--rooms-max",
        "5",
        "--room-empty-ms-max",
        NEVER_MS,
        "--room-idle-ms-max",
        NEVER_MS,
    ]);
    for (event, comments) in [("two", 2), ("touched", 1), ("first", 1), ("second", 1)] {
        (0..comments).for_each(|_| drop(node.comment(event, "x")));
    }
    // Whoever watches it touches it.
    come_and_go(&node, "touched");
    come_and_go(&node, "empty");
    let mut seats: Vec<Viewer> = Vec::new();
    for (number, goes) in ["empty", "first", "second", "touched", "two"].into_iter().enumerate() {
        assert!(is_known(&node, goes), "{goes} is there before its turn");
        seats.push(node.join(&format!("viewed-{number}"), ""));
        assert!(!is_known(&node, goes), "{goes} makes place for viewed-{number}");
    }
    // All have viewers now, and none of them goes.
    let refused = node.post("/v1/events/one-more/comments", r#"{"text":"x"}"#);
    assert_eq!((refused.status, refused.code().as_str()), (503, "rooms_full"));
    assert!(refused.head.contains("retry-after: "), "{refused:?}");
    assert_eq!(node.upgrade("one-more", "", &[], node.connect()).err(), Some(503));
    assert!((0..5).all(|number| is_known(&node, &format!("viewed-{number}"))));
    // A place is free as soon as one of them is left.
    seats.pop();
    wait_until("there is room again", || {
        node.post("/v1/events/one-more/comments", r#"{"text":"x"}"#).status == 201
    });
}

/// Posts over one connection, some at a time; the offsets of the acks.
fn post_keyed(viewer: &mut Viewer, keys: std::ops::Range<u32>) -> Vec<u64> {
    let keys: Vec<u32> = keys.collect();
    let mut offsets = Vec::new();
    for some in keys.chunks(50) {
        for key in some {
            viewer.command(&json!({ "type": "post", "ref": key.to_string(),
                "key": format!("k{key}"), "text": "x" }));
        }
        for key in some {
            let ack: Value = viewer.next_of("ack");
            assert_eq!(ack["ref"], key.to_string());
            offsets.push(ack["offset"].as_u64().unwrap());
        }
    }
    offsets
}

#[test]
fn retry_keys_bytes_max() {
    let node = Node::start(&[
        "--retry-keys-bytes-max",
        "65536",
        "--posts-per-sec-connection",
        "0",
        "--posts-per-sec-event",
        "0",
    ]);
    let mut quiet = node.join("quiet", "?user=ann&history=0");
    assert_eq!(post_keyed(&mut quiet, 0..20), (1..=20).collect::<Vec<_>>());
    assert_eq!(node.metric("uproar_retry_keys_forgotten_total", ""), 0.0);
    let mut busy = node.join("busy", "?user=ann&history=0");
    // Some 70 bytes each: five times the budget.
    let count = 5_000;
    assert_eq!(post_keyed(&mut busy, 0..count), (1..=u64::from(count)).collect::<Vec<_>>());
    let held = node.metric("uproar_retry_keys_bytes", "");
    assert!((10_000.0..=65_536.0).contains(&held), "{held} bytes");
    assert!(node.metric("uproar_retry_keys_forgotten_total", "\"node\"") > 2_000.0);
    assert_eq!(node.metric("uproar_retry_keys_forgotten_total", "\"event\""), 0.0);
    // The event that remembers most forgets its oldest; the other, and its own newest, are known.
    assert_eq!(post_keyed(&mut quiet, 0..20), (1..=20).collect::<Vec<_>>(), "retries");
    assert_eq!(post_keyed(&mut busy, count - 1..count), [u64::from(count)], "a retry");
    assert_eq!(post_keyed(&mut busy, 0..1), [u64::from(count) + 1], "a new comment");
}
