//! Pages of history over REST: what they cost the node, and what one reader can take from others.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use serde_json::{Value, json};

use crate::node::{Answer, Node, PATIENCE, read_answer, wait_until};

/// A connection from another address of this host.
fn connect_from(node: &Node, last: u8) -> TcpStream {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into()).unwrap();
    socket.connect(&SocketAddr::from(node.public()).into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn ask_from(node: &Node, last: u8, method: &str, path: &str, body: &str) -> Answer {
    let mut stream = connect_from(node, last);
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes()).unwrap();
    read_answer(&mut stream).expect("an answer")
}

/// A node with one event "e" of this many comments of this many bytes.
fn node_with(comments: usize, text_bytes: usize, flags: &[&str]) -> Node {
    let node = Node::start(&[flags, &["--posts-per-sec-event", "0"]].concat());
    let text = "x".repeat(text_bytes);
    (0..comments).for_each(|_| drop(node.comment("e", &text)));
    node
}

#[test]
fn a_page_has_the_bytes_that_viewers_got() {
    let node = Node::start(&[]);
    let mut viewer = node.join("e", "");
    let text = "tab\t \"quoted\" \\ é 漢 \u{1f600} /";
    let body = json!({ "user": "ü", "name": "Ann \"A\"", "text": text }).to_string();
    assert_eq!(node.post("/v1/events/e/comments", &body).status, 201);
    let frame = viewer.next_text();
    let page = node.get("/v1/events/e/comments");
    assert_eq!(
        page.body,
        format!("{{\"comments\":[{frame}],\"position\":\"{}-1\"}}", viewer.epoch())
    );
    let length = format!("content-length: {}\r\n", page.body.len());
    assert!(page.head.contains(&length), "{page:?}");
}

#[test]
fn the_same_page_is_encoded_once_and_follows_the_log() {
    let node = node_with(20, 100, &[]);
    let pages: Vec<String> =
        (0..50).map(|_| node.get("/v1/events/e/comments?limit=10").body).collect();
    assert!(pages.iter().all(|page| *page == pages[0]));
    assert_eq!(node.metric("uproar_http_pages_total", ""), 50.0);
    assert_eq!(node.metric("uproar_http_pages_encoded_total", ""), 1.0);
    node.comment("e", "new");
    let page = node.get("/v1/events/e/comments?limit=10").json();
    assert_eq!(page["comments"][9]["text"], "new", "nobody sees an old page");
    // What came before does not change, but the position does.
    let old = |_| node.get("/v1/events/e/comments?limit=10&before=11").json();
    let [first, second] = [0, 1].map(|round| {
        node.comment("e", "more");
        old(round)
    });
    assert_eq!(first["comments"], second["comments"]);
    assert_ne!(first["position"], second["position"]);
    assert_eq!(node.metric("uproar_http_pages_encoded_total", ""), 3.0);
    wait_until("pages that nobody asks for are let go", || {
        node.metric("uproar_http_bytes", "") == 0.0
    });
}

#[test]
fn an_event_that_is_forgotten_and_begins_again_has_a_page_of_its_own() {
    let node = node_with(3, 10, &["--room-idle-ms-max", "1000"]);
    let before = node.get("/v1/events/e/comments").json();
    node.wait_metric("uproar_rooms_freed_total", "", 1.0);
    assert_eq!(node.get("/v1/events/e/comments").status, 404);
    node.comment("e", "again");
    let after = node.get("/v1/events/e/comments").json();
    assert_ne!(before["position"], after["position"]);
    assert_eq!(after["comments"].as_array().map(Vec::len), Some(1));
}

/// Readers of a page of their own each, who read nothing: what the process holds for them.
#[test]
fn http_bytes_max() {
    const LIMIT: u64 = 2 * 1024 * 1024;
    let node = node_with(600, 1_900, &["--http-bytes-max", &LIMIT.to_string()]);
    let before = node.metric("process_resident_memory_bytes", "");
    let mut readers: Vec<TcpStream> = (0..200u16)
        .map(|number| {
            let mut reader = connect_from(&node, 1 + (number % 4) as u8);
            // A megabyte each, no two alike.
            let page = format!("/v1/events/e/comments?limit=500&before={}", 601 - number % 100);
            write!(reader, "GET {page} HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
            reader
        })
        .collect();
    node.wait_metric("uproar_http_reads_refused_total", "\"bytes\"", 100.0);
    assert!(node.metric("uproar_http_bytes", "") <= LIMIT as f64);
    let grown = node.metric("process_resident_memory_bytes", "") - before;
    assert!(grown < 4.0 * LIMIT as f64, "{grown} bytes for {} readers", readers.len());
    let mut viewer = node.join("e", "?history=0");
    assert!(viewer.post_acked("viewers do not notice") > 600);
    let mut answers = [0, 0];
    for reader in &mut readers {
        let mut answer = String::new();
        reader.read_to_string(&mut answer).unwrap();
        let is_page = answer.starts_with("HTTP/1.1 200");
        answers[usize::from(is_page)] += 1;
        assert!(is_page || answer.contains("\r\nretry-after: "), "{answer}");
    }
    assert!(answers[1] > 0 && answers[0] >= 100, "{answers:?}");
    let page = node.get("/v1/events/e/comments?limit=500");
    assert_eq!(page.json()["comments"].as_array().map(Vec::len), Some(500), "and it goes on");
    wait_until("everything is given back", || node.metric("uproar_http_bytes", "") == 0.0);
}

#[test]
fn http_reads_per_sec() {
    let node = node_with(1, 10, &["--http-reads-per-sec", "10"]);
    let answers: Vec<Answer> = (0..60).map(|_| node.get("/v1/events/e/comments")).collect();
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status != 200).collect();
    assert!(!refused.is_empty());
    for answer in &refused {
        assert_eq!((answer.status, answer.code().as_str()), (503, "overloaded"));
        assert!(answer.head.contains("retry-after: "), "{answer:?}");
    }
    node.wait_metric("uproar_http_reads_refused_total", "\"rate\"", refused.len() as f64);
    // Who comes from elsewhere finds something left.
    assert_eq!(ask_from(&node, 2, "GET", "/v1/events/e/comments", "").status, 200);
    assert_eq!(node.get("/health").status, 200, "health is no read");
}

