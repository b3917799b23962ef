//! The shard's one task: turn the rings, step the engine, send the next chunk, sleep.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crossbeam::queue::ArrayQueue;
use tokio::sync::mpsc;
use uproar_engine::engine::{Chunk, Engine, Setup};
use uproar_engine::limits::Limits;
use uproar_engine::report::Shell;
use uproar_engine::table::Id;
use uproar_engine::time::{Now, TICK_US};
use uproar_ring::{Ring, Wake};

use crate::link::{Handover, Job};
use crate::shard::accepting::Accepting;
use crate::shard::books::Line;
use crate::shard::handing::Leaver;
use crate::shard::input::Input;
use crate::shard::kernel::Kernel;
use crate::shard::load::{Load, Spent};
use crate::shard::mesh::{Neighbour, Node};
use crate::shard::queue::Link;
use crate::shard::sockets::Sockets;

/// Ticks from one return of freed memory to the kernel to the next: 5 s.
const GIVE_BACK_TICKS: u32 = 50;
/// A turn that takes this long, or a sleep that ends this much late, has been kept from its core.
const STALL_US_MIN: u64 = 100_000;
/// Sleeps shorter than this are not worth a timer.
const NAP_US_MIN: u64 = 50;

/// What a shard is given to start with.
pub(super) struct Start {
    pub(super) shard: usize,
    pub(super) cpu: usize,
    pub(super) node_name: String,
    pub(super) limits: Limits,
    /// For tests: stop turning after this time.
    pub(super) stalls_after: Option<Duration>,
    /// For tests: crash after this time.
    pub(super) panics_after: Option<Duration>,
    pub(super) conformance_echo: bool,
    pub(super) slots_per_ring: u32,
    pub(super) listeners: Vec<TcpListener>,
    pub(super) has_ended_accepting: Arc<AtomicBool>,
    pub(super) jobs: Arc<ArrayQueue<Job>>,
    pub(super) handovers: mpsc::Sender<Handover>,
    pub(super) node: Arc<Node>,
    /// By sending shard.
    pub(super) inbox: Vec<Link>,
    /// By receiving shard.
    pub(super) outbox: Vec<Link>,
    pub(super) started: Instant,
}

/// The state of a running shard.
pub(super) struct Driver<K: Kernel = Ring> {
    pub(super) shard: usize,
    pub(super) engine: Engine,
    pub(super) sockets: Sockets<K>,
    pub(super) accepting: Accepting,
    /// Sockets on their way to the control plane, by connection id.
    pub(super) leavers: HashMap<Id, Leaver>,
    pub(super) handovers: mpsc::Sender<Handover>,
    pub(super) neighbours: Arc<Vec<Neighbour<K::Address>>>,
    pub(super) node: Arc<Node>,
    /// Of which addresses connections have a place, by their index.
    pub(super) addresses: HashMap<u32, IpAddr>,
    pub(super) shell: Shell,
    pub(super) handover_line: Line,
    pub(super) move_line: Line,
    timer_line: Line,
    pub(super) chunk: Chunk,
    pub(super) input: Input<K::Buffer>,
    wake: Wake,
    pub(super) jobs: Arc<ArrayQueue<Job>>,
    pub(super) inbox: Vec<Link>,
    outbox: Vec<Link>,
    load: Load,
    pub(super) started: Instant,
    slept_us: u64,
    /// When the present turn began, and how much the shard had slept by then.
    turned: (u64, u64),
    /// For tests: when the shard stops turning; `u64::MAX`: never.
    stall_us: u64,
    /// For tests: when the shard crashes; `u64::MAX`: never.
    panic_us: u64,
    next_tick_us: u64,
    /// When the earliest timer in flight fires; `u64::MAX`: there is none.
    timer_us: u64,
}

