//! Nobody is forgotten because somebody else was sent something.

mod support;

use uproar_engine::engine::{Chunk, Engine};
use uproar_engine::limits::Limits;
use uproar_engine::report::CloseCause;
use uproar_engine::table::Id;
use uproar_engine::time::{Now, TICK_US};

const KEEPALIVE_MS: u32 = 10_000;
const INTERVAL_TICKS: u32 = KEEPALIVE_MS / 100;
/// A pong that nobody asked for, masked with zeros.
const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];

fn start() -> Engine {
    support::engine(Limits { keepalive_ms: KEEPALIVE_MS, ..Limits::default() }, TICK_US * 1_000)
}

/// The instant of tick `tick` of the test.
fn at(tick: u32) -> Now {
    support::at(TICK_US * u64::from(1_000 + tick))
}

/// Sends everything as if the kernel took it all; says to whom.
fn flush(engine: &mut Engine, now: Now) -> Vec<Id> {
    let (mut chunk, mut sent) = (Chunk::default(), Vec::new());
    while engine.has_work() {
        engine.next_chunk(now, &mut chunk);
        sent.extend(chunk.deliveries.iter().map(|delivery| delivery.id));
        engine.settle(now, &mut chunk, &mut Vec::new(), 0);
    }
    while engine.poll_output().is_some() {}
    sent
}

#[test]
fn who_joins_with_history_does_not_silence_the_others() {
    let mut engine = start();
    let silent = support::join(&mut engine, at(0), "e");
    support::post(&mut engine, at(0), "e", "the only one");
    flush(&mut engine, at(0));
    let mut last = 0;
    for tick in 1..5 * INTERVAL_TICKS {
        // Twice a second somebody comes and is sent the comment.
        if tick % 5 == 0 {
            let guest = support::join(&mut engine, at(tick), "e");
            flush(&mut engine, at(tick));
            engine.ended(at(tick), guest);
        }
        engine.tick(at(tick), 0);
        if flush(&mut engine, at(tick)).contains(&silent) {
            last = tick;
            engine.received(at(tick), silent, &mut PONG.to_vec());
        }
        assert!(tick - last <= INTERVAL_TICKS * 3 / 2, "nothing since tick {last}");
    }
    assert_eq!(engine.live_connections(), 1, "who answers stays");
}

#[test]
fn who_talks_is_sent_something_too() {
    let mut engine = start();
    let talker = support::join(&mut engine, at(0), "e");
    flush(&mut engine, at(0));
    let mut last = 0;
    for tick in 1..5 * INTERVAL_TICKS {
        engine.received(at(tick), talker, &mut PONG.to_vec());
        engine.tick(at(tick), 0);
        if !flush(&mut engine, at(tick)).is_empty() {
            last = tick;
        }
        assert!(tick - last <= INTERVAL_TICKS * 3 / 2, "nothing since tick {last}");
    }
}

#[test]
fn comments_are_traffic() {
    let mut engine = start();
    let viewers: Vec<Id> = (0..50).map(|_| support::join(&mut engine, at(0), "e")).collect();
    flush(&mut engine, at(0));
    for tick in 1..4 * INTERVAL_TICKS {
        // More often than a quarter of the interval, so that nobody needs a ping.
        if tick % 20 == 0 {
            support::post(&mut engine, at(tick), "e", "once more");
            assert_eq!(flush(&mut engine, at(tick)).len(), viewers.len());
        }
        engine.tick(at(tick), 0);
        assert_eq!(flush(&mut engine, at(tick)), [], "a ping nobody needs at tick {tick}");
    }
}

#[test]
fn who_is_dead_is_pinged_once_and_gone_after_two_intervals() {
    let mut engine = start();
    let viewers: Vec<Id> = (0..50).map(|_| support::join(&mut engine, at(0), "e")).collect();
    flush(&mut engine, at(0));
    let mut pinged = Vec::new();
    for tick in 1..=2 * INTERVAL_TICKS {
        engine.tick(at(tick), 0);
        pinged.extend(flush(&mut engine, at(tick)));
        let gone = viewers.len() - engine.live_connections() as usize;
        assert!(tick >= INTERVAL_TICKS || gone == 0, "{gone} are gone at tick {tick}");
        assert!(tick < INTERVAL_TICKS || pinged.len() == viewers.len(), "{}", pinged.len());
    }
    pinged.sort_unstable();
    assert_eq!((pinged, engine.live_connections()), (viewers, 0), "one ping each");
    assert_eq!(engine.report().counters.closes[CloseCause::Silent as usize], 50);
}
