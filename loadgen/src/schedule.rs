//! When comments are due: an open loop that never waits for the server.
//!
//! Every publisher has its own clock of due instants. If the loop comes late, it posts what is
//! due at once and the lateness counts, as slippage here and as latency at the viewers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::chance::Chance;

/// How due instants are spaced.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Arrivals {
    /// Evenly, each publisher with a random phase.
    Fixed,
    /// As a Poisson process, the way people write.
    Poisson,
}

/// A comment that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due {
    /// The intended instant, in monotonic nanoseconds.
    pub(crate) due_ns: u64,
    /// Index of the publisher on this plane.
    pub(crate) publisher: u32,
}

/// The due instants of one plane's publishers.
#[derive(Debug)]
pub(crate) struct Schedule {
    heap: BinaryHeap<Reverse<Due>>,
    arrivals: Arrivals,
    /// Between two comments of each publisher: an event that has fewer publishers asks more of each.
    intervals_ns: Vec<f64>,
    chance: Chance,
}

impl Schedule {
    /// A schedule without publishers.
    pub(crate) fn new(arrivals: Arrivals, seed: u64) -> Self {
        let chance = Chance::new(seed);
        Self { heap: BinaryHeap::new(), arrivals, intervals_ns: Vec::new(), chance }
    }

    /// From `from_ns` on, each publisher posts as many comments a second as `rates` has for it; 0 stops it.
    pub(crate) fn restart(&mut self, rates: impl Iterator<Item = f64>, from_ns: u64) {
        self.heap.clear();
        self.intervals_ns.clear();
        for (rate, publisher) in rates.zip(0u32..) {
            let interval_ns = 1e9 / rate;
            self.intervals_ns.push(interval_ns);
            if rate > 0.0 {
                // A random phase, so that events do not post in step.
                let phase = self.chance.unit() * interval_ns;
                self.heap.push(Reverse(Due { due_ns: from_ns + phase as u64, publisher }));
            }
        }
    }

    /// The earliest due instant.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(due)| due.due_ns)
    }

    /// Takes the earliest comment if it is due at `now_ns`, and plans its successor.
    pub(crate) fn pop(&mut self, now_ns: u64) -> Option<Due> {
        let &Reverse(due) = self.heap.peek().filter(|Reverse(due)| due.due_ns <= now_ns)?;
        self.heap.pop();
        let mean_ns = self.intervals_ns[due.publisher as usize];
        let interval_ns = match self.arrivals {
            Arrivals::Fixed => mean_ns,
            Arrivals::Poisson => -(1.0 - self.chance.unit()).ln() * mean_ns,
        };
        self.heap.push(Reverse(Due { due_ns: due.due_ns + interval_ns as u64, ..due }));
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_caller_gets_every_missed_comment_with_its_own_instant() {
        let mut schedule = Schedule::new(Arrivals::Fixed, 1);
        schedule.restart([10.0].into_iter(), 0);
        let missed: Vec<Due> = std::iter::from_fn(|| schedule.pop(1_000_000_000)).collect();
        assert_eq!(missed.len(), 10);
        assert!(missed.windows(2).all(|pair| pair[1].due_ns - pair[0].due_ns == 100_000_000));
        assert!(schedule.next_ns().unwrap() > 1_000_000_000);
    }

    #[test]
    fn both_arrivals_keep_the_rate_over_many_publishers() {
        for arrivals in [Arrivals::Fixed, Arrivals::Poisson] {
            let mut schedule = Schedule::new(arrivals, 7);
            schedule.restart(std::iter::repeat_n(5.0, 100), 0);
            let count = std::iter::from_fn(|| schedule.pop(20_000_000_000)).count() as f64;
            assert!((count - 10_000.0).abs() < 500.0, "{arrivals:?}: {count}");
        }
    }
}
