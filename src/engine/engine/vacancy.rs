//! Rooms come when somebody names them and go when nobody is left, or when others need their places.
//!
//! A room that nobody watches is *vacant*, and goes: after `room_idle_ms_max`; after `room_empty_ms_max` when it
//! never had a comment; and when the table is full and a new one is asked for, the one that keeps the fewest
//! comments first, of those the longest untouched. So names that somebody makes up by the thousand take places from
//! each other and from nobody else. A room with viewers never goes, nor one that another shard follows.
//!
//! Not here: what a room keeps (`keeping`), replicas, which go when they are empty (`linking`).

use super::Engine;
use crate::ids::EventId;
use crate::room::{Role, Room, Rooms};
use crate::table::Id;
use crate::time::{Now, ticks};

/// Rooms that are looked at in one tick, and of those beyond a limit that was lowered as many again, so that all of
/// them do not stall it.
const LOOKED_AT_PER_TICK_MAX: usize = 1_024;

impl Engine {
    /// The home room of `event`; made if there is none. `None`: too many rooms have viewers.
    pub(super) fn home_room(&mut self, now: Now, event: &EventId) -> Option<Id> {
        if let Some(id) = self.rooms.find(event) {
            return Some(id);
        }
        if self.is_full_of_rooms(0) && !self.evict_vacant() {
            return None;
        }
        let epoch = self.random.bits();
        let id = self.rooms.insert(Room::home(event.clone(), epoch, &self.limits));
        self.list_if_idle(now, id);
        Some(id)
    }

    /// Whether this shard has its part of `rooms_max`, and `more` beyond it.
    fn is_full_of_rooms(&self, more: usize) -> bool {
        let rooms_max = self.limits.rooms_max.div_ceil(self.setup.shards) as usize;
        self.rooms.table.len() - self.rooms.replicas() >= rooms_max + more
    }

    /// Frees the vacant room that keeps the fewest comments, the longest untouched first. False: there is none.
    fn evict_vacant(&mut self) -> bool {
        let Some(room_id) = self.rooms.vacant.first().map(|vacancy| vacancy.room) else {
            return false;
        };
        self.counters.rooms_evicted += 1;
        self.free_room(room_id);
        true
    }

    /// After somebody came to or left a home room: brings its place among the vacant up to date, and notes an empty
    /// one to be looked at again when it may have to go.
    pub(super) fn list_if_idle(&mut self, now: Now, room_id: Id) {
        self.touch(now, room_id);
        let Some(room) = self.rooms.table.get_mut(room_id) else { return };
        let (is_empty, has_comments) = (room.is_empty(), room.head().offset > 0);
        let Role::Home(home) = &mut room.role else { return };
        if is_empty && !home.is_idle_listed {
            home.is_idle_listed = true;
            self.list_idle(now.tick(), room_id, has_comments);
        }
    }

    /// Somebody came, left or posted.
    pub(super) fn touch(&mut self, now: Now, room_id: Id) {
        let Some(room) = self.rooms.table.get_mut(room_id) else { return };
        let Role::Home(home) = &mut room.role else { return };
        home.active_tick = now.tick();
        self.touches += 1;
        self.rooms.place_vacant(room_id, Some(self.touches));
    }

    fn list_idle(&mut self, since: u32, room_id: Id, has_comments: bool) {
        let due = since + self.patience_with(has_comments);
        let list = if has_comments { &mut self.rooms.idle } else { &mut self.rooms.bare };
        list.push_back((due, room_id));
    }

    /// How long an empty room stays, in ticks.
    fn patience_with(&self, has_comments: bool) -> u32 {
        let Self { limits, .. } = self;
        let most = if has_comments { limits.room_idle_ms_max } else { limits.room_empty_ms_max };
        ticks(most.min(limits.room_idle_ms_max))
    }

    /// Frees rooms whose time has come, and those beyond a limit that was lowered.
    pub(super) fn free_idle_rooms(&mut self, now: Now) {
        for _ in 0..LOOKED_AT_PER_TICK_MAX {
            let Some(room_id) = self.next_due(now) else { break };
            let Some(room) = self.rooms.table.get_mut(room_id) else { continue };
            let (is_empty, has_comments) = (room.is_empty(), room.head().offset > 0);
            let Role::Home(home) = &mut room.role else { continue };
            home.is_idle_listed = is_empty;
            let since = home.active_tick;
            if !is_empty {
                continue;
            }
            if since + self.patience_with(has_comments) > now.tick() {
                self.list_idle(since, room_id, has_comments);
            } else {
                self.counters.rooms_freed += 1;
                self.free_room(room_id);
            }
        }
        for _ in 0..LOOKED_AT_PER_TICK_MAX {
            if !self.is_full_of_rooms(1) || !self.evict_vacant() {
                return;
            }
        }
    }

    /// The next listed room that has to be looked at.
    fn next_due(&mut self, now: Now) -> Option<Id> {
        [&mut self.rooms.bare, &mut self.rooms.idle].into_iter().find_map(|list| {
            let is_due = list.front().is_some_and(|&(due, _)| due <= now.tick());
            if is_due { list.pop_front().map(|(_, room_id)| room_id) } else { None }
        })
    }

    /// Looks at listed rooms when new limits say so.
    pub(super) fn rearm_rooms(&mut self) {
        for has_comments in [false, true] {
            let patience = self.patience_with(has_comments);
            let Rooms { table, idle, bare, .. } = &mut self.rooms;
            let list = if has_comments { idle } else { bare };
            for (due, room_id) in list.iter_mut() {
                if let Some(Role::Home(home)) = table.get(*room_id).map(|room| &room.role) {
                    *due = home.active_tick + patience;
                }
            }
            list.make_contiguous().sort_unstable();
        }
    }

    fn free_room(&mut self, room_id: Id) {
        let Some(room) = self.rooms.remove(room_id) else { return };
        if let Role::Home(home) = &room.role {
            self.keeping.forget(room_id.index, home.counted_bytes);
            self.retries.forget(room_id.index, home.key_bytes);
        }
    }
}
