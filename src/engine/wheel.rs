//! One timer per connection, hashed by deadline into slots (Varghese and Lauck 1987, scheme 6).
//!
//! A slot is a doubly linked list threaded through the entries by index: scheduling and
//! cancelling are a few writes, a tick looks at one slot. Deadlines beyond the wheel's span
//! stay in their slot for another turn.
//!
//! Not here: what a timer means. Whoever owns the entry computes it again when it fires.

use std::collections::VecDeque;

/// Slots of the wheel; with ticks of 100 ms it spans 102 s, more than any usual deadline.
const SLOTS: u32 = 1_024;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Links {
    next: u32,
    previous: u32,
    /// The tick it is due; meaningful only while linked.
    due: u32,
    is_linked: bool,
}

const UNLINKED: Links = Links { next: NONE, previous: NONE, due: 0, is_linked: false };

/// The wheel. Entries are named by the index of what they belong to.
#[derive(Debug)]
pub struct Wheel {
    heads: Box<[u32]>,
    links: Vec<Links>,
    /// The last tick whose slot was looked at.
    tick: u32,
    len: usize,
}

impl Wheel {
    /// An empty wheel that stands at `tick`.
    #[must_use]
    pub fn new(tick: u32) -> Self {
        Self { heads: vec![NONE; SLOTS as usize].into(), links: Vec::new(), tick, len: 0 }
    }

    /// Makes `index` fire at tick `due`, or at the next tick if that has passed; replaces what was set.
    pub fn schedule(&mut self, index: u32, due: u32) {
        self.cancel(index);
        if self.links.len() <= index as usize {
            self.links.resize(index as usize + 1, UNLINKED);
        }
        let due = due.max(self.tick + 1);
        let head = &mut self.heads[(due % SLOTS) as usize];
        let next = std::mem::replace(head, index);
        self.links[index as usize] = Links { next, previous: NONE, due, is_linked: true };
        if next != NONE {
            self.links[next as usize].previous = index;
        }
        self.len += 1;
    }

    /// When `index` is due, if it is scheduled.
    #[must_use]
    pub fn due(&self, index: u32) -> Option<u32> {
        self.links.get(index as usize).filter(|links| links.is_linked).map(|links| links.due)
    }

    /// Forgets `index`.
    pub fn cancel(&mut self, index: u32) {
        let Some(&links) = self.links.get(index as usize) else { return };
        if !links.is_linked {
            return;
        }
        match links.previous {
            NONE => self.heads[(links.due % SLOTS) as usize] = links.next,
            previous => self.links[previous as usize].next = links.next,
        }
        if links.next != NONE {
            self.links[links.next as usize].previous = links.previous;
        }
        self.links[index as usize] = UNLINKED;
        self.len -= 1;
    }

    /// Moves on to `tick` and appends every index that became due to `fired`, unscheduling it.
    pub fn advance(&mut self, tick: u32, fired: &mut VecDeque<u32>) {
        // After a long sleep each slot is looked at once, whatever the distance.
        let steps = tick.saturating_sub(self.tick).min(SLOTS);
        let first = tick - steps + 1;
        self.tick = tick.max(self.tick);
        for slot in (0..steps).map(|step| (first + step) % SLOTS) {
            let mut index = self.heads[slot as usize];
            while index != NONE {
                let links = self.links[index as usize];
                if links.due <= tick {
                    self.cancel(index);
                    fired.push_back(index);
                }
                index = links.next;
            }
        }
    }

    /// Scheduled entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is scheduled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn agrees_with_a_sorted_list_for_any_order_of_calls() {
        for seed in 0..50 {
            let mut random = Random::new(seed);
            let mut wheel = Wheel::new(7);
            let mut model: Vec<Option<u32>> = vec![None; 40];
            let mut tick = 7;
            for _ in 0..400 {
                let index = random.below(40);
                match random.below(4) {
                    0 => {
                        wheel.cancel(index);
                        model[index as usize] = None;
                    }
                    1 | 2 => {
                        let due = tick + random.below(3_000);
                        wheel.schedule(index, due);
                        model[index as usize] = Some(due.max(tick + 1));
                    }
                    _ => {
                        let span = if random.below(9) == 0 { 2_500 } else { 30 };
                        tick += random.below(span);
                        let mut fired = VecDeque::new();
                        wheel.advance(tick, &mut fired);
                        let mut fired = Vec::from(fired);
                        fired.sort_unstable();
                        let mut expected = Vec::new();
                        for (index, due) in model.iter_mut().enumerate() {
                            if due.is_some_and(|due| due <= tick) {
                                expected.push(index as u32);
                                *due = None;
                            }
                        }
                        assert_eq!(fired, expected, "seed {seed} tick {tick}");
                    }
                }
                assert_eq!(wheel.len(), model.iter().flatten().count(), "seed {seed}");
            }
        }
    }
}
