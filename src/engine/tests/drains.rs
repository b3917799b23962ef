//! Drains of an engine: who is closed when, and what a drain that was undone leaves.

mod support;

use uproar_engine::control::{Reply, Request};
use uproar_engine::engine::{Chunk, Engine, drain_ms_min};
use uproar_engine::limits::Limits;
use uproar_engine::report::CloseCause;
use uproar_engine::time::TICK_US;

/// One shard whose sockets take everything at once.
struct Shard {
    engine: Engine,
    chunk: Chunk,
    now_us: u64,
}

impl Shard {
    fn with_viewers(count: u32) -> Self {
        let now_us = 1_000 * TICK_US;
        let engine = support::engine(Limits::default(), now_us);
        let mut shard = Self { engine, chunk: Chunk::default(), now_us };
        for viewer in 0..count {
            support::join(&mut shard.engine, support::at(now_us), &format!("e{}", viewer % 50));
        }
        shard.flush();
        shard
    }

    fn ask(&mut self, request: Request) {
        let reply = self.engine.control(support::at(self.now_us), request);
        assert!(matches!(reply, Reply::Done), "{reply:?}");
        self.flush();
    }

    fn drain(&mut self, number: u64, spread_ms: u32) {
        self.ask(Request::Drain { number, spread_ms });
    }

    fn flush(&mut self) {
        while self.engine.has_work() {
            self.engine.next_chunk(support::at(self.now_us), &mut self.chunk);
            self.engine.settle(support::at(self.now_us), &mut self.chunk, &mut Vec::new(), 1);
        }
        while self.engine.poll_output().is_some() {}
    }

    /// The next tick; how many were closed in it.
    fn tick(&mut self) -> u64 {
        let before = self.closing();
        self.now_us += TICK_US;
        self.engine.tick(support::at(self.now_us), 0);
        while self.engine.step(support::at(self.now_us)) {}
        self.flush();
        self.closing() - before
    }

    /// Who is being closed, or was: nobody here answers a close.
    fn closing(&self) -> u64 {
        let report = self.engine.report();
        report.counters.closes[CloseCause::Drain as usize] + report.lingering
    }
}

#[test]
fn a_drain_that_is_undone_leaves_nothing_to_the_next() {
    let mut shard = Shard::with_viewers(9_000);
    shard.drain(1, 5_000);
    // All have been told of an instant within five seconds.
    (0..3).for_each(|_| _ = shard.tick());
    let closed = shard.closing();
    shard.ask(Request::Undrain);
    support::post(&mut shard.engine, support::at(shard.now_us), "e0", "taken again");
    shard.flush();
    assert_eq!((0..10).map(|_| shard.tick()).sum::<u64>(), 0, "nobody is closed after that");
    assert_eq!(shard.closing(), closed);
    // Who is told of an instant of the next one only later is not closed at one of the first.
    shard.drain(2, 600_000);
    assert_eq!((0..2).map(|_| shard.tick()).sum::<u64>(), 0, "before all have been told");
    let closed: u64 = (0..100).map(|_| shard.tick()).sum();
    assert!((100..=160).contains(&closed), "{closed} of 9,000 in 10 s of 600 s");
}

#[test]
fn a_drain_that_is_asked_for_again_goes_on_and_another_begins_anew() {
    let mut shard = Shard::with_viewers(100);
    shard.drain(1, 10_000);
    let closed: u64 = (0..50)
        .map(|_| {
            shard.drain(1, 10_000);
            shard.tick()
        })
        .sum();
    assert!((45..=55).contains(&closed), "{closed} of 100 in half the time");
    assert_eq!(shard.engine.report().drain, Some(1));
    // Whoever missed that the first was undone begins with the second.
    shard.drain(2, 60_000);
    assert_eq!(shard.engine.report().drain, Some(2));
    let closed: u64 = (0..50).map(|_| shard.tick()).sum();
    assert!(closed <= 10, "{closed} in five seconds of sixty");
}

#[test]
fn closes_leave_at_the_rate_that_the_spread_was_made_for() {
    let connections = 9_000;
    let mut shard = Shard::with_viewers(connections);
    let spread_ms = drain_ms_min(connections.into(), 1_000);
    shard.drain(1, spread_ms as u32);
    let ticks: Vec<u64> = (0..spread_ms / 100 + 1).map(|_| shard.tick()).collect();
    let most = ticks.windows(10).map(|second| second.iter().sum::<u64>()).max();
    assert!(most <= Some(1_000), "{most:?} in a second");
    assert_eq!(ticks.iter().sum::<u64>(), u64::from(connections), "all are closed by then");
}
