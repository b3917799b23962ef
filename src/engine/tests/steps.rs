//! Work that strangers can make fall together is done in steps, and nobody waits for all of it.

mod support;

use uproar_engine::control::{Reply, Request};
use uproar_engine::engine::{Chunk, Engine};
use uproar_engine::limits::Limits;
use uproar_engine::time::{Now, TICK_US};

/// An empty pong; a mask of zeros.
const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];

fn lifted() -> Limits {
    Limits { posts_per_sec_event: 0, ..Limits::default() }
}

/// Sends all that is due, all taken.
fn send_all(engine: &mut Engine, now: Now) {
    let mut chunk = Chunk::default();
    while engine.has_work() {
        engine.next_chunk(now, &mut chunk);
        engine.settle(now, &mut chunk, &mut Vec::new(), 1);
        while engine.poll_output().is_some() {}
    }
}

#[test]
fn viewers_who_fall_silent_at_once_are_pinged_in_steps() {
    let mut now_us = 10_000 * TICK_US;
    let limits = Limits { keepalive_ms: 50_000, ..lifted() };
    let mut engine = support::engine(limits, now_us);
    let viewers: Vec<_> =
        (0..3_000).map(|_| support::join(&mut engine, support::at(now_us), "e")).collect();
    send_all(&mut engine, support::at(now_us));
    // All say something within one tick, so that all are due in one tick, whatever spread them before.
    for &id in &viewers {
        engine.received(support::at(now_us), id, &mut PONG.clone());
    }
    while engine.report().counters.pings == 0 {
        now_us += TICK_US;
        engine.tick(support::at(now_us), 0);
    }
    let mut pings = engine.report().counters.pings;
    assert!(pings < 600, "the first tick made {pings} of them");
    let mut steps = 0;
    loop {
        let has_more = engine.step(support::at(now_us));
        let made = engine.report().counters.pings - pings;
        assert!(made <= 256, "a step made {made}");
        pings += made;
        steps += 1;
        if !has_more {
            break;
        }
    }
    assert_eq!(pings, 3_000, "all are pinged within the tick, in {steps} steps");
}

#[test]
fn new_limits_come_to_all_rooms_in_steps() {
    let now = support::at(10 * TICK_US);
    let mut engine = support::engine(lifted(), now.mono_us);
    let rooms = 1_500;
    for room in 0..rooms {
        (0..30)
            .for_each(|_| support::post(&mut engine, now, &format!("e{room}"), &"x".repeat(300)));
    }
    let kept = |engine: &mut Engine, room: u32| {
        let event = format!("e{room}").parse().expect("a sound event");
        let Reply::Event { position, tail, .. } = engine.control(now, Request::Event { event })
        else {
            panic!("the room is known")
        };
        position.offset + 1 - tail
    };
    assert!((0..rooms).all(|room| kept(&mut engine, room) == 30));
    let limits = Limits { room_log_frames_max: 10, ..lifted() };
    engine.control(now, Request::Reload { generation: 1, limits: Box::new(limits) });
    // A log gives whole segments, and keeps its newest.
    let trimmed = |engine: &mut Engine| (0..rooms).filter(|&room| kept(engine, room) < 30).count();
    let mut before = trimmed(&mut engine);
    assert!(before <= 256, "at once: {before}");
    while engine.step(now) {
        let after = trimmed(&mut engine);
        assert!(after - before <= 256, "a step came to {} rooms", after - before);
        before = after;
    }
    assert_eq!(trimmed(&mut engine), rooms as usize);
}

#[test]
fn a_smaller_sum_of_all_logs_is_met_in_steps() {
    let now = support::at(10 * TICK_US);
    let mut engine = support::engine(lifted(), now.mono_us);
    for room in 0..3_000 {
        (0..10)
            .for_each(|_| support::post(&mut engine, now, &format!("e{room}"), &"x".repeat(300)));
    }
    let mut before = engine.report().counters.log_evictions;
    let limits = Limits { log_bytes_max: 1024 * 1024, ..lifted() };
    engine.control(now, Request::Reload { generation: 1, limits: Box::new(limits) });
    let mut steps = 0;
    loop {
        let evicted = engine.report().counters.log_evictions;
        assert!(evicted - before <= 64 * 10, "a step dropped {} comments", evicted - before);
        before = evicted;
        engine.check();
        steps += 1;
        if !engine.step(now) {
            break;
        }
    }
    assert!(engine.report().log_bytes <= 1024 * 1024, "met in {steps} steps");
    assert!(steps > 30, "in {steps} steps");
}

#[test]
fn views_that_nobody_has_read_before_are_derived_in_steps() {
    let now = support::at(10 * TICK_US);
    let mut engine = support::engine(lifted(), now.mono_us);
    // Comments that came over HTTP exist in the canonical encoding alone.
    for room in 0..40 {
        (0..300).for_each(|_| support::post(&mut engine, now, &format!("e{room}"), "a comment"));
    }
    // Somebody joins all of the rooms at once, and in another one a comment is due.
    (0..40).for_each(|room| _ = support::join(&mut engine, now, &format!("e{room}")));
    let mut chunk = Chunk::default();
    let (mut bytes, mut chunks) = (engine.report().log_bytes, 0);
    while engine.has_work() {
        engine.next_chunk(now, &mut chunk);
        engine.settle(now, &mut chunk, &mut Vec::new(), 1);
        while engine.poll_output().is_some() {}
        let grown = engine.report().log_bytes.saturating_sub(bytes);
        // 512 frames of under 200 bytes, and two segments with room to spare.
        assert!(grown < 512 * 200 + 2 * 65_536, "a chunk derived {grown} bytes");
        bytes += grown;
        chunks += 1;
    }
    assert!(chunks >= 40 * 300 / 512, "in {chunks} chunks");
    let event = "e39".parse().expect("a sound event");
    let Reply::Event { viewers, .. } = engine.control(now, Request::Event { event }) else {
        panic!()
    };
    assert_eq!(viewers, 1);
}
