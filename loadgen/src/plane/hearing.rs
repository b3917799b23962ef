//! Completions: what the kernel says of this plane's sockets, and what follows from it.

use std::io;

use rustix::io::Errno;
use uproar_ring::{Buffer, Event, Key};

use super::Plane;
use super::crowd::Call;
use super::viewer::Phase;
use crate::wire::{Dialect, frame};

impl Plane {
    /// Acts on one completion.
    pub(super) fn event(&mut self, lane: usize, event: Event, now: u64) {
        match event {
            Event::Timer { .. } => self.timer_due_ns = u64::MAX,
            Event::Woken { armed } => self.is_wake_watched = armed,
            Event::Closed { key, .. } => self.closed(key, now),
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
            Event::ReadMany { key, result, armed } => {
                self.received(lane, key, result, now);
                let Some(viewer) = self.open(key).filter(|_| !armed) else { return };
                let (lane, slot) = self.place(viewer);
                self.lanes[lane].ring.read_many(slot, key);
            }
            Event::Readable { key, armed, failed, .. } => {
                let Some(viewer) = self.open(key) else { return };
                let (lane, slot) = self.place(viewer);
                let ring = &mut self.lanes[lane].ring;
                if !armed && !failed {
                    ring.watch_readable(slot, key);
                }
                // Only slow viewers poll, and once live they read when their turn comes.
                if self.crowd.viewers[viewer as usize].phase != Phase::Live {
                    ring.read_now(slot, key);
                }
            }
            Event::Read { key, result } => {
                let is_starved = result.as_ref().is_err_and(is_out_of_buffers);
                self.received(lane, key, result, now);
                if let Some(viewer) = self.open(key).filter(|_| is_starved) {
                    let (lane, slot) = self.place(viewer);
                    self.lanes[lane].ring.read_now(slot, key);
                }
            }
            _ => {}
        }
    }

    /// The viewer a completion belongs to, unless it belongs to an earlier connection.
    pub(super) fn current(&self, key: Key) -> Option<u32> {
        let viewer = key.bits() as u32;
        let generation = (key.bits() >> 32) as u16;
        let v = &self.crowd.viewers[viewer as usize];
        (v.generation == generation).then_some(viewer)
    }

    /// The viewer a completion belongs to, if its connection is still open.
    fn open(&self, key: Key) -> Option<u32> {
        let is_open = |&viewer: &u32| {
            !matches!(self.crowd.viewers[viewer as usize].phase, Phase::Closing | Phase::Away)
        };
        self.current(key).filter(is_open)
    }

    fn received(&mut self, lane: usize, key: Key, result: io::Result<Option<Buffer>>, now: u64) {
        let viewer = self.open(key);
        match (viewer, result) {
            (Some(viewer), Ok(Some(buffer))) => {
                let ring = &mut self.lanes[lane].ring;
                self.crowd.hear(viewer, ring.bytes(&buffer), now, &mut self.calls);
                ring.recycle(buffer);
                self.heed(viewer, now);
            }
            (Some(viewer), Ok(None)) => self.ended(viewer),
            (Some(viewer), Err(error)) => match Errno::from_io_error(&error) {
                Some(Errno::AGAIN) => {}
                _ if is_out_of_buffers(&error) => self.crowd.tally.counters.buffers_exhausted += 1,
                _ => {
                    self.crowd.trouble(|| format!("a connection failed: {error}"));
                    self.lost(viewer);
                }
            },
            (None, Ok(Some(buffer))) => self.lanes[lane].ring.recycle(buffer),
            (None, Ok(None) | Err(_)) => {}
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
                    self.post_deferred(viewer);
                }
                Call::End | Call::Refused(_) => self.lost(viewer),
            }
        }
        self.calls = calls;
    }

    /// Lets slow viewers read one buffer each, in turn, as often as the scenario says.
    pub(super) fn read_slowly(&mut self, now: u64) {
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
}

fn is_out_of_buffers(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::NOBUFS)
}
