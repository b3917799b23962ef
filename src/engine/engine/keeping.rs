//! What the shard keeps of its rooms: all logs together within its share of `log_bytes_max`, fairly.
//!
//! When more is written than may be kept, the room that holds most gives its oldest frames, again and again. So
//! all that give end at the same level, and a room that writes less than that level keeps everything: max-min
//! fairness, whoever posted last and in whatever rhythm. What a member whose socket takes bytes has not been sent
//! yet is given last:
//!
//! ```text
//!               grew             oldest frames not sent to all
//!   not listed ─────► spare ──────────────────────────────────► owed
//!        ▲              │  ▲                                      │ │
//!        │ nothing may go  └──────── a pass ended, or a tick ─────┘ │
//!        └──────────────┴───────────── nothing may go ──────────────┘
//!
//!   gives:  the largest of `spare`;  when nobody is spare, the largest of `owed`: its viewers get a gap
//! ```
//!
//! A room's place changes with its segments, not with its comments, and costs a few writes (`ranks`). Whether
//! frames were sent is known from a bound that is counted anew only when a trim asks for more
//! (`Feed::count_sent`): once for all segments that were full then.
//!
//! Not here: what a room keeps of itself (`Room::trim_to_limits`), which frames of it go first (`Room::trim`).

use std::sync::atomic::Ordering;

use super::Engine;
use crate::codec::Codec;
use crate::log::Trim;
use crate::ranks::Ranks;
use crate::room::Role;
use crate::table::Id;

/// Rooms that are asked for their oldest frames in one go; what is over the limit then goes in the next steps.
const ASKED_MAX: usize = 64;
/// Rooms of those that owe frames to somebody that are asked again in one tick.
const ASKED_PER_TICK_MAX: usize = 1_024;

/// The rooms of a shard that have frames, and what they hold.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// Bytes of all logs.
    pub(super) bytes: u64,
    /// Rooms with bytes.
    rooms: u64,
    /// Rooms whose oldest frames all who keep up have been sent, as far as is known.
    spare: Ranks,
    /// Rooms whose oldest frames somebody who keeps up still waits for, or did when they were last asked.
    owed: Ranks,
}

impl Keeping {
    /// Whether some room may have something to give.
    pub(super) fn can_give(&self) -> bool {
        !(self.spare.is_empty() && self.owed.is_empty())
    }

    /// The room at `index` held `before` bytes and holds `now`.
    fn count(&mut self, index: u32, before: u64, now: u64) {
        self.bytes = self.bytes - before + now;
        self.rooms = self.rooms - u64::from(before > 0) + u64::from(now > 0);
        let list = if self.owed.contains(index) { &mut self.owed } else { &mut self.spare };
        list.set(index, now);
    }

    /// The room at `index` with `bytes` is gone.
    pub(super) fn forget(&mut self, index: u32, bytes: u64) {
        self.count(index, bytes, 0);
    }
}

impl Engine {
    /// Keeps a room whose logs have changed, and all rooms of the shard together, within their limits.
    pub(super) fn limit_logs(&mut self, room_id: Id) {
        self.limit_own_logs(room_id);
        self.limit_all_logs();
    }

    /// Keeps the logs of one room within its own limits.
    pub(super) fn limit_own_logs(&mut self, room_id: Id) {
        let Some(room) = self.rooms.table.get_mut(room_id) else { return };
        if matches!(room.role, Role::Replica(_)) {
            return;
        }
        self.counters.log_evictions += room.trim_to_limits(&self.limits);
        self.recount_log_bytes(room_id.index);
    }

    /// The shard's share of what the node may keep.
    pub(super) fn log_share_bytes(&self) -> u64 {
        self.limits.log_bytes_max / u64::from(self.setup.shards)
    }

    /// What each log could have if all rooms that have one were alike.
    pub(super) fn fair_log_bytes(&self) -> u64 {
        self.log_share_bytes() / (self.keeping.rooms.max(1) * Codec::ALL.len() as u64)
    }

    /// Brings all logs of the shard together within its share, or a step nearer to it when that is far: a share that a
    /// reload has made smaller may want the oldest of tens of thousands of rooms.
    pub(super) fn limit_all_logs(&mut self) {
        let share = self.log_share_bytes();
        let mut asked = 0;
        let mut may_give = true;
        while self.keeping.bytes > share && may_give && asked < ASKED_MAX {
            may_give = self.ask_largest();
            asked += 1;
        }
        self.walks.is_over_logs = self.keeping.bytes > share && may_give;
    }

