//! Limits that change while rooms and connections are there: what SIGHUP does to an engine.

mod support;

use uproar_engine::control::{Reply, Request};
use uproar_engine::engine::{Chunk, Engine, Source};
use uproar_engine::limits::Limits;
use uproar_engine::report::Report;
use uproar_engine::time::{Now, TICK_US};

/// One shard whose sockets take everything at once.
struct Shard {
    engine: Engine,
    chunk: Chunk,
    now_us: u64,
}

impl Shard {
    fn new(limits: Limits) -> Self {
        // Silences may be taken to have begun before a connection came.
        let now_us = 1_000_000 * TICK_US;
        Self { engine: support::engine(limits, now_us), chunk: Chunk::default(), now_us }
    }

    fn now(&self) -> Now {
        support::at(self.now_us)
    }

    fn join(&mut self, event: &str) {
        let now = self.now();
        support::join(&mut self.engine, now, event);
        self.flush();
    }

    fn post(&mut self, event: &str) {
        let now = self.now();
        support::post(&mut self.engine, now, event, "hello");
    }

    fn reload(&mut self, limits: Limits) {
        let request = Request::Reload { generation: 1, limits: Box::new(limits) };
        let reply = self.engine.control(self.now(), request);
        assert!(matches!(reply, Reply::Done));
    }

    /// Sends all there is; how many private sends that were.
    fn flush(&mut self) -> usize {
        let mut private = 0;
        while self.engine.has_work() {
            self.engine.next_chunk(self.now(), &mut self.chunk);
            let sources = self.chunk.deliveries.iter().map(|delivery| delivery.source);
            private += sources.filter(|source| matches!(source, Source::Private { .. })).count();
            self.engine.settle(self.now(), &mut self.chunk, &mut Vec::new(), 1);
        }
        while self.engine.poll_output().is_some() {}
        private
    }

    /// The next tick; how many private sends it led to.
    fn tick(&mut self) -> usize {
        self.now_us += TICK_US;
        self.engine.tick(self.now(), 0);
        self.flush()
    }

    fn report(&mut self) -> Report {
        let reply = self.engine.control(self.now(), Request::Report);
        let Reply::Report(report) = reply else { panic!("{reply:?}") };
        *report
    }
}

/// A viewer that keeps up goes on keeping up when the room's log becomes smaller under it.
fn loses_nothing(posts_before: u32, smaller: impl FnOnce(Limits) -> Limits) {
    let limits = Limits { posts_per_sec_event: 0, ..Limits::default() };
    let mut shard = Shard::new(limits.clone());
    shard.join("e");
    (0..posts_before).for_each(|_| shard.post("e"));
    shard.flush();
    shard.reload(smaller(limits));
    for _ in 0..2_000 {
        shard.post("e");
        shard.flush();
    }
    assert_eq!(shard.report().counters.gap_comments, [0, 0], "every viewer keeps up");
}

#[test]
fn a_smaller_room_log_loses_nothing_that_was_not_sent() {
    loses_nothing(500, |limits| Limits {
        room_log_frames_max: 16,
        history_frames: 16,
        history_frames_max: 16,
        ..limits
    });
    loses_nothing(2_000, |limits| Limits { room_log_bytes_max: 65_536, ..limits });
}

#[test]
fn a_shorter_life_of_idle_rooms_holds_for_rooms_that_are_idle_already() {
    let limits = Limits { room_idle_ms_max: 300_000, ..Limits::default() };
    let mut shard = Shard::new(limits.clone());
    shard.post("old");
    shard.tick();
    shard.reload(Limits { room_idle_ms_max: 1_000, ..limits });
    shard.post("new");
    (0..50).for_each(|_| _ = shard.tick());
    assert_eq!(shard.report().rooms, 0, "5 s later both are forgotten");
}

#[test]
fn pings_stay_spread_after_a_comment_that_all_have_seen() {
    let limits = Limits { keepalive_ms: 10_000, ..Limits::default() };
    let mut shard = Shard::new(limits);
    (0..1_000).for_each(|_| shard.join("e"));
    shard.post("e");
    shard.flush();
    let most = (0..101).map(|_| shard.tick()).max();
    assert!(most < Some(200), "{most:?} of 1,000 connections are pinged in one tick");
}

#[test]
fn keepalive_that_is_switched_on_reaches_connections_without_a_deadline() {
    let limits = Limits { keepalive_ms: 0, ..Limits::default() };
    let mut shard = Shard::new(limits.clone());
    (0..20).for_each(|_| shard.join("e"));
    assert_eq!((0..300).map(|_| shard.tick()).sum::<usize>(), 0, "0 is no keepalive");
    shard.reload(Limits { keepalive_ms: 10_000, ..limits });
    // Overdue pings are spread over a few seconds; nobody answers them.
    assert_eq!((0..60).map(|_| shard.tick()).sum::<usize>(), 20, "each is pinged once");
    (0..100).for_each(|_| _ = shard.tick());
    assert_eq!(shard.engine.live_connections(), 0, "and given up after another interval");
}
