//! Post keys a room remembers, so that a retry is answered and not appended again.
//!
//! Entries stand in order of arrival, which is the order in which they expire and are forgotten; a hash table of
//! their numbers finds one by its digest. A digest is cryptographic: nobody can make two keys meet, and so have
//! another's post taken for a retry. Both grow by small steps, so that memory is what is counted.
//!
//! Not here: how much all rooms together may remember (`engine::remembering`).

use std::collections::VecDeque;

use hashbrown::HashTable;

use crate::ids::CommentId;
use crate::limits::{KEY_MS_MAX, KEYS_MAX};
use crate::time::Now;

/// The first 16 bytes of BLAKE3 over event, user and key, each behind its length.
pub type Digest = [u8; 16];

/// The digest of a user's key for an event: the same on every node (PROTOCOL.md has a vector).
#[must_use]
pub fn digest(event: &str, user: &str, key: &str) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for part in [event, user, key] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut digest = [0; 16];
    digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    digest
}

/// A remembered post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The comment's id.
    pub id: CommentId,
    /// The comment's offset.
    pub offset: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    digest: Digest,
    known: Known,
    /// In monotonic microseconds.
    expiry_us: u64,
}

/// The window: the last [`KEYS_MAX`] keys, each for [`KEY_MS_MAX`].
#[derive(Debug, Default)]
pub struct Keys {
    order: VecDeque<Entry>,
    /// Numbers of entries; the first of `order` has the number `first`.
    places: HashTable<u32>,
    first: u32,
}

/// Digests are as good as random.
fn hash_of(digest: &Digest) -> u64 {
    let [low, ..] = *digest.as_chunks::<8>().0 else { unreachable!("a digest has 16 bytes") };
    u64::from_le_bytes(low)
}

impl Keys {
    /// What was posted under `digest` within the window.
    pub fn find(&mut self, now: Now, digest: &Digest) -> Option<Known> {
        while self.order.front().is_some_and(|entry| entry.expiry_us <= now.mono_us) {
            self.forget_oldest();
        }
        let Self { order, places, first } = self;
        let entry_of = |number: &u32| &order[number.wrapping_sub(*first) as usize];
        let number = places.find(hash_of(digest), |number| entry_of(number).digest == *digest)?;
        Some(entry_of(number).known)
    }

    /// Remembers a post. True when the oldest was forgotten for it, before its time.
    pub fn remember(&mut self, now: Now, digest: Digest, known: Known) -> bool {
        let is_full = self.order.len() == KEYS_MAX;
        if is_full {
            self.forget_oldest();
        }
        if self.order.len() == self.order.capacity() {
            self.order.reserve_exact((self.order.len() / 8).max(4));
        }
        let number = self.first.wrapping_add(self.order.len() as u32);
        self.order.push_back(Entry { digest, known, expiry_us: now.mono_us + KEY_MS_MAX * 1_000 });
        let Self { order, places, first } = self;
        places.insert_unique(hash_of(&digest), number, |number| {
            hash_of(&order[number.wrapping_sub(*first) as usize].digest)
        });
        is_full
    }

    /// Forgets the oldest eighth, or one, and gives the memory back. Returns how many.
    pub fn forget_some(&mut self) -> usize {
        let count = (self.order.len() / 8).max(1).min(self.order.len());
        (0..count).for_each(|_| self.forget_oldest());
        self.shrink();
        count
    }

    /// Gives back memory that expired keys have left.
    pub fn shrink(&mut self) {
        self.order.shrink_to_fit();
        let Self { order, places, first } = self;
        places.shrink_to_fit(|number| hash_of(&order[number.wrapping_sub(*first) as usize].digest));
    }

    /// Whether much less is remembered than there is memory for.
    #[must_use]
    pub fn is_sparse(&self) -> bool {
        self.order.len() < self.order.capacity() / 2
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Memory held, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let order = self.order.capacity() * size_of::<Entry>();
        (size_of::<Self>() + order + self.places.allocation_size()) as u64
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.order.front() else { return };
        let number = self.first;
        if let Ok(place) = self.places.find_entry(hash_of(&oldest.digest), |other| *other == number)
        {
            place.remove();
        }
        self.order.pop_front();
        self.first = self.first.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(offset: u64) -> Known {
        Known { id: CommentId([0; 16]), offset }
    }

    fn key(key: &str) -> Digest {
        digest("e", "ann", key)
    }

    #[test]
    fn a_key_is_known_within_its_window_and_its_count() {
        let at = |ms: u64| Now { mono_us: ms * 1_000, wall_ms: 0 };
        let mut keys = Keys::default();
        keys.remember(at(0), key("k"), known(1));
        assert_eq!(keys.find(at(KEY_MS_MAX - 1), &key("k")), Some(known(1)));
        assert_eq!(keys.find(at(KEY_MS_MAX), &key("k")), None);
        for i in 0..=KEYS_MAX as u64 {
            let is_early = keys.remember(at(0), key(&i.to_string()), known(i));
            assert_eq!(is_early, i == KEYS_MAX as u64);
        }
        assert_eq!(keys.find(at(0), &key("0")), None, "the oldest went first");
        assert!(
            (1..=KEYS_MAX as u64).all(|i| keys.find(at(0), &key(&i.to_string())) == Some(known(i)))
        );
    }

    #[test]
    fn what_is_forgotten_gives_its_memory_back() {
        let now = Now { mono_us: 0, wall_ms: 0 };
        let mut keys = Keys::default();
        for i in 0..4_000 {
            assert!(!keys.remember(now, key(&i.to_string()), known(i)));
        }
        assert!(keys.bytes() < 4_000 * 80, "{} bytes", keys.bytes());
        let mut left = 4_000;
        while left > 500 {
            left -= keys.forget_some() as u64;
            assert_eq!(keys.find(now, &key(&(4_000 - left - 1).to_string())), None);
            assert_eq!(
                keys.find(now, &key(&(4_000 - left).to_string())),
                Some(known(4_000 - left))
            );
        }
        assert!(keys.bytes() < left * 80, "{} bytes for {left}", keys.bytes());
    }

    /// The vector of PROTOCOL.md; an independent BLAKE3 made it.
    #[test]
    fn digests_are_the_same_everywhere() {
        let hex: String =
            digest("final", "ann", "k-19").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "300883e3f6c09426efa7bec361f135fd");
        let parts = [digest("a", "bc", "d"), digest("ab", "c", "d"), digest("a", "b", "cd")];
        assert!(parts[0] != parts[1] && parts[1] != parts[2], "parts do not run together");
    }
}
