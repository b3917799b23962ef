//! The REST API and the health of a node.

use std::io::Write;
use std::net::Shutdown;

use serde_json::json;

use crate::node::{Node, read_answer};

#[test]
fn a_comment_posted_over_http_reaches_viewers_and_pages() {
    let node = Node::start(&[]);
    let mut viewer = node.join("e", "");
    let posted = node.comment("e", "by post");
    assert_eq!(posted["offset"], 1);
    assert_eq!(posted["position"], format!("{}-1", viewer.epoch()));
    let comment = viewer.next_of("comment");
    assert_eq!((&comment["id"], &comment["user"]), (&posted["id"], &json!("rest")));
    let page = node.get("/v1/events/e/comments");
    assert_eq!(page.status, 200);
    assert_eq!(page.json()["comments"], json!([comment]));
    assert_eq!(page.json()["position"], posted["position"]);
}

#[test]
fn pages_go_back_from_before_and_hold_at_most_limit() {
    let node = Node::start(&["--history-frames", "0", "--history-frames-max", "5"]);
    (1..=12).for_each(|number| drop(node.comment("e", &format!("c{number}"))));
    let offsets = |query: &str| -> Vec<u64> {
        let page = node.get(&format!("/v1/events/e/comments{query}")).json();
        let comments = page["comments"].as_array().unwrap();
        comments.iter().map(|comment| comment["offset"].as_u64().unwrap()).collect()
    };
    assert_eq!(offsets("?limit=3"), [10, 11, 12]);
    assert_eq!(offsets("?limit=3&before=10"), [7, 8, 9]);
    assert_eq!(offsets("?limit=3&before=2"), [1]);
    assert_eq!(offsets("?limit=50"), [8, 9, 10, 11, 12], "capped by history_frames_max");
}

#[test]
fn an_event_is_described_while_it_has_viewers_or_comments() {
    let node = Node::start(&[]);
    let nobody = node.get("/v1/events/e");
    assert_eq!((nobody.status, nobody.code().as_str()), (404, "no_such_event"));
    let viewer = node.join("e", "");
    node.comment("e", "one");
    let event = node.get("/v1/events/e").json();
    assert_eq!(
        (&event["event"], &event["viewers"], &event["tail"]),
        (&json!("e"), &json!(1), &json!(1))
    );
    assert_eq!(event["position"], format!("{}-1", viewer.epoch()));
}

#[test]
fn posts_over_http_are_refused_with_the_codes_of_the_protocol() {
    let node = Node::start(&["--comment-bytes-max", "10"]);
    let refused = |event: &str, body: &str| {
        let answer = node.post(&format!("/v1/events/{event}/comments"), body);
        (answer.status, answer.code())
    };
    assert_eq!(refused("e", r#"{"text":"12345678901"}"#), (400, "too_long".into()));
    assert_eq!(refused("e", r#"{"text":""}"#), (400, "empty".into()));
    assert_eq!(refused("e", r#"{"text":"\u0007"}"#), (400, "bad_text".into()));
    assert_eq!(refused("e", "{"), (400, "bad_command".into()));
    assert_eq!(refused("a%2Fb", r#"{"text":"x"}"#), (400, "bad_event".into()));
}

#[test]
fn a_key_over_http_needs_a_user() {
    let node = Node::start(&[]);
    for user in ["", r#","user":null"#, r#","user":"""#, r#","user":"\u200b""#] {
        let body = format!(r#"{{"text":"x","key":"k"{user}}}"#);
        let refused = node.post("/v1/events/e/comments", &body);
        assert_eq!((refused.status, refused.code().as_str()), (400, "key_needs_user"), "{body}");
    }
    node.wait_metric("uproar_posts_refused_total", "\"key_needs_user\"", 4.0);
    let taken = node.post("/v1/events/e/comments", r#"{"text":"x","key":"k","user":"u"}"#);
    assert_eq!((taken.status, &taken.json()["offset"]), (201, &json!(1)));
}

#[test]
fn a_node_tells_its_health_and_explains_its_metrics() {
    let node = Node::start(&[]);
    assert_eq!(node.get("/health").status, 200);
    assert_eq!(node.get("/ready").status, 200);
    let nowhere = node.get("/nowhere");
    assert_eq!((nowhere.status, nowhere.code().as_str()), (404, "not_found"));
    let metrics = node.metrics();
    for line in metrics.lines().filter(|line| line.starts_with("# TYPE uproar_")) {
        let name = line.split(' ').nth(2).unwrap();
        assert!(metrics.contains(&format!("# HELP {name} ")), "{name} has no HELP");
        if line.ends_with(" counter") {
            assert!(name.ends_with("_total"), "{name}");
        }
    }
    assert!(metrics.contains("# TYPE uproar_connections gauge"));
}

#[test]
fn who_has_sent_everything_may_close_its_half_and_is_answered() {
    let node = Node::start(&[]);
    let mut stream = node.connect();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_answer(&mut stream).expect("an answer").status, 200);
}

#[test]
fn bodies_that_cannot_be_posts_are_refused_without_waiting_for_them() {
    let node = Node::start(&[]);
    let array = node.post("/v1/events/e/comments", r#"["u","n","t","k"]"#);
    assert_eq!((array.status, array.code().as_str()), (400, "bad_command"));
    let head = "POST /v1/events/e/comments HTTP/1.1\r\nHost: t\r\nContent-Length:";
    let huge = node.raw(format!("{head} 99999999999\r\n\r\n").as_bytes());
    assert_eq!((huge.status, huge.code().as_str()), (413, "too_long"));
    let slow = node.raw(format!("{head} 20\r\n\r\n{{").as_bytes());
    assert_eq!((slow.status, slow.code().as_str()), (408, "timeout"));
}
