//! Who is due: single connections that have something of their own, and feeds whose members
//! wait for frames.
//!
//! Feeds take turns by chunk, so a hot room does not hold up small ones. A feed that has finished
//! a pass rests for as long as the governor says; what is appended meanwhile leaves with the next.
//!
//! Not here: building the sends (`engine::delivery`), how long the pause is (`governor`).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::codec::Codec;
use crate::room::{Feed, Pass, Phase};
use crate::table::Id;

/// A feed of a room on this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeedKey {
    /// The room.
    pub room: Id,
    /// Which of its feeds, as [`Codec::index`].
    pub codec: usize,
}

/// What is due, and what will be.
#[derive(Debug, Default)]
pub struct Fanout {
    /// Connections with private bytes, or that may be behind their feed on their own.
    pub ready: VecDeque<Id>,
    /// Feeds in a pass, in turn.
    running: VecDeque<FeedKey>,
    /// Feeds that rest, by when they may go on, in monotonic microseconds.
    resting: BinaryHeap<Reverse<(u64, FeedKey)>>,
    /// Smoothed cost of one send, in nanoseconds.
    send_cost_ns: u64,
}

impl Fanout {
    /// A feed has frames that some members have not been sent, or lacks some itself.
    pub fn notify(&mut self, now_us: u64, key: FeedKey, feed: &mut Feed) {
        if feed.phase != Phase::Idle {
            return;
        }
        if feed.rest_until_us > now_us {
            feed.phase = Phase::Resting;
            self.resting.push(Reverse((feed.rest_until_us, key)));
        } else {
            feed.phase = Phase::Running;
            self.running.push_back(key);
        }
    }

    /// Moves feeds whose rest is over among the running; `phase_of` marks them.
    pub fn wake_rested(&mut self, now_us: u64, mut mark: impl FnMut(FeedKey) -> bool) {
        while let Some(Reverse((due_us, key))) = self.resting.peek().copied() {
            if due_us > now_us {
                return;
            }
            self.resting.pop();
            if mark(key) {
                self.running.push_back(key);
            }
        }
    }

    /// The feed whose turn it is.
    pub fn next_running(&mut self) -> Option<FeedKey> {
        self.running.pop_front()
    }

    /// A running feed goes to the end of the line.
    pub fn again(&mut self, key: FeedKey) {
        self.running.push_back(key);
    }

    /// Feeds in a pass.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// When the next rest ends, in monotonic microseconds.
    #[must_use]
    pub fn next_rested_us(&self) -> Option<u64> {
        self.resting.peek().map(|Reverse((due_us, _))| *due_us)
    }

    /// Whether something can be sent right now.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty() || !self.running.is_empty()
    }

    /// Notes that `sends` took `spent_us` together.
    pub fn observe(&mut self, sends: usize, spent_us: u64) {
        if sends >= 16 {
            let sample = spent_us * 1_000 / sends as u64;
            let old = if self.send_cost_ns == 0 { sample } else { self.send_cost_ns };
            self.send_cost_ns = (old * 15 + sample) / 16;
        }
    }

    /// What a pass cost the core, in microseconds.
    #[must_use]
    pub fn cost_us(&self, pass: &Pass) -> u64 {
        pass.sends * self.send_cost_ns / 1_000
    }
}

impl FeedKey {
    /// The key of `codec`'s feed of `room`.
    #[must_use]
    pub fn new(room: Id, codec: Codec) -> Self {
        Self { room, codec: codec.index() }
    }

    /// Which codec.
    #[must_use]
    pub fn codec(self) -> Codec {
        Codec::ALL[self.codec]
    }
}
