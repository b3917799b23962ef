//! Connecting, leaving and coming back: pace, window, retries, slots.
//!
//! A slot is used again only after its close has completed, and a viewer's generation tells
//! completions of an earlier connection from those of the present one.

use uproar_ring::Key;

use super::crowd;
use super::viewer::{Next, Phase, Role};
use super::{ATTEMPTS_MAX, Lane, Plane, RETRY_NS};
use crate::clients::{connecting_socket, explain_connect};
use crate::wire::{Dialect, upgrade};

/// The receive buffer of a slow viewer: about what the least one holds anyway.
const SLOW_RECEIVE_BYTES: usize = 4 * 1024;

/// What a server does that is full, drains, or is another one.
const ENDED_UNANSWERED: &str = "the server ended connections without answering their upgrade; is it a WebSocket server, and not full?";
const ENDED_UNWELCOMED: &str =
    "the server ended connections after their upgrade, before a welcome; see its log, and --speak";

impl Plane {
    /// Begins as many connects as the pace and the window allow.
    pub(super) fn connect_some(&mut self, now: u64) {
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
        let origin = self.plan.sources.origin(v.number, v.generation);
        // Else the client's kernel takes what a slow viewer does not read.
        let receive_bytes = (v.role == Role::Slow).then_some(SLOW_RECEIVE_BYTES);
        let opened = connecting_socket(self.plan.target, origin, receive_bytes)
            .and_then(|socket| self.lanes[lane].ring.adopt(slot, socket));
        if let Err(error) = opened {
            self.crowd.trouble(|| explain_connect(&error));
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
            self.crowd.tally.counters.gave_up += 1;
        }
    }

    /// Sends the upgrade request over a connected socket.
    pub(super) fn request_upgrade(&mut self, viewer: u32) {
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
        let ring = &mut self.lanes[lane].ring;
        match self.crowd.viewers[viewer as usize].role {
            // Reading must be able to stop.
            Role::Slow => ring.watch_readable(slot, key),
            Role::Watcher | Role::Publisher => ring.read_many(slot, key),
        }
    }

    /// The server ended the connection without a word.
    pub(super) fn ended(&mut self, viewer: u32) {
        match self.crowd.viewers[viewer as usize].phase {
            Phase::Upgrading => self.crowd.trouble(|| ENDED_UNANSWERED.to_owned()),
            Phase::Welcoming => self.crowd.trouble(|| ENDED_UNWELCOMED.to_owned()),
            Phase::Away | Phase::Connecting | Phase::Live | Phase::Closing => {}
        }
        self.lost(viewer);
    }

    /// The connection ended and nobody here wanted it to.
    pub(super) fn lost(&mut self, viewer: u32) {
        match self.crowd.viewers[viewer as usize].phase {
            Phase::Away | Phase::Closing => {}
            Phase::Live if self.crowd.viewers[viewer as usize].role == Role::Slow => {
                self.crowd.tally.counters.closed_slow += 1;
                self.end(viewer, Next::Stay);
            }
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
    pub(super) fn end(&mut self, viewer: u32, next: Next) {
        let (lane, slot) = self.place(viewer);
        let key = self.key(viewer);
        self.crowd.abandon(viewer);
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
            match v.role {
                Role::Slow => ring.unwatch_readable(key),
                Role::Watcher | Role::Publisher => ring.cancel_read_many(key),
            }
        }
        ring.close(slot, key);
    }

    /// The slot is free again.
    pub(super) fn closed(&mut self, key: Key, now: u64) {
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
            Next::Return | Next::Resume => {
                v.next = Next::Fail;
                self.crowd.tally.counters.gave_up += 1;
            }
        }
    }
}
