//! What the two clocks do to comments: their times when the wall clock is set, and how long they took to leave.

mod support;

use uproar_engine::control::{Reply, Request};
use uproar_engine::engine::{Chunk, Engine};
use uproar_engine::limits::Limits;
use uproar_engine::log::Log;
use uproar_engine::page;
use uproar_engine::time::{Now, TICK_US};

const DAY_MS: u64 = 86_400_000;

/// The times of an event's comments, in the order of their offsets.
fn times(engine: &mut Engine, now: Now) -> Vec<u64> {
    let event = "e".parse().expect("a sound event");
    let reply = engine.control(now, Request::Follow { event });
    let Reply::Followed { log: Some(log), .. } = &reply else { panic!("{reply:?}") };
    let log = Log::follow(&log.upgrade().expect("the engine holds it"));
    let mut json = b"[".to_vec();
    page::write(&log, page::offsets(&log, 100, None), &mut json);
    json.push(b']');
    let comments: Vec<serde_json::Value> = serde_json::from_slice(&json).expect("a page is JSON");
    comments.iter().map(|json| json["time"].as_u64().expect("a time")).collect()
}

#[test]
fn times_stand_still_for_a_small_setback_and_follow_a_clock_that_was_wrong() {
    let limits = Limits { clock_lead_ms_max: 60_000, ..Limits::default() };
    let mut engine = support::engine(limits, 10 * TICK_US);
    let mut mono_us = 10 * TICK_US;
    let mut post = |engine: &mut Engine, wall_ms| {
        mono_us += TICK_US;
        support::post(engine, Now { mono_us, wall_ms }, "e", "x");
    };
    let right = 10 * DAY_MS;
    // Set back by a second and by just a minute: nothing runs backwards. Then the clock goes on.
    for wall_ms in [right, right - 1_000, right - 60_000, right + 5] {
        post(&mut engine, wall_ms);
    }
    // A day ahead, and set right again an hour later.
    for wall_ms in [right + DAY_MS, right + 3_600_000, right + 3_600_007] {
        post(&mut engine, wall_ms);
    }
    let expected =
        [right, right, right, right + 5, right + DAY_MS, right + 3_600_000, right + 3_600_007];
    let now = Now { mono_us, wall_ms: right };
    assert_eq!(times(&mut engine, now), expected);
    let counters = engine.report().counters;
    assert_eq!((counters.times_held, counters.times_set_back), (2, 1));
}

#[test]
fn a_pass_is_timed_from_the_append_of_its_oldest_comment_to_its_last_send() {
    let mut now_us = 10 * TICK_US;
    let mut engine = support::engine(Limits::default(), now_us);
    let mut chunk = Chunk::new(2);
    (0..5).for_each(|_| _ = support::join(&mut engine, support::at(now_us), "e"));
    let mut send_all = |engine: &mut Engine, now_us: &mut u64| {
        while engine.has_work() {
            engine.next_chunk(support::at(*now_us), &mut chunk);
            *now_us += 1_000;
            engine.settle(support::at(*now_us), &mut chunk, &mut Vec::new(), 1_000);
        }
    };
    send_all(&mut engine, &mut now_us);
    assert_eq!(
        engine.report().counters.delivery_seconds.buckets.iter().sum::<u64>(),
        0,
        "no comment"
    );
    // Two comments, the second 300 µs later; the pass over five viewers takes three chunks of 1 ms.
    support::post(&mut engine, support::at(now_us), "e", "one");
    support::post(&mut engine, support::at(now_us + 300), "e", "two");
    now_us += 500;
    send_all(&mut engine, &mut now_us);
    let delivery = engine.report().counters.delivery_seconds;
    assert_eq!(delivery.buckets.iter().sum::<u64>(), 1, "one observation a pass");
    assert_eq!(delivery.sum_us, 3_500);
}

#[test]
fn a_comment_that_comes_while_a_pass_runs_is_timed_with_the_next() {
    let mut now_us = 10 * TICK_US;
    let mut engine = support::engine(Limits::default(), now_us);
    let mut chunk = Chunk::new(2);
    (0..4).for_each(|_| _ = support::join(&mut engine, support::at(now_us), "e"));
    let mut step = |engine: &mut Engine, now_us: &mut u64| {
        engine.next_chunk(support::at(*now_us), &mut chunk);
        *now_us += 1_000;
        engine.settle(support::at(*now_us), &mut chunk, &mut Vec::new(), 1_000);
    };
    while engine.has_work() {
        step(&mut engine, &mut now_us);
    }
    support::post(&mut engine, support::at(now_us), "e", "one");
    step(&mut engine, &mut now_us);
    support::post(&mut engine, support::at(now_us), "e", "two");
    let (posted_us, mut sent_us) = (now_us, 0);
    while engine.report().counters.passes < 2 {
        let before = engine.report().counters.log_writes;
        step(&mut engine, &mut now_us);
        if engine.report().counters.log_writes > before {
            sent_us = now_us;
        }
    }
    let delivery = engine.report().counters.delivery_seconds;
    assert_eq!(delivery.buckets.iter().sum::<u64>(), 2);
    assert_eq!(delivery.sum_us, 2_000 + (sent_us - posted_us));
}
