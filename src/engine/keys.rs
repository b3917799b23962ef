//! Post keys a room remembers, so that a retry is answered and not appended again.

use std::collections::VecDeque;

use hashbrown::HashMap;
use xxhash_rust::xxh3::Xxh3;

use crate::ids::CommentId;
use crate::limits::{KEY_MS_MAX, KEYS_MAX};
use crate::time::Now;

/// A remembered post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The comment's id.
    pub id: CommentId,
    /// The comment's offset.
    pub offset: u64,
}

/// The window: the last [`KEYS_MAX`] keys, each for [`KEY_MS_MAX`].
#[derive(Debug, Default)]
pub struct Keys {
    known: HashMap<u128, Known>,
    /// In order of arrival: when each expires, in monotonic microseconds.
    order: VecDeque<(u64, u128)>,
}

/// A user's key as 128 bits of hash: a collision within a window is out of reach by accident.
#[must_use]
pub fn digest(user: &str, key: &str) -> u128 {
    let mut hasher = Xxh3::new();
    hasher.update(&(user.len() as u64).to_le_bytes());
    hasher.update(user.as_bytes());
    hasher.update(key.as_bytes());
    hasher.digest128()
}

impl Keys {
    /// What was posted under `digest` within the window.
    pub fn find(&mut self, now: Now, digest: u128) -> Option<Known> {
        self.expire(now);
        self.known.get(&digest).copied()
    }

    /// Remembers a post.
    pub fn remember(&mut self, now: Now, digest: u128, known: Known) {
        if self.order.len() == KEYS_MAX {
            self.forget_oldest();
        }
        self.order.push_back((now.mono_us + KEY_MS_MAX * 1_000, digest));
        self.known.insert(digest, known);
    }

    fn expire(&mut self, now: Now) {
        while self.order.front().is_some_and(|(expiry_us, _)| *expiry_us <= now.mono_us) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, digest)) = self.order.pop_front() {
            self.known.remove(&digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_within_its_window_and_its_count() {
        let at = |ms: u64| Now { mono_us: ms * 1_000, wall_ms: 0 };
        let known = |offset| Known { id: CommentId([0; 16]), offset };
        let mut keys = Keys::default();
        keys.remember(at(0), digest("ann", "k"), known(1));
        assert_eq!(keys.find(at(KEY_MS_MAX - 1), digest("ann", "k")), Some(known(1)));
        assert_eq!(keys.find(at(0), digest("an", "nk")), None, "user and key do not run together");
        assert_eq!(keys.find(at(KEY_MS_MAX), digest("ann", "k")), None);
        for i in 0..=KEYS_MAX as u64 {
            keys.remember(at(0), digest("ann", &i.to_string()), known(i));
        }
        assert_eq!(keys.find(at(0), digest("ann", "0")), None, "the oldest went first");
        assert_eq!(keys.find(at(0), digest("ann", "1")), Some(known(1)));
    }
}
