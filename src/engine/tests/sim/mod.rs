//! The simulator: one seed decides sizes, faults and order; an oracle watches every step.
//!
//! A run is a few hundred random actions, each followed by some work of some shards and viewers;
//! then calm, in which everything announced must arrive; then a drain, after which nothing may
//! be left. Virtual time and sockets, no thread, so a seed replays to the byte.

mod actions;
mod oracle;
mod plan;
mod socket;
mod viewer;
mod wire;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use uproar_engine::control::{PostRefusal, Reply, Request};
use uproar_engine::limits::Limits;
use uproar_engine::log::Log;
use uproar_engine::page;
use uproar_engine::report::Refusal;

use viewer::Outcome;
use world::World;

/// The node's name in every run.
const NODE: &str = "sim";
/// Rounds of 100 ms until everything that was under way must have arrived: moves give up after
/// 2 s, the longest pause between passes is 250 ms.
const CALM_ROUNDS: u32 = 40;

fn event_name(event: usize) -> String {
    format!("e{event}")
}

/// What a run has covered, so that a set of seeds can be seen to reach what it is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Story {
    pub(crate) comments: u64,
    pub(crate) gaps: u64,
    pub(crate) recovered: u64,
    pub(crate) short_writes: u64,
    pub(crate) moves: u64,
    pub(crate) replicas_seen: u64,
    pub(crate) log_evictions: u64,
    pub(crate) deduplicated: u64,
    pub(crate) overloaded: u64,
    pub(crate) lingers: u64,
    pub(crate) lingers_cut: u64,
    pub(crate) reads_paused: u64,
    /// Upgrades without a place for their address; requests given up because it had too many, or the shard.
    pub(crate) places_refused: u64,
    pub(crate) unfinished_shed: u64,
    /// By budget: answers, unfinished messages, request heads.
    pub(crate) given_up: [u64; 3],
    pub(crate) outcomes: BTreeMap<Outcome, u64>,
}

impl Story {
    pub(crate) fn add(&mut self, other: &Self) {
        self.comments += other.comments;
        self.gaps += other.gaps;
        self.recovered += other.recovered;
        self.short_writes += other.short_writes;
        self.moves += other.moves;
        self.replicas_seen += other.replicas_seen;
        self.log_evictions += other.log_evictions;
        self.deduplicated += other.deduplicated;
        self.overloaded += other.overloaded;
        self.lingers += other.lingers;
        self.lingers_cut += other.lingers_cut;
        self.reads_paused += other.reads_paused;
        self.places_refused += other.places_refused;
        self.unfinished_shed += other.unfinished_shed;
        for (sum, given_up) in self.given_up.iter_mut().zip(other.given_up) {
            *sum += given_up;
        }
        for (outcome, count) in &other.outcomes {
            *self.outcomes.entry(*outcome).or_default() += count;
        }
    }
}

