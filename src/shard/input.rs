//! What comes in, a turn at a time: completions of the rings, messages of other shards, jobs of the control plane.
//!
//! While sends are due, all of it together gets a millisecond of a turn, so that no flood of it keeps comments
//! from their viewers; a chunk of sends is about as long, so that no event keeps the others' commands from being
//! read either. What is left over stands in line, where it is: completions in their ring, messages in their link.
//! Nothing starves in there: a turn begins where the last one stopped, each source has a part of the millisecond
//! that those before it cannot use up, and takes at least one item whatever the clock says.
//!
//! ```text
//!  began        600 µs        800 µs       1 ms
//!    ├─ rings ─────┼─ messages ──┼─ jobs ────┤ a chunk of sends ├─ the next turn
//! ```
//!
//! Not here: what an event means (`events`), what is sent (`flushing`).

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use uproar_engine::control::Reply;
use uproar_engine::time::Now;
use uproar_ring::Event;

use crate::link::Job;
use crate::shard::driver::{Driver, mono_us};
use crate::shard::kernel::Kernel;

/// Where in a turn input stops, in microseconds from its beginning, while sends are due.
const RINGS_UNTIL_US: u64 = 600;
const MAIL_UNTIL_US: u64 = 800;
const JOBS_UNTIL_US: u64 = 1_000;
/// Completions taken out of a ring at a time: the kernel's work for them is then short beside the share of input.
const BITE: usize = 64;
/// Completions of one ring in a turn, whatever the time, so that ticks get their turn as well.
const EVENTS_MAX: usize = 512;
/// Messages of one link, and jobs, in a turn, for the same reason.
const MAIL_MAX: usize = 256;

const _: () = assert!(BITE <= EVENTS_MAX);

/// Where the input of a shard stands.
pub(super) struct Input<B> {
    /// By ring: completions that were taken out of it and not handled yet.
    taken: Vec<VecDeque<Event<B>>>,
    /// For taking a bite; empty between calls.
    bite: Vec<Event<B>>,
    /// The ring and the link that the next turn begins with.
    first_ring: usize,
    first_link: usize,
    /// When the present turn began.
    began_us: u64,
    /// Some of this turn's input was left over.
    is_cut: bool,
}

impl<B> Input<B> {
    pub(super) fn new(rings: usize) -> Self {
        Self {
            taken: (0..rings).map(|_| VecDeque::new()).collect(),
            bite: Vec::with_capacity(BITE),
            first_ring: 0,
            first_link: 0,
            began_us: 0,
            is_cut: false,
        }
    }

    /// Whether completions wait that no ring knows of any more.
    pub(super) fn has_taken(&self) -> bool {
        self.taken.iter().any(|taken| !taken.is_empty())
    }
}

impl<K: Kernel> Driver<K> {
    /// One turn's input. Whether there was any, and when it ended.
    pub(super) fn take_input(&mut self, now: Now) -> (bool, u64) {
        (self.input.began_us, self.input.is_cut) = (now.mono_us, false);
        let mut has_worked = self.turn_rings(now);
        has_worked |= self.read_mail(now);
        has_worked |= self.answer_jobs(now);
        let ended_us = mono_us(self.started);
        self.shell.input_us += ended_us - now.mono_us;
        self.shell.turns_cut += u64::from(self.input.is_cut);
        (has_worked, ended_us)
    }

    /// Whether sends are due and input has had this much of the turn.
    fn is_over(&self, until_us: u64) -> bool {
        if !self.engine.has_sends() {
            return false;
        }
        let now_us = mono_us(self.started);
        now_us >= self.input.began_us + until_us && self.engine.is_due(now_us)
    }

    fn turn_rings(&mut self, now: Now) -> bool {
        let rings = self.sockets.rings.len();
        let first = self.input.first_ring;
        let mut has_worked = false;
        for ring in (first..first + rings).map(|ring| ring % rings) {
            has_worked |= self.turn_ring(now, ring);
            if self.input.is_cut {
                // The next turn begins with another ring: this one may always have more.
                self.input.first_ring = (ring + 1) % rings;
                break;
            }
            self.sockets.read_wanting(ring, |id| self.engine.may_read(id));
        }
        // What the events asked for goes to the kernel in one submission a ring; reads that can
        // end at once are in the completion queue for the next turn.
        self.sockets.rings.iter_mut().for_each(K::submit);
        has_worked
    }

    /// Handles what one ring has, bite by bite.
    fn turn_ring(&mut self, now: Now, ring: usize) -> bool {
        let mut handled = 0;
        while handled < EVENTS_MAX {
            if self.input.taken[ring].is_empty() {
                let Input { taken, bite, .. } = &mut self.input;
                self.sockets.rings[ring].turn(bite, BITE.min(EVENTS_MAX - handled));
                taken[ring].extend(bite.drain(..));
            }
            let Some(event) = self.input.taken[ring].pop_front() else { break };
            handled += 1;
            self.count_node();
            self.handle(now, ring, event);
            self.release_freed();
            // Before the next event: it may be an accept that takes the place of a connection
            // that this one ended.
            self.do_outputs(now);
            if self.is_over(RINGS_UNTIL_US) {
                self.input.is_cut = true;
                break;
            }
        }
        handled > 0
    }

    fn read_mail(&mut self, now: Now) -> bool {
        let links = self.inbox.len();
        let first = self.input.first_link;
        let mut has_worked = false;
        for from in (first..first + links).map(|link| link % links) {
            for _ in 0..MAIL_MAX {
                let Some(message) = self.inbox[from].pop() else { break };
                has_worked = true;
                self.count_node();
                self.engine.receive_mesh(now, from as u32, message);
                self.do_outputs(now);
                if self.is_over(MAIL_UNTIL_US) {
                    self.input.is_cut = true;
                    self.input.first_link = (from + 1) % links;
                    return true;
                }
            }
        }
        has_worked
    }

    fn answer_jobs(&mut self, now: Now) -> bool {
        let mut has_worked = false;
        for _ in 0..MAIL_MAX {
            let Some(Job { request, reply }) = self.jobs.pop() else { break };
            has_worked = true;
            let mut answer = self.engine.control(now, request);
            if let Reply::Report(report) = &mut answer {
                report.shell = self.shell_report();
                report.places += report.shell.closing;
            }
            // Whoever asked may have given up waiting.
            let _ = reply.send(answer);
            if self.is_over(JOBS_UNTIL_US) {
                self.input.is_cut = true;
                break;
            }
        }
        has_worked
    }

    /// Other shards admit connections at the same time, so the engine is told before each chance to admit one.
    fn count_node(&mut self) {
        self.engine.set_node_connections(self.node.connections.load(Ordering::Relaxed));
    }
}
