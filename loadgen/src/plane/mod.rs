//! A plane: one glommio executor on one CPU that drives its share of the viewers.
//!
//! Sockets are made as ordinary descriptors, bound to a source address, and moved into a
//! ring's table of direct descriptors before they are connected, so neither RLIMIT_NOFILE nor
//! the 28,000 ephemeral ports of one address bound their number. A viewer's ring and slot
//! follow from its index. The executor's one task runs the loop (commands, due posts, connects,
//! completions) and sleeps with the whole thread, which costs one system call.
//!
//! Not here: what bytes mean (`crowd`), scenarios (`conductor`).

mod connecting;
mod crowd;
mod hearing;
mod outbox;
mod posting;
mod viewer;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::Duration;

use socket2::SockRef;
use uproar_ring::{Event, Key, Ring, RingConfig, Slot, Wake, Waker};

use crate::audience::Audience;
use crate::clock::now_ns;
use crate::command::{Answer, Command, Leave};
use crate::probe::cpus::CpuBooks;
use crate::scenario::Parameters;
use crate::schedule::Schedule;
use crate::sources::Sources;
use crate::tally::{PlaneUse, Tally, Window};
use crate::verify::{Holes, Posts, Recent};
use crate::wire::{Dialect, Reader};
use crowd::{Call, Crowd};
use outbox::Outbox;
use viewer::{Next, Phase, Role, Viewer};

/// Completions taken from a ring before the others and the schedule get their turn.
pub(crate) const EVENTS_PER_TURN: usize = 32;
/// Bytes of a provided buffer: a read that fills it is followed by another.
pub(crate) const BUFFER_BYTES: u32 = 4 * 1024;
/// All completions there are; a ring adds it to those it was handed.
const ALL_EVENTS: usize = usize::MAX / 2;
/// Provided buffers of a ring: twice the reads that one turn begins.
pub(crate) const BUFFERS: u16 = 64;
/// A failed connect is tried again this often, this long after.
const ATTEMPTS_MAX: u8 = 5;
const RETRY_NS: u64 = 500_000_000;
const _: () = assert!(BUFFERS as usize >= 2 * EVENTS_PER_TURN);

/// The longest sleep: connects are paced and slow readers turn at this grain.
const TICK_NS: u64 = 10_000_000;

/// A plane whose thread is busy naps (`nap_us`) when a turn has brought less than this, as a network card
/// holds its interrupts back for some tens of microseconds: waking for every frame would cost more than
/// reading it, and a sender on the same host pays for each wake as no remote viewer's server does.
/// Below that it wakes for every frame, as any epoll client would, so that light loads can be
/// compared with one.
pub(crate) const NAP_EVENTS_MIN: usize = 16;
/// From here on a thread counts as busy.
const BUSY_PERCENT: u64 = 25;
/// How often that is judged.
const PACE_NS: u64 = 50_000_000;

/// Everything a plane needs to know.
#[derive(Debug)]
pub(crate) struct PlanePlan {
    pub(crate) parameters: Parameters,
    pub(crate) dialect: Dialect,
    pub(crate) target: SocketAddr,
    pub(crate) sources: Sources,
    pub(crate) run: u16,
    /// This plane's number, and how many there are on all hosts.
    pub(crate) share: (u32, u32),
    /// The CPU it is pinned to.
    pub(crate) cpu: usize,
    /// Conductor's clock minus this host's, in nanoseconds.
    pub(crate) clock_offset_ns: i64,
    /// Direct descriptors a ring may have: RLIMIT_NOFILE.
    pub(crate) slots_per_ring: u32,
}

/// A ring and what waits to leave through it.
#[derive(Debug)]
struct Lane {
    ring: Ring,
    outbox: Outbox,
}

/// How busy the plane's thread is, judged every [`PACE_NS`].
#[derive(Debug, Default)]
struct Pace {
    tick_ns: u64,
    cpu_us: u64,
    is_busy: bool,
}

impl Pace {
    /// Whether the thread was busy in the last tick.
    fn is_busy(&mut self, now: u64) -> bool {
        let elapsed_ns = now.saturating_sub(self.tick_ns);
        if elapsed_ns >= PACE_NS {
            let cpu_us = crate::clock::thread_cpu_us();
            self.is_busy = (cpu_us - self.cpu_us) * 100_000 / elapsed_ns >= BUSY_PERCENT;
            (self.tick_ns, self.cpu_us) = (now, cpu_us);
        }
        self.is_busy
    }
}

/// A publisher among this plane's viewers.
#[derive(Debug)]
struct Publisher {
    viewer: u32,
    /// Its number in the whole run.
    number: u32,
    sequence: u32,
    /// Its part of the event's comments.
    share: f64,
    /// When comments were due that it could not post because it was away.
    deferred: Vec<u64>,
}

