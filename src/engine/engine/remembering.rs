//! What the shard remembers of post keys: all rooms together within its share of `retry_keys_bytes_max`.
//!
//! Beyond it the room that remembers most forgets its oldest, so a room that many retry in takes nothing from the
//! others, and no room's keys cost what is not counted.
//!
//! Not here: the keys of one room (`keys`).

use super::Engine;
use crate::keys::{Digest, Known};
use crate::ranks::Ranks;
use crate::report::Forgotten;
use crate::room::Role;
use crate::table::Id;
use crate::time::Now;

/// Rooms that remember keys, by the memory it takes.
#[derive(Debug, Default)]
pub(super) struct Retries {
    /// Bytes of all.
    pub(super) bytes: u64,
    ranks: Ranks,
}

impl Retries {
    fn count(&mut self, index: u32, before: u64, now: u64) {
        self.bytes = self.bytes - before + now;
        self.ranks.set(index, now);
    }

    /// The room at `index`, whose keys took `bytes`, is gone.
    pub(super) fn forget(&mut self, index: u32, bytes: u64) {
        self.count(index, bytes, 0);
    }
}

impl Engine {
    /// What was posted to a home room under `digest` within the window.
    pub(super) fn find_key(&mut self, now: Now, room_id: Id, digest: &Digest) -> Option<Known> {
        let room = self.rooms.table.get_mut(room_id)?;
        let Role::Home(home) = &mut room.role else { return None };
        let keys = home.keys.as_mut()?;
        let known = keys.find(now, digest);
        if keys.is_sparse() {
            keys.shrink();
            self.recount_keys(room_id.index);
        }
        known
    }

    /// Remembers a post to a home room.
    pub(super) fn remember_key(&mut self, now: Now, room_id: Id, digest: Digest, known: Known) {
        let Some(room) = self.rooms.table.get_mut(room_id) else { return };
        let Role::Home(home) = &mut room.role else { return };
        let keys = home.keys.get_or_insert_with(Box::default);
        let is_one_forgotten = keys.remember(now, digest, known);
        self.counters.keys_forgotten[Forgotten::Event as usize] += u64::from(is_one_forgotten);
        self.recount_keys(room_id.index);
        self.limit_keys();
    }

    /// The shard's share of what the node may remember.
    pub(super) fn keys_share_bytes(&self) -> u64 {
        self.limits.retry_keys_bytes_max / u64::from(self.setup.shards)
    }

    /// Keeps the keys of all rooms within the shard's share.
    pub(super) fn limit_keys(&mut self) {
        let share = self.keys_share_bytes();
        while self.retries.bytes > share {
            let Some(index) = self.retries.ranks.largest() else { return };
            if let Role::Home(home) = &mut self.rooms.table.at(index).role
                && let Some(keys) = &mut home.keys
            {
                let count = keys.forget_some();
                self.counters.keys_forgotten[Forgotten::Node as usize] += count as u64;
            }
            self.recount_keys(index);
        }
    }

    fn recount_keys(&mut self, index: u32) {
        let Role::Home(home) = &mut self.rooms.table.at(index).role else { return };
        home.keys.take_if(|keys| keys.is_empty());
        let bytes = home.keys.as_ref().map_or(0, |keys| keys.bytes());
        let before = std::mem::replace(&mut home.key_bytes, bytes);
        self.retries.count(index, before, bytes);
    }
}
