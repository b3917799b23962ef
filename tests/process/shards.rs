//! More than one shard: connections move to their room's home, hot rooms spread.

use crate::node::Node;

const TWO: [&str; 8] = [
    "--shards",
    "2",
    "--cpus",
    "0,1",
    "--posts-per-sec-connection",
    "0",
    "--posts-per-sec-event",
    "0",
];

#[test]
fn wherever_a_viewer_is_accepted_it_watches_its_event() {
    let node = Node::start(&TWO);
    let events: Vec<String> = (0..12).map(|number| format!("event-{number}")).collect();
    let mut viewers: Vec<_> =
        events.iter().flat_map(|event| (0..4).map(|_| node.join(event, ""))).collect();
    for (at, viewer) in viewers.iter_mut().enumerate() {
        viewer.post(&at.to_string(), &format!("from {at}"));
    }
    for (at, room) in viewers.chunks_mut(4).enumerate() {
        let seen = room[0].comments(4);
        assert_eq!(seen.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [1, 2, 3, 4]);
        let authors = at * 4..at * 4 + 4;
        assert!(
            authors.into_iter().all(|a| seen.iter().any(|(_, text)| *text == format!("from {a}")))
        );
        assert!(room[1..].iter_mut().all(|viewer| viewer.comments(4) == seen), "one order for all");
    }
    let moves = node.metric("uproar_moves_total", "");
    assert!((1.0..48.0).contains(&moves), "some were accepted elsewhere, not all: {moves}");
    assert_eq!(node.metric("uproar_connections", ""), 48.0);
}

#[test]
fn a_hot_room_spreads_and_keeps_one_order() {
    let node = Node::start(&[&TWO[..], &["--spread-subscribers-min", "2"]].concat());
    let mut viewers: Vec<_> = (0..16).map(|_| node.join("hot", "?history=0")).collect();
    assert!(node.metric("uproar_room_replicas", "") >= 1.0);
    for round in 0..20 {
        for viewer in &mut viewers {
            viewer.post("r", &format!("{round}"));
        }
    }
    let seen = viewers[0].comments(320);
    assert_eq!(
        seen.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(),
        (1..=320).collect::<Vec<_>>()
    );
    assert!(viewers[1..].iter_mut().all(|viewer| viewer.comments(320) == seen));
    assert_eq!(node.get("/v1/events/hot").json()["viewers"], 16, "counted over the shards");
    let mut late = node.join("hot", "?history=5");
    assert_eq!(late.comments(5), seen[315..]);
    let resumed = node.join("hot", &format!("?since={}-300", late.epoch()));
    assert_eq!(resumed.welcome["recovered"], true);
}

#[test]
fn http_reaches_the_home_shard_of_any_event() {
    let node = Node::start(&TWO);
    for number in 0..8 {
        let event = format!("event-{number}");
        let mut viewer = node.join(&event, "");
        assert_eq!(node.comment(&event, "x")["offset"], 1);
        assert_eq!(viewer.comments(1), [(1, "x".to_owned())]);
    }
}