/// The state of the loop.
pub(crate) struct Plane {
    plan: PlanePlan,
    events: Arc<[String]>,
    lanes: Vec<Lane>,
    slots_per_lane: u32,
    crowd: Crowd,
    publishers: Vec<Publisher>,
    schedule: Schedule,
    /// Viewers waiting for their connect.
    wanting: VecDeque<u32>,
    /// Viewers whose connect failed, and when to try again.
    retries: VecDeque<(u64, u32)>,
    connects_in_flight: u32,
    /// When the pace of connects was last topped up, and how many it allows.
    pace_ns: u64,
    pace_allowance: f64,
    slow_turn: usize,
    slow: Vec<u32>,
    chance: crate::chance::Chance,
    timer_due_ns: u64,
    /// Whether the first lane's ring watches the eventfd.
    is_wake_watched: bool,
    calls: Vec<Call>,
    pace: Pace,
}

impl Plane {
    /// Builds the plane on its own thread. Fails in one sentence.
    pub(crate) fn new(plan: PlanePlan, wake: &Wake) -> std::io::Result<Self> {
        let parameters = &plan.parameters;
        let audience = Audience::new(parameters);
        let mut chance = crate::chance::Chance::new(parameters.seed ^ u64::from(plan.share.0 + 1));
        let numbers: HashMap<u32, u32> =
            audience.publishers.iter().zip(0u32..).map(|(&(viewer, _), n)| (viewer, n)).collect();
        let (share, shares) = plan.share;
        let mut mine: Vec<u32> =
            (0..parameters.viewers).filter(|viewer| viewer % shares == share).collect();
        // Publishers first, so that they can be connected alone.
        mine.sort_by_key(|viewer| !numbers.contains_key(viewer));
        let slow_share = parameters.slow_share;
        let viewers: Vec<Viewer> = mine
            .iter()
            .map(|&number| {
                let is_slow = chance.unit() < slow_share;
                let role = match numbers.contains_key(&number) {
                    true => Role::Publisher,
                    false if is_slow => Role::Slow,
                    false => Role::Watcher,
                };
                Viewer::new(number, audience.event_of[number as usize], role)
            })
            .collect();
        let indexed = || (0u32..).zip(&viewers);
        let counts = audience.publishers_of(parameters.events);
        let publishers: Vec<Publisher> = indexed()
            .filter(|(_, viewer)| viewer.role == Role::Publisher)
            .map(|(viewer, v)| Publisher {
                viewer,
                number: numbers[&v.number],
                sequence: 0,
                share: 1.0 / f64::from(counts[v.event as usize]),
                deferred: Vec::new(),
            })
            .collect();
        let ends = counts.iter().scan(0, |end, count| {
            *end += count;
            Some((*end - count, *end))
        });
        let publishers_of: Vec<(u32, u32)> = ends.collect();
        let slow = indexed().filter(|(_, v)| v.role == Role::Slow).map(|(i, _)| i).collect();
        let lanes_needed = (viewers.len() as u32).div_ceil(plan.slots_per_ring).max(1);
        let slots_per_lane = (viewers.len() as u32).div_ceil(lanes_needed).max(1);
        let config =
            RingConfig { slots: slots_per_lane, buffers: BUFFERS, buffer_bytes: BUFFER_BYTES };
        let lanes = (0..lanes_needed)
            .map(|_| Ok(Lane { ring: Ring::new(config, wake)?, outbox: Outbox::default() }))
            .collect::<std::io::Result<_>>()?;
        let places = (parameters.rate * 16.0).clamp(64.0, 4_096.0) as usize;
        let events = parameters.event_names();
        let crowd = Crowd {
            viewers,
            tally: Tally::new(),
            dialect: Dialect::Json,
            reader: Reader::new(parameters.comment_bytes as usize),
            heads: vec![0; events.len()],
            epochs: vec![0; events.len()],
            recents: events.iter().map(|_| Recent::new(places)).collect(),
            holes: Holes::default(),
            posts: Posts::new(audience.publishers.len()),
            publishers_of,
            found: Vec::new(),
            fragments: HashMap::new(),
            awaited: HashMap::new(),
            publisher_numbers: publishers.iter().map(|p| (p.viewer, p.number)).collect(),
            run: plan.run,
            started_ns: now_ns(),
        };
        let schedule = Schedule::new(parameters.arrivals, parameters.seed ^ 0x5eed);
        let mut plane = Self {
            events,
            lanes,
            slots_per_lane,
            crowd,
            publishers,
            schedule,
            wanting: VecDeque::new(),
            retries: VecDeque::new(),
            connects_in_flight: 0,
            pace_ns: now_ns(),
            pace_allowance: 0.0,
            slow_turn: 0,
            slow,
            chance,
            timer_due_ns: u64::MAX,
            is_wake_watched: false,
            calls: Vec::new(),
            pace: Pace::default(),
            plan,
        };
        plane.crowd.dialect = std::mem::replace(&mut plane.plan.dialect, Dialect::Json);
        Ok(plane)
    }