/// Runs `seed` to its end. `step` is kept up to date for whoever reports a failure.
pub(crate) fn run(seed: u64, step: &mut u32) -> Story {
    let mut world = World::new(seed);
    let mut replicas_seen = 0;
    for at in 0..world.plan.steps {
        *step = at;
        actions::act(&mut world);
        let us = world.random.below(4_000);
        world.pass_us(us.into());
        some_work(&mut world);
        world.check();
        if at % 64 == 0 {
            replicas_seen += reports(&mut world).iter().map(|report| report.replicas).sum::<u64>();
        }
        // Calm in the middle of a run, too: what follows starts from a known state.
        if world.one_in(150) {
            calm(&mut world);
        }
    }
    *step = world.plan.steps;
    calm(&mut world);
    let reports = reports(&mut world);
    let sum = |of: fn(&uproar_engine::report::Report) -> u64| reports.iter().map(of).sum();
    let mut story = Story {
        comments: world.oracle.comments,
        gaps: world.oracle.gaps,
        recovered: world.oracle.recovered,
        short_writes: world.short_writes,
        moves: world.moved,
        replicas_seen,
        log_evictions: sum(|report| report.counters.log_evictions),
        deduplicated: sum(|report| report.counters.posts_deduplicated),
        overloaded: sum(|report| report.counters.posts_refused[PostRefusal::Overloaded as usize]),
        lingers: sum(|report| report.counters.lingers),
        lingers_cut: sum(|report| report.counters.lingers_cut.iter().sum()),
        reads_paused: sum(|report| report.counters.reads_paused),
        places_refused: world.refused_places,
        unfinished_shed: sum(|report| {
            let refused = |reason| report.counters.refusals[reason as usize];
            refused(Refusal::AddressUnfinished) + refused(Refusal::HandshakesFull)
        }),
        given_up: [0, 1, 2]
            .map(|budget| reports.iter().map(|report| report.counters.budget_hits[budget]).sum()),
        outcomes: BTreeMap::new(),
    };
    let [_, unfinished, heads] = story.given_up;
    assert!(unfinished <= world.dangling && heads <= world.half_heads, "only who holds most goes");
    finish(&mut world);
    for viewer in &world.viewers {
        let viewer::State::Over(outcome) = viewer.state else {
            panic!("not over: {:?}", viewer.state)
        };
        *story.outcomes.entry(outcome).or_default() += 1;
    }
    story
}

fn some_work(world: &mut World) {
    world.move_sockets();
    for _ in 0..1 + world.random.below(3) {
        let shard = world.random.below(world.plan.shards) as usize;
        world.turn(shard);
    }
    for index in 0..world.viewers.len() {
        if !world.viewers[index].is_stalled && !world.viewers[index].is_over() && world.one_in(3) {
            let most =
                if world.one_in(2) { usize::MAX } else { 1 + world.random.below(500) as usize };
            world.view(index, most);
        }
    }
}

/// Faults end, everybody reads, time passes: now every live viewer has everything.
fn calm(world: &mut World) {
    world.is_calm = true;
    let open = world.viewers.iter().filter(|viewer| !viewer.is_over());
    let watched: BTreeSet<usize> = open.map(|viewer| viewer.ask.event).collect();
    for viewer in &mut world.viewers {
        viewer.is_stalled = false;
    }
    for shard in &mut world.shards {
        shard.stalled_until_us = 0;
    }
    for _ in 0..CALM_ROUNDS {
        world.pass_us(100_000);
        // A blocked socket, its reader and its writer need a few turns to get through a log.
        for _ in 0..40 {
            let before = world.oracle.comments;
            actions::round(world);
            let is_heard = world.unheard().is_none();
            if world.oracle.comments == before && world.is_mesh_empty() && is_heard {
                break;
            }
        }
        world.check();
    }
    assert!(world.is_mesh_empty(), "the mesh comes to rest");
    assert!(world.unheard().is_none(), "reading goes on: {:?}", world.unheard());
    world.check_no_place_is_lost();
    no_room_is_kept_for_nothing(world, &watched);
    everything_arrived(world);
    world.is_calm = false;
}

