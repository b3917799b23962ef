//! The REST API of PROTOCOL.md through real sockets, over real engines.

mod fake;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering::Relaxed;

use fake::{TestNode, exchange, request, until};

#[test]
fn a_comment_is_posted_and_read_back() {
    let node = TestNode::start(&[]);
    let posted = node.post("/v1/events/e/comments", r#"{"user":"u","name":"Ann","text":"hi"}"#);
    assert_eq!(posted.status, 201, "{posted:?}");
    let posted = posted.json();
    assert_eq!(posted["offset"], 1);
    assert!(posted["position"].as_str().unwrap().ends_with("-1"));

    let second = node.post("/v1/events/e/comments", r#"{"text":"two","unknown":1}"#).json();
    assert_eq!(second["offset"], 2);

    let page = node.get("/v1/events/e/comments").json();
    assert_eq!(page["position"], second["position"]);
    let comments = page["comments"].as_array().unwrap();
    assert_eq!(comments.len(), 2);
    assert_eq!(comments[0]["text"], "hi");
    assert_eq!(comments[0]["name"], "Ann");
    assert_eq!(comments[0]["id"], posted["id"]);
    assert_eq!(comments[1]["offset"], 2);

    let before = node.get("/v1/events/e/comments?before=2").json();
    assert_eq!(before["comments"].as_array().unwrap().len(), 1);
    let limited = node.get("/v1/events/e/comments?limit=1").json();
    assert_eq!(limited["comments"][0]["text"], "two");

    let event = node.get("/v1/events/e").json();
    assert_eq!(event["event"], "e");
    assert_eq!(event["viewers"], 0);
    assert_eq!(event["tail"], 1);
}

#[test]
fn events_on_every_shard_are_reached() {
    let node = TestNode::start(&[]);
    for i in 0..16 {
        let path = format!("/v1/events/event-{i}/comments");
        assert_eq!(node.post(&path, r#"{"text":"x"}"#).status, 201);
        assert_eq!(node.get(&format!("/v1/events/event-{i}")).json()["tail"], 1);
    }
    // Both shards have rooms: the requests were spread, and each to the shard that answers it.
    let metrics = node.get_admin("/metrics").body;
    for shard in ["0", "1"] {
        let line = metrics
            .lines()
            .find(|line| line.starts_with(&format!("uproar_rooms{{shard=\"{shard}\"}}")));
        assert_ne!(line.unwrap().split(' ').nth(1), Some("0"), "{line:?}");
    }
}

#[test]
fn a_retry_with_the_same_key_is_not_appended_again() {
    let node = TestNode::start(&[]);
    let body = r#"{"user":"u","text":"once","key":"k1"}"#;
    let first = node.post("/v1/events/e/comments", body).json();
    let again = node.post("/v1/events/e/comments", body).json();
    assert_eq!(first, again);
}

#[test]
fn each_refusal_has_its_status_and_code() {
    let node = TestNode::start(&[("posts_per_sec_event", "1")]);
    let posts = |body: &str| {
        let answer = node.post("/v1/events/refused/comments", body);
        (answer.status, answer.code())
    };
    let long = format!(r#"{{"text":"{}"}}"#, "x".repeat(2_001));
    assert_eq!(posts(r#"{"text":""}"#), (400, "empty".into()));
    assert_eq!(posts(r#"{"text":"a\u0007"}"#), (400, "bad_text".into()));
    assert_eq!(posts(&long), (400, "too_long".into()));
    assert_eq!(posts("{"), (400, "bad_command".into()));
    assert_eq!(posts(r#"{"user":"u"}"#), (400, "bad_command".into()));
    assert_eq!(posts(&"x".repeat(200_000)), (413, "too_long".into()));

    let gets = |path: &str| {
        let answer = node.get(path);
        (answer.status, answer.code())
    };
    assert_eq!(gets("/v1/events/nobody"), (404, "no_such_event".into()));
    assert_eq!(gets("/v1/events/nobody/comments"), (404, "no_such_event".into()));
    assert_eq!(gets("/v1/events/a%20b"), (400, "bad_event".into()));
    assert_eq!(gets("/v1/events/.."), (400, "bad_event".into()));
    assert_eq!(gets("/v1/events/e/comments?limit=x"), (400, "bad_query".into()));
    assert_eq!(gets("/v1/events/e/comments?before=-1"), (400, "bad_query".into()));
    assert_eq!(gets("/nothing/here"), (404, "not_found".into()));
    assert_eq!(gets("/v1/events/e/live"), (426, "upgrade_required".into()));

    let wrong_method = request(node.public, "DELETE", "/v1/events/e/comments", "", "");
    assert_eq!((wrong_method.status, wrong_method.code()), (405, "method_not_allowed".into()));
    assert!(wrong_method.head.contains("allow: get,head,post"), "{}", wrong_method.head);

    let limited = (0..4).map(|_| posts(r#"{"text":"x"}"#)).find(|(status, _)| *status != 201);
    assert_eq!(limited, Some((429, "rate_limited".into())));
}

#[test]
fn health_answers_on_both_ports() {
    let node = TestNode::start(&[]);
    for answer in [node.get("/health"), node.get("/ready"), node.get_admin("/health")] {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[test]
fn a_handed_over_connection_serves_one_request() {
    let node = TestNode::start(&[]);
    let two = "GET /health HTTP/1.1\r\nhost: x\r\n\r\nGET /health HTTP/1.1\r\nhost: x\r\n\r\n";
    let answer = exchange(node.public, two);
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("connection: close"), "{}", answer.head);
    assert!(!answer.body.contains("HTTP/1.1"), "only one answer: {}", answer.body);
}

#[test]
fn more_connections_than_allowed_are_refused_and_the_rest_are_served() {
    let node = TestNode::start(&[("http_connections_max", "2")]);
    let waiting: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut stream = TcpStream::connect(node.public).unwrap();
            stream.write_all(b"GET /v1/events/e HTTP/1.1\r\n").unwrap();
            stream
        })
        .collect();
    until("the third is refused", || {
        let answer = node.get("/v1/events/e");
        answer.status == 503 && answer.code() == "overloaded"
    });
    assert_eq!(node.get("/health").status, 200, "a busy node is not dead");
    drop(waiting);
    until("there is room again", || node.get("/v1/events/e").status == 404);
}

#[test]
fn a_shard_that_does_not_answer_costs_only_its_own_events() {
    let node = TestNode::start(&[]);
    let event_of = |shard| {
        let home = |i: &u32| uproar_engine::placement::home_shard(&format!("e{i}"), 2) == shard;
        format!("/v1/events/e{}/comments", (0..).find(home).unwrap())
    };
    node.is_stuck.store(true, Relaxed);
    let stuck = node.post(&event_of(0), r#"{"text":"x"}"#);
    assert_eq!((stuck.status, stuck.code()), (503, "overloaded".into()));
    assert!(stuck.head.contains("retry-after: "), "{}", stuck.head);
    assert_eq!(node.post(&event_of(1), r#"{"text":"x"}"#).status, 201);
    let metrics = node.get_admin("/metrics").body;
    assert!(metrics.contains("uproar_shard_up{shard=\"0\"} 0\n"));
    assert!(metrics.contains("uproar_shard_up{shard=\"1\"} 1\n"));
    assert!(!metrics.contains("uproar_comments_total{shard=\"0\"}"));
}

#[test]
fn after_an_answer_peers_are_heard_within_the_limits_of_the_settings() {
    let node = TestNode::start(&[("close_ms_max", "200"), ("linger_bytes_max", "4096")]);
    let cuts = |limit: &str| format!("uproar_http_lingers_cut_total{{limit=\"{limit}\"}} 1");
    let ask = || {
        let mut stream = TcpStream::connect(node.public).expect("the node listens");
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").expect("the node reads");
        stream
    };
    // One that says nothing more and does not end.
    let silent = ask();
    until("its time is over", || node.has_metric(&cuts("close_ms_max")));
    drop(silent);
    // One that has far more to say than it was asked for.
    let node = TestNode::start(&[("close_ms_max", "60000"), ("linger_bytes_max", "4096")]);
    let mut talker = TcpStream::connect(node.public).expect("the node listens");
    let head = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    talker.write_all(head).expect("the node reads");
    until("its bytes are over", || {
        // It ends with an error once the node has closed.
        let _ = talker.write(&[b'x'; 1_024]);
        node.has_metric(&cuts("linger_bytes_max"))
    });
}

#[test]
fn who_has_its_answer_and_stays_keeps_no_place_from_others() {
    let node = TestNode::start(&[("http_connections_max", "2"), ("close_ms_max", "60000")]);
    let stay = |path: &str| {
        let mut stream = TcpStream::connect(node.public).expect("the node listens");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").expect("the node reads");
        let mut first = [0; 12];
        stream.read_exact(&mut first).expect("the node answers");
        (stream, String::from_utf8_lossy(&first).into_owned())
    };
    let cut = || {
        let metrics = node.get_admin("/metrics").body;
        let series = "uproar_http_lingers_cut_total{limit=\"http_connections_max\"} ";
        let value = metrics.split_once(series).expect("it is always there").1.lines().next();
        value.and_then(|value| value.parse::<usize>().ok()).expect("a number")
    };
    // More than there are places for either kind of request; as many as these are heard.
    for (path, count, status) in [("/health", 70, "200"), ("/v1/events/e", 6, "404")] {
        let before = cut();
        let stayed: Vec<_> = (0..count).map(|_| stay(path)).collect();
        let all = |(_, first): &(TcpStream, String)| first.ends_with(status);
        assert!(stayed.iter().all(all), "{path}: {stayed:?}");
        assert_eq!(node.get(path).status.to_string(), status);
        until("the oldest are let go and counted", || cut() >= before + count - 2);
    }
}
