//! Hot rooms: the few with the most viewers, and the few with the most comments.
//!
//! Nothing is kept for this but a rate in each room. A look walks the table of rooms when somebody
//! asks, [`LOOKED_AT_MAX`] places at a time, so that deliveries go on between two steps of it. Only
//! home rooms count: they know the viewers of their replicas, so a room that has spread is one entry.
//!
//! Not here: putting the steps of all shards together (the control plane).

use crate::ids::EventId;

/// Places looked at in one step: a quarter of a millisecond of a shard where all are rooms.
pub const LOOKED_AT_MAX: u32 = 4_096;
/// Rooms that one list may have.
pub const LISTED_MAX: usize = 100;

/// A room on a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HotRoom {
    /// Its event.
    pub event: EventId,
    /// Connections that watch it on this node, as far as the home shard knows.
    pub viewers: u32,
    /// Comments in 1,000 seconds, by the last ten.
    pub comments_per_1000_s: u64,
}

/// What one step of a look found.
#[derive(Clone, Debug, Default)]
pub struct HotRooms {
    /// Those with the most viewers, most first.
    pub by_viewers: Vec<HotRoom>,
    /// Those with the most comments, most first.
    pub by_comments: Vec<HotRoom>,
    /// Where the next step begins; none when the look is over.
    pub next: Option<u32>,
}

/// The largest of what is offered, in order: at most `limit` pairs of size and place.
#[derive(Debug)]
pub(crate) struct Largest {
    limit: usize,
    pub(crate) list: Vec<(u64, u32)>,
}

impl Largest {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit: limit.min(LISTED_MAX), list: Vec::new() }
    }

    /// Takes a pair in if it is among the largest; sizes of 0 never are.
    pub(crate) fn offer(&mut self, size: u64, place: u32) {
        let is_too_small = self.list.len() == self.limit
            && self.list.last().is_none_or(|&(smallest, _)| size <= smallest);
        if size == 0 || is_too_small {
            return;
        }
        let at = self.list.partition_point(|&(larger, _)| larger >= size);
        self.list.insert(at, (size, place));
        self.list.truncate(self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_those_that_sorting_would_put_first() {
        let sizes: Vec<u64> = (0..1_000).map(|i| i * 7_919 % 503).collect();
        let mut largest = Largest::new(20);
        sizes.iter().enumerate().for_each(|(place, &size)| largest.offer(size, place as u32));
        let mut sorted = sizes.clone();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        let found: Vec<u64> = largest.list.iter().map(|&(size, _)| size).collect();
        assert_eq!(found, sorted[..20]);
        assert!(largest.list.iter().all(|&(size, place)| sizes[place as usize] == size));
    }

    #[test]
    fn nothing_is_listed_where_nothing_is_hot_or_asked_for() {
        let (mut cold, mut none) = (Largest::new(5), Largest::new(0));
        cold.offer(0, 1);
        none.offer(9, 1);
        assert!(cold.list.is_empty() && none.list.is_empty());
    }
}
