//! A plane: one glommio executor on one CPU that drives its share of the viewers.
//!
//! Sockets are made as ordinary descriptors, bound to a source address, and moved into a
//! ring's table of direct descriptors before they are connected, so neither RLIMIT_NOFILE nor
//! the 28,000 ephemeral ports of one address bound their number. A viewer's ring and slot
//! follow from its index. One task runs the loop: commands, due posts, connects, completions.
//!
//! Not here: what bytes mean (`crowd`), scenarios (`conductor`).

mod crowd;
mod outbox;
mod viewer;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::sync::Arc;
use std::time::Duration;

use uproar_ring::{Event, Key, Ring, RingConfig, Slot, Wake, Waker};

use crate::audience::Audience;
use crate::clients::{Origin, connecting_socket};
use crate::clock::now_ns;
use crate::command::{Answer, Command, Leave};
use crate::marker::Marker;
use crate::scenario::Parameters;
use crate::schedule::Schedule;
use crate::tally::{Tally, Window, record};
use crate::verify::{Holes, Recent};
use crate::wire::{Dialect, Reader, frame, upgrade};
use crowd::{Call, Crowd};
use outbox::Outbox;
use viewer::{Next, Phase, Role, Viewer};

/// Completions taken from a ring before the others and the schedule get their turn.
const EVENTS_PER_TURN: usize = 256;
/// Bytes of a provided buffer: a read that fills it is followed by another.
const BUFFER_BYTES: u32 = 4 * 1024;
/// Provided buffers of a ring: twice the reads that one turn begins.
const BUFFERS: u16 = 512;
/// A failed connect is tried again this often, this long after.
const ATTEMPTS_MAX: u8 = 5;
const RETRY_NS: u64 = 500_000_000;
/// Fill posts of a publisher that may wait for their acks.
const FILL_WINDOW: u32 = 2;
const _: () = assert!(BUFFERS as usize >= 2 * EVENTS_PER_TURN);

/// The longest sleep: connects are paced and slow readers turn at this grain.
const TICK_NS: u64 = 10_000_000;

