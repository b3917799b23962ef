//! Joining: the welcome, history, resuming at a position.

use crate::node::Node;

fn offsets(comments: &[(u64, String)]) -> Vec<u64> {
    comments.iter().map(|(offset, _)| *offset).collect()
}

#[test]
fn the_first_viewer_of_an_event_is_welcomed_to_an_empty_log() {
    let node = Node::start(&["--node", "n1"]);
    let viewer = node.join("final", "");
    assert_eq!(viewer.welcome["event"], "final");
    assert_eq!(viewer.welcome["node"], "n1");
    assert_eq!((&viewer.welcome["head"], &viewer.welcome["viewers"]), (&0.into(), &1.into()));
    assert_eq!(viewer.welcome["recovered"], false);
    assert!(viewer.position().ends_with("-0"), "{}", viewer.position());
    assert_eq!(node.join("final", "").welcome["viewers"], 2);
}

#[test]
fn history_is_what_was_asked_for_within_the_cap() {
    let node = Node::start(&["--history-frames", "4", "--history-frames-max", "6"]);
    (1..=10).for_each(|number| drop(node.comment("e", &format!("c{number}"))));
    for (query, expected) in
        [("", 7..=10), ("?history=2", 9..=10), ("?history=10", 5..=10), ("?history=6", 5..=10)]
    {
        let mut viewer = node.join("e", query);
        assert_eq!(viewer.welcome["head"], 10, "{query}");
        assert!(viewer.position().ends_with(&format!("-{}", expected.start() - 1)), "{query}");
        let comments = viewer.comments(expected.clone().count());
        assert_eq!(offsets(&comments), expected.collect::<Vec<_>>(), "{query}");
    }
    let mut viewer = node.join("e", "?history=0");
    assert!(viewer.position().ends_with("-10"));
    node.comment("e", "new");
    assert_eq!(viewer.comments(1), [(11, "new".to_owned())], "nothing old comes before");
}

#[test]
fn a_viewer_resumes_after_the_last_comment_it_saw() {
    let node = Node::start(&[]);
    (1..=6).for_each(|number| drop(node.comment("e", &format!("c{number}"))));
    let epoch = node.join("e", "?history=0").epoch();
    let mut viewer = node.join("e", &format!("?since={epoch}-2"));
    assert_eq!(viewer.welcome["recovered"], true);
    assert_eq!(viewer.position(), format!("{epoch}-2"));
    assert_eq!(offsets(&viewer.comments(4)), [3, 4, 5, 6]);
    let caught_up = node.join("e", &format!("?since={epoch}-6"));
    assert_eq!(caught_up.welcome["recovered"], true);
}

#[test]
fn a_position_that_cannot_be_honoured_is_not_recovered() {
    let node = Node::start(&[
        "--room-log-frames-max",
        "16",
        "--history-frames",
        "3",
        "--history-frames-max",
        "16",
    ]);
    (1..=40).for_each(|number| drop(node.comment("e", &format!("c{number}"))));
    let epoch = node.join("e", "?history=0").epoch();
    let foreign = if epoch == "1" { "2-5" } else { "1-5" }.to_owned();
    for since in [foreign, format!("{epoch}-1"), format!("{epoch}-900")] {
        let mut viewer = node.join("e", &format!("?since={since}"));
        assert_eq!(viewer.welcome["recovered"], false, "{since}");
        assert_eq!(viewer.welcome["head"], 40);
        assert!(viewer.position().starts_with(&epoch), "{since}");
        let last = viewer.comments(1)[0].0;
        assert!(last > 1 && last <= 40, "{since} starts inside what is retained: {last}");
    }
}
