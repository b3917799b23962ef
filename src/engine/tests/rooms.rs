//! Rooms that nobody needs make place for those that somebody does.

mod support;

use uproar_engine::control::{PostRefusal, Reply, Request};
use uproar_engine::engine::{Chunk, Engine};
use uproar_engine::limits::Limits;
use uproar_engine::table::Id;
use uproar_engine::time::Now;

fn engine(rooms_max: u32) -> Engine {
    support::engine(Limits { rooms_max, posts_per_sec_event: 0, ..Limits::default() }, 1)
}

fn at(ms: u64) -> Now {
    support::at(1 + ms * 1_000)
}

/// Sends what there is.
fn flush(engine: &mut Engine, now: Now) {
    let mut chunk = Chunk::default();
    while engine.has_work() {
        engine.next_chunk(now, &mut chunk);
        engine.settle(now, &mut chunk, &mut Vec::new(), 0);
    }
    while engine.poll_output().is_some() {}
}

fn come(engine: &mut Engine, now: Now, event: &str) -> Id {
    let id = support::join(engine, now, event);
    flush(engine, now);
    id
}

fn come_and_go(engine: &mut Engine, now: Now, event: &str) {
    let id = come(engine, now, event);
    engine.ended(now, id);
    flush(engine, now);
}

fn is_known(engine: &mut Engine, event: &str) -> bool {
    let request = Request::Event { event: event.parse().expect("a sound event") };
    matches!(engine.control(at(0), request), Reply::Event { .. })
}

fn rooms(engine: &Engine) -> u64 {
    engine.report().rooms
}

#[test]
fn made_up_names_do_not_keep_others_out() {
    let mut engine = engine(100);
    let seat = come(&mut engine, at(0), "watched");
    support::post(&mut engine, at(0), "written", "a comment that should stay");
    for i in 0..2_000 {
        come_and_go(&mut engine, at(i), &format!("made-up-{i}"));
        assert!(rooms(&engine) <= 100);
    }
    // Posts to made-up names keep a comment each; what is older and keeps as few goes first.
    for i in 0..2_000 {
        support::post(&mut engine, at(2_000 + i), &format!("posted-{i}"), "x");
        assert!(rooms(&engine) <= 100);
    }
    come(&mut engine, at(5_000), "new");
    assert!(is_known(&mut engine, "new") && is_known(&mut engine, "watched"));
    assert_eq!(engine.live_connections(), 2);
    assert!(engine.report().counters.rooms_evicted > 3_800);
    engine.ended(at(5_000), seat);
}

#[test]
fn the_fewest_comments_go_first_and_of_those_the_longest_untouched() {
    let mut engine = engine(5);
    for (event, comments) in [("two", 2), ("old-one", 1), ("new-one", 1), ("touched-one", 1)] {
        (0..comments).for_each(|_| support::post(&mut engine, at(0), event, "x"));
    }
    come_and_go(&mut engine, at(10), "old-one");
    come_and_go(&mut engine, at(20), "touched-one");
    come_and_go(&mut engine, at(30), "empty");
    let mut gone = Vec::new();
    for i in 0..5 {
        come(&mut engine, at(40 + i), &format!("viewed-{i}"));
        for event in ["two", "old-one", "new-one", "touched-one", "empty"] {
            if !is_known(&mut engine, event) && !gone.contains(&event) {
                gone.push(event);
            }
        }
        assert_eq!(gone.len() as u64, i + 1, "one makes place for one");
    }
    assert_eq!(gone, ["empty", "new-one", "old-one", "touched-one", "two"]);
    // All have viewers now.
    let event = "one-more".parse().expect("a sound event");
    let post =
        Request::Post { event, user: None, name: None, text: "x".into(), key: None, address: 0 };
    let reply = engine.control(at(50), post);
    assert!(matches!(reply, Reply::Refused(PostRefusal::RoomsFull)), "{reply:?}");
    come(&mut engine, at(60), "one-more");
    assert!(!is_known(&mut engine, "one-more"), "a room with viewers never goes");
    assert_eq!((rooms(&engine), engine.live_connections()), (5, 5));
}

#[test]
fn an_empty_room_goes_after_ten_seconds_and_one_with_comments_stays() {
    let mut engine = engine(100);
    come_and_go(&mut engine, at(0), "empty");
    support::post(&mut engine, at(0), "written", "x");
    let seat = come(&mut engine, at(0), "watched");
    for ms in (0..9_900).step_by(100) {
        engine.tick(at(ms), 0);
    }
    assert_eq!(rooms(&engine), 3);
    for ms in (9_900..12_000).step_by(100) {
        engine.tick(at(ms), 0);
    }
    assert!(!is_known(&mut engine, "empty") && is_known(&mut engine, "written"));
    assert_eq!((rooms(&engine), engine.report().counters.rooms_freed), (2, 1));
    engine.ended(at(12_000), seat);
    engine.check();
}

#[test]
fn a_limit_that_is_lowered_is_met_within_ticks() {
    let mut engine = engine(5_000);
    (0..3_000).for_each(|i| support::post(&mut engine, at(i), &format!("e{i}"), "x"));
    let limits = Limits { rooms_max: 10, ..Limits::default() };
    let reply =
        engine.control(at(3_000), Request::Reload { generation: 1, limits: Box::new(limits) });
    assert!(matches!(reply, Reply::Done));
    (31..40).for_each(|i| engine.tick(at(i * 100), 0));
    assert_eq!(rooms(&engine), 10);
    assert!(is_known(&mut engine, "e2999"), "the longest untouched went");
}

/// A post with a key; what it was answered.
fn post_keyed(engine: &mut Engine, now: Now, event: &str, key: &str) -> u64 {
    let request = Request::Post {
        event: event.parse().expect("a sound event"),
        user: Some("ann".into()),
        name: None,
        text: "once".into(),
        key: Some(key.into()),
        address: 0,
    };
    match engine.control(now, request) {
        Reply::Posted { position, .. } => position.offset,
        reply => panic!("{reply:?}"),
    }
}

#[test]
fn keys_have_one_budget_and_the_room_that_remembers_most_forgets_first() {
    let limits =
        Limits { retry_keys_bytes_max: 200_000, posts_per_sec_event: 0, ..Limits::default() };
    let mut engine = support::engine(limits, 1);
    for room in 0..20 {
        (0..20).for_each(|key| {
            post_keyed(&mut engine, at(0), &format!("quiet-{room}"), &key.to_string());
        });
    }
    for key in 0..20_000 {
        post_keyed(&mut engine, at(0), "busy", &key.to_string());
        assert!(engine.report().key_bytes <= 200_000);
    }
    engine.check();
    for room in 0..20 {
        for key in 0..20 {
            let offset = post_keyed(&mut engine, at(0), &format!("quiet-{room}"), &key.to_string());
            assert_eq!(offset, key + 1, "a retry of quiet-{room} is known");
        }
    }
    assert_eq!(post_keyed(&mut engine, at(0), "busy", "19999"), 20_000, "the newest is known");
    assert_eq!(post_keyed(&mut engine, at(0), "busy", "0"), 20_001, "the oldest is not");
    let [of_events, of_node] = engine.report().counters.keys_forgotten;
    assert!(of_node > 15_000 && of_events == 0, "{of_events} {of_node}");
}

#[test]
fn the_keys_of_a_room_that_goes_are_forgotten_with_it() {
    let mut engine = engine(3);
    for i in 0..200 {
        post_keyed(&mut engine, at(i), &format!("e{i}"), "k");
    }
    let three = engine.report().key_bytes;
    assert!(three < 3 * 1_024, "{three} bytes");
    engine.check();
}
