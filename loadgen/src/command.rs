//! What the conductor asks of planes, near or on another host, and what they answer.
//!
//! Instants are in the conductor's monotonic nanoseconds; a plane on another host adds its
//! clock's offset.

use serde::{Deserialize, Serialize};

use crate::tally::Tally;

impl Command {
    /// Whether planes answer it.
    pub(crate) fn is_answered(&self) -> bool {
        matches!(self, Self::Collect | Self::Heads | Self::Judge { .. })
    }
}

impl Answer {
    /// Adds another plane's answer to the same question; false when it is to another.
    #[must_use]
    pub(crate) fn merge(&mut self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tally(mine), Self::Tally(other)) => mine.merge(other),
            (Self::Heads(mine), Self::Heads(other)) => {
                mine.resize(mine.len().max(other.len()), 0);
                for (head, &other) in mine.iter_mut().zip(other) {
                    *head = (*head).max(other);
                }
            }
            _ => return false,
        }
        true
    }
}

/// How viewers leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Leave {
    /// For good.
    Stay,
    /// And connect again at once, as a new viewer.
    Return,
    /// And connect again at once, asking for everything since.
    Resume,
}

/// A request to every plane; shares are worked out by each from its own number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Connect the publishers only, or everyone.
    Connect {
        /// Whether all viewers are meant.
        everyone: bool,
    },
    /// From `from_ns` on, post this many comments a second into each event; 0 stops.
    Rate {
        /// Comments a second and event.
        per_event: f64,
        /// Instant of the conductor's clock.
        from_ns: u64,
    },
    /// Comments due in this stretch get a histogram of their own.
    Window {
        /// First instant.
        from_ns: u64,
        /// First instant after it.
        to_ns: u64,
    },
    /// Let this share of the live watchers leave.
    Bounce {
        /// 0 to 1.
        share: f64,
        /// Whether they come back.
        leave: Leave,
        /// Publishers too.
        publishers_too: bool,
    },
    /// The conductor's clock minus this host's, as it is now.
    ClockOffset {
        /// In nanoseconds.
        ns: i64,
    },
    /// Answer with the tally.
    Collect,
    /// Answer with the newest offset of each event.
    Heads,
    /// Count who has not reached these offsets; answer with the tally.
    Judge {
        /// The newest offset of each event over all planes.
        heads: Vec<u64>,
    },
    /// Close everything and end.
    Quit,
}

/// A plane's answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// To `Collect` and `Judge`.
    Tally(Box<Tally>),
    /// To `Heads`.
    Heads(Vec<u64>),
}
