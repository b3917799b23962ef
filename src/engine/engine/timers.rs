//! Everything that happens because time has passed.

use super::{Engine, Parting};
use crate::codec::Codec;
use crate::connection::{Connection, Phase};
use crate::fanout::FeedKey;
use crate::http::Rejection;
use crate::report::{CloseCause, LingerCut};
use crate::table::Id;
use crate::time::{Now, TICK_US, ticks};
use crate::ws::writer;

/// RFC 6455 §7.4.1 and its registry: the server restarts; connect again.
const CLOSE_RESTART: u16 = 1012;
/// RFC 6455 §7.4.1: a policy was broken.
const CLOSE_POLICY: u16 = 1008;

/// Where between 0 and `most` the place of a connection falls: evenly over any run of connections, as
/// steps by the golden ratio are, and always the same for the same connection.
pub(super) fn spread(index: u32, most: u32) -> u32 {
    const GOLDEN: u32 = 0x9e37_79b9;
    ((u64::from(index.wrapping_mul(GOLDEN)) * (u64::from(most) + 1)) >> 32) as u32
}

impl Engine {
    /// Call it once a tick (100 ms) with the busy share of the core since the last call, softirq time
    /// included, in permille.
    pub fn tick(&mut self, now: Now, busy_permille: u32) {
        self.governor.sample(busy_permille, self.limits.cpu_target_percent);
        self.wheel.advance(now.tick(), &mut self.fired);
        self.step(now);
        self.count_held();
        self.expire_halves(now);
        self.tell_all_sent();
        self.ask_all_again();
        self.tidy_unfinished();
        self.release_replicas();
        self.free_idle_rooms(now);
        self.tell_load();
        self.continue_drain(now);
        self.keep_budgets(now);
    }

    /// When the engine wants to be called next, in monotonic microseconds: the next tick, or the
    /// end of a feed's rest.
    #[must_use]
    pub fn due_us(&self, now: Now) -> u64 {
        let tick_us = (u64::from(now.tick()) + 1) * TICK_US;
        self.fanout.next_rested_us().map_or(tick_us, |rested_us| rested_us.min(tick_us))
    }

    /// Schedules the connection's next deadline if it is earlier than what is scheduled.
    pub(super) fn arm(&mut self, now: Now, id: Id) {
        self.arm_after(now.tick() + 1, id);
    }

    /// As [`Self::arm`]; a deadline before `earliest` is put off until then.
    pub(super) fn arm_after(&mut self, earliest: u32, id: Id) {
        let Some(due) = self.deadline(id) else { return };
        if self.wheel.due(id.index).is_none_or(|scheduled| scheduled > due) {
            self.wheel.schedule(id.index, due.max(earliest));
        }
    }

    /// The tick at which something has to be done about the connection.
    fn deadline(&self, id: Id) -> Option<u32> {
        let connection = self.connections.get(id)?;
        match connection.phase {
            Phase::Handshake(_) => {
                Some(connection.phase_tick + ticks(self.limits.handshake_ms_max))
            }
            Phase::Closing { .. } => Some(connection.phase_tick + ticks(self.limits.close_ms_max)),
            Phase::Leaving(_) | Phase::Handing => None,
            Phase::Arriving { .. } => self.wheel.due(id.index),
            Phase::Live { .. } | Phase::Echo => {
                let stall = connection
                    .is_blocked
                    .then(|| connection.socket_tick + ticks(self.limits.stall_ms_max));
                let deadlines = [
                    self.silence_deadline(id),
                    self.message_deadline(id),
                    stall,
                    self.drain_tick(id),
                ];
                deadlines.into_iter().flatten().min()
            }
        }
    }

    /// When the connection's silence calls for a ping, or for giving up after one.
    fn silence_deadline(&self, id: Id) -> Option<u32> {
        let interval = ticks(self.limits.keepalive_ms);
        let connection = self.connections.get(id)?;
        if interval == 0 {
            return None;
        }
        if self.awaits_pong(id) && !connection.is_paused {
            return Some(connection.pinged_tick + interval);
        }
        if connection.is_blocked {
            return Some(connection.heard_tick + interval);
        }
        // Frames that were taken by the kernel are traffic too; if the peer is dead, TCP finds out. But all
        // subscribers of a room had that traffic at once, and must not all be pinged at once after it.
        let sent = self.log_sent_tick(connection);
        let since_silence = if sent > connection.heard_tick {
            sent + interval - spread(id.index, interval / 2)
        } else {
            connection.heard_tick + interval
        };
        // A peer may talk without ever being answered; what lies between may count that as silence.
        let spoken = sent.max(connection.socket_tick).max(connection.phase_tick);
        Some(since_silence.min(spoken + interval + spread(id.index, interval / 2)))
    }