#[test]
fn one_address_with_slow_bodies_keeps_half_of_the_places() {
    let node = Node::start(&["--http-connections-max", "4"]);
    let slow_post = b"POST /v1/events/e/comments HTTP/1.1\r\nHost: t\r\nContent-Length: 99\r\n\r\n";
    let mut slow: Vec<TcpStream> = (0..4).map(|_| node.connect()).collect();
    slow.iter_mut().for_each(|stream| stream.write_all(slow_post).unwrap());
    wait_until("the address has all places", || node.get("/v1/events/e").status == 503);
    for _ in 0..20 {
        let answer = ask_from(&node, 2, "GET", "/v1/events/e", "");
        assert_eq!(answer.status, 404, "somebody else is served at once: {answer:?}");
    }
    assert!(node.metric("uproar_http_evicted_total", "") <= 2.0);
    // Two of the four are still there.
    let rest = format!("{{\"text\":\"{}\"}}", "x".repeat(99 - 11));
    let mut answered = 0;
    for stream in &mut slow {
        let _ = stream.write_all(rest.as_bytes());
        answered += u32::from(read_answer(stream).is_some_and(|answer| answer.status == 201));
    }
    assert!((2..=3).contains(&answered), "{answered} of four slow posts");
}

#[test]
fn one_address_spends_half_of_an_events_posts_while_others_ask() {
    let node = Node::start(&["--posts-per-sec-event", "20"]);
    let body = r#"{"text":"x"}"#;
    let path = "/v1/events/e/comments";
    let mut greedy = [0, 0];
    wait_until("one client has used up the budget", || {
        let status = node.post(path, body).status;
        greedy[usize::from(status == 201)] += 1;
        status == 429
    });
    assert!(greedy[1] >= 40, "it had the whole burst: {greedy:?}");
    let other = ask_from(&node, 2, "POST", path, body);
    assert_eq!(other.status, 201, "who comes later is not refused for it: {other:?}");
    let mut viewer = node.join("e", "?history=0");
    // A viewer of the greedy address is that address.
    viewer.post("1", "x");
    assert_eq!(viewer.next_of("error")["code"], "rate_limited");
}

#[test]
fn a_post_to_a_new_event_of_a_full_node_says_rooms_full() {
    let node = Node::start(&["--rooms-max", "1"]);
    let _seat = node.join("a", "");
    let refused = node.post("/v1/events/b/comments", r#"{"text":"x"}"#);
    assert_eq!((refused.status, refused.code().as_str()), (503, "rooms_full"));
    assert!(refused.head.contains("retry-after: "), "{refused:?}");
    node.wait_metric("uproar_posts_refused_total", "\"rooms_full\"", 1.0);
    assert_eq!(node.post("/v1/events/a/comments", r#"{"text":"x"}"#).status, 201);
}

#[test]
fn rest_weighs_less_than_shards_for_the_scheduler() {
    let node = Node::start(&[]);
    let mut niceness = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{}/task", node.pid())).unwrap() {
        let task = task.unwrap().path();
        let name = std::fs::read_to_string(task.join("comm")).unwrap();
        let stat = std::fs::read_to_string(task.join("stat")).unwrap();
        // Field 19 of proc_pid_stat(5), counted from the state, which is field 3.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let nice: i32 = fields.split_whitespace().nth(16).unwrap().parse().unwrap();
        niceness.push((name.trim().to_owned(), nice));
    }
    let of = |wanted: &str| niceness.iter().find(|(name, _)| name == wanted).map(|(_, nice)| *nice);
    let (rest, shard) = (of("rest"), of("shard-0-1"));
    assert!(rest > shard && shard.is_some(), "{niceness:?}");
}

/// A page of an event without comments, which has no log to follow.
#[test]
fn an_event_with_viewers_and_no_comments_has_an_empty_page() {
    let node = Node::start(&[]);
    let viewer = node.join("e", "");
    let page: Value = node.get("/v1/events/e/comments").json();
    assert_eq!(page, json!({ "comments": [], "position": format!("{}-0", viewer.epoch()) }));
}