    /// Runs until told to quit or until the conductor is gone.
    pub(crate) fn run(
        mut self,
        wake: &Wake,
        commands: &Receiver<Command>,
        answers: &Sender<Answer>,
    ) {
        let mut batches: Vec<Vec<Event>> = self.lanes.iter().map(|_| Vec::new()).collect();
        loop {
            loop {
                match commands.try_recv() {
                    Ok(Command::Quit) | Err(TryRecvError::Disconnected) => return self.quit(),
                    Ok(command) => {
                        if let Some(answer) = self.command(command)
                            && answers.send(answer).is_err()
                        {
                            return self.quit();
                        }
                    }
                    Err(TryRecvError::Empty) => break,
                }
            }
            let now = self.now();
            self.post_due(now);
            self.connect_some(now);
            self.read_slowly(now);
            self.flush();
            for (lane, batch) in self.lanes.iter_mut().zip(&mut batches) {
                lane.ring.mute();
                lane.ring.turn(batch, EVENTS_PER_TURN);
            }
            let arrived: usize = batches.iter().map(Vec::len).sum();
            if arrived == 0 {
                if !self.nap(now) {
                    self.sleep(wake, now);
                }
                continue;
            }
            let now = self.now();
            for (batch, lane) in batches.iter_mut().zip(0..) {
                for event in batch.drain(..) {
                    self.event(lane, event, now);
                }
            }
            self.flush();
            if arrived < NAP_EVENTS_MIN {
                self.nap(now);
            }
        }
    }

    /// Naps, if the thread is busy enough for that; says whether.
    fn nap(&mut self, now: u64) -> bool {
        let nap = Duration::from_micros(self.plan.parameters.nap_us.into());
        let should_nap = !nap.is_zero() && self.pace.is_busy(now);
        if should_nap {
            std::thread::sleep(nap);
        }
        should_nap
    }

    /// Sleeps until a completion, a command or the next thing due.
    fn sleep(&mut self, wake: &Wake, now: u64) {
        let due = self.schedule.next_ns().unwrap_or(u64::MAX).min(now + TICK_NS);
        if due <= now {
            return;
        }
        let (first, others) = self.lanes.split_first_mut().expect("a plane has a ring");
        if self.timer_due_ns > due {
            first.ring.set_timer(Duration::from_nanos(due - now));
            self.timer_due_ns = due;
        }
        if !self.is_wake_watched {
            wake.drain();
            first.ring.watch_wake(wake);
            self.is_wake_watched = true;
        }
        wake.announce_sleep();
        let mut has_work = false;
        for lane in others {
            lane.ring.unmute();
            has_work |= lane.ring.has_work();
        }
        // A command sent before `announce_sleep` wrote no wake: the tick bounds its wait.
        if !has_work {
            first.ring.sleep();
        }
        wake.announce_awake();
    }

    /// Now, by the conductor's clock.
    fn now(&self) -> u64 {
        now_ns().saturating_add_signed(self.plan.clock_offset_ns)
    }

    fn place(&self, viewer: u32) -> (usize, Slot) {
        ((viewer / self.slots_per_lane) as usize, viewer % self.slots_per_lane)
    }

    fn key(&self, viewer: u32) -> Key {
        let generation = self.crowd.viewers[viewer as usize].generation;
        Key::new(u64::from(generation) << 32 | u64::from(viewer))
    }

