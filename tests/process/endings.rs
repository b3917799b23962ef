//! Whatever a peer does while its connection is being closed, the kernel forgets it as the node does.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::node::{NOBODY, Node, wait_until};

/// Runs `peer` in threads of their own, away from the CPU of the shard, so that bytes come while the shard works.
fn from_another_cpu(count: usize, peer: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut cpus = CpuSet::new();
                cpus.set(1);
                // A machine of one CPU tries less hard.
                let _ = sched_setaffinity(None, &cpus);
                (0..count / 4).for_each(|_| peer());
            });
        }
    });
}

/// Reads until the node's end; whether there was one.
fn sees_end(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut bytes = [0; 4_096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn bytes_that_come_between_a_close_and_its_submission_keep_nothing_alive() {
    let node = Node::start(&["--close-ms-max", "500"]);
    let ping = [0x89, 0x80, 0, 0, 0, 0];
    from_another_cpu(200, || {
        let mut viewer = node.join("e", "");
        let stream = viewer.socket.get_mut();
        stream.set_nodelay(true).unwrap();
        // A frame of an unknown opcode, and pings behind it, each in a write of its own.
        stream.write_all(&[0x83, 0x80, 0, 0, 0, 0]).unwrap();
        // The node may have closed by now.
        (0..10).for_each(|_| drop(stream.write_all(&ping)));
        assert!(sees_end(stream), "a close frame, and no end");
    });
    node.settles(NOBODY);
}

/// How a peer that has read nothing of its history makes the node close.
type Way = (&'static str, fn(&mut TcpStream));

#[test]
fn what_peers_have_not_taken_is_not_left_to_the_kernel() {
    // The kernel itself would keep it for ten minutes.
    let flags = ["--close-ms-max", "500", "--lingering-max", "1", "--user-timeout-ms", "600000"];
    let node = Node::start(&flags);
    for number in 0..40 {
        node.comment("e", &format!("{number} {}", "x".repeat(1_900)));
    }
    let ways: [Way; 3] = [
        ("an unknown opcode", |peer| peer.write_all(&[0x83, 0x80, 0, 0, 0, 0]).unwrap()),
        ("a close frame", |peer| peer.write_all(&[0x88, 0x80, 0, 0, 0, 0]).unwrap()),
        ("the end of its half", |peer| peer.shutdown(Shutdown::Write).unwrap()),
    ];
    for (way, end) in ways {
        let mut peers: Vec<_> = (0..8).map(|_| node.join_narrow("e", "?history=40")).collect();
        peers.iter_mut().for_each(|peer| end(peer.socket.get_mut()));
        node.settles(NOBODY);
        let resets = node.metric("uproar_closes_unsent_total", "");
        assert!(way == "an unknown opcode" || resets >= 8.0, "{way}: {resets} resets");
    }
}

#[test]
fn a_listener_that_fails_is_counted_and_costs_no_core() {
    let node = Node::start(&[]);
    let listener = node.listener();
    // As whoever shares the socket could: every accept fails at once from now on.
    rustix::net::shutdown(&listener, rustix::net::Shutdown::Read).unwrap();
    // The accepts that were in flight, and those after the first rest.
    node.wait_metric("uproar_accepts_failed_total", "\"listener\"", 33.0);
    let (began, cpu_before) = (Instant::now(), node.cpu_seconds());
    node.wait_metric("uproar_accepts_failed_total", "\"listener\"", 97.0);
    let (spent, wall) = (node.cpu_seconds() - cpu_before, began.elapsed().as_secs_f64());
    assert!(wall > 0.9, "accepts rest between two failures: {wall}");
    assert!(spent < wall / 2.0, "{spent} s of CPU time in {wall} s");
    assert!(node.log().contains("connections cannot be accepted"), "{}", node.log());
}

#[test]
fn a_request_whose_socket_cannot_be_handed_over_is_answered_503() {
    let node = Node::start(&[]);
    let old = node.limit_descriptors(None);
    let mut answer = None;
    // A request of the node's start may still have a descriptor, and give it back.
    wait_until("it has no descriptor for a request", || {
        node.limit_descriptors(Some(node.free_descriptor()));
        answer = Some(node.get("/v1/events/e"));
        answer.as_ref().is_some_and(|answer| answer.status == 503)
    });
    node.limit_descriptors(old.current);
    assert_eq!(answer.expect("it was asked").code(), "overloaded");
    node.wait_metric("uproar_handovers_failed_total", "", 1.0);
    assert!(node.log().contains("cannot become an ordinary descriptor"), "{}", node.log());
    assert_eq!(node.get("/health").status, 200);
}
