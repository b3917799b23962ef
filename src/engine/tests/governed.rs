//! The engine under its own governor on a virtual core: each send costs what the kernel takes
//! for one, and the pauses between passes must bring the core to its target and leave small
//! rooms alone.

mod support;

use std::collections::BTreeSet;

use uproar_engine::engine::{Chunk, Engine};
use uproar_engine::limits::Limits;
use uproar_engine::table::Id;
use uproar_engine::time::{Now, TICK_US};

/// What the kernel's TCP path costs, whatever the size of the send.
const SEND_US: u64 = 5;

/// A shard whose core does nothing but send.
struct Core {
    engine: Engine,
    chunk: Chunk,
    now_us: u64,
    busy_us: u64,
    /// Connections of the small room, and those that wait for its newest comment.
    small: BTreeSet<Id>,
    waiting: BTreeSet<Id>,
    posted_us: u64,
    latencies_us: Vec<u64>,
}

impl Core {
    fn new() -> Self {
        let limits = Limits { posts_per_sec_event: 0, ..Limits::default() };
        let now_us = 10 * TICK_US;
        Self {
            engine: support::engine(limits, now_us),
            chunk: Chunk::default(),
            now_us,
            busy_us: 0,
            small: BTreeSet::new(),
            waiting: BTreeSet::new(),
            posted_us: 0,
            latencies_us: Vec::new(),
        }
    }

    fn now(&self) -> Now {
        support::at(self.now_us)
    }

    fn join(&mut self, event: &str) -> Id {
        let now = self.now();
        let id = support::join(&mut self.engine, now, event);
        while self.engine.has_work() {
            self.send();
        }
        id
    }

    fn post(&mut self, event: &str) {
        let now = self.now();
        support::post(&mut self.engine, now, event, "hello");
    }

    /// One chunk, all taken; the core is busy for as long as that takes.
    fn send(&mut self) {
        self.engine.next_chunk(self.now(), &mut self.chunk);
        let spent_us = self.chunk.deliveries.len() as u64 * SEND_US + 1;
        self.now_us += spent_us;
        self.busy_us += spent_us;
        for delivery in &self.chunk.deliveries {
            if self.waiting.remove(&delivery.id) && self.waiting.is_empty() {
                self.latencies_us.push(self.now_us - self.posted_us);
            }
        }
        let now = self.now();
        self.engine.settle(now, &mut self.chunk, &mut Vec::new(), spent_us);
        while self.engine.poll_output().is_some() {}
    }

    /// Runs for `seconds` with comments into the hot room every `hot_us` and into the small one
    /// every 50 ms; returns the busy share of the last second.
    fn run(&mut self, seconds: u64, hot_us: u64) -> f64 {
        let end_us = self.now_us + seconds * 1_000_000;
        let (mut hot_due, mut small_due) = (self.now_us, self.now_us + 7);
        let mut tick_due = self.now_us / TICK_US * TICK_US + TICK_US;
        let (mut busy_at_tick, mut busy_at_last) = (self.busy_us, None);
        while self.now_us < end_us {
            if self.now_us >= end_us - 1_000_000 {
                busy_at_last.get_or_insert(self.busy_us);
            }
            while hot_due <= self.now_us {
                self.post("hot");
                hot_due += hot_us;
            }
            if small_due <= self.now_us && self.waiting.is_empty() {
                self.post("small");
                (self.waiting, self.posted_us) = (self.small.clone(), small_due);
                small_due += 50_000;
            }
            if tick_due <= self.now_us {
                // A late tick sees the share of the time that really passed.
                let share =
                    (self.busy_us - busy_at_tick) * 1_000 / (self.now_us - tick_due + TICK_US);
                let now = self.now();
                self.engine.tick(now, share.min(1_000) as u32);
                busy_at_tick = self.busy_us;
                tick_due = self.now_us / TICK_US * TICK_US + TICK_US;
            }
            if self.engine.has_work() || self.engine.due_us(self.now()) <= self.now_us {
                self.send();
            } else {
                let next = [hot_due, small_due, tick_due, self.engine.due_us(self.now())];
                let next = next.into_iter().min().expect("four instants");
                self.now_us = next.max(self.now_us + 1);
            }
        }
        (self.busy_us - busy_at_last.expect("the last second was reached")) as f64 / 1e6
    }
}

#[test]
fn a_hot_room_is_held_at_the_target_and_a_small_one_does_not_wait_for_it() {
    // A pass over the hot room takes 10 ms, so 200 comments a second would need two cores.
    let mut core = Core::new();
    for _ in 0..2_000 {
        core.join("hot");
    }
    core.small = (0..20).map(|_| core.join("small")).collect();
    let busy = core.run(6, 5_000);
    assert!((0.60..=0.75).contains(&busy), "five seconds after the step: {busy}");
    core.latencies_us.clear();
    let busy = core.run(4, 5_000);
    assert!((0.60..=0.75).contains(&busy), "it stays there: {busy}");
    core.latencies_us.sort_unstable();
    let p99 = core.latencies_us[core.latencies_us.len() * 99 / 100];
    assert!(core.latencies_us.len() > 60, "the small room was served");
    assert!(p99 < 20_000, "a small room beside a hot one waits {p99} µs");
}

#[test]
fn a_core_below_its_target_never_pauses() {
    let mut core = Core::new();
    for _ in 0..2_000 {
        core.join("hot");
    }
    core.small = (0..20).map(|_| core.join("small")).collect();
    // Ten passes a second are 10 % of the core.
    let busy = core.run(4, 100_000);
    assert!((0.09..0.13).contains(&busy), "{busy}");
    let worst = core.latencies_us.iter().max().expect("the small room was served");
    assert!(*worst < 12_000, "{worst} µs: no more than a pass over the hot room");
}