/// Each event by its home shard: REST shows the comments that viewers saw, and viewers are at the head.
fn everything_arrived(world: &mut World) {
    for event in 0..(world.plan.events + world.plan.made_up) as usize {
        let watching = world.viewers.iter().filter(|v| v.ask.event == event && v.is_watching());
        let watching = watching.count();
        let name: uproar_engine::ids::EventId = event_name(event).parse().expect("sound");
        let reply = actions::ask_home(world, event, Request::Event { event: name.clone() });
        let Reply::Event { viewers, position, tail } = reply else {
            assert_eq!(watching, 0, "somebody watches an event that is not there");
            continue;
        };
        assert_eq!(viewers as usize, watching, "the home shard counts the viewers of {name}");
        for viewer in &world.viewers {
            if viewer.ask.event == event && viewer.is_watching() {
                let at = (viewer.epoch, viewer.next);
                assert_eq!(
                    at,
                    (position.epoch, position.offset + 1),
                    "nothing is lost: {:?}",
                    viewer.ask
                );
                assert_eq!(viewer.pending.keys().next(), None, "every post is answered");
                assert_eq!(viewer.asked, 0, "every ping is answered");
            }
        }
        let request = Request::Follow { event: name };
        let Reply::Followed { log, .. } = actions::ask_home(world, event, request) else {
            panic!("an event that is there has a log")
        };
        let mut json = b"[".to_vec();
        if let Some(grant) = log.and_then(|log| log.upgrade()) {
            let log = Log::follow(&grant);
            page::write(&log, page::offsets(&log, u32::MAX, None), &mut json);
        }
        json.push(b']');
        let comments: Vec<serde_json::Value> =
            serde_json::from_slice(&json).expect("a page is JSON");
        assert_eq!(comments.len() as u64, position.offset + 1 - tail);
        for (value, offset) in comments.iter().rev().zip((1..=position.offset).rev()) {
            let (found, seen) = wire::comment_of(value);
            assert_eq!(found, offset, "a page is dense");
            world.oracle.comment(event, position.epoch, offset, &seen);
        }
    }
}

/// Who named an event, wrote nothing and left before the calm has left nothing: it takes longer than an empty room may.
fn no_room_is_kept_for_nothing(world: &mut World, watched: &BTreeSet<usize>) {
    let limit = world.plan.limits.rooms_max.div_ceil(world.plan.shards);
    for report in reports(world) {
        assert!(report.rooms <= limit.into(), "{} rooms are more than {limit}", report.rooms);
    }
    let made_up = world.plan.events..world.plan.events + world.plan.made_up;
    for event in made_up.map(|event| event as usize).filter(|event| !watched.contains(event)) {
        let name: uproar_engine::ids::EventId = event_name(event).parse().expect("sound");
        let reply = actions::ask_home(world, event, Request::Event { event: name });
        if let Reply::Event { position, .. } = reply {
            assert!(position.offset > 0, "an empty room nobody watches is kept");
        }
    }
}

fn reports(world: &mut World) -> Vec<uproar_engine::report::Report> {
    let now = world.now;
    let ask =
        |engine: &mut uproar_engine::engine::Engine| match engine.control(now, Request::Report) {
            Reply::Report(report) => *report,
            reply => panic!("{reply:?}"),
        };
    world.shards.iter_mut().map(|shard| ask(&mut shard.engine)).collect()
}

/// A drain, its deadline, the time after which rooms are forgotten: nothing is left.
fn finish(world: &mut World) {
    world.is_calm = true;
    for shard in 0..world.shards.len() {
        let reply = world.shards[shard]
            .engine
            .control(world.now, Request::Drain { number: 0, spread_ms: 900 });
        assert!(matches!(reply, Reply::Done));
        world.obey(shard);
    }
    let Limits { handshake_ms_max, close_ms_max, room_idle_ms_max, .. } = world.plan.limits;
    // A room is looked at once a period, so it may last for two.
    let longest = handshake_ms_max + close_ms_max + 2 * room_idle_ms_max + 3_000;
    for _ in 0..longest.div_ceil(100) + 2 {
        world.pass_us(100_000);
        actions::round(world);
    }
    world.check();
    for shard in &world.shards {
        shard.engine.check_empty();
    }
    assert_eq!(world.live, 0);
    assert!(world.places.values().all(|&taken| taken == 0), "places are given back");
    for report in reports(world) {
        assert_eq!((report.rooms, report.replicas), (0, 0), "empty rooms are forgotten");
        assert_eq!((report.log_bytes, report.connections, report.handshakes), (0, 0, 0));
        let closed: u64 = report.counters.closes.iter().sum();
        assert_eq!(report.counters.upgrades, closed, "what was upgraded has ended, once");
    }
}
