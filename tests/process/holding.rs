//! What strangers can make a node hold for them, made small and filled: answers they do not read, messages and requests
//! they do not finish. Whoever goes on does not notice.

use std::io::{Read, Write};
use std::net::TcpStream;

use tungstenite::Message;

use crate::node::{Node, wait_until};
use crate::viewer::Viewer;

/// Little in the kernel, no rate, one shard.
const NARROW: [&str; 12] = [
    "--over-rate-commands-max",
    "0",
    "--control-frames-per-sec-max",
    "0",
    "--send-buffer-bytes",
    "4608",
    "--posts-per-sec-connection",
    "0",
    "--posts-per-sec-event",
    "0",
    "--history-frames",
    "0",
];

fn start(args: &[&str]) -> Node {
    Node::start(&[&NARROW[..], args].concat())
}

fn ping(number: u32) -> Vec<u8> {
    [&[0x89, 0x80 | 120, 0, 0, 0, 0][..], &number.to_be_bytes(), &[b'x'; 116]].concat()
}

/// `{}`, which is answered with an error of some hundred bytes.
fn nonsense(count: usize) -> Vec<u8> {
    [&[0x81, 0x82, 0, 0, 0, 0][..], b"{}"].concat().repeat(count)
}

/// Writes as much as goes without waiting; how many bytes that was.
fn write_what_goes(stream: &mut TcpStream, bytes: &[u8]) -> usize {
    stream.set_nonblocking(true).unwrap();
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(len) => written += len,
            Err(_) => break,
        }
    }
    stream.set_nonblocking(false).unwrap();
    written
}

/// The beginning of a text message of `len` bytes, without its last.
fn most_of_a_message(len: u16) -> Vec<u8> {
    let [high, low] = len.to_be_bytes();
    let body = vec![b'x'; usize::from(len) - 1];
    [&[0x81, 0xfe, high, low, 0, 0, 0, 0][..], &body].concat()
}

#[test]
fn a_viewer_that_does_not_read_its_answers_is_not_read_from_until_it_does() {
    let node = start(&[]);
    let mut deaf = node.join_narrow("e", "");
    let pings: Vec<u8> = (0..20_000).flat_map(ping).collect();
    let mut sent = 0;
    wait_until("reading pauses and the kernel is full", || {
        let went = write_what_goes(deaf.socket.get_mut(), &pings[sent..]);
        sent += went;
        went == 0 && node.metric("uproar_paused_connections", "") == 1.0
    });
    let received = node.metric("uproar_received_bytes_total", "");
    assert!(received < 1e6, "{received} bytes were read from a viewer that reads nothing");
    assert!(node.metric("uproar_private_queue_bytes", "") <= 8_192.0);
    let mut other = node.join("e", "");
    assert_eq!(other.post_acked("nobody else notices"), 1);
    // Now it reads, and sends the rest of its last ping: every pong comes, in order.
    let whole = sent.div_ceil(126);
    let rest = &pings[sent..whole * 126];
    let mut next = 0u32;
    let mut unsent = rest;
    while (next as usize) < whole {
        let taken = write_what_goes(deaf.socket.get_mut(), unsent);
        unsent = &unsent[taken..];
        match deaf.socket.read().unwrap() {
            Message::Pong(payload) => {
                assert_eq!(payload[..4], next.to_be_bytes(), "pongs come in order");
                next += 1;
            }
            Message::Text(_) => {}
            other => panic!("{other:?}"),
        }
    }
    node.wait_metric("uproar_reads_paused_total", "", 1.0);
    wait_until("nobody is paused", || node.metric("uproar_paused_connections", "") == 0.0);
    assert_eq!(node.metric("uproar_budget_bytes", "answers"), 0.0);
}

/// `rb` of skmem: the receive buffers of the node's connections, in bytes, as the kernel doubles them.
fn receive_buffers(node: &Node) -> Vec<u32> {
    let port = format!("sport = :{}", node.public().port());
    let out = std::process::Command::new("ss").args(["-Htnm", &port]).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let buffer = |memory: &str| memory.split(",rb").nth(1)?.split(',').next()?.parse().ok();
    text.lines().filter_map(buffer).collect()
}

