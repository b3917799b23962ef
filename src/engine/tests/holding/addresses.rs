//! Places of an address: silent sockets take none, and give way to whoever comes, the oldest first.

use std::net::SocketAddr;

use uproar_engine::control::Request;
use uproar_engine::engine::Output;
use uproar_engine::limits::Limits;
use uproar_engine::report::Refusal;
use uproar_engine::table::Id;

use crate::budgets::REQUEST;
use crate::shard::{Shard, small};

/// Connections shed in one call of `shed_handshakes`.
const SHED_MAX: usize = 1_024;

fn shard(places_max: u32) -> Shard {
    Shard::new(Limits { connections_per_address_max: places_max, ..small() })
}

fn accept(shard: &mut Shard, last_byte: u8) -> Id {
    let peer: SocketAddr = ([192, 0, 2, last_byte], 1_000).into();
    let id = shard.engine.accept(shard.now, Some(peer));
    shard.flush();
    id
}

fn upgrade(shard: &mut Shard, last_byte: u8) -> Id {
    let id = accept(shard, last_byte);
    shard.engine.received(shard.now, id, &mut REQUEST.as_bytes().to_vec());
    shard.flush();
    shard.flush();
    id
}

fn refused(shard: &mut Shard, reason: Refusal) -> u64 {
    shard.report().counters.refusals[reason as usize]
}

#[test]
fn silent_sockets_take_no_viewers_place() {
    let mut shard = shard(5);
    let silent: Vec<Id> = (0..50).map(|_| accept(&mut shard, 1)).collect();
    assert_eq!(shard.closed, silent[..45], "the oldest give way, in order");
    assert_eq!(refused(&mut shard, Refusal::AddressUnfinished), 45);
    let viewers: Vec<Id> = (0..5).map(|_| upgrade(&mut shard, 1)).collect();
    assert_eq!(shard.report().connections, 5);
    upgrade(&mut shard, 1);
    assert_eq!(refused(&mut shard, Refusal::AddressFull), 1, "the sixth viewer");
    assert!(!viewers.iter().any(|id| shard.closed.contains(id)));
    // Whoever comes next of the address makes a silent one go, and nobody else.
    let (report, closed) = (shard.report(), shard.closed.len());
    assert!(report.handshakes <= 5, "{}", report.handshakes);
    let other = accept(&mut shard, 2);
    assert!(shard.closed.len() == closed && !shard.closed.contains(&other), "another address");
}

#[test]
fn who_has_said_something_is_told_why_it_goes() {
    let mut shard = shard(1);
    let slow = accept(&mut shard, 1);
    shard.engine.received(shard.now, slow, &mut b"GET /v1/ev".to_vec());
    shard.flush();
    accept(&mut shard, 1);
    assert!(!shard.closed.contains(&slow), "it gets 429 and is heard to its end");
    assert_eq!(refused(&mut shard, Refusal::AddressUnfinished), 1);
    assert_eq!(shard.report().lingering, 1);
    shard.pass_ms(1_000);
    assert!(shard.closed.contains(&slow));
}

#[test]
fn a_lower_limit_is_reached_as_others_come() {
    let mut shard = shard(20);
    (0..20).for_each(|_| {
        accept(&mut shard, 1);
    });
    let limits = Limits { connections_per_address_max: 2, ..small() };
    let _ = shard
        .engine
        .control(shard.now, Request::Reload { generation: 1, limits: Box::new(limits) });
    (0..20).for_each(|_| {
        accept(&mut shard, 1);
    });
    assert_eq!(shard.report().handshakes, 2);
    assert_eq!(shard.closed.len(), 38);
}

#[test]
fn handshakes_max() {
    let mut shard = Shard::new(Limits { handshakes_max: 10, ..small() });
    let silent: Vec<Id> = (0..100).map(|number| accept(&mut shard, number)).collect();
    assert_eq!(shard.closed, silent[..90], "the oldest give way, in order");
    assert_eq!(refused(&mut shard, Refusal::HandshakesFull), 90);
    let viewers: Vec<Id> = (0..30).map(|_| upgrade(&mut shard, 1)).collect();
    assert_eq!(shard.report().connections, 30, "whole requests are not counted");
    assert!(!viewers.iter().any(|id| shard.closed.contains(id)));
    assert_eq!(shard.report().handshakes, 9);
}

#[test]
fn a_full_shard_sheds_the_oldest_and_not_the_lowest() {
    let mut shard = shard(0);
    let first: Vec<Id> = (0..1_200).map(|_| accept(&mut shard, 1)).collect();
    // Places of the table that are free again are taken by later ones.
    first[..400].iter().for_each(|id| shard.engine.ended(shard.now, *id));
    shard.flush();
    shard.closed.clear();
    shard.pass_ms(100);
    let second: Vec<Id> = (0..400).map(|_| accept(&mut shard, 1)).collect();
    assert!(second.iter().all(|id| id.index < 400), "they have the lowest places");
    shard.pass_ms(1_500);
    shard.engine.shed_handshakes(shard.now);
    shard.flush();
    let oldest: Vec<Id> = first[400..].iter().chain(&second).copied().take(SHED_MAX).collect();
    assert_eq!(shard.closed, oldest);
}

#[test]
fn a_head_in_single_bytes_is_understood_as_in_one_piece() {
    let mut shard = shard(0);
    let id = accept(&mut shard, 1);
    for byte in REQUEST.bytes() {
        shard.engine.received(shard.now, id, &mut [byte]);
        let asks = std::iter::from_fn(|| shard.engine.poll_output());
        let reads_on = asks.filter(|output| matches!(output, Output::Read { .. })).count();
        let is_live = shard.report().connections == 1;
        assert_eq!(reads_on == 1, !is_live, "it is read from until it is live");
    }
    assert_eq!(shard.report().connections, 1);
    // A mistake is answered before the end.
    let id = accept(&mut shard, 1);
    for _ in 0..64 {
        shard.engine.received(shard.now, id, &mut [b'\0']);
    }
    assert_eq!(refused(&mut shard, Refusal::BadRequest), 1);
}
