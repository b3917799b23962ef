//! What becomes of bytes that the peer has not taken.

#![expect(clippy::unwrap_used, reason = "a failed unwrap of a test is its failure")]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use uproar_ring::{Event, Key, Ring, RingConfig, Wake};

const CONFIG: RingConfig = RingConfig { slots: 8, buffers: 1, buffer_bytes: 4_096 };
const KEY: Key = Key::new(7);

/// A ring with one end of a TCP connection in slot 0, and the other end; what the first has not been rid of.
fn pair_with_unsent() -> (Ring, TcpStream) {
    let wake = Wake::new().unwrap();
    let mut ring = Ring::new(CONFIG, &wake).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut socket = listener.accept().unwrap().0;
    socket.set_nonblocking(true).unwrap();
    // Until both buffers are full.
    while socket.write(&[b'x'; 65_536]).is_ok() {}
    ring.adopt(0, socket).unwrap();
    (ring, peer)
}

/// Turns the ring until a completion has come.
fn completion(ring: &mut Ring) -> Event {
    let mut events = Vec::new();
    for _ in 0..1_000 {
        ring.turn(&mut events, 64);
        if let Some(event) = events.pop() {
            assert!(events.is_empty(), "one completion: {event:?}, {events:?}");
            return event;
        }
        std::thread::yield_now();
    }
    panic!("no completion")
}

fn unsent(ring: &mut Ring) -> u32 {
    ring.ask_unsent(0, KEY);
    match completion(ring) {
        Event::Unsent { key, result } if key == KEY => result.unwrap(),
        other => panic!("not an answer: {other:?}"),
    }
}

/// Reads to the end of the stream: how it ended.
fn read_all(peer: &mut TcpStream) -> Result<usize, ErrorKind> {
    peer.read_to_end(&mut Vec::new()).map_err(|error| error.kind())
}

#[test]
fn what_the_peer_has_not_taken_is_known_until_it_has() {
    let (mut ring, mut peer) = pair_with_unsent();
    assert!(unsent(&mut ring) > 0);
    peer.set_nonblocking(true).unwrap();
    let mut bytes = vec![0; 65_536];
    for _ in 0..1_000_000 {
        match peer.read(&mut bytes) {
            Ok(_) => {}
            // The acknowledgement of what was read may be on its way.
            Err(_) if unsent(&mut ring) == 0 => break,
            Err(_) => std::thread::yield_now(),
        }
    }
    assert_eq!(unsent(&mut ring), 0);
    ring.close(0, KEY);
    assert!(matches!(completion(&mut ring), Event::Closed { result: Ok(()), .. }));
    peer.set_nonblocking(false).unwrap();
    assert_eq!(read_all(&mut peer), Ok(0), "a close without anything unsent is no reset");
}

#[test]
fn a_reset_throws_away_what_the_peer_has_not_taken() {
    let (mut ring, mut peer) = pair_with_unsent();
    ring.reset(0, KEY);
    assert!(matches!(completion(&mut ring), Event::Closed { result: Ok(()), .. }));
    assert_eq!(read_all(&mut peer), Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_slot_without_a_socket_is_told() {
    let mut ring = Ring::new(CONFIG, &Wake::new().unwrap()).unwrap();
    ring.ask_unsent(0, KEY);
    assert!(matches!(completion(&mut ring), Event::Unsent { result: Err(_), .. }));
    ring.reset(0, KEY);
    let mut events = Vec::new();
    while events.len() < 2 {
        ring.turn(&mut events, 64);
    }
    assert!(matches!(events[0], Event::NotReset { key: KEY, .. }), "{events:?}");
    assert!(matches!(events[1], Event::Closed { result: Err(_), .. }), "{events:?}");
}