#[test]
fn receive_buffer_bytes() {
    let node = start(&["--receive-buffer-bytes", "8192"]);
    let mut viewer = node.join("e", "");
    assert_eq!(receive_buffers(&node), [16_384], "the kernel doubles it");
    // A message that is larger than what the kernel takes at a time.
    let text = "x".repeat(15_000);
    viewer.post("long", &text);
    let refused = std::iter::repeat_with(|| viewer.next()).find(|frame| frame["type"] == "error");
    assert_eq!(refused.unwrap()["code"], "too_long");
    assert_eq!(viewer.post_acked("and the next"), 1);
    let node = start(&[]);
    let _viewer = node.join("e", "");
    assert_eq!(receive_buffers(&node), [32_768], "bounded, unless somebody asks for more");
}

#[test]
fn answers_bytes_max() {
    let node = start(&["--answers-bytes-max", "262144"]);
    let mut reader = node.join("e", "");
    let mut crowd: Vec<Viewer> = (0..40).map(|_| node.join_narrow("e", "")).collect();
    let burst = nonsense(2_000);
    wait_until("the budget is used up", || {
        for deaf in &mut crowd {
            write_what_goes(deaf.socket.get_mut(), &burst);
        }
        node.metric("uproar_budget_hits_total", "\"answers\"") >= 1.0
    });
    assert!(node.metric("uproar_budget_bytes", "\"answers\"") <= 262_144.0);
    node.wait_metric("uproar_closes_total", "\"budget\"", 1.0);
    assert_eq!(reader.post_acked("who reads stays"), 1);
}

#[test]
fn unfinished_bytes_max() {
    let node = start(&["--unfinished-bytes-max", "65536"]);
    let mut quick = node.join("e", "");
    let mut crowd: Vec<Viewer> = (0..8).map(|_| node.join("e", "")).collect();
    // Half of a post, as a network may cut it.
    let post = r#"{"type":"post","ref":"q","text":"in two pieces"}"#;
    let frame = [&[0x81, 0x80 | post.len() as u8, 0, 0, 0, 0][..], post.as_bytes()].concat();
    for hog in &mut crowd {
        hog.socket.get_mut().write_all(&most_of_a_message(16_000)).unwrap();
        quick.socket.get_mut().write_all(&frame[..20]).unwrap();
        quick.socket.get_mut().write_all(&frame[20..]).unwrap();
        quick.next_of("ack");
    }
    node.wait_metric("uproar_budget_hits_total", "\"unfinished\"", 1.0);
    assert!(node.metric("uproar_budget_bytes", "\"unfinished\"") <= 65_536.0);
    let refused = node.metric("uproar_closes_total", "\"budget\"");
    let closings = crowd.iter_mut().take(refused as usize).map(Viewer::closing);
    for closing in closings {
        let (code, reason) = closing.expect("a close frame");
        assert_eq!((code, reason.as_str()), (1013, "too much of unfinished messages"));
    }
}

#[test]
fn heads_bytes_max() {
    let node = start(&["--heads-bytes-max", "65536"]);
    let head = format!("GET /v1/events/e/live HTTP/1.1\r\nX: {}", "x".repeat(7_000));
    let mut crowd: Vec<TcpStream> = (0..40).map(|_| node.connect()).collect();
    for stream in &mut crowd {
        stream.write_all(head.as_bytes()).unwrap();
    }
    node.wait_metric("uproar_budget_hits_total", "\"heads\"", 1.0);
    assert!(node.metric("uproar_budget_bytes", "\"heads\"") <= 65_536.0);
    node.wait_metric("uproar_upgrades_refused_total", "\"overloaded\"", 1.0);
    node.join("e", "");
    let answers = crowd.iter_mut().map(|stream| {
        stream.set_nonblocking(true).unwrap();
        let mut answer = [0; 12];
        stream.read(&mut answer).is_ok_and(|len| answer[..len].starts_with(b"HTTP/1.1 503"))
    });
    assert!(answers.filter(|is_refused| *is_refused).count() > 0, "they are told");
}

#[test]
fn message_ms_max() {
    let node = start(&["--message-ms-max", "1000"]);
    let (mut slow, mut other) = (node.join("e", ""), node.join("e", ""));
    slow.socket.get_mut().write_all(&most_of_a_message(500)).unwrap();
    assert_eq!(slow.closing(), Some((1008, "a message took too long".into())));
    node.wait_metric("uproar_closes_total", "\"slow_message\"", 1.0);
    assert_eq!(other.post_acked("in time"), 1);
}
