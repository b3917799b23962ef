//! Rooms in order of how much they hold, largest first, at the price of a few writes a change.
//!
//! Sizes fall into classes an eighth of a power of two wide, so an order within a class would mean nothing; there,
//! who came first leaves first. A class is a ring of links threaded through the rooms' indices, and a bitmap says
//! which classes have anybody.
//!
//! ```text
//!  sizes    1  2 … 8  9 … 15 │ 16-17  18-19 … 30-31 │ 32-35 … │      first of a class = longest there
//!  classes  1  2 … 8  9 … 15 │ 16     17    … 23    │ 24    … │
//! ```
//!
//! Not here: what is counted (bytes of logs, bytes of keys), and what the largest has to give.

/// Each power of two has this many classes, as a power of two.
const CLASS_BITS: u32 = 3;
/// Classes of all 64-bit sizes.
const CLASSES: usize = ((u64::BITS - CLASS_BITS + 1) << CLASS_BITS) as usize;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Links {
    next: u32,
    previous: u32,
    /// 0: not listed.
    class: u16,
}

/// The order. A room is named by its index.
#[derive(Debug)]
pub struct Ranks {
    /// The first of each class.
    heads: [u32; CLASSES],
    /// Which classes have somebody.
    occupied: [u64; CLASSES.div_ceil(64)],
    links: Vec<Links>,
    len: usize,
}

impl Default for Ranks {
    fn default() -> Self {
        Self {
            heads: [NONE; CLASSES],
            occupied: [0; CLASSES.div_ceil(64)],
            links: Vec::new(),
            len: 0,
        }
    }
}

/// The class of a size; 0 only for 0.
fn class_of(size: u64) -> usize {
    let octave = (u64::BITS - size.leading_zeros()).saturating_sub(CLASS_BITS + 1);
    ((octave << CLASS_BITS) as usize) + (size >> octave) as usize
}

impl Ranks {
    /// Lists `index` with this size, or moves it; 0 takes it out. Who stays in its class keeps its place.
    pub fn set(&mut self, index: u32, size: u64) {
        let class = class_of(size);
        if self.class(index) == class {
            return;
        }
        self.remove(index);
        if class == 0 {
            return;
        }
        if self.links.len() <= index as usize {
            let unlisted = Links { next: NONE, previous: NONE, class: 0 };
            self.links.resize(index as usize + 1, unlisted);
        }
        let head = self.heads[class];
        let (next, previous) = match head {
            NONE => (index, index),
            head => (head, self.links[head as usize].previous),
        };
        self.links[index as usize] = Links { next, previous, class: class as u16 };
        self.links[previous as usize].next = index;
        self.links[next as usize].previous = index;
        if head == NONE {
            self.heads[class] = index;
            self.occupied[class / 64] |= 1 << (class % 64);
        }
        self.len += 1;
    }

    /// Takes `index` out.
    pub fn remove(&mut self, index: u32) {
        let class = self.class(index);
        if class == 0 {
            return;
        }
        let Links { next, previous, .. } = self.links[index as usize];
        self.links[index as usize].class = 0;
        self.len -= 1;
        if next == index {
            self.heads[class] = NONE;
            self.occupied[class / 64] &= !(1 << (class % 64));
            return;
        }
        self.links[previous as usize].next = next;
        self.links[next as usize].previous = previous;
        if self.heads[class] == index {
            self.heads[class] = next;
        }
    }

    /// Of the largest, the one that has been among them longest.
    #[must_use]
    pub fn largest(&self) -> Option<u32> {
        let (word, bits) = self.occupied.iter().enumerate().rev().find(|(_, bits)| **bits != 0)?;
        Some(self.heads[word * 64 + bits.ilog2() as usize])
    }

    /// Whether `index` is listed.
    #[must_use]
    pub fn contains(&self, index: u32) -> bool {
        self.class(index) != 0
    }

    /// How many are listed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn class(&self, index: u32) -> usize {
        self.links.get(index as usize).map_or(0, |links| links.class.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn classes_are_in_order_and_an_eighth_wide() {
        assert!((0..16).all(|size| class_of(size) == size as usize));
        assert_eq!(class_of(u64::MAX), CLASSES - 1);
        for bits in 0..64 {
            for size in [1 << bits, (1 << bits) + (1 << bits >> 1), u64::MAX >> (63 - bits)] {
                let class = class_of(size);
                assert!(class <= class_of(size.saturating_add(1)));
                assert!(
                    size < 16 || class < class_of(size.saturating_add(size / 8 + 1)) || bits == 63
                );
            }
        }
    }

    /// Against a list that is searched.
    #[test]
    fn agrees_with_a_list_for_any_order_of_calls() {
        for seed in 0..50 {
            let mut random = Random::new(seed);
            let mut ranks = Ranks::default();
            // In order of arrival in its class: (class, index).
            let mut model: Vec<(usize, u32)> = Vec::new();
            for _ in 0..800 {
                let index = random.below(30);
                let size = match random.below(4) {
                    0 => 0,
                    1 => u64::from(random.below(40)),
                    _ => random.bits() >> random.below(64),
                };
                let class = class_of(size);
                if !model.contains(&(class, index)) {
                    model.retain(|&(_, listed)| listed != index);
                    if class > 0 {
                        model.push((class, index));
                    }
                }
                ranks.set(index, size);
                let best = model.iter().map(|&(class, _)| class).max();
                let first = model.iter().find(|&&(class, _)| Some(class) == best);
                assert_eq!(ranks.largest(), first.map(|&(_, index)| index), "seed {seed}");
                assert_eq!(ranks.len(), model.len());
                assert!((0..30).all(|index| {
                    ranks.contains(index) == model.iter().any(|&(_, listed)| listed == index)
                }));
            }
        }
    }
}
