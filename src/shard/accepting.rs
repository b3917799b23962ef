//! Accepts in flight: several single-shot ones, because only those tell the peer's address.
//!
//! An accept that fails is counted and followed by a rest: the next one might fail as fast as this one did, and
//! a loop of failures would take the core from the viewers.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use uproar_engine::report::AcceptFailure;
use uproar_engine::time::{Now, TICK_MS};
use uproar_ring::{ACCEPTS_MAX, Key, Operation};

use crate::shard::books::Line;
use crate::shard::driver::Driver;
use crate::shard::kernel::Kernel;

/// Accepts in flight on a shard. A burst of connections is taken this many at a time.
const ACCEPTS: usize = 32;

const _: () = assert!(ACCEPTS <= ACCEPTS_MAX);

/// Connections that their peers may undo in one tick before accepts rest: whoever resets in the backlog must
/// not slow the others down, and failures that never end must not spin.
const PEER_FAILURES_PER_TICK: u32 = 64;
/// How long accepts rest when the listener itself fails, in ticks: 1 s.
const LISTENER_REST_TICKS: u32 = 1_000 / TICK_MS as u32;

/// What an error of an accept means (accept(2), the errors of TCP that it passes on, and the ring's table).
pub(super) fn judge(error: &io::Error) -> AcceptFailure {
    use AcceptFailure::{Exhausted, Listener, Peer};
    match error.raw_os_error() {
        // ENOMEM, EMFILE, ENOBUFS; ENFILE: the host's files, or the ring's slots.
        Some(12 | 23 | 24 | 105) => Exhausted,
        // EPERM (a firewall), EINTR, EAGAIN, EPROTO, ENOPROTOOPT, ENETDOWN, ENETUNREACH, ECONNABORTED,
        // ECONNRESET, ETIMEDOUT, EHOSTDOWN, EHOSTUNREACH; ENONET.
        Some(1 | 4 | 11 | 71 | 92 | 100 | 101 | 103 | 104 | 110 | 112 | 113 | 64) => Peer,
        // EBADF, EFAULT, EINVAL, ENOTSOCK, EOPNOTSUPP, whatever else.
        _ => Listener,
    }
}

/// The listeners and the accepts that wait on them.
#[derive(Debug)]
pub(super) struct Accepting {
    listeners: Vec<TcpListener>,
    /// Lanes not in flight, by ring.
    idle: Vec<Vec<u16>>,
    in_flight: usize,
    /// The listener of the next accept.
    turn: usize,
    /// None is started before this tick.
    rests_until: u32,
    /// Connections undone by their peers in the tick `failed_tick`.
    peer_failures: u32,
    failed_tick: u32,
    failures: [u64; AcceptFailure::ALL.len()],
    line: Line,
    /// Set by the control plane when the process is about to end: whoever comes from then on waits in the
    /// listener's backlog, which under socket activation outlives the process.
    has_ended: Arc<AtomicBool>,
}

impl Accepting {
    pub(super) fn new(
        listeners: Vec<TcpListener>,
        rings: usize,
        has_ended: Arc<AtomicBool>,
    ) -> Self {
        for listener in &listeners {
            // An accept on a non-blocking listener would end at once, and spin.
            if let Err(error) = listener.set_nonblocking(false) {
                tracing::warn!(%error, "a listener cannot be made blocking");
            }
        }
        let lanes = || (0..ACCEPTS_MAX as u16).collect();
        Self {
            listeners,
            idle: (0..rings).map(|_| lanes()).collect(),
            in_flight: 0,
            turn: 0,
            rests_until: 0,
            peer_failures: 0,
            failed_tick: 0,
            failures: Default::default(),
            line: Line::default(),
            has_ended,
        }
    }

    /// An accept failed: counts it, and rests as the failure asks for.
    pub(super) fn failed(&mut self, tick: u32, error: &io::Error) {
        if self.has_ended.load(Ordering::Relaxed) && error.raw_os_error() == Some(CANCELLED) {
            return;
        }
        let failure = judge(error);
        self.failures[failure as usize] += 1;
        if self.failed_tick != tick {
            (self.failed_tick, self.peer_failures) = (tick, 0);
        }
        let rest_ticks = match failure {
            AcceptFailure::Peer => {
                self.peer_failures += 1;
                u32::from(self.peer_failures >= PEER_FAILURES_PER_TICK)
            }
            AcceptFailure::Exhausted => 1,
            AcceptFailure::Listener => LISTENER_REST_TICKS,
        };
        self.rests_until = self.rests_until.max(tick + rest_ticks);
        if failure != AcceptFailure::Peer
            && let Some(more) = self.line.due()
        {
            tracing::warn!(
                %error, since_last_line = more,
                "connections cannot be accepted; accepts are tried again every {} ms. If it stays: {}",
                rest_ticks * TICK_MS as u32,
                match failure {
                    AcceptFailure::Exhausted => "raise LimitNOFILE=, fs.file-max or the host's memory",
                    _ => "the listening socket was shut down or is blocked: restart the node",
                }
            );
        }
    }

    /// Failed accepts, by [`AcceptFailure`].
    pub(super) fn failures(&self) -> [u64; AcceptFailure::ALL.len()] {
        self.failures
    }

    /// Accepts in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The lanes in flight on `ring`.
    fn lanes_in_flight(&self, ring: usize) -> Vec<u16> {
        (0..ACCEPTS_MAX as u16).filter(|lane| !self.idle[ring].contains(lane)).collect()
    }

    /// An accept of `ring` has ended.
    pub(super) fn ended(&mut self, ring: usize, lane: u16) {
        self.idle[ring].push(lane);
        self.in_flight -= 1;
    }
}

impl<K: Kernel> Driver<K> {
    /// Keeps accepts in flight while there are free slots for them.
    pub(super) fn refill_accepts(&mut self, now: Now) {
        if self.accepting.rests_until > now.tick() {
            return;
        }
        if self.accepting.has_ended.load(Ordering::Relaxed) {
            return self.cancel_accepts();
        }
        while self.accepting.in_flight < ACCEPTS {
            let Some(ring) = self.sockets.ring_for_accept() else { return };
            let accepting = &mut self.accepting;
            let Some(lane) = accepting.idle[ring].pop() else { return };
            let listener = &accepting.listeners[accepting.turn % accepting.listeners.len()];
            accepting.turn = accepting.turn.wrapping_add(1);
            accepting.in_flight += 1;
            self.sockets.accepting(ring, 1);
            self.sockets.rings[ring].accept(listener.as_fd(), lane);
        }
    }

    /// Ends the accepts in flight. Those that took a connection meanwhile bring it all the same.
    fn cancel_accepts(&mut self) {
        // Once is enough: no accept is started after this.
        self.accepting.rests_until = u32::MAX;
        for ring in 0..self.sockets.rings.len() {
            for lane in self.accepting.lanes_in_flight(ring) {
                self.sockets.rings[ring].cancel(Operation::Accept, Key::new(lane.into()));
            }
        }
    }
}

/// `ECANCELED` (errno 125): we ended the accept ourselves.
const CANCELLED: i32 = 125;
