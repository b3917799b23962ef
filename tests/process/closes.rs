//! How connections end: each fault of a peer with the close code of PROTOCOL.md.

use std::io::Write;
use std::net::Shutdown;

use rustix::net::sockopt;
use tungstenite::Message;

use crate::node::{Node, wait_until};

/// Sends raw bytes after a good upgrade; the code the node closes with.
fn code_for(node: &Node, bytes: &[u8]) -> Option<u16> {
    let mut viewer = node.join("e", "");
    viewer.socket.get_mut().write_all(bytes).unwrap();
    viewer.closing().map(|(code, _)| code)
}

/// A masked frame; a mask of zeros leaves the payload as it is.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let mut bytes = vec![first];
    if length < 126 {
        bytes.push(0x80 | u8::try_from(length).unwrap());
    } else {
        bytes.push(0x80 | 126);
        bytes.extend(length.to_be_bytes());
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

#[test]
fn empty_fragments_max() {
    let node = Node::start(&["--empty-fragments-max", "3"]);
    let text = r#"{"type":"post","ref":"p","text":"in pieces"}"#.as_bytes();
    let (first, last) = text.split_at(10);
    let message = |empty: usize| {
        [frame(0x01, first), frame(0x00, b"").repeat(empty), frame(0x80, last)].concat()
    };
    let mut viewer = node.join("e", "");
    for offset in [1, 2] {
        viewer.socket.get_mut().write_all(&message(3)).unwrap();
        assert_eq!(viewer.next_of("ack")["offset"], offset, "three of each message");
    }
    viewer.socket.get_mut().write_all(&message(4)).unwrap();
    assert_eq!(viewer.closing(), Some((1008, "too many empty fragments".into())));
    node.wait_metric("uproar_closes_total", "\"peer_fault\"", 1.0);
}

#[test]
fn each_fault_has_its_code() {
    let node = Node::start(&[
        "--frame-bytes-max",
        "1000",
        "--message-bytes-max",
        "1500",
        "--comment-bytes-max",
        "800",
    ]);
    let fragment = |first| frame(first, &[b'x'; 900]);
    let cases = [
        ("an unmasked frame", vec![0x81, 2, b'h', b'i'], 1002),
        ("reserved bits", frame(0xc1, b"x"), 1002),
        ("an unknown opcode", frame(0x83, b"x"), 1002),
        ("a continuation of nothing", frame(0x80, b"x"), 1002),
        ("a fragmented ping", frame(0x09, b"x"), 1002),
        ("a close with a code that must not be sent", frame(0x88, &1005_u16.to_be_bytes()), 1002),
        ("binary over the JSON subprotocol", frame(0x82, b"x"), 1003),
        ("text that is not UTF-8", frame(0x81, &[0xff, 0xfe]), 1007),
        ("a frame over the limit", frame(0x81, &[b'x'; 1_001]), 1009),
        ("a message over the limit", [fragment(0x01), fragment(0x80)].concat(), 1009),
    ];
    let count = cases.len();
    for (what, bytes, code) in cases {
        assert_eq!(code_for(&node, &bytes), Some(code), "{what}");
    }
    node.wait_metric("uproar_closes_total", "\"peer_fault\"", count as f64);
}

#[test]
fn an_announced_giant_is_refused_before_it_arrives() {
    let node = Node::start(&[]);
    let header = [0x81, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(code_for(&node, &header), Some(1009));
}

#[test]
fn a_polite_close_is_answered_and_forgotten() {
    let node = Node::start(&[]);
    let mut viewer = node.join("e", "");
    viewer.socket.close(None).unwrap();
    viewer.closing();
    wait_until("the connection is forgotten", || node.metric("uproar_connections", "") == 0.0);
    assert_eq!(node.metric("uproar_closes_total", "cause=\"peer\""), 1.0);
}

#[test]
fn a_reset_is_forgotten_and_its_slot_used_again() {
    let node = Node::start(&["--connections-max", "4"]);
    for _ in 0..20 {
        let viewer = node.join("e", "");
        let linger = Some(std::time::Duration::ZERO);
        sockopt::set_socket_linger(viewer.socket.get_ref(), linger).unwrap();
        drop(viewer);
        wait_until("the connection is forgotten", || node.metric("uproar_connections", "") == 0.0);
    }
}

#[test]
fn pings_are_answered_between_comments() {
    let node = Node::start(&[]);
    let mut viewer = node.join("e", "");
    viewer.socket.send(Message::Ping("are you there".into())).unwrap();
    node.comment("e", "hello");
    let mut has_pong = false;
    let mut has_comment = false;
    while !(has_pong && has_comment) {
        match viewer.socket.read().unwrap() {
            Message::Pong(payload) => has_pong = &payload[..] == b"are you there",
            Message::Text(_) => has_comment = true,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_peer_that_does_not_answer_our_close_is_cut_off() {
    let node = Node::start(&["--close-ms-max", "200"]);
    let mut viewer = node.join("e", "");
    viewer.socket.get_mut().write_all(&frame(0x82, b"x")).unwrap();
    wait_until("the silent peer is gone", || node.metric("uproar_connections", "") == 0.0);
    let mut rest = Vec::new();
    std::io::Read::read_to_end(viewer.socket.get_mut(), &mut rest).unwrap();
    assert_eq!(rest[rest.len() - usize::from(rest[1]) - 2], 0x88, "the close frame came first");
}

#[test]
fn an_end_behind_the_last_bytes_is_seen() {
    let node = Node::start(&["--keepalive-ms", "0"]);
    let viewers: Vec<_> = (0..20).map(|_| node.join("e", "")).collect();
    node.wait_metric("uproar_connections", "", 20.0);
    for viewer in &viewers {
        let mut stream = viewer.socket.get_ref();
        // The pong and the FIN leave in one segment, so the node sees one edge.
        sockopt::set_tcp_cork(stream, true).unwrap();
        stream.write_all(&frame(0x8a, b"bye")).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        sockopt::set_tcp_cork(stream, false).unwrap();
    }
    wait_until("all who ended are gone", || node.metric("uproar_connections", "") == 0.0);
}
