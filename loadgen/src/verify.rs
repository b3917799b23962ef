//! Whether a viewer got what was published: order, holes, duplicates, and one order for all.
//!
//! A viewer needs eight bytes: the offset it expects next. Offsets are dense, so a comment
//! beyond that one is a hole, and one before it is late or a duplicate; only viewers to whom
//! that happened cost more (the list of what they miss). That all viewers see the *same*
//! comment at an offset is checked against a small table of recent offsets per event.

use std::collections::HashMap;

/// What a comment's offset says to the viewer who got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The one expected.
    InOrder,
    /// This many before it have not come.
    Hole(u64),
    /// It had been missing: the server reordered.
    Late,
    /// It had come already.
    Duplicate,
}

/// Viewers who miss something: inclusive ranges, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Holes(HashMap<u32, Vec<(u64, u64)>>);

impl Holes {
    /// Judges a comment and moves the viewer's expectation.
    pub(crate) fn arrive(&mut self, viewer: u32, expected: &mut u64, offset: u64) -> Arrival {
        if offset == *expected {
            *expected += 1;
            return Arrival::InOrder;
        }
        if offset > *expected {
            let missing = offset - *expected;
            self.0.entry(viewer).or_default().push((*expected, offset - 1));
            *expected = offset + 1;
            return Arrival::Hole(missing);
        }
        if self.fill(viewer, offset) { Arrival::Late } else { Arrival::Duplicate }
    }

    /// Takes one offset out of what the viewer misses; says whether it was missing.
    fn fill(&mut self, viewer: u32, offset: u64) -> bool {
        let Some(ranges) = self.0.get_mut(&viewer) else { return false };
        let Some(i) = ranges.iter().position(|&(from, to)| from <= offset && offset <= to) else {
            return false;
        };
        let (from, to) = ranges.remove(i);
        if offset < to {
            ranges.insert(i, (offset + 1, to));
        }
        if from < offset {
            ranges.insert(i, (from, offset - 1));
        }
        if ranges.is_empty() {
            self.0.remove(&viewer);
        }
        true
    }

    /// Forgets a viewer whose stream begins anew.
    pub(crate) fn forget(&mut self, viewer: u32) {
        if !self.0.is_empty() {
            self.0.remove(&viewer);
        }
    }
}

/// The recent comments of one event: which identity stood at which offset.
#[derive(Debug)]
pub(crate) struct Recent {
    /// Power-of-two many `(offset, identity)`; index is the offset's low bits.
    places: Box<[(u64, u64)]>,
}

impl Recent {
    /// Remembers `places` offsets, rounded up to a power of two.
    pub(crate) fn new(places: usize) -> Self {
        Self { places: vec![(0, 0); places.next_power_of_two()].into() }
    }

    /// Whether `identity` is what others saw at `offset`. An offset too old to be remembered agrees.
    pub(crate) fn agrees(&mut self, offset: u64, identity: u64) -> bool {
        let i = offset as usize & (self.places.len() - 1);
        let place = &mut self.places[i];
        if place.0 == offset {
            return place.1 == identity;
        }
        if place.0 < offset {
            *place = (offset, identity);
        }
        true
    }

    /// Forgets everything: the event has begun a new epoch.
    pub(crate) fn clear(&mut self) {
        self.places.fill((0, 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn play(offsets: &[u64]) -> Vec<Arrival> {
        let (mut holes, mut expected) = (Holes::default(), 1);
        offsets.iter().map(|&offset| holes.arrive(7, &mut expected, offset)).collect()
    }

    #[test]
    fn order_holes_lateness_and_duplicates_are_told_apart() {
        use Arrival::{Duplicate, Hole, InOrder, Late};
        assert_eq!(play(&[1, 2, 3]), [InOrder, InOrder, InOrder]);
        assert_eq!(play(&[1, 4, 5]), [InOrder, Hole(2), InOrder]);
        assert_eq!(play(&[1, 3, 2, 4]), [InOrder, Hole(1), Late, InOrder]);
        assert_eq!(play(&[1, 1, 2]), [InOrder, Duplicate, InOrder]);
        assert_eq!(
            play(&[5, 3, 3, 1, 2, 4, 4]),
            [Hole(4), Late, Duplicate, Late, Late, Late, Duplicate]
        );
    }

    #[test]
    fn all_viewers_must_see_one_comment_at_an_offset() {
        let mut recent = Recent::new(3);
        assert!(recent.agrees(1, 10));
        assert!(recent.agrees(1, 10));
        assert!(!recent.agrees(1, 11));
        assert!(recent.agrees(5, 50), "five takes the place of one");
        assert!(recent.agrees(1, 99), "too old to be remembered");
        assert!(recent.agrees(5, 50));
        recent.clear();
        assert!(recent.agrees(1, 12));
    }
}
