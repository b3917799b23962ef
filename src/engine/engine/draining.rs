//! Draining: every connection is told when it will be closed, and is closed then.

use super::{Drain, Engine};
use crate::codec::{self, Notice};
use crate::connection::Phase;
use crate::table::Id;
use crate::time::{Now, TICK_MS, ticks};

/// Connections told in one tick, so that the notices of a full node do not stall it.
const TOLD_PER_TICK_MAX: u32 = 4_096;

impl Engine {
    /// Stops admitting and closes every connection at an instant of its own within `spread_ms`.
    pub(super) fn start_drain(&mut self, now: Now, spread_ms: u32) {
        if self.drain.is_none() {
            self.drain = Some(Drain { spread_ms, told: 0 });
            self.continue_drain(now);
        }
    }

    /// Admits again; closes that were announced do not happen.
    pub(super) fn stop_drain(&mut self) {
        self.drain = None;
    }

    /// Tells the next connections.
    pub(super) fn continue_drain(&mut self, now: Now) {
        let Some(Drain { spread_ms, told }) = self.drain else { return };
        // New connections are refused, so entries beyond the present bound stay empty; those that
        // were shaking hands when the drain began are refused too.
        let bound = self.connections.index_bound();
        let stop = bound.min(told + TOLD_PER_TICK_MAX);
        for index in told..stop {
            if let Some(id) = self.connections.id_at(index) {
                self.tell_drain(now, id, spread_ms);
            }
        }
        self.drain = Some(Drain { spread_ms, told: stop });
    }

    fn tell_drain(&mut self, now: Now, id: Id, spread_ms: u32) {
        let delay = self.random.below(ticks(spread_ms) + 1).max(1);
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !matches!(connection.phase, Phase::Live { .. } | Phase::Echo) {
            return;
        }
        connection.drain_tick = now.tick() + delay;
        let (codec, echoes) = (connection.codec, matches!(connection.phase, Phase::Echo));
        if !echoes {
            let notice = Notice::Drain { delay_ms: delay * TICK_MS as u32 };
            self.push_private(now, id, |out| codec::write_notice(codec, &notice, out));
        }
        self.arm(now, id);
    }
}
