//! Requests that are not a good upgrade: each gets the status and code of PROTOCOL.md.

use std::io::{Read, Write};

use crate::node::{Answer, Node};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const UPGRADE: &str = "Host: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";

fn request(line: &str, headers: &[&str]) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\n{}\r\n", headers.concat()).into_bytes()
}

fn told(answer: &Answer) -> (u16, String) {
    (answer.status, answer.code())
}

#[test]
fn each_bad_request_gets_its_status_and_code() {
    let node = Node::start(&[]);
    let good = [UPGRADE, KEY, VERSION];
    let long_user = format!("GET /v1/events/e/live?user={}", "u".repeat(65));
    let long_event = format!("GET /v1/events/{}/live", "e".repeat(129));
    let cases: &[(&str, &[&str], u16, &str)] = &[
        ("GET /v1/nowhere", &good, 404, "not_found"),
        ("GET /v1/events/e/live", &["Host: t\r\n"], 426, "upgrade_required"),
        (
            "GET /v1/events/e/live",
            &[UPGRADE, KEY, "Sec-WebSocket-Version: 8\r\n"],
            426,
            "upgrade_required",
        ),
        ("GET /v1/events/e/live", &[UPGRADE, VERSION], 400, "bad_request"),
        (
            "GET /v1/events/e/live",
            &[UPGRADE, "Sec-WebSocket-Key: short\r\n", VERSION],
            400,
            "bad_request",
        ),
        ("POST /v1/events/e/live", &good, 405, "method_not_allowed"),
        ("GET /v1/events/a%2Fb/live", &good, 400, "bad_event"),
        (&long_event, &good, 400, "bad_event"),
        ("GET /v1/events/../live", &good, 400, "bad_event"),
        ("GET /v1/events/e/live?since=x", &good, 400, "bad_query"),
        ("GET /v1/events/e/live?history=-1", &good, 400, "bad_query"),
        (&long_user, &good, 400, "bad_query"),
        (
            "GET /v1/events/e/live",
            &[UPGRADE, KEY, VERSION, "Sec-WebSocket-Protocol: chat, mqtt\r\n"],
            400,
            "bad_subprotocol",
        ),
    ];
    for (line, headers, status, code) in cases {
        let answer = node.raw(&request(line, headers));
        assert_eq!(told(&answer), (*status, (*code).to_owned()), "{line} {headers:?}");
    }
    let old = node
        .raw(&request("GET /v1/events/e/live", &[UPGRADE, KEY, "Sec-WebSocket-Version: 8\r\n"]));
    assert!(old.head.contains("sec-websocket-version: 13"), "{old:?}");
    assert_eq!(node.metric("uproar_connections", ""), 0.0);
}

#[test]
fn garbage_is_a_bad_request_and_disturbs_nobody() {
    let node = Node::start(&[]);
    let mut viewer = node.join("e", "");
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..],
        b"\0\0\0\0\r\n\r\n",
        b"hello\r\n\r\n",
    ] {
        assert_eq!(node.raw(garbage).status, 400, "{garbage:?}");
    }
    node.comment("e", "still here");
    assert_eq!(viewer.comments(1), [(1, "still here".to_owned())]);
    node.wait_metric("uproar_upgrades_refused_total", "\"bad_request\"", 3.0);
}

#[test]
fn a_head_over_the_limit_is_too_large() {
    let node = Node::start(&["--handshake-bytes-max", "1024"]);
    let padding = format!("X: {}\r\n", "x".repeat(2_000));
    let answer = node.raw(&request("GET /v1/events/e/live", &[UPGRADE, KEY, VERSION, &padding]));
    assert_eq!(told(&answer), (431, "too_large".to_owned()));
    node.wait_metric("uproar_upgrades_refused_total", "\"too_large\"", 1.0);
}

#[test]
fn a_head_that_does_not_arrive_in_time_is_answered_408() {
    let node = Node::start(&["--handshake-ms-max", "300"]);
    let answer = node.raw(b"GET /v1/events/e/live HTTP/1.1\r\nHo");
    assert_eq!(told(&answer), (408, "timeout".to_owned()));
    node.wait_metric("uproar_upgrades_refused_total", "\"timeout\"", 1.0);
}

#[test]
fn who_has_said_nothing_at_all_is_told_nothing() {
    let node = Node::start(&["--handshake-ms-max", "300"]);
    let mut rest = Vec::new();
    node.connect().read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"", "an answer now would be taken for that to a later request");
    node.wait_metric("uproar_upgrades_refused_total", "\"timeout\"", 1.0);
}

#[test]
fn an_upgrade_byte_by_byte_and_with_a_frame_behind_it_succeeds() {
    let node = Node::start(&[]);
    let mut viewer = node.join("e", "");
    let mut stream = node.connect();
    stream.set_nodelay(true).unwrap();
    let mut bytes = request("GET /v1/events/e/live", &[UPGRADE, KEY, VERSION]);
    let post = br#"{"type":"post","text":"early"}"#;
    bytes.extend([0x81, 0x80 | u8::try_from(post.len()).unwrap(), 0, 0, 0, 0]);
    bytes.extend(post);
    bytes.iter().for_each(|byte| stream.write_all(&[*byte]).unwrap());
    assert_eq!(viewer.comments(1), [(1, "early".to_owned())]);
}
