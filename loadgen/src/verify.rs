//! Whether a viewer got what was published: order, holes, duplicates, and one order for all.
//!
//! A viewer needs eight bytes: the offset it expects next. Offsets are dense, so a comment
//! beyond that one is a hole, and one before it is late or a duplicate; only viewers to whom
//! that happened cost more (the list of what they miss). That all viewers see the *same*
//! comment at an offset is checked against a small table of recent offsets per event. Whoever is
//! the first to see an offset also says which post stands there: a publisher numbers its posts, so
//! one that stands at two offsets is found as a duplicate delivery is, once a comment and not once
//! a delivery.

use std::cmp::Ordering;
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

/// What a viewer misses, or the log of a publisher's posts: inclusive ranges, oldest first.
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

/// What an event's table of recent offsets says of a comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// Nobody has seen this offset yet.
    First,
    /// It is what others saw there, or too old to tell.
    Agrees,
    /// Others saw another.
    Differs,
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

    /// Whether `identity` is what others saw at `offset`.
    pub(crate) fn see(&mut self, offset: u64, identity: u64) -> Sight {
        let i = offset as usize & (self.places.len() - 1);
        let place = &mut self.places[i];
        match place.0.cmp(&offset) {
            Ordering::Less => {
                *place = (offset, identity);
                Sight::First
            }
            Ordering::Equal if place.1 != identity => Sight::Differs,
            Ordering::Equal | Ordering::Greater => Sight::Agrees,
        }
    }

    /// Forgets everything: the event has begun a new epoch.
    pub(crate) fn clear(&mut self) {
        self.places.fill((0, 0));
    }
}

/// Which posts stand in the logs: each once, whoever the publisher is and whichever plane it posts from.
#[derive(Debug)]
pub(crate) struct Posts {
    /// The sequence that each publisher's next new post should have.
    expected: Vec<u64>,
    missing: Holes,
}

impl Posts {
    /// Of `publishers`, on all hosts.
    pub(crate) fn new(publishers: usize) -> Self {
        Self { expected: vec![0; publishers], missing: Holes::default() }
    }

    /// Takes a post that stands at an offset nobody had seen; whether it stands at another as well.
    pub(crate) fn is_second(&mut self, identity: u64) -> bool {
        let (publisher, sequence) = ((identity >> 32) as u32, identity & u64::from(u32::MAX));
        let Some(expected) = self.expected.get_mut(publisher as usize) else { return false };
        self.missing.arrive(publisher, expected, sequence) == Arrival::Duplicate
    }

    /// Forgets a publisher: its event's log begins anew, and may hold again what the last one held.
    pub(crate) fn forget(&mut self, publisher: u32) {
        self.missing.forget(publisher);
        self.expected[publisher as usize] = 0;
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
        assert_eq!(recent.see(1, 10), Sight::First);
        assert_eq!(recent.see(1, 10), Sight::Agrees);
        assert_eq!(recent.see(1, 11), Sight::Differs);
        assert_eq!(recent.see(5, 50), Sight::First, "five takes the place of one");
        assert_eq!(recent.see(1, 99), Sight::Agrees, "too old to be remembered");
        assert_eq!(recent.see(5, 50), Sight::Agrees);
        recent.clear();
        assert_eq!(recent.see(1, 12), Sight::First);
    }

    #[test]
    fn a_post_stands_in_the_log_once() {
        let mut posts = Posts::new(2);
        let post = |publisher: u64, sequence: u64| publisher << 32 | sequence;
        assert!(
            ![post(0, 0), post(1, 7), post(0, 1), post(1, 9)].iter().any(|&p| posts.is_second(p))
        );
        assert!(!posts.is_second(post(1, 3)), "late is not twice");
        assert!(posts.is_second(post(1, 3)) && posts.is_second(post(0, 1)));
        assert!(!posts.is_second(post(9, 0)), "not one of ours");
        posts.forget(0);
        assert!(!posts.is_second(post(0, 1)), "another log");
    }
}
