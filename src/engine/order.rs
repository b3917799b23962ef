//! Connections in the order in which they came to some state, to find the one that is in it longest.
//!
//! Who leaves the state is only counted off; its place in the queue goes when it comes to the front, or with
//! the rest of the outdated ones when they are most of the queue. So coming and leaving cost a few
//! instructions, a connection needs no link of its own, and the queue is bounded by those who are in the
//! state.
//!
//! Not here: what the state is; whoever asks says which connections are still in it.

use std::collections::VecDeque;

use crate::table::Id;

/// Outdated places that may stand in a queue of nobody.
const STALE_MAX: usize = 64;

/// The order. At most `2 · len + STALE_MAX` places.
#[derive(Debug, Default)]
pub struct Order {
    ids: VecDeque<Id>,
    len: u32,
}

impl Order {
    /// A connection comes to the state.
    pub fn push(&mut self, id: Id) {
        self.ids.push_back(id);
        self.len += 1;
    }

    /// A connection has left the state; from now on `is_in` is false for it.
    pub fn leave(&mut self) {
        self.len -= 1;
    }

    /// How many are in the state.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether nobody is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Who is in the state longest.
    pub fn oldest(&mut self, is_in: impl Fn(Id) -> bool) -> Option<Id> {
        while let Some(&id) = self.ids.front() {
            if is_in(id) {
                return Some(id);
            }
            self.ids.pop_front();
        }
        None
    }

    /// Drops outdated places if they are most, and memory that a rush has left behind. Call it now and then.
    pub fn tidy(&mut self, is_in: impl Fn(Id) -> bool) {
        if self.ids.len() <= 2 * self.len as usize + STALE_MAX {
            return;
        }
        self.ids.retain(|id| is_in(*id));
        self.ids.shrink_to(2 * self.ids.len() + STALE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Against a list that is searched, and within its bound.
    #[test]
    fn finds_the_oldest_whoever_leaves() {
        for seed in 0..50 {
            let mut random = Random::new(seed);
            let (mut order, mut model) = (Order::default(), Vec::new());
            for index in 0..2_000 {
                if random.below(1_000) < 520 {
                    let id = Id { index, generation: seed as u32 };
                    order.push(id);
                    model.push(id);
                } else if !model.is_empty() {
                    model.remove(random.below(model.len() as u32) as usize);
                    order.leave();
                }
                let is_in = |id| model.contains(&id);
                if random.below(4) == 0 {
                    assert_eq!(order.oldest(is_in), model.first().copied(), "seed {seed}");
                }
                order.tidy(is_in);
                assert_eq!(
                    (order.len() as usize, order.is_empty()),
                    (model.len(), model.is_empty())
                );
                assert!(order.ids.len() <= 2 * model.len() + STALE_MAX);
            }
        }
    }

    #[test]
    fn gives_memory_back_after_a_rush() {
        let mut order = Order::default();
        (0..50_000).for_each(|index| order.push(Id { index, generation: 0 }));
        (0..50_000).for_each(|_| order.leave());
        order.tidy(|_| false);
        assert!(order.ids.capacity() <= 4 * STALE_MAX, "{}", order.ids.capacity());
    }
}