impl<K: Kernel> Driver<K> {
    pub(super) fn new(
        start: Start,
        rings: Vec<K>,
        wake: Wake,
        neighbours: Arc<Vec<Neighbour<K::Address>>>,
    ) -> Self {
        let now = clocks(start.started);
        let instant = |after: Option<Duration>| {
            after.map_or(u64::MAX, |after| now.mono_us + after.as_micros() as u64)
        };
        let setup = Setup {
            shard: start.shard as u32,
            shards: neighbours.len() as u32,
            node: start.node_name,
            // The standard library's hash keys are random; no other source is needed here.
            seed: RandomState::new().hash_one(start.shard),
            limits: start.limits,
            conformance_echo: start.conformance_echo,
        };
        let (slots, ring_count) = (start.slots_per_ring, rings.len());
        Self {
            shard: start.shard,
            engine: Engine::new(setup, now),
            sockets: Sockets::new(rings, slots),
            accepting: Accepting::new(start.listeners, ring_count, start.has_ended_accepting),
            leavers: HashMap::new(),
            handovers: start.handovers,
            neighbours,
            node: start.node,
            addresses: HashMap::new(),
            shell: Shell { cpu: start.cpu as u32, ..Shell::default() },
            handover_line: Line::default(),
            move_line: Line::default(),
            timer_line: Line::default(),
            chunk: Chunk::default(),
            input: Input::new(ring_count),
            wake,
            jobs: start.jobs,
            inbox: start.inbox,
            outbox: start.outbox,
            load: Load::new(start.cpu, now.mono_us),
            started: start.started,
            slept_us: 0,
            turned: (now.mono_us, 0),
            stall_us: instant(start.stalls_after),
            panic_us: instant(start.panics_after),
            next_tick_us: now.mono_us,
            timer_us: u64::MAX,
        }
    }

    /// Runs until the process ends. It blocks the thread when there is nothing to do, as nobody else has a
    /// claim on it.
    pub(super) fn run(mut self) {
        self.sockets.rings.iter_mut().for_each(K::mute);
        loop {
            if !self.turn() {
                self.sleep();
            }
        }
    }

    /// One turn. False when nothing is left to do but to wait.
    pub(super) fn turn(&mut self) -> bool {
        let now = clocks(self.started);
        self.begin_turn(now.mono_us);
        self.refill_accepts(now);
        let (mut has_worked, mono_us) = self.take_input(now);
        let now = Now { mono_us, ..now };
        self.tick(now);
        has_worked |= self.engine.step(now);
        self.do_outputs(now);
        has_worked |= self.flush(now);
        self.do_outputs(now);
        self.send_mail();
        has_worked || self.engine.has_work()
    }

    /// Notes how long the last turn took, without its sleep: a turn is short, whatever there is to do.
    fn begin_turn(&mut self, now_us: u64) {
        let (began_us, slept_us) = self.turned;
        let took_us = now_us - began_us - (self.slept_us - slept_us);
        self.note_stall(took_us);
        self.turned = (now_us, self.slept_us);
    }

    /// Counts what took `us` longer than planned, if that is long.
    fn note_stall(&mut self, us: u64) {
        if us >= STALL_US_MIN {
            self.shell.stalls += 1;
            self.shell.stall_us += us;
        }
    }

    fn send_mail(&mut self) {
        for (to, link) in self.outbox.iter().enumerate() {
            if to == self.shard || !self.engine.has_mail(to as u32) {
                continue;
            }
            let before = self.shell.mesh_sent;
            while !link.is_full() {
                let Some(message) = self.engine.poll_mesh(to as u32) else { break };
                // Nobody else pushes into this link, so the place that was free is still free.
                assert!(link.push(message).is_ok(), "the link to shard {to} had room");
                self.shell.mesh_sent += 1;
            }
            self.shell.mesh_full += u64::from(self.engine.has_mail(to as u32));
            if self.shell.mesh_sent > before {
                self.neighbours[to].waker.wake();
            }
        }
    }

