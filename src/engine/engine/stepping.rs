//! Work that may be long, in steps that are not: deadlines that fall together, new limits for all there is, and the
//! count of memory.
//!
//! Fifty thousand viewers who were last heard of at the same instant are due in the same tick, and strangers can
//! bring that about. The wheel only lists who is due; a step looks at a few hundred of them and the turn goes on.
//! New limits hold at once for all that comes; what is there already is walked through by index, which stays sound
//! while entries come and go: whoever comes meanwhile has the new limits anyway.
//!
//! Not here: what a deadline means (`timers`), how a log is brought within its limits (`posting`).

use super::Engine;
use super::timers::spread;
use crate::connection::{Connection, Private};
use crate::time::Now;

/// Deadlines looked at in one step.
const TIMERS_MAX: usize = 256;
/// Places of the tables of rooms and of connections looked at in one step after a reload.
const ROOMS_MAX: u32 = 256;
const CONNECTIONS_MAX: u32 = 2_048;
/// Places whose memory is counted in one tick; a table of 55,000 is gone through in 1.4 s.
const COUNTED_MAX: u32 = 4_096;
/// Over how many ticks deadlines are spread that a reload has made overdue: 5 s.
const REARM_TICKS: u32 = 50;

/// How far the walks are.
#[derive(Debug, Default)]
pub(super) struct Walks {
    /// The next place of each table, while new limits are brought to what is there.
    rooms: Option<u32>,
    connections: Option<u32>,
    /// All logs together may be over their limit.
    pub(super) is_over_logs: bool,
    /// The next place to count, and the sum below it.
    counted: u32,
    sum: u64,
    /// Bytes held behind connections, as of the last whole count.
    pub(super) held_bytes: u64,
}

impl Engine {
    /// Does a step of what is not done in one go. True while there is more; call it once a turn.
    pub fn step(&mut self, now: Now) -> bool {
        for _ in 0..TIMERS_MAX {
            let Some(index) = self.fired.pop_front() else { break };
            if let Some(id) = self.connections.id_at(index) {
                self.timer(now, id);
            }
        }
        self.step_rooms();
        self.step_connections(now);
        if self.walks.is_over_logs {
            self.limit_all_logs();
        }
        self.keep_budgets(now);
        let Walks { rooms, connections, is_over_logs, .. } = self.walks;
        !self.fired.is_empty() || rooms.is_some() || connections.is_some() || is_over_logs
    }

    /// Has the following steps bring the limits to all that is there.
    pub(super) fn walk_all(&mut self) {
        (self.walks.rooms, self.walks.connections) = (Some(0), Some(0));
        self.walks.is_over_logs = true;
    }

    fn step_rooms(&mut self) {
        let Some(from) = self.walks.rooms else { return };
        let bound = self.rooms.table.index_bound();
        let stop = bound.min(from + ROOMS_MAX);
        for index in from..stop {
            if let Some(id) = self.rooms.table.id_at(index) {
                self.rooms.table.at(index).resize_logs(&self.limits);
                self.limit_own_logs(id);
            }
        }
        self.walks.rooms = (stop < bound).then_some(stop);
    }

    /// Brings deadlines in line with new limits. What is overdue by them is spread over a few seconds.
    fn step_connections(&mut self, now: Now) {
        let Some(from) = self.walks.connections else { return };
        let bound = self.connections.index_bound();
        let stop = bound.min(from + CONNECTIONS_MAX);
        for index in from..stop {
            if let Some(id) = self.connections.id_at(index) {
                self.arm_after(now.tick() + 1 + spread(index, REARM_TICKS), id);
            }
        }
        self.walks.connections = (stop < bound).then_some(stop);
    }

    /// Counts on what connections hold behind their places.
    pub(super) fn count_held(&mut self) {
        let held = |connection: &Connection| {
            let queue = connection.private.as_deref().map_or(0, Private::bytes_held);
            (queue + connection.reader.bytes_held()) as u64
        };
        let bound = self.connections.index_bound();
        let stop = bound.min(self.walks.counted + COUNTED_MAX);
        let present =
            (self.walks.counted..stop).filter(|&index| self.connections.id_at(index).is_some());
        self.walks.sum += present.map(|index| held(self.connections.peek(index))).sum::<u64>();
        self.walks.counted = stop;
        if stop == bound {
            self.walks.held_bytes = self.walks.sum;
            (self.walks.counted, self.walks.sum) = (0, 0);
        }
    }
}
