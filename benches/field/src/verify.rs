//! What one viewer has seen: every comment once and in order, or else what went wrong.
//!
//! The comments of a room are numbered 1, 2, 3 … by their publisher. A number above the next one
//! opens a hole; a number inside a hole closes it and came late; any other old number is a duplicate.

use std::ops::RangeInclusive;

#[derive(Debug, Default)]
pub(crate) struct Sequence {
    /// The highest number seen.
    last: u32,
    /// Numbers below `last` not seen yet, ascending; empty for a healthy stream.
    #[expect(clippy::box_collection, reason = "8 bytes in each of 17,000 healthy viewers, not 24")]
    holes: Option<Box<Vec<RangeInclusive<u32>>>>,
}

/// How a comment fitted into what was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    Next,
    /// Later than a comment with a higher number.
    Late,
    Duplicate,
}

impl Sequence {
    pub(crate) fn take(&mut self, number: u32) -> Arrival {
        if number > self.last {
            if number > self.last + 1 {
                self.holes.get_or_insert_default().push(self.last + 1..=number - 1);
            }
            self.last = number;
            return Arrival::Next;
        }
        let Some(holes) = &mut self.holes else { return Arrival::Duplicate };
        let Some(at) = holes.iter().position(|hole| hole.contains(&number)) else {
            return Arrival::Duplicate;
        };
        let hole = holes.remove(at);
        for part in [number + 1..=*hole.end(), *hole.start()..=number - 1] {
            if !part.is_empty() {
                holes.insert(at, part);
            }
        }
        Arrival::Late
    }

    /// The highest number seen.
    pub(crate) fn last(&self) -> u32 {
        self.last
    }

    /// Different comments seen.
    pub(crate) fn seen(&self) -> u32 {
        let holes = self.holes.as_ref().map_or(&[][..], |holes| holes.as_slice());
        self.last - holes.iter().map(|hole| hole.end() - hole.start() + 1).sum::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unbroken_stream_is_all_next() {
        let mut sequence = Sequence::default();
        assert!((1..=5).all(|number| sequence.take(number) == Arrival::Next));
        assert_eq!((sequence.last(), sequence.seen()), (5, 5));
    }

    #[test]
    fn holes_late_arrivals_and_duplicates_are_told_apart() {
        let mut sequence = Sequence::default();
        let arrivals = [2, 6, 4, 4, 6, 1, 1].map(|number| sequence.take(number));
        use Arrival::{Duplicate, Late, Next};
        assert_eq!(arrivals, [Next, Next, Late, Duplicate, Duplicate, Late, Duplicate]);
        assert_eq!(sequence.seen(), 4, "3 and 5 are missing");
        assert_eq!([3, 5].map(|number| sequence.take(number)), [Late, Late]);
        assert_eq!(sequence.seen(), 6);
    }
}