    pub(super) fn shell_report(&self) -> Shell {
        let (slots, slots_used) = self.sockets.slots();
        let rings = &self.sockets.rings;
        Shell {
            cpu_us: self.load.cpu_us(),
            run_delay_us: self.load.run_delay_us(),
            busy_permille: self.load.busy().core_permille,
            fanout_permille: self.load.busy().fanout_permille,
            submits: rings.iter().map(K::submits).sum(),
            cq_overflows: rings.iter().map(K::overflows).sum(),
            accepts_in_flight: self.accepting.in_flight() as u64,
            accepts_failed: self.accepting.failures(),
            slots,
            slots_used,
            polls: self.sockets.polls,
            closing: self.sockets.closing(),
            closes_unsent: self.sockets.resets,
            contradictions: self.sockets.books.counts(),
            ..self.shell.clone()
        }
    }

    fn tick(&mut self, now: Now) {
        if now.mono_us < self.next_tick_us {
            return;
        }
        if now.mono_us >= self.stall_us {
            loop {
                std::thread::park();
            }
        }
        assert!(now.mono_us < self.panic_us, "shard {} was told to crash", self.shard);
        self.next_tick_us = (now.mono_us / TICK_US + 1) * TICK_US;
        self.sockets.look_after_closing();
        let spent = Spent { slept_us: self.slept_us, input_us: self.shell.input_us };
        let busy = self.load.sample(now.mono_us, spent);
        self.engine.tick(now, busy.fanout_permille);
        if self.sockets.ring_for_accept().is_none() {
            // Whoever waits in the backlog would wait for the slowest of those who have not said a word.
            self.engine.shed_handshakes(now);
            self.do_outputs(now);
        }
        if now.tick().is_multiple_of(GIVE_BACK_TICKS) {
            uproar_ring::give_back();
        }
        for (ring, door) in self.neighbours[self.shard].doors.iter().enumerate() {
            door.free.store(self.sockets.free(ring), Ordering::Relaxed);
        }
    }

    /// Sleeps until a completion, a message, a job or the engine's next deadline.
    fn sleep(&mut self) {
        self.wake.announce_sleep();
        self.sockets.rings.iter_mut().for_each(K::unmute);
        let now = clocks(self.started);
        let due_us = self.engine.due_us(now);
        if !self.has_mail_or_work() && due_us > now.mono_us + NAP_US_MIN {
            if self.timer_us > due_us || self.timer_us <= now.mono_us {
                let ring = &mut self.sockets.rings[0];
                ring.set_timer(Duration::from_micros(due_us - now.mono_us));
                ring.submit();
                self.timer_us = due_us;
            }
            // A failed sleep must not become a busy loop that nobody sees.
            self.wake.sleep_thread().expect("the eventfd of this shard can be read");
            self.shell.wakeups += 1;
            let woke_us = mono_us(self.started);
            self.slept_us += woke_us - now.mono_us;
            self.note_stall(woke_us.saturating_sub(due_us));
        }
        self.sockets.rings.iter_mut().for_each(K::mute);
        self.wake.announce_awake();
    }

    fn has_mail_or_work(&mut self) -> bool {
        self.sockets.has_wanting()
            || self.input.has_taken()
            || !self.jobs.is_empty()
            || self.inbox.iter().any(|link| !link.is_empty())
            || self.sockets.rings.iter_mut().any(K::has_work)
    }

    pub(super) fn timer_fired(&mut self, result: io::Result<()>) {
        self.timer_us = u64::MAX;
        let Err(error) = result else { return };
        self.shell.timers_failed += 1;
        if let Some(more) = self.timer_line.due() {
            tracing::warn!(
                %error, since_last_line = more,
                "the kernel did not set a timer; the shard stays awake until it does"
            );
        }
    }
}

/// Where the monotonic clock starts, in microseconds: a day in, so that tick 0 is never now and no silence
/// that is taken to have begun earlier (`keepalive_ms` is a day at most) begins before the clock.
const CLOCK_START_US: u64 = 86_400_000_000;

/// Reads both clocks.
pub(super) fn clocks(started: Instant) -> Now {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Now { mono_us: mono_us(started), wall_ms: wall.as_millis() as u64 }
}

/// Reads the monotonic clock, in microseconds.
pub(super) fn mono_us(started: Instant) -> u64 {
    started.elapsed().as_micros() as u64 + CLOCK_START_US
}
