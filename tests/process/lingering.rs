//! The last word is heard: whatever is still arriving when the node closes or refuses, its close frame or answer
//! reaches the peer, and whoever does not end is cut off by a limit that says so.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::node::{Node, read_answer, wait_until};
use crate::viewer::Viewer;

const CUT: &str = "uproar_lingers_cut_total";

/// A masked frame of any length; a mask of zeros leaves the payload as it is.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..126 => bytes.push(0x80 | len as u8),
        len @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// Sends everything before it reads anything, as simple clients do; the code it is closed with.
fn code_after(node: &Node, bytes: &[u8]) -> Option<u16> {
    let mut viewer = node.join("e", "");
    viewer.socket.get_mut().write_all(bytes).expect("it is heard to its end");
    viewer.closing().map(|(code, _)| code)
}

#[test]
fn a_close_frame_reaches_whoever_is_still_sending() {
    let node = Node::start(&[]);
    let post = frame(0x81, br#"{"type":"post","text":"x"}"#);
    let cases = [
        ("20 KB over the limit", frame(0x81, &[b'x'; 20_000]), 1009),
        ("3 MB over the limit", frame(0x81, &vec![b'x'; 3_000_000]), 1009),
        ("a binary message and 30 posts", [frame(0x82, b"x"), post.repeat(30)].concat(), 1003),
        (
            "a reserved bit and 1 MB of posts",
            [frame(0xc1, b"x"), post.repeat(30_000)].concat(),
            1002,
        ),
        (
            "a frame without a mask and pings",
            [vec![0x81, 1, b'x'], frame(0x89, b"").repeat(50)].concat(),
            1002,
        ),
    ];
    for (what, bytes, code) in cases {
        for _ in 0..5 {
            assert_eq!(code_after(&node, &bytes), Some(code), "{what}");
        }
    }
    // tungstenite answers our close frame, and that is the end: nobody waits for a time limit.
    assert_eq!(node.metric(CUT, ""), 0.0);
}

#[test]
fn an_answer_reaches_whoever_is_still_sending() {
    let node = Node::start(&["--handshake-ms-max", "1000"]);
    let head = |more: &str| format!("GET /v1/events/e/live HTTP/1.1\r\nHost: t\r\n{more}");
    let many = "X: y\r\n".repeat(10_000);
    let cases = [
        ("a head of 60 KB", head(&many), 431),
        ("garbage and more of it", format!("\u{1}\r\n\r\n{}", "z".repeat(300_000)), 400),
        ("a head that never ends", head("X: y\r\n"), 408),
    ];
    for (what, request, status) in cases {
        for _ in 0..3 {
            let mut stream = node.connect();
            stream.write_all(request.as_bytes()).expect("it is heard to its end");
            let answer = read_answer(&mut stream).unwrap_or_else(|| panic!("{what}: no answer"));
            assert_eq!(answer.status, status, "{what}");
            let length = answer.head.lines().find_map(|line| line.strip_prefix("content-length: "));
            assert_eq!(length.and_then(|l| l.parse().ok()), Some(answer.body.len()), "{what}");
            assert!(answer.head.contains("connection: close"), "{what}: {answer:?}");
        }
    }
}

#[test]
fn lingering_max() {
    let node = Node::start(&["--lingering-max", "2", "--close-ms-max", "600000"]);
    let fault = frame(0x82, b"x");
    let mut faulty: Vec<Viewer> = (0..5)
        .map(|_| {
            let mut viewer = node.join("e", "");
            viewer.socket.get_mut().write_all(&fault).unwrap();
            viewer
        })
        .collect();
    node.wait_metric(CUT, "\"lingering_max\"", 3.0);
    assert_eq!(node.metric("uproar_lingering_connections", ""), 2.0);
    assert_eq!(node.metric("uproar_connections", ""), 2.0, "those that linger count");
    for viewer in faulty.iter_mut().take(3) {
        assert_eq!(viewer.closing().map(|(code, _)| code), Some(1003), "the oldest had it too");
    }
}

#[test]
fn linger_bytes_max() {
    let node = Node::start(&["--linger-bytes-max", "65536", "--close-ms-max", "600000"]);
    let mut viewer = node.join("e", "");
    let stream = viewer.socket.get_mut();
    stream.write_all(&frame(0x82, b"x")).unwrap();
    let endless = frame(0x81, &[b'x'; 10_000]);
    wait_until("it is cut off", || stream.write_all(&endless).is_err());
    node.wait_metric(CUT, "\"linger_bytes_max\"", 1.0);
}

#[test]
fn close_ms_max() {
    let node = Node::start(&["--close-ms-max", "300"]);
    let mut viewer = node.join("e", "");
    viewer.socket.get_mut().write_all(&frame(0x82, b"x")).unwrap();
    let mut refused = node.connect();
    refused.write_all(b"\x01\r\n\r\n").unwrap();
    node.wait_metric(CUT, "\"close_ms_max\"", 2.0);
    // Neither said anything more, so each sees an orderly end behind the last word.
    let ends = |stream: &mut TcpStream| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).map(|_| bytes)
    };
    assert!(ends(viewer.socket.get_mut()).unwrap().len() > 4);
    assert!(ends(&mut refused).unwrap().starts_with(b"HTTP/1.1 400 "));
}

#[test]
fn who_was_refused_counts_until_it_ends() {
    let node = Node::start(&["--connections-max", "1", "--close-ms-max", "600000"]);
    let mut refused = node.connect();
    refused.write_all(b"\x01\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut refused).map(|answer| answer.status), Some(400));
    node.wait_metric("uproar_places_used", "", 1.0);
    assert_eq!(node.metric("uproar_connections", ""), 0.0);
    let status = |node: &Node| node.upgrade("e", "", &[], node.connect()).err();
    assert_eq!(status(&node), Some(503), "its place is taken");
    drop(refused);
    wait_until("there is room again", || status(&node).is_none());
}
