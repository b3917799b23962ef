//! Completions: what the kernel says of this plane's sockets, and what follows from it.

use rustix::io::Errno;
use uproar_ring::{Buffer, Event, Key};

use super::Plane;
use super::crowd::Call;
use super::viewer::{Phase, Role};
use crate::wire::{Dialect, frame};

impl Plane {
    /// Acts on one completion.
    pub(super) fn event(&mut self, lane: usize, event: Event, now: u64) {
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
    pub(super) fn current(&self, key: Key) -> Option<u32> {
        let viewer = key.bits() as u32;
        let generation = (key.bits() >> 32) as u16;
        let v = &self.crowd.viewers[viewer as usize];
        (v.generation == generation).then_some(viewer)
    }

    fn read(&mut self, lane: usize, key: Key, result: std::io::Result<Option<Buffer>>, now: u64) {
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
            Err(error) if !is_closing => match Errno::from_io_error(&error) {
                Some(Errno::AGAIN) => {}
                Some(Errno::NOBUFS) => {
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
