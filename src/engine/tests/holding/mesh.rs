//! Posts under way between two shards, and their answers.

use uproar_engine::engine::{Chunk, Engine, Output, Setup};
use uproar_engine::limits::Limits;
use uproar_engine::mesh::{MeshMessage, POSTS_AWAY_MAX};
use uproar_engine::table::Id;
use uproar_engine::time::{Now, TICK_US};

use crate::shard::{report, small, text};
use crate::support;

/// Sends all there is.
fn flush(engine: &mut Engine, now: Now) {
    let mut chunk = Chunk::default();
    while engine.has_work() {
        engine.next_chunk(now, &mut chunk);
        engine.settle(now, &mut chunk, &mut Vec::new(), 1);
    }
    while engine.poll_output().is_some() {}
}

/// Two shards: viewers are placed on the second, whose posts go to the first.
struct Pair {
    home: Engine,
    other: Engine,
    now: Now,
}

impl Pair {
    fn new() -> Self {
        let now = support::at(1_000_000 * TICK_US);
        let setup = |shard| {
            let limits = Limits { spread_subscribers_min: 0, ..small() };
            let node = "n".into();
            Setup { shard, shards: 2, node, seed: 3, limits, conformance_echo: false }
        };
        let [mut first, mut second] = [0, 1].map(|shard| Engine::new(setup(shard), now));
        if uproar_engine::placement::home_shard("e", 2) == 1 {
            std::mem::swap(&mut first, &mut second);
        }
        Self { home: first, other: second, now }
    }

    fn shard_of(engine: &mut Engine, now: Now) -> u32 {
        report(engine, now).shard
    }

    /// A viewer of the other shard; its request has gone to the home shard and come back.
    fn join(&mut self) -> Id {
        let (now, home) = (self.now, Self::shard_of(&mut self.home, self.now));
        let other = 1 - home;
        let id = support::join(&mut self.other, now, "e");
        let mut found = None;
        for (from, to, at) in [(other, home, true), (home, other, false)] {
            let (source, target) = if at {
                (&mut self.other, &mut self.home)
            } else {
                (&mut self.home, &mut self.other)
            };
            let mut moved = None;
            while let Some(output) = source.poll_output() {
                if let Output::Move { id, token, .. } = output {
                    moved = Some((id, token));
                }
            }
            let Some((id, token)) = moved else { break };
            source.moved(id);
            found = Some(target.arrived(now, token));
            while let Some(message) = source.poll_mesh(to) {
                target.receive_mesh(now, from, message);
            }
        }
        flush(&mut self.other, now);
        flush(&mut self.home, now);
        while let Some(message) = self.other.poll_mesh(home) {
            self.home.receive_mesh(now, other, message);
        }
        while let Some(message) = self.home.poll_mesh(other) {
            self.other.receive_mesh(now, home, message);
        }
        found.unwrap_or(id)
    }
}

#[test]
fn answers_between_shards_have_the_places_of_their_posts() {
    let mut pair = Pair::new();
    let floods: Vec<Id> = (0..60).map(|_| pair.join()).collect();
    let late = pair.join();
    let (now, home) = (pair.now, Pair::shard_of(&mut pair.home, pair.now));
    let other = 1 - home;
    let mut post = text(r#"{"type":"post","text":"x"}"#);
    let mut answers_waiting = 0;
    let mut worst = 0;
    // The home shard takes every post at once; its answers are not fetched.
    for _ in 0..50 {
        for id in &floods {
            if pair.other.may_read(*id) {
                pair.other.received(now, *id, &mut post.repeat(120));
            }
            flush(&mut pair.other, now);
            while let Some(message) = pair.other.poll_mesh(home) {
                answers_waiting += u32::from(matches!(message, MeshMessage::Post(_)));
                pair.home.receive_mesh(now, other, message);
            }
            worst = worst.max(answers_waiting);
        }
    }
    assert!(worst <= POSTS_AWAY_MAX, "{worst} answers wait for a link that takes none");
    assert!(worst > POSTS_AWAY_MAX / 2, "{worst}: and they could");
    // Whoever has nothing under way finds a place all the same.
    let refused = |engine: &mut Engine| {
        let counters = report(engine, now).counters;
        counters.posts_refused.iter().sum::<u64>()
    };
    let before = refused(&mut pair.other);
    assert!(before > 0, "the others were refused");
    pair.other.received(now, late, &mut post);
    assert_eq!(refused(&mut pair.other), before);
    // The answers come, and everybody may go on.
    for _ in 0..2 {
        while let Some(message) = pair.other.poll_mesh(home) {
            pair.home.receive_mesh(now, other, message);
        }
        while let Some(message) = pair.home.poll_mesh(other) {
            pair.other.receive_mesh(now, home, message);
        }
        flush(&mut pair.other, now);
    }
    assert!(floods.iter().all(|id| pair.other.may_read(*id)));
    pair.other.check();
    pair.home.check();
}
