//! What a node keeps when more is written than it may keep.

mod support;

use uproar_engine::control::{Reply, Request};
use uproar_engine::engine::Engine;
use uproar_engine::limits::Limits;

const ROOMS: u64 = 200;
const LOG_BYTES_MAX: u64 = 4 * 1024 * 1024;
const TEXT: &str = "two hundred bytes are what a comment has; this one makes up its length by going on for a while, and \
                    then for a while longer, until it has as many as the load generator's comments have";

/// Comments that the node still has of an event.
fn kept(engine: &mut Engine, event: &str) -> u64 {
    let request = Request::Event { event: event.parse().expect("a sound event") };
    let reply = engine.control(support::at(0), request);
    let Reply::Event { position, tail, .. } = reply else { panic!("{reply:?}") };
    position.offset + 1 - tail
}

#[test]
fn rooms_that_are_equally_busy_keep_about_as_much() {
    let limits = Limits {
        log_bytes_max: LOG_BYTES_MAX,
        room_log_bytes_max: LOG_BYTES_MAX,
        posts_per_sec_event: 0,
        ..Limits::default()
    };
    let mut engine = support::engine(limits, 0);
    // A viewer of each, so that both encodings are kept.
    for room in 0..ROOMS {
        support::join(&mut engine, support::at(0), &format!("e{room}"));
    }
    let mut fewest = u64::MAX;
    let mut sum = 0;
    for round in 0..300 {
        for room in 0..ROOMS {
            let event = format!("e{room}");
            support::post(&mut engine, support::at(round), &event, TEXT);
        }
        if round >= 150 {
            let each = (0..ROOMS).map(|room| kept(&mut engine, &format!("e{room}")));
            let each: Vec<u64> = each.collect();
            fewest = fewest.min(*each.iter().min().expect("there are rooms"));
            sum += each.iter().sum::<u64>();
        }
    }
    let mean = sum / 150 / ROOMS;
    assert!(mean >= 25, "{mean} comments a room are a waste of {LOG_BYTES_MAX} bytes");
    assert!(fewest * 3 >= mean * 2, "a room kept {fewest} comments, and the mean is {mean}");
}
