//! Names that outlive a process: event ids, comment ids, positions.

use std::fmt;
use std::str::FromStr;

use crate::limits::EVENT_ID_BYTES_MAX;

/// The name of an event: 1 to 128 bytes of `A–Z a–z 0–9 . _ ~ : -`, neither `.` nor `..`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(Box<str>);

/// Why a text is not an [`EventId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event id is 1 to 128 of A-Z a-z 0-9 . _ ~ : - and neither . nor ..")]
pub struct BadEventId;

impl FromStr for EventId {
    type Err = BadEventId;

    fn from_str(text: &str) -> Result<Self, BadEventId> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._~:-".contains(&b);
        let fits = (1..=EVENT_ID_BYTES_MAX).contains(&text.len());
        if !fits || !text.bytes().all(allowed) || text == "." || text == ".." {
            return Err(BadEventId);
        }
        Ok(Self(text.into()))
    }
}

impl EventId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A comment's identity across nodes: 128 bits in UUIDv7 layout (RFC 9562 §5.7).
///
/// ```text
/// | 48 bits: Unix ms | 4: version 7 | 12: counter, low | 2: variant | 40: node | 8: shard | 14: counter, high |
/// ```
///
/// A counter in place of noise keeps ids of one shard unique and, within a millisecond, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommentId(pub [u8; 16]);

impl CommentId {
    /// Puts an id together; of `node` the low 40 bits count, of `counter` the low 26.
    #[must_use]
    pub fn new(time_ms: u64, node: u64, shard: u8, counter: u32) -> Self {
        let low = u128::from(counter & 0xfff);
        let high = u128::from(counter >> 12 & 0x3fff);
        let node = u128::from(node & 0xff_ffff_ffff);
        let time = u128::from(time_ms & 0xffff_ffff_ffff);
        let bits = time << 80
            | 0x7 << 76
            | low << 64
            | 0b10 << 62
            | node << 22
            | u128::from(shard) << 14
            | high;
        Self(bits.to_be_bytes())
    }
}

impl fmt::Display for CommentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            bits >> 96,
            bits >> 80 & 0xffff,
            bits >> 64 & 0xffff,
            bits >> 48 & 0xffff,
            bits & 0xffff_ffff_ffff
        )
    }
}

/// A place in a room's log: "everything up to and including `offset` has been sent".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Which incarnation of the log.
    pub epoch: u64,
    /// The last offset covered; 0 is before the first comment.
    pub offset: u64,
}

/// Why a text is not a [`Position`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a position is {{epoch in hex}}-{{offset}}, as a welcome frame gave it")]
pub struct BadPosition;

impl FromStr for Position {
    type Err = BadPosition;

    fn from_str(text: &str) -> Result<Self, BadPosition> {
        let digits_only = |s: &str| !s.is_empty() && !s.starts_with('+');
        let (epoch, offset) = text.split_once('-').ok_or(BadPosition)?;
        if !digits_only(epoch) || !digits_only(offset) {
            return Err(BadPosition);
        }
        let epoch = u64::from_str_radix(epoch, 16).map_err(|_| BadPosition)?;
        let offset = offset.parse().map_err(|_| BadPosition)?;
        Ok(Self { epoch, offset })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.epoch, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_ids_take_the_documented_characters_and_nothing_else() {
        for good in ["a", "Final.2026", "a_b~c:d-e", "...", &"x".repeat(128)] {
            assert!(good.parse::<EventId>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "é", "a%20", &"x".repeat(129)] {
            assert_eq!(bad.parse::<EventId>(), Err(BadEventId), "{bad}");
        }
    }

    #[test]
    fn positions_survive_a_round_trip_and_refuse_the_rest() {
        let position = Position { epoch: 0x5f3a, offset: 1154 };
        assert_eq!(position.to_string(), "5f3a-1154");
        assert_eq!("5f3a-1154".parse(), Ok(position));
        for bad in ["", "-", "5f3a", "5f3a-", "-4", "x-1", "5-+1", "+5-1", "1-2-3", "1--2"] {
            assert_eq!(bad.parse::<Position>(), Err(BadPosition), "{bad}");
        }
    }

    #[test]
    fn comment_ids_have_uuid_version_7_and_sort_by_time_then_counter() {
        let id = CommentId::new(0x0197_6543_2100, 0xab_cdef_0123, 3, 0x123_4567 & 0x3ff_ffff);
        assert_eq!(id.to_string(), "01976543-2100-7567-aaf3-7bc048c0d234");
        assert!(CommentId::new(5, 1, 0, 1) < CommentId::new(5, 1, 0, 2));
        assert!(CommentId::new(5, 9, 9, 4_000) < CommentId::new(6, 1, 0, 0));
    }
}
