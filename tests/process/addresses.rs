//! Viewers behind one address: whoever opens sockets there and says nothing takes none of their places.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::node::{NOBODY, Node, read_answer, wait_until};
use crate::viewer::Viewer;

const REFUSED: &str = "uproar_upgrades_refused_total";

fn request(event: &str) -> String {
    format!(
        "GET /v1/events/{event}/live HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// Whether the node has closed its end of a socket that it said nothing to.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    match stream.read(&mut [0; 64]) {
        Ok(len) => len == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

#[test]
fn silent_sockets_shut_nobody_out() {
    let node = Node::start(&["--connections-per-address-max", "5"]);
    let mut silent: Vec<TcpStream> = (0..50).map(|_| node.connect()).collect();
    node.wait_metric(REFUSED, "\"address_unfinished\"", 45.0);
    wait_until("the first 45 are gone", || silent[..45].iter_mut().all(is_closed));
    assert!(!silent[45..].iter_mut().any(is_closed), "and the last five are not");
    let mut viewers: Vec<Viewer> = (0..5).map(|_| node.join("e", "")).collect();
    assert_eq!(node.upgrade("e", "", &[], node.connect()).err(), Some(429), "the sixth");
    node.wait_metric(REFUSED, "\"address_full\"", 1.0);
    let books = node.books();
    assert_eq!((books.connections, books.polls), (5, 5), "{books:?}");
    assert_eq!(viewers[0].post_acked("nobody was in the way"), 1);
    // A place is free when its socket is closed, and not before somebody else has it.
    drop(viewers.pop());
    wait_until("the address may come again", || {
        node.upgrade("e", "", &[], node.connect()).map(|viewer| viewers.push(viewer)).is_ok()
    });
    assert_eq!(node.upgrade("e", "", &[], node.connect()).err(), Some(429));
    drop((viewers, silent));
    node.settles(NOBODY);
}

#[test]
fn handshakes_max() {
    let node = Node::start(&["--handshakes-max", "20"]);
    let mut silent: Vec<TcpStream> = (0..60).map(|_| node.connect()).collect();
    node.wait_metric(REFUSED, "\"handshakes_full\"", 40.0);
    wait_until("the first 40 are gone", || silent[..40].iter_mut().all(is_closed));
    assert!(!silent[40..].iter_mut().any(is_closed), "and the others are not");
    let viewers: Vec<Viewer> = (0..30).map(|_| node.join("e", "")).collect();
    drop((viewers, silent));
    node.settles(NOBODY);
}

#[test]
fn who_was_late_with_half_a_request_is_told() {
    let node = Node::start(&["--connections-per-address-max", "2"]);
    let mut slow = node.connect();
    slow.write_all(b"GET /v1/events/e/live HTTP/1.1\r\n").unwrap();
    node.wait_metric("uproar_budget_bytes", "\"heads\"", 1.0);
    let _newcomers = [node.connect(), node.connect()];
    node.wait_metric(REFUSED, "\"address_unfinished\"", 1.0);
    let answer = read_answer(&mut slow).expect("an answer");
    assert_eq!((answer.status, answer.code().as_str()), (429, "address_unfinished"));
    assert!(answer.head.contains("retry-after: "), "{answer:?}");
}

/// All at once, on shards between which most of them have to move.
#[test]
fn places_are_exact_on_all_shards_together() {
    let node = Node::start(&["--shards", "2", "--connections-per-address-max", "5"]);
    for _ in 0..5 {
        let mut crowd: Vec<TcpStream> = Vec::new();
        for number in 0..40 {
            let mut stream = node.connect();
            stream.write_all(request(&format!("e{number}")).as_bytes()).unwrap();
            crowd.push(stream);
        }
        // As with silent ones, a request that was not read yet may have to give way to the next.
        let status = |stream: &mut TcpStream| {
            let mut head = [0; 12];
            stream.read_exact(&mut head).ok()?;
            String::from_utf8_lossy(&head[9..]).parse::<u16>().ok()
        };
        let statuses: Vec<Option<u16>> = crowd.iter_mut().map(status).collect();
        let count = |wanted| statuses.iter().filter(|status| **status == wanted).count();
        assert_eq!(count(Some(101)), 5, "{statuses:?}");
        assert_eq!(count(Some(101)) + count(Some(429)) + count(None), 40, "{statuses:?}");
        drop(crowd);
        node.settles(NOBODY);
    }
}