    fn command(&mut self, command: Command) -> Option<Answer> {
        match command {
            Command::Connect { everyone } => {
                let count = if everyone { self.crowd.viewers.len() } else { self.publishers.len() };
                let away = |&i: &u32| {
                    let viewer = &self.crowd.viewers[i as usize];
                    viewer.phase == Phase::Away && viewer.attempts == 0
                };
                self.wanting = (0..count as u32).filter(away).collect();
                self.pace_ns = self.now();
            }
            Command::Rate { per_event, from_ns } => {
                let rates = self.publishers.iter().map(|publisher| per_event * publisher.share);
                self.schedule.restart(rates, from_ns);
            }
            Command::Window { from_ns, to_ns } => {
                self.crowd.tally.windows.push(Window::new(from_ns, to_ns));
            }
            // Time may stand still for the planes for a moment, but their schedule never goes back: what was due is due.
            Command::ClockOffset { ns } => self.plan.clock_offset_ns = ns,
            Command::Bounce { share, leave, publishers_too } => {
                self.bounce(share, leave, publishers_too);
            }
            Command::Collect => return Some(Answer::Tally(Box::new(self.numbers()))),
            Command::Heads => return Some(Answer::Heads(self.crowd.heads.clone())),
            Command::Judge { heads } => {
                let (behind, missing) = self.crowd.behind(&heads);
                self.crowd.tally.behind = behind;
                let mut tally = self.numbers();
                tally.counters.lost += missing;
                tally.missing = missing;
                (tally.unanswered, tally.unseen) = self.crowd.awaited();
                tally.underway = self.crowd.underway();
                return Some(Answer::Tally(Box::new(tally)));
            }
            Command::Quit => unreachable!("the loop ends on it"),
        }
        None
    }

    fn numbers(&mut self) -> Tally {
        let tally = &mut self.crowd.tally;
        tally.counters.checked = self.crowd.reader.checked;
        tally.planes = vec![PlaneUse {
            cpu: self.plan.cpu,
            cpu_us: crate::clock::thread_cpu_us(),
            waited_us: crate::clock::thread_waited_us(),
            books: CpuBooks::now(&[self.plan.cpu]),
        }];
        let numbers = tally.clone();
        tally.recent.reset();
        numbers
    }

    fn bounce(&mut self, share: f64, leave: Leave, publishers_too: bool) {
        for viewer in 0..self.crowd.viewers.len() as u32 {
            let v = &self.crowd.viewers[viewer as usize];
            let may_leave = v.phase == Phase::Live
                && (v.role == Role::Watcher || publishers_too && v.role == Role::Publisher);
            if !may_leave || self.chance.unit() >= share {
                continue;
            }
            let next = match leave {
                Leave::Stay => Next::Stay,
                Leave::Return => Next::Return,
                Leave::Resume => Next::Resume,
            };
            self.crowd.tally.counters.closed_by_plan += 1;
            self.end(viewer, next);
        }
    }

    /// Sends all that is queued.
    fn flush(&mut self) {
        let mut failed = Vec::new();
        for Lane { ring, outbox } in &mut self.lanes {
            let viewers = &self.crowd.viewers;
            outbox.flush(
                ring,
                |ring, viewer, slot| {
                    let generation = viewers[viewer as usize].generation;
                    let key = Key::new(u64::from(generation) << 32 | u64::from(viewer));
                    ring.await_writable(slot, key);
                },
                |viewer, error| failed.push((viewer, error)),
            );
        }
        for (viewer, error) in failed {
            self.crowd.trouble(|| crate::clients::explain_connect(&error));
            self.lost(viewer);
        }
    }

    /// Closes every socket before the thread ends, so that the server sees the ends.
    fn quit(&mut self) {
        self.close_by_reset();
        for viewer in 0..self.crowd.viewers.len() as u32 {
            self.end(viewer, Next::Stay);
        }
        let mut events = Vec::new();
        for lane in &mut self.lanes {
            lane.ring.turn(&mut events, ALL_EVENTS);
        }
    }
}

impl Plane {
    /// Makes the closes to come resets: 50,000 connections in TIME_WAIT would hold ports and kernel
    /// memory for a minute, and the next run would find its books moving.
    fn close_by_reset(&mut self) {
        let is_live = |&viewer: &u32| self.crowd.viewers[viewer as usize].phase == Phase::Live;
        let live: Vec<u32> = (0..self.crowd.viewers.len() as u32).filter(is_live).collect();
        let mut events = Vec::new();
        for viewers in live.chunks(EVENTS_PER_TURN) {
            for &viewer in viewers {
                let (lane, slot) = self.place(viewer);
                let key = self.key(viewer);
                self.lanes[lane].ring.install(slot, key);
            }
            for lane in &mut self.lanes {
                lane.ring.turn(&mut events, ALL_EVENTS);
            }
            for event in events.drain(..) {
                if let Event::Installed { fd: Ok(fd), .. } = event {
                    // Refused, the close is an ordinary one.
                    let _ = SockRef::from(&fd).set_linger(Some(Duration::ZERO));
                }
            }
        }
    }
}

/// A started plane, seen from the conductor.
#[derive(Debug)]
pub(crate) struct PlanePort {
    /// As a person would call it.
    pub(crate) name: String,
    pub(crate) commands: Sender<Command>,
    pub(crate) answers: Receiver<Answer>,
    /// Wakes a plane of this process; one on another host is woken by its socket.
    pub(crate) waker: Option<Waker>,
}