    /// A tick that the connection was sent frames of its room's log in or after; 0 when none is known.
    fn log_sent_tick(&self, connection: &Connection) -> u32 {
        let Phase::Live { room, member } = connection.phase else { return 0 };
        let room = self.rooms.table.get(room).expect("a member's room exists");
        let feed = room.feed(connection.codec).expect("a member's feed exists");
        room.traffic.sent_tick(feed.members[member as usize].cursor)
    }

    /// When a message that is under way is late. Not while nobody reads on.
    fn message_deadline(&self, id: Id) -> Option<u32> {
        let connection = self.connections.get(id).filter(|connection| !connection.is_paused)?;
        Some(connection.reader.since()? + ticks(self.limits.message_ms_max))
    }

    fn awaits_pong(&self, id: Id) -> bool {
        self.connections.get(id).is_some_and(|connection| {
            connection.pinged_tick > 0 && connection.heard_tick < connection.pinged_tick
        })
    }

    pub(super) fn timer(&mut self, now: Now, id: Id) {
        let tick = now.tick();
        if let Some(connection) = self.connections.get_mut(id) {
            connection.patience.forget(now);
        }
        if self.deadline(id).is_some_and(|due| due > tick) {
            return self.arm(now, id);
        }
        let Some(connection) = self.connections.get(id) else { return };
        // Its own bytes stand in line behind others' sends: that is our time and not the peer's.
        let is_in_line = connection.private.is_some() && !connection.is_blocked;
        match connection.phase {
            Phase::Handshake(_) => self.give_up_request(now, id, &Rejection::TIMEOUT),
            Phase::Leaving(_) | Phase::Handing => {}
            // Nobody can have heard it yet.
            Phase::Closing { .. } if is_in_line => {
                self.connections.at(id.index).phase_tick = tick;
                self.arm(now, id);
            }
            Phase::Closing { rest: Some(_) } => self.cut_off(id, LingerCut::Time),
            Phase::Arriving { .. } | Phase::Closing { .. } => {
                self.remove(id, Parting::Dropped);
            }
            Phase::Live { .. } | Phase::Echo => {
                let has_stalled = connection.is_blocked
                    && connection.socket_tick + ticks(self.limits.stall_ms_max) <= tick;
                if self.drain_tick(id).is_some_and(|due| due <= tick) {
                    return self.close(now, id, CLOSE_RESTART, "draining", CloseCause::Drain);
                } else if has_stalled {
                    return self.drop_connection(now, id, CloseCause::Stalled);
                } else if self.message_deadline(id).is_some_and(|due| due <= tick) {
                    let (reason, cause) = ("a message took too long", CloseCause::SlowMessage);
                    return self.close(now, id, CLOSE_POLICY, reason, cause);
                } else if connection.is_paused
                    && self.silence_deadline(id).is_some_and(|due| due <= tick)
                {
                    // What it said waits to be read: whatever it is, it is not silent. But it is not to be left
                    // without a word either.
                    let is_blocked = connection.is_blocked;
                    self.connections.at(id.index).heard_tick = tick;
                    if !is_blocked {
                        self.counters.pings += 1;
                        self.push_private(now, id, |out| writer::ping(out, b""));
                    }
                } else if self.silence_deadline(id).is_some_and(|due| due <= tick) {
                    if self.awaits_pong(id) && !is_in_line {
                        return self.drop_connection(now, id, CloseCause::Silent);
                    }
                    // A ping that stands in line behind others' sends has asked nobody yet.
                    let is_asked = self.awaits_pong(id);
                    self.connections.at(id.index).pinged_tick = tick;
                    if !is_asked {
                        self.counters.pings += 1;
                        self.push_private(now, id, |out| writer::ping(out, b""));
                    }
                }
                self.arm(now, id);
            }
        }
    }

    /// Moves feeds whose rest is over among those that run.
    pub(super) fn wake_rested(&mut self, now: Now) {
        let rooms = &mut self.rooms.table;
        self.fanout.wake_rested(now.mono_us, |key: FeedKey| {
            let codec: Codec = key.codec();
            let Some(feed) = rooms.get_mut(key.room).and_then(|room| room.feed_mut(codec)) else {
                return false;
            };
            feed.phase = crate::room::Phase::Running;
            true
        });
    }
}
