//! Draining: every connection is told when it will be closed, and is closed then.
//!
//! ```text
//!  start        all are told                                           the last is closed
//!    ├─ telling ────┼──── an instant each, evenly: n connections in ──────────┤
//!    │ 4,096 a tick │                             spread − telling            │
//! ```
//!
//! Instants are as far from each other as they can be, so that the closes of a second are never more than
//! their share. Neighbours in the table, who mostly came together, are not closed together.
//!
//! A drain that is undone leaves the instants with the connections. They mean nothing from then on: an instant
//! counts only for who was told of it in the present drain, and that is who stands below [`Drain::told`].
//!
//! Not here: how long a node of so many connections takes (the control plane asks [`drain_ms_min`]).

use super::Engine;
use crate::codec::{self, Notice};
use crate::connection::Phase;
use crate::table::Id;
use crate::time::{Now, TICK_MS, ticks};

/// Connections told in one tick, so that the notices of a full node do not stall it.
const TOLD_PER_TICK_MAX: u32 = 4_096;

/// A drain under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    /// Which of the node's drains.
    pub(super) number: u64,
    spread_ms: u32,
    /// When it began.
    began_tick: u32,
    /// Connections when it began, at least 1.
    connections: u32,
    /// Places below this one have been told.
    told: u32,
    /// Connections that have been told.
    ranks: u32,
}

impl Drain {
    /// Ticks until all have been told.
    fn telling_ticks(&self) -> u32 {
        self.connections.div_ceil(TOLD_PER_TICK_MAX)
    }

    /// When who is told as number `rank` is closed. Each rank has an instant of its own.
    fn tick(&self, rank: u32) -> u32 {
        let telling = self.telling_ticks();
        let spread = u64::from(ticks(self.spread_ms).saturating_sub(telling).max(1));
        let connections = u64::from(self.connections);
        let place = u64::from(rank) * stride(self.connections) % connections;
        self.began_tick + telling + (place * spread / connections) as u32
    }
}

/// The least time that a drain of so many connections takes, whoever is on which shard, in milliseconds: all are
/// told, and then `closes_per_sec` of them closed in a second. 0: as many as there are.
#[must_use]
pub fn drain_ms_min(connections: u64, closes_per_sec: u32) -> u64 {
    let telling = connections.div_ceil(TOLD_PER_TICK_MAX.into()) * TICK_MS;
    match closes_per_sec {
        0 => 0,
        per_sec => telling + (connections * 1_000).div_ceil(per_sec.into()),
    }
}

/// A step that comes to each of `count` places before it comes to one again: near the golden section of them, so
/// that any run of steps falls evenly.
fn stride(count: u32) -> u64 {
    let has_common = |a: u64| {
        let (mut a, mut b) = (a, u64::from(count));
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a != 1
    };
    let golden = u64::from(count) * 618 / 1_000;
    (golden.max(1)..).find(|&step| !has_common(step)).expect("1 more than a multiple has none")
}

impl Engine {
    /// Stops admitting and closes every connection at an instant of its own within `spread_ms`. A drain that is under
    /// way by this number goes on.
    pub(super) fn start_drain(&mut self, now: Now, number: u64, spread_ms: u32) {
        if self.drain.is_some_and(|drain| drain.number == number) {
            return;
        }
        self.drain = Some(Drain {
            number,
            spread_ms,
            began_tick: now.tick(),
            connections: self.counted.max(1),
            told: 0,
            ranks: 0,
        });
        self.continue_drain(now);
    }

    /// Admits again; closes that were announced do not happen.
    pub(super) fn stop_drain(&mut self) {
        self.drain = None;
    }

    /// Tells the next connections.
    pub(super) fn continue_drain(&mut self, now: Now) {
        let Some(mut drain) = self.drain else { return };
        let from = drain.told;
        // New connections are refused, so entries beyond the present bound stay empty; those that
        // were shaking hands when the drain began are refused too.
        let bound = self.connections.index_bound();
        drain.told = from.max(bound.min(from.saturating_add(TOLD_PER_TICK_MAX)));
        self.drain = Some(drain);
        for index in from..drain.told {
            if let Some(id) = self.connections.id_at(index)
                && self.tell_drain(now, id, drain.tick(drain.ranks))
            {
                drain.ranks += 1;
            }
        }
        self.drain = Some(drain);
    }

    /// Whether the connection was live, and has been told.
    fn tell_drain(&mut self, now: Now, id: Id, close_tick: u32) -> bool {
        let close_tick = close_tick.max(now.tick() + 1);
        let connection = self.connections.at(id.index);
        if !matches!(connection.phase, Phase::Live { .. } | Phase::Echo) {
            return false;
        }
        connection.drain_tick = close_tick;
        let (codec, echoes) = (connection.codec, matches!(connection.phase, Phase::Echo));
        if !echoes {
            let delay_ms = (close_tick - now.tick()) * TICK_MS as u32;
            let notice = Notice::Drain { delay_ms };
            self.push_private(now, id, |out| codec::write_notice(codec, &notice, out));
        }
        self.arm(now, id);
        true
    }

    /// When the drain under way closes the connection, if it has told it.
    pub(super) fn drain_tick(&self, id: Id) -> Option<u32> {
        let is_told = self.drain.is_some_and(|drain| id.index < drain.told);
        let tick = self.connections.get(id)?.drain_tick;
        (is_told && tick > 0).then_some(tick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(connections: u32, spread_ms: u32) -> Drain {
        Drain { number: 1, spread_ms, began_tick: 10, connections, told: 0, ranks: 0 }
    }

    #[test]
    fn every_rank_has_an_instant_and_no_tick_has_more_than_its_share() {
        for connections in [1, 2, 3, 7, 100, 1_000, 4_097, 27_500, 55_000] {
            let spread_ms = drain_ms_min(connections.into(), 1_000) as u32;
            let drain = drain(connections, spread_ms);
            let mut closed = vec![0; 10 + ticks(spread_ms) as usize + 1];
            for rank in 0..connections {
                closed[drain.tick(rank) as usize] += 1;
            }
            let told = (10 + drain.telling_ticks()) as usize;
            assert!(closed[..told].iter().all(|&n| n == 0), "{connections}: before all are told");
            let seconds = closed.windows(10).map(|second| second.iter().sum::<u32>());
            let most = seconds.max().unwrap_or(0);
            assert!(most <= 1_000, "{connections}: {most} closes in a second");
        }
    }

    #[test]
    fn neighbours_are_not_closed_together() {
        let drain = drain(10_000, 20_000);
        let gaps = (0..9_999).map(|rank| drain.tick(rank).abs_diff(drain.tick(rank + 1)));
        assert!(gaps.min() > Some(50), "neighbours are over five seconds apart");
    }

    #[test]
    fn the_time_of_a_drain_grows_with_the_connections() {
        assert_eq!(drain_ms_min(0, 1_000), 0);
        assert_eq!(drain_ms_min(1, 1_000), 101);
        assert_eq!(drain_ms_min(55_000, 1_000), 1_400 + 55_000);
        assert_eq!(drain_ms_min(55_000, 0), 0);
    }
}