/// Everything a plane needs to know.
#[derive(Debug)]
pub(crate) struct PlanePlan {
    pub(crate) parameters: Parameters,
    pub(crate) dialect: Dialect,
    pub(crate) target: SocketAddr,
    /// Source addresses; empty leaves the choice to the kernel.
    pub(crate) sources: Vec<IpAddr>,
    pub(crate) run: u16,
    /// This plane's number, and how many there are on all hosts.
    pub(crate) share: (u32, u32),
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

/// A publisher among this plane's viewers.
#[derive(Debug)]
struct Publisher {
    viewer: u32,
    /// Its number in the whole run.
    number: u32,
    sequence: u32,
    /// Fill posts still to make.
    fill_left: u32,
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
    calls: Vec<Call>,
    is_filling: bool,
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
        let publishers: Vec<Publisher> = indexed()
            .filter(|(_, viewer)| viewer.role == Role::Publisher)
            .map(|(viewer, v)| Publisher {
                viewer,
                number: numbers[&v.number],
                sequence: 0,
                fill_left: 0,
            })
            .collect();
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
            fragments: HashMap::new(),
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
            calls: Vec::new(),
            is_filling: false,
            plan,
        };
        plane.crowd.dialect = std::mem::replace(&mut plane.plan.dialect, Dialect::Json);
        Ok(plane)
    }

    /// Runs until told to quit or until the conductor is gone.
    pub(crate) async fn run(
        mut self,
        wake: Wake,
        commands: Receiver<Command>,
        answers: Sender<Answer>,
    ) {
        let Ok(sleeper) = wake.sleeper() else { return };
        let mut completions: Vec<(usize, Event)> = Vec::new();
        let mut batch = Vec::new();
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
            for (lane, at) in self.lanes.iter_mut().zip(0usize..) {
                lane.ring.mute();
                lane.ring.turn(&mut batch, EVENTS_PER_TURN);
                completions.extend(batch.drain(..).map(|event| (at, event)));
            }
            let is_idle = completions.is_empty();
            let now = self.now();
            for (lane, event) in completions.drain(..) {
                self.event(lane, event, now);
            }
            self.flush();
            // The executor has no other task, so a busy loop need not yield to it.
            if is_idle {
                self.sleep(&wake, &sleeper).await;
            }
        }
    }

    /// Sleeps until a completion, a command or the next thing due.
    async fn sleep(&mut self, wake: &Wake, sleeper: &uproar_ring::Sleeper) {
        let now = self.now();
        let due = self.schedule.next_ns().unwrap_or(u64::MAX).min(now + TICK_NS);
        if due <= now {
            return;
        }
        if self.timer_due_ns > due {
            self.lanes[0].ring.set_timer(Duration::from_nanos(due - now));
            self.timer_due_ns = due;
        }
        wake.announce_sleep();
        let mut has_work = false;
        for lane in &mut self.lanes {
            lane.ring.unmute();
            has_work |= lane.ring.has_work();
        }
        // A command sent before `announce_sleep` wrote no wake: the tick bounds its wait.
        if !has_work && sleeper.sleep().await.is_err() {
            self.crowd.trouble(|| "the executor's own ring failed".to_owned());
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
                let count =
                    if everyone { self.crowd.viewers.len() } else { self.publishers.len() };
                let away = |&i: &u32| {
                    let viewer = &self.crowd.viewers[i as usize];
                    viewer.phase == Phase::Away && viewer.attempts == 0
                };
                self.wanting = (0..count as u32).filter(away).collect();
                self.pace_ns = self.now();
            }
            Command::Fill { comments_per_event } => {
                let each = comments_per_event.div_ceil(self.plan.parameters.publishers.max(1));
                self.is_filling = true;
                for publisher in 0..self.publishers.len() {
                    self.publishers[publisher].fill_left = each;
                    for _ in 0..FILL_WINDOW {
                        self.fill(publisher);
                    }
                }
            }
            Command::Rate { per_event, from_ns } => {
                self.is_filling = false;
                let rate = per_event / f64::from(self.plan.parameters.publishers.max(1));
                self.schedule.restart(self.publishers.len() as u32, rate, from_ns);
            }
            Command::Window { from_ns, to_ns } => {
                let latency = crate::tally::latency_histogram();
                self.crowd.tally.windows.push(Window { from_ns, to_ns, latency });
            }
            Command::Bounce { share, leave, publishers_too } => {
                self.bounce(share, leave, publishers_too);
            }
            Command::Collect => return Some(self.tally()),
            Command::Heads => return Some(Answer::Heads(self.crowd.heads.clone())),
            Command::Judge { heads } => {
                let (behind, missing) = self.crowd.behind(&heads);
                self.crowd.tally.behind = behind;
                let Answer::Tally(mut tally) = self.tally() else { unreachable!() };
                tally.counters.lost += missing;
                return Some(Answer::Tally(tally));
            }
            Command::Quit => unreachable!("the loop ends on it"),
        }
        None
    }

    fn tally(&mut self) -> Answer {
        let tally = &mut self.crowd.tally;
        tally.counters.checked = self.crowd.reader.checked;
        tally.cpu_us = crate::clock::thread_cpu_us();
        tally.cpu_us_max = tally.cpu_us;
        let answer = Answer::Tally(Box::new(tally.clone()));
        tally.recent.reset();
        answer
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

    /// Posts what the schedule wants by now.
    fn post_due(&mut self, now: u64) {
        while let Some(due) = self.schedule.pop(now) {
            let at = due.publisher as usize;
            let viewer = self.publishers[at].viewer;
            if self.crowd.viewers[viewer as usize].phase != Phase::Live {
                self.crowd.tally.counters.posts_skipped += 1;
                continue;
            }
            record(&mut self.crowd.tally.slippage, (now - due.due_ns) / 1_000);
            self.post(at, due.due_ns);
        }
    }

    /// Posts the next fill comment of a publisher, if any is left.
    fn fill(&mut self, at: usize) {
        if self.publishers[at].fill_left > 0 {
            self.publishers[at].fill_left -= 1;
            self.post(at, self.now());
        }
    }

    fn post(&mut self, at: usize, due_ns: u64) {
        let publisher = &mut self.publishers[at];
        let marker = Marker {
            run: self.plan.run,
            publisher: publisher.number,
            sequence: publisher.sequence,
            due_ns,
        };
        publisher.sequence += 1;
        let viewer = publisher.viewer;
        let event = self.crowd.viewers[viewer as usize].event as usize;
        let text_bytes = self.plan.parameters.comment_bytes as usize;
        let mut payload = Vec::with_capacity(text_bytes + 64);
        let opcode = self.crowd.dialect.post(marker, text_bytes, &self.events[event], &mut payload);
        let mask = (self.chance.next() as u32).to_ne_bytes();
        let (lane, slot) = self.place(viewer);
        self.lanes[lane].outbox.put(viewer, slot, |out| {
            frame::write_frame(opcode, &payload, mask, out);
        });
        self.crowd.tally.counters.posts += 1;
        if matches!(self.crowd.dialect, Dialect::Generic(_)) {
            let head = &mut self.crowd.heads[event];
            *head = (*head).max(u64::from(marker.sequence) + 1);
        }
    }

    /// Begins as many connects as the pace and the window allow.
    fn connect_some(&mut self, now: u64) {
        while let Some(&(due_ns, viewer)) = self.retries.front() {
            if due_ns > now {
                break;
            }
            self.retries.pop_front();
            self.wanting.push_back(viewer);
        }
        if self.wanting.is_empty() {
            self.pace_ns = now;
            return;
        }
        let elapsed = now.saturating_sub(self.pace_ns) as f64 / 1e9;
        self.pace_ns = now;
        let shares = f64::from(self.plan.share.1);
        let parameters = &self.plan.parameters;
        let per_sec = f64::from(parameters.connects_per_sec) / shares;
        let window = (parameters.connects_in_flight / self.plan.share.1).max(1);
        // A tenth of a second may be made up for, not more: a stall must not become a burst.
        self.pace_allowance = (self.pace_allowance + elapsed * per_sec).min(per_sec / 10.0 + 1.0);
        while self.pace_allowance >= 1.0 && self.connects_in_flight < window {
            let Some(viewer) = self.wanting.pop_front() else { return };
            self.pace_allowance -= 1.0;
            self.begin(viewer, now);
        }
    }

    /// Opens a socket for `viewer` and starts its connect.
    fn begin(&mut self, viewer: u32, now: u64) {
        self.crowd.tally.counters.connects_begun += 1;
        let (lane, slot) = self.place(viewer);
        let v = &self.crowd.viewers[viewer as usize];
        let origin = Origin::of(&self.plan.sources, v.number, v.generation);
        let opened = connecting_socket(self.plan.target, origin)
            .and_then(|socket| self.lanes[lane].ring.adopt(slot, socket));
        if let Err(error) = opened {
            self.crowd.trouble(|| crate::clients::explain_connect(&error));
            self.crowd.tally.counters.connects_failed += 1;
            self.retry_later(viewer, now);
            return;
        }
        let started_ns = self.crowd.started_ns;
        let v = &mut self.crowd.viewers[viewer as usize];
        v.generation = v.generation.wrapping_add(1);
        v.phase = Phase::Connecting;
        v.carry = None;
        v.begun_100us = (now.saturating_sub(started_ns) / 100_000) as u32;
        self.connects_in_flight += 1;
        let key = self.key(viewer);
        self.lanes[lane].ring.await_writable(slot, key);
    }

    fn retry_later(&mut self, viewer: u32, now: u64) {
        let v = &mut self.crowd.viewers[viewer as usize];
        v.attempts += 1;
        if v.attempts < ATTEMPTS_MAX {
            self.retries.push_back((now + RETRY_NS, viewer));
        } else {
            v.next = Next::Fail;
        }
    }

    /// Sends the upgrade request over a connected socket.
    fn request_upgrade(&mut self, viewer: u32) {
        let (lane, slot) = self.place(viewer);
        let v = &mut self.crowd.viewers[viewer as usize];
        v.phase = Phase::Upgrading;
        v.is_watched = true;
        let epoch = self.crowd.epochs[v.event as usize];
        let since = v.is_resuming.then(|| (epoch, v.expected.saturating_sub(1)));
        let parameters = &self.plan.parameters;
        let event = &self.events[v.event as usize];
        let target = match &self.crowd.dialect {
            Dialect::Generic(templates) => templates.path.replace("{event}", event),
            Dialect::Json | Dialect::Rkyv => parameters.live_path(event, v.number, since),
        };
        let key_text = upgrade::key(crowd::nonce(v));
        let subprotocol = self.crowd.dialect.subprotocol();
        let host = &parameters.target;
        self.lanes[lane].outbox.put(viewer, slot, |out| {
            upgrade::write_request(&target, host, &key_text, subprotocol, out);
        });
        let key = self.key(viewer);
        self.lanes[lane].ring.watch_readable(slot, key);
    }

    fn event(&mut self, lane: usize, event: Event, now: u64) {
        match event {
            Event::Timer => self.timer_due_ns = u64::MAX,
            Event::Closed { key } => self.closed(key, now),
            Event::Writable { key } => {
                let Some(viewer) = self.current(key) else { return };
                match self.crowd.viewers[viewer as usize].phase {
                    Phase::Connecting => self.request_upgrade(viewer),
                    Phase::Closing | Phase::Away => {}
                    Phase::Upgrading | Phase::Welcoming | Phase::Live => {
                        let (lane, slot) = self.place(viewer);
                        self.lanes[lane].outbox.retry(viewer, slot);
                    }
                }
            }
            Event::Readable { key, armed, failed } => {
                let Some(viewer) = self.current(key) else { return };
                let v = &mut self.crowd.viewers[viewer as usize];
                if matches!(v.phase, Phase::Closing | Phase::Away) {
                    return;
                }
                let (lane, slot) = self.place(viewer);
                if !armed && !failed {
                    self.lanes[lane].ring.watch_readable(slot, key);
                }
                let is_stalled = self.crowd.viewers[viewer as usize].role == Role::Slow
                    && self.crowd.viewers[viewer as usize].phase == Phase::Live;
                if !is_stalled {
                    self.lanes[lane].ring.read_now(slot, key);
                }
            }
            Event::Read { key, result } => self.read(lane, key, result, now),
            _ => {}
        }
    }

    /// The viewer a completion belongs to, unless it belongs to an earlier connection.
    fn current(&self, key: Key) -> Option<u32> {
        let viewer = key.bits() as u32;
        let generation = (key.bits() >> 32) as u16;
        let v = &self.crowd.viewers[viewer as usize];
        (v.generation == generation).then_some(viewer)
    }

    fn read(
        &mut self,
        lane: usize,
        key: Key,
        result: std::io::Result<Option<uproar_ring::Buffer>>,
        now: u64,
    ) {
        let Some(viewer) = self.current(key) else {
            if let Ok(Some(buffer)) = result {
                self.lanes[lane].ring.recycle(buffer);
            }
            return;
        };
        let phase = self.crowd.viewers[viewer as usize].phase;
        let is_closing = matches!(phase, Phase::Closing | Phase::Away);
        let (_, slot) = self.place(viewer);
        match result {
            Ok(Some(buffer)) => {
                let ring = &mut self.lanes[lane].ring;
                let is_full = buffer.len() == ring.buffer_bytes();
                if !is_closing {
                    self.crowd.hear(viewer, ring.bytes(&buffer), now, &mut self.calls);
                }
                ring.recycle(buffer);
                let is_slow = self.crowd.viewers[viewer as usize].role == Role::Slow;
                if is_full && !is_closing && !is_slow {
                    ring.read_now(slot, key);
                }
                self.heed(viewer, now);
            }
            Ok(None) if !is_closing => self.lost(viewer, now),
            Err(error) if !is_closing => match error.raw_os_error() {
                Some(libc_errno::EAGAIN) => {}
                Some(libc_errno::ENOBUFS) => {
                    self.crowd.tally.counters.buffers_exhausted += 1;
                    self.lanes[lane].ring.read_now(slot, key);
                }
                _ => {
                    self.crowd.trouble(|| format!("a connection failed: {error}"));
                    self.lost(viewer, now);
                }
            },
            _ => {}
        }
    }

    /// Does what the viewer's bytes called for.
    fn heed(&mut self, viewer: u32, now: u64) {
        if self.calls.is_empty() {
            return;
        }
        let (lane, slot) = self.place(viewer);
        let mut calls = std::mem::take(&mut self.calls);
        for call in calls.drain(..) {
            match call {
                Call::Pong(payload) => {
                    let mask = (self.chance.next() as u32).to_ne_bytes();
                    self.lanes[lane].outbox.put(viewer, slot, |out| {
                        frame::write_frame(frame::PONG, &payload, mask, out);
                    });
                }
                Call::Upgraded => {
                    if let Dialect::Generic(templates) = &self.crowd.dialect {
                        let event = self.crowd.viewers[viewer as usize].event as usize;
                        if let Some(hello) = templates.hello(&self.events[event]) {
                            let mask = (self.chance.next() as u32).to_ne_bytes();
                            self.lanes[lane].outbox.put(viewer, slot, |out| {
                                frame::write_frame(frame::TEXT, hello.as_bytes(), mask, out);
                            });
                        }
                    }
                }
                Call::Live => {
                    self.connects_in_flight -= 1;
                    self.crowd.went_live(viewer, now);
                }
                Call::Answered => {
                    if self.is_filling {
                        // Publishers are the first viewers, in the same order.
                        self.fill(viewer as usize);
                    }
                }
                Call::End | Call::Refused(_) => self.lost(viewer, now),
            }
        }
        self.calls = calls;
    }

    /// The connection ended and nobody here wanted it to.
    fn lost(&mut self, viewer: u32, _now: u64) {
        match self.crowd.viewers[viewer as usize].phase {
            Phase::Away | Phase::Closing => {}
            Phase::Live => {
                self.crowd.tally.counters.closed_unexpectedly += 1;
                self.end(viewer, Next::Fail);
            }
            Phase::Connecting | Phase::Upgrading | Phase::Welcoming => {
                self.crowd.tally.counters.connects_failed += 1;
                let next = if self.crowd.viewers[viewer as usize].is_resuming {
                    Next::Resume
                } else {
                    Next::Return
                };
                self.end(viewer, next);
            }
        }
    }

    /// Closes the viewer's connection; what comes after is `next`.
    fn end(&mut self, viewer: u32, next: Next) {
        let (lane, slot) = self.place(viewer);
        let key = self.key(viewer);
        let v = &mut self.crowd.viewers[viewer as usize];
        match v.phase {
            Phase::Live => self.crowd.tally.live -= 1,
            Phase::Connecting | Phase::Upgrading | Phase::Welcoming => {
                self.connects_in_flight -= 1;
                v.attempts += 1;
            }
            Phase::Away | Phase::Closing => return,
        }
        v.phase = Phase::Closing;
        v.next = next;
        v.carry = None;
        let Lane { ring, outbox } = &mut self.lanes[lane];
        outbox.forget(viewer);
        if std::mem::take(&mut v.is_watched) {
            ring.unwatch_readable(key);
        }
        ring.close(slot, key);
    }

    /// The slot is free again.
    fn closed(&mut self, key: Key, now: u64) {
        let Some(viewer) = self.current(key) else { return };
        let v = &mut self.crowd.viewers[viewer as usize];
        v.phase = Phase::Away;
        v.is_resuming = v.next == Next::Resume;
        match v.next {
            Next::Stay | Next::Fail => {}
            Next::Return | Next::Resume if v.attempts == 0 => self.wanting.push_back(viewer),
            Next::Return | Next::Resume if v.attempts < ATTEMPTS_MAX => {
                self.retries.push_back((now + RETRY_NS, viewer));
            }
            Next::Return | Next::Resume => v.next = Next::Fail,
        }
    }

    /// Lets slow viewers read one buffer each, in turn, as often as the scenario says.
    fn read_slowly(&mut self, now: u64) {
        let every_secs = self.plan.parameters.slow_read_secs;
        if self.slow.is_empty() || every_secs <= 0.0 {
            return;
        }
        let elapsed_secs = now.saturating_sub(self.crowd.started_ns) as f64 / 1e9;
        let due = (elapsed_secs / every_secs * self.slow.len() as f64) as usize;
        // Turns missed while the loop was elsewhere are not made up for.
        self.slow_turn = self.slow_turn.max(due.saturating_sub(self.slow.len()));
        while self.slow_turn < due {
            let viewer = self.slow[self.slow_turn % self.slow.len()];
            self.slow_turn += 1;
            if self.crowd.viewers[viewer as usize].phase == Phase::Live {
                let (lane, slot) = self.place(viewer);
                let key = self.key(viewer);
                self.lanes[lane].ring.read_now(slot, key);
            }
        }
    }

    /// Sends all that is queued.
    fn flush(&mut self) {
        let mut failed = Vec::new();
        for at in 0..self.lanes.len() {
            let Lane { ring, outbox } = &mut self.lanes[at];
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
        let now = self.now();
        for (viewer, error) in failed {
            self.crowd.trouble(|| crate::clients::explain_connect(&error));
            self.lost(viewer, now);
        }
    }

    /// Closes every socket before the thread ends, so that the server sees the ends.
    fn quit(&mut self) {
        for viewer in 0..self.crowd.viewers.len() as u32 {
            self.end(viewer, Next::Stay);
        }
        let mut events = Vec::new();
        for lane in &mut self.lanes {
            lane.ring.turn(&mut events, usize::MAX);
        }
    }
}

/// The two errno values the loop tells apart.
mod libc_errno {
    pub(super) const EAGAIN: i32 = rustix::io::Errno::AGAIN.raw_os_error();
    pub(super) const ENOBUFS: i32 = rustix::io::Errno::NOBUFS.raw_os_error();
}

/// A started plane, seen from the conductor.
#[derive(Debug)]
pub(crate) struct PlanePort {
    pub(crate) commands: Sender<Command>,
    pub(crate) answers: Receiver<Answer>,
    pub(crate) waker: Waker,
}
