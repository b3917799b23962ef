//! Whole shards over the double of the kernel. Afterwards the books are exact, and at no time is a slot free that
//! something still refers to. A failure prints its seed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use tokio::sync::mpsc;
use uproar_engine::limits::Limits;
use uproar_engine::random::Random;
use uproar_ring::Wake;

use super::Double;
use super::host::{FAULTS, Host};
use crate::link::Handover;
use crate::shard::driver::{Driver, Start};
use crate::shard::mesh::{Door, Neighbour, Node};
use crate::shard::queue::mesh_of;

const SLOTS: u32 = 60;
/// Turns until everything is over: moves are given up after 2 s, and a turn is 100 ms then.
const CALM_TURNS_MAX: u32 = 2_000;

/// The shards of a node whose kernel is the double, and who takes its plain HTTP.
struct Shards {
    drivers: Vec<Driver<Double>>,
    host: Rc<RefCell<Host>>,
    _handovers: mpsc::Receiver<Handover>,
}

impl Shards {
    fn new(seed: u64, count: usize) -> Self {
        let (handovers, taker) = mpsc::channel(4);
        let host = Host::new(count, SLOTS as usize);
        let wakes: Vec<Wake> = (0..count).map(|_| Wake::new().expect("an eventfd")).collect();
        let neighbour = |(number, wake): (usize, &Wake)| {
            let door = Door { address: number, free: SLOTS.into() };
            Neighbour { doors: vec![door], waker: wake.waker() }
        };
        let neighbours = Arc::new(wakes.iter().enumerate().map(neighbour).collect());
        let links = mesh_of(count, 16);
        let node = Arc::new(Node::default());
        let limits = Limits {
            close_ms_max: 1_000,
            handshake_ms_max: 2_000,
            keepalive_ms: 3_000,
            spread_subscribers_min: 3,
            ..Limits::default()
        };
        let started = Instant::now();
        let driver = |(shard, wake): (usize, Wake)| {
            let start = Start {
                shard,
                cpu: 0,
                node_name: "double".to_owned(),
                limits: limits.clone(),
                stalls_after: None,
                panics_after: None,
                conformance_echo: false,
                slots_per_ring: SLOTS,
                listeners: vec![TcpListener::bind("127.0.0.1:0").expect("a port")],
                has_ended_accepting: Arc::default(),
                jobs: Arc::new(ArrayQueue::new(1)),
                handovers: handovers.clone(),
                node: Arc::clone(&node),
                inbox: links.iter().map(|row| Arc::clone(&row[shard])).collect(),
                outbox: links[shard].clone(),
                started,
            };
            let ring = Double::new(seed << 8 | shard as u64, shard, &host);
            Driver::new(start, vec![ring], wake, Arc::clone(&neighbours))
        };
        let drivers = wakes.into_iter().enumerate().map(driver).collect();
        Self { drivers, host, _handovers: taker }
    }

    /// A turn of those shards that do not stand still, this much later than the last.
    fn turn_after(&mut self, time: Duration, stands_still: impl Fn(usize) -> bool) {
        for driver in &mut self.drivers {
            driver.started =
                driver.started.checked_sub(time).expect("the host is up for that long");
        }
        for (number, driver) in self.drivers.iter_mut().enumerate() {
            if !stands_still(number) {
                driver.turn();
            }
        }
    }

    /// Every file that a shard knows of and something refers to is in a slot that it counts.
    fn check(&self, at: &str) {
        for driver in &self.drivers {
            // What has been taken out of the ring and not been handled yet is in neither book.
            if driver.input.has_taken() {
                continue;
            }
            let (_, used) = driver.sockets.slots();
            let alive = driver.sockets.rings[0].alive();
            assert!(used >= alive as u64, "{at}: {alive} live in {used} slots");
        }
    }

    fn is_at_rest(&self) -> bool {
        self.drivers.iter().all(|driver| {
            driver.sockets.slots().1 == 0
                && driver.sockets.closing() == 0
                && !driver.sockets.rings[0].has_unseen()
        })
    }

    /// Faults end and everybody leaves; then nothing is left, in no book.
    fn come_to_rest(&mut self, at: &str) {
        for driver in &mut self.drivers {
            driver.sockets.rings[0].is_calm = true;
        }
        let mut turns = 0;
        while !self.is_at_rest() {
            self.turn_after(Duration::from_millis(100), |_| false);
            turns += 1;
            let closing = || self.drivers.iter().map(|driver| &driver.sockets.closing);
            assert!(
                turns < CALM_TURNS_MAX,
                "{at}: never free: {:?}",
                closing().collect::<Vec<_>>()
            );
        }
        for driver in &self.drivers {
            let ring = &driver.sockets.rings[0];
            assert_eq!((ring.alive(), ring.polls(), driver.sockets.polls), (0, 0, 0), "{at}");
            assert!(ring.buffers.is_empty(), "{at}: a buffer is never given back");
            assert_eq!(driver.node.connections.load(Relaxed), 0, "{at}");
            assert_eq!(driver.engine.live_connections(), 0, "{at}");
            driver.engine.check();
        }
        let left = self.host.borrow().tables.iter().map(BTreeMap::len).sum::<usize>();
        assert_eq!(left, 0, "{at}: files that nobody closes");
    }
}

/// What a set of seeds has reached.
#[derive(Debug, Default)]
struct Reached {
    sockets: usize,
    cancels_refused: u64,
    moves: u64,
    replicas: u64,
    faults: BTreeMap<&'static str, u64>,
}

fn run(seed: u64, shards: usize, reached: &mut Reached) {
    let mut node = Shards::new(seed, shards);
    let mut random = Random::new(seed);
    // One stands still for longer than the halves of a move wait for each other.
    let mut still = (0, 0);
    for step in 0..400 {
        if shards > 1 && random.below(100) == 0 {
            still = (random.below(shards as u32) as usize, step + random.below(150));
        }
        node.turn_after(Duration::from_millis(30), |number| still.0 == number && step < still.1);
        node.check(&format!("seed {seed} step {step}"));
    }
    reached.replicas += node.drivers.iter().map(|d| d.engine.report().replicas).sum::<u64>();
    node.come_to_rest(&format!("seed {seed}"));
    for driver in &node.drivers {
        reached.sockets += driver.sockets.rings[0].seen.len();
        reached.cancels_refused += driver.sockets.books.counts()[1];
        reached.moves += driver.engine.report().counters.moves;
    }
    for (fault, count) in &node.host.borrow().faults {
        *reached.faults.entry(fault).or_default() += count;
    }
}

#[test]
fn whatever_the_kernel_answers_no_slot_is_lost_and_none_is_freed_early() {
    let mut reached = Reached::default();
    for seed in 0..40 {
        run(seed, 1, &mut reached);
    }
    for seed in 40..80 {
        run(seed, 2, &mut reached);
    }
    assert!(reached.sockets > 2_000 && reached.cancels_refused > 30, "too little: {reached:#?}");
    assert!(reached.moves > 200 && reached.replicas > 5, "too little: {reached:#?}");
    assert_eq!(reached.faults.keys().copied().collect::<Vec<_>>(), FAULTS, "each is injected");
    for (fault, count) in &reached.faults {
        assert!(*count >= 20, "{fault} only {count} times: {reached:#?}");
    }
}
