//! What ends a pending operation, whatever has just happened to it.

#![expect(clippy::unwrap_used, reason = "a failed unwrap of a test is its failure")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use uproar_ring::{Event, Key, Operation, Ring, RingConfig, Wake};

const CONFIG: RingConfig = RingConfig { slots: 8, buffers: 1, buffer_bytes: 4_096 };
const KEY: Key = Key::new(7);

/// A ring with one end of a TCP connection in slot 0, and the other end.
fn pair() -> (Ring, TcpStream) {
    let wake = Wake::new().unwrap();
    let mut ring = Ring::new(CONFIG, &wake).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    ring.adopt(0, listener.accept().unwrap().0).unwrap();
    (ring, peer)
}

/// Turns the ring until `count` completions have come.
fn completions(ring: &mut Ring, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    for _ in 0..1_000 {
        ring.turn(&mut events, 64);
        if events.len() >= count {
            // And not one more.
            ring.turn(&mut events, 64);
            return events;
        }
        std::thread::yield_now();
    }
    panic!("{count} completions do not come: {events:?}")
}

/// The other end sees the end of the stream only when nothing holds the socket any more.
fn has_ended(peer: &mut TcpStream) -> bool {
    let mut bytes = [0; 16];
    match peer.read(&mut bytes) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn a_watch_with_an_event_pending_is_ended_and_lets_go_of_its_socket() {
    let (mut ring, mut peer) = pair();
    ring.watch_readable(0, KEY);
    ring.submit();
    // The poll's work is queued, and with DEFER_TASKRUN it waits for us. POLL_REMOVE would be answered EALREADY
    // now, and the poll would live on.
    peer.write_all(b"x").unwrap();
    ring.unwatch_readable(KEY);
    ring.close(0, KEY);
    let events = completions(&mut ring, 3);
    let cancelled = |event: &Event| {
        let operation = Operation::Readable;
        matches!(event, Event::Cancelled { key: KEY, operation: o, result: Ok(()) } if *o == operation)
    };
    assert!(events.iter().any(cancelled), "{events:?}");
    assert!(events.iter().any(|e| matches!(e, Event::Closed { result: Ok(()), .. })), "{events:?}");
    let last = |e: &Event| matches!(e, Event::Readable { armed: false, .. });
    assert!(events.iter().any(last), "{events:?}");
    assert_eq!(events.len(), 3, "{events:?}");
    assert!(has_ended(&mut peer), "something holds the socket");
    // A byte that comes later finds nobody.
    let _ = peer.write_all(b"y");
    let mut late = Vec::new();
    ring.turn(&mut late, 64);
    assert!(late.is_empty(), "{late:?}");
}

#[test]
fn a_wait_for_space_is_ended_and_a_read_too() {
    for (operation, start) in [
        (Operation::Writable, (|ring: &mut Ring| ring.await_writable(0, KEY)) as fn(&mut Ring)),
        (Operation::Read, |ring| ring.read(0, KEY)),
        (Operation::Discard, |ring| ring.discard(0, KEY, 100)),
    ] {
        let (mut ring, mut peer) = pair();
        if operation == Operation::Writable {
            fill(&mut ring);
        }
        start(&mut ring);
        ring.submit();
        ring.cancel(operation, KEY);
        ring.close(0, KEY);
        let events = completions(&mut ring, 3);
        let cancelled = |e: &Event| matches!(e, Event::Cancelled { operation: o, result: Ok(()), .. } if *o == operation);
        assert!(events.iter().any(cancelled), "{events:?}");
        assert_eq!(events.len(), 3, "{events:?}");
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).expect("the end comes");
    }
}

/// Sends until the kernel takes no more.
fn fill(ring: &mut Ring) {
    let bytes = [0; 65_536];
    let mut failures = Vec::new();
    while failures.is_empty() {
        let sends = [(0, uproar_ring::Outgoing::from_slice(&bytes))];
        ring.send_all(sends.into_iter(), &mut failures);
    }
}

#[test]
fn a_cancel_of_nothing_says_so_and_a_close_of_nothing_too() {
    let (mut ring, _peer) = pair();
    ring.cancel(Operation::Readable, KEY);
    ring.close(5, KEY);
    for event in completions(&mut ring, 2) {
        match event {
            Event::Cancelled { result: Err(error), .. } => {
                assert_eq!(error.raw_os_error(), Some(2), "ENOENT");
            }
            Event::Closed { result: Err(error), .. } => assert_eq!(error.raw_os_error(), Some(9)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn discarded_bytes_are_gone_and_the_rest_is_there() {
    let (mut ring, mut peer) = pair();
    peer.write_all(&[b'x'; 10_000]).unwrap();
    peer.write_all(b"the rest").unwrap();
    let mut gone = 0;
    while gone < 10_000 {
        ring.discard(0, KEY, 10_000 - gone);
        match &completions(&mut ring, 1)[..] {
            [Event::Discarded { key: KEY, result: Ok(more) }] => gone += *more as u32,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(gone, 10_000, "not one byte more than asked for");
    ring.read(0, KEY);
    match completions(&mut ring, 1).pop() {
        Some(Event::Read { result: Ok(Some(buffer)), .. }) => {
            assert_eq!(ring.bytes(&buffer), b"the rest");
            ring.recycle(buffer);
        }
        other => panic!("{other:?}"),
    }
    // It waits for what is not there, and sees the end.
    ring.discard(0, KEY, 10);
    ring.submit();
    drop(peer);
    let end = completions(&mut ring, 1);
    assert!(matches!(end[..], [Event::Discarded { result: Ok(0), .. }]), "{end:?}");
}