    /// The largest room drops its oldest frames, or takes its place among those that cannot now. False when nobody
    /// can give anything.
    fn ask_largest(&mut self) -> bool {
        if let Some(index) = self.keeping.spare.largest() {
            let room = self.rooms.table.at(index);
            match room.next_trim(true) {
                None => self.keeping.spare.remove(index),
                Some((codec, trim)) if self.has_sent(index, codec, trim.tail) => {
                    self.drop_oldest(index, codec, trim);
                }
                Some(_) => {
                    self.keeping.spare.remove(index);
                    self.keeping.owed.set(index, self.rooms.table.at(index).log_bytes());
                }
            }
            return true;
        }
        let Some(index) = self.keeping.owed.largest() else { return false };
        match self.rooms.table.at(index).next_trim(true) {
            Some((codec, trim)) => {
                self.counters.log_evictions_unsent += self.drop_oldest(index, codec, trim);
            }
            None => self.keeping.owed.remove(index),
        }
        true
    }

    fn drop_oldest(&mut self, index: u32, codec: Codec, trim: Trim) -> u64 {
        let gone = self.rooms.table.at(index).drop_oldest(codec, trim);
        self.counters.log_evictions += gone;
        self.recount_log_bytes(index);
        gone
    }

    /// Brings the sum of log bytes, and the room's place, up to date after its logs changed.
    fn recount_log_bytes(&mut self, index: u32) {
        let room = self.rooms.table.at(index);
        let bytes = room.log_bytes();
        let Role::Home(home) = &mut room.role else { return };
        let before = std::mem::replace(&mut home.counted_bytes, bytes);
        let is_vacant = home.vacancy.is_some();
        self.keeping.count(index, before, bytes);
        if is_vacant {
            let id = self.rooms.table.id_at(index).expect("the room was just found");
            self.rooms.place_vacant(id, None);
        }
    }

    /// Whether all members of a home room's feed whose sockets take bytes have been sent what is before `end`.
    fn has_sent(&mut self, index: u32, codec: Codec, end: u64) -> bool {
        let Self { rooms, connections, .. } = self;
        let room = rooms.table.at(index);
        if let Role::Home(home) = &room.role {
            let replicas = home.followers.iter().filter(|follower| follower.grants > 0);
            let mut told = replicas.filter_map(|follower| follower.sent_to.as_ref());
            if told.any(|sent_to| sent_to[codec.index()].load(Ordering::Acquire) < end) {
                return false;
            }
        }
        let Some(feed) = room.feed_mut(codec) else { return true };
        if feed.sent_to < end {
            feed.count_sent(|index| connections.peek(index).is_blocked);
        }
        feed.sent_to >= end
    }

    /// Asks a room again whose oldest frames somebody waited for.
    pub(super) fn ask_again(&mut self, index: u32) {
        if self.keeping.owed.contains(index) {
            self.keeping.owed.remove(index);
            let bytes = self.rooms.table.at(index).log_bytes();
            self.keeping.spare.set(index, bytes);
        }
    }

    /// Asks rooms again whose members may have gone or stopped reading, or have replicas.
    pub(super) fn ask_all_again(&mut self) {
        for _ in 0..ASKED_PER_TICK_MAX {
            let Some(index) = self.keeping.owed.largest() else { return };
            self.ask_again(index);
        }
    }

    /// A member has come, or takes bytes again: it must be sent what follows its cursor.
    pub(super) fn owe_member(&mut self, room_id: Id, codec: Codec, member: u32) {
        let Some(room) = self.rooms.table.get_mut(room_id) else { return };
        let Some(feed) = room.feed_mut(codec) else { return };
        feed.sent_to = feed.sent_to.min(feed.members[member as usize].cursor);
        self.tell_sent(room_id);
    }

    /// Replica: lets the home shard know how far this one has sent.
    pub(super) fn tell_sent(&mut self, room_id: Id) {
        let Some(room) = self.rooms.table.get_mut(room_id) else { return };
        let ends =
            Codec::ALL.map(|codec| room.feed(codec).map(|feed| (feed.sent_to, feed.log.end())));
        let Role::Replica(replica) = &mut room.role else { return };
        for (told, sent) in replica.sent_to.iter().zip(ends) {
            told.store(sent.map_or(u64::MAX, |(sent_to, _)| sent_to), Ordering::Release);
        }
        let is_behind = ends.iter().flatten().any(|(sent_to, end)| sent_to < end);
        if is_behind && !replica.is_telling {
            replica.is_telling = true;
            self.rooms.telling.push(room_id);
        }
    }

    /// Counts once a tick what the members of replicas have been sent, for the home shards.
    pub(super) fn tell_all_sent(&mut self) {
        for room_id in std::mem::take(&mut self.rooms.telling) {
            let Self { rooms, connections, .. } = self;
            let Some(room) = rooms.table.get_mut(room_id) else { continue };
            for codec in Codec::ALL {
                if let Some(feed) = room.feed_mut(codec) {
                    feed.count_sent(|index| connections.peek(index).is_blocked);
                }
            }
            if let Role::Replica(replica) = &mut room.role {
                replica.is_telling = false;
            }
            self.tell_sent(room_id);
        }
    }
}
