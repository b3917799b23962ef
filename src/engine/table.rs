//! A table of plain data with generation-checked ids, growing in chunks.
//!
//! Chunks never move: growth costs one allocation of `CHUNK` entries and no copy, so the
//! 50,001st connection is as cheap as the second. A freed index is reused last-in first-out
//! (warm in the cache) under a new generation, so an id that was kept too long finds nothing.

/// Entries of one chunk.
const CHUNK: usize = 512;

/// An index with its generation. Fits the 56 bits of a completion's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// Place in the table.
    pub index: u32,
    /// 24 bits; which occupant of the place.
    pub generation: u32,
}

impl Id {
    const GENERATIONS: u32 = (1 << 24) - 1;

    /// `generation << 32 | index`: 56 bits.
    #[must_use]
    pub fn bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The inverse of [`Self::bits`].
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32 & Self::GENERATIONS }
    }
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

/// The table. `T: Default` is not needed; empty entries hold `None`.
#[derive(Debug)]
pub struct Table<T> {
    chunks: Vec<Box<[Entry<T>]>>,
    free: Vec<u32>,
    /// Indices below this have been used at least once.
    fresh: u32,
    len: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), fresh: 0, len: 0 }
    }
}

impl<T> Table<T> {
    /// Puts `value` into a free place.
    pub fn insert(&mut self, value: T) -> Id {
        let index = self.free.pop().unwrap_or_else(|| {
            if self.fresh as usize == self.chunks.len() * CHUNK {
                let chunk = (0..CHUNK).map(|_| Entry { generation: 0, value: None }).collect();
                self.chunks.push(chunk);
            }
            self.fresh += 1;
            self.fresh - 1
        });
        let entry = self.entry_mut(index);
        assert!(entry.value.is_none(), "place {index} was on the free list and occupied");
        entry.value = Some(value);
        let generation = entry.generation;
        self.len += 1;
        Id { index, generation }
    }

    /// Takes the value of `id` out; `None` when it is gone already.
    pub fn remove(&mut self, id: Id) -> Option<T> {
        self.get(id)?;
        let entry = self.entry_mut(id.index);
        entry.generation = (entry.generation + 1) & Id::GENERATIONS;
        let value = entry.value.take();
        self.free.push(id.index);
        self.len -= 1;
        value
    }

    /// The value of `id`, unless it is gone.
    #[must_use]
    pub fn get(&self, id: Id) -> Option<&T> {
        if id.index >= self.fresh {
            return None;
        }
        let entry = &self.chunks[id.index as usize / CHUNK][id.index as usize % CHUNK];
        if entry.generation == id.generation { entry.value.as_ref() } else { None }
    }

    /// The value of `id`, unless it is gone.
    pub fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        if id.index >= self.fresh {
            return None;
        }
        let entry = self.entry_mut(id.index);
        if entry.generation == id.generation { entry.value.as_mut() } else { None }
    }

    /// The value at an index that is known to be occupied: a list kept by the same owner says so.
    pub fn at(&mut self, index: u32) -> &mut T {
        self.entry_mut(index).value.as_mut().expect("the place of a listed index is occupied")
    }

    /// The value at an index that is known to be occupied.
    #[must_use]
    pub fn peek(&self, index: u32) -> &T {
        let entry = &self.chunks[index as usize / CHUNK][index as usize % CHUNK];
        entry.value.as_ref().expect("the place of a listed index is occupied")
    }

    /// The present id of an occupied index.
    #[must_use]
    pub fn id_at(&self, index: u32) -> Option<Id> {
        if index >= self.fresh {
            return None;
        }
        let entry = &self.chunks[index as usize / CHUNK][index as usize % CHUNK];
        entry.value.as_ref().map(|_| Id { index, generation: entry.generation })
    }

    /// Occupied places.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no place is occupied.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Indices to look at to see every occupied place.
    #[must_use]
    pub fn index_bound(&self) -> u32 {
        self.fresh
    }

    /// Every occupied place.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &T)> {
        self.chunks.iter().flatten().enumerate().filter_map(|(index, entry)| {
            let id = Id { index: index as u32, generation: entry.generation };
            entry.value.as_ref().map(|value| (id, value))
        })
    }

    /// Memory of the table itself, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<Entry<T>>() + self.free.capacity() * size_of::<u32>()
    }

    fn entry_mut(&mut self, index: u32) -> &mut Entry<T> {
        &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_dies_with_its_occupant() {
        let mut table = Table::default();
        let first = table.insert("a");
        assert_eq!(table.remove(first), Some("a"));
        let second = table.insert("b");
        assert_eq!(second.index, first.index);
        assert_eq!(table.get(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get(second), Some(&"b"));
        assert_eq!(Id::from_bits(second.bits()), second);
    }

    #[test]
    fn growth_over_chunks_keeps_every_value() {
        let mut table = Table::default();
        let ids: Vec<Id> = (0..3 * CHUNK + 1).map(|i| table.insert(i)).collect();
        assert!(ids.iter().enumerate().all(|(i, id)| table.get(*id) == Some(&i)));
        assert_eq!((table.len(), table.iter().count()), (3 * CHUNK + 1, 3 * CHUNK + 1));
    }
}
