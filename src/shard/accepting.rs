//! Accepts in flight: several single-shot ones, because only those tell the peer's address.

use std::net::TcpListener;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use uproar_engine::time::Now;
use uproar_ring::ACCEPTS_MAX;

use crate::shard::driver::Driver;

/// Accepts in flight on a shard. A burst of connections is taken this many at a time.
const ACCEPTS: usize = 32;

const _: () = assert!(ACCEPTS <= ACCEPTS_MAX);

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
            has_ended,
        }
    }

    /// Starts no accept before `tick`.
    pub(super) fn rest_until(&mut self, tick: u32) {
        self.rests_until = tick;
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

impl Driver {
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
                self.sockets.rings[ring].cancel_accept(lane);
            }
        }
    }
}
