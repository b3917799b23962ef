//! Where connections are: which ring, which slot, and what is pending there.
//!
//! Keys of ring operations are connection ids with their generation, so a completion that comes
//! after its connection is gone finds nothing here and is dropped.

use std::collections::VecDeque;

use uproar_engine::table::Id;
use uproar_ring::{Key, Ring, Slot};

use crate::shard::BUFFERS;

/// Free slots that accepts leave to connections that move in from other shards.
const MOVE_RESERVE: u32 = 64;

/// Reads of one turn and ring for live connections. The buffers beyond are for requests, whose reads take one
/// whenever their bytes come.
const READS_MAX: usize = 96;

const _: () = assert!(READS_MAX < BUFFERS as usize);

/// A connection's place, and the requests in flight for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    id: Id,
    pub(super) slot: Slot,
    pub(super) ring: u8,
    pub(super) is_reading: bool,
    pub(super) is_watched: bool,
    /// The peer has sent its last byte: reads go on until one finds the end.
    pub(super) is_ending: bool,
    /// It stands in the line of those that want to be read.
    wants_read: bool,
    pub(super) awaits_writable: bool,
}

/// The rings of a shard with the places of its connections.
#[derive(Debug)]
pub(super) struct Sockets {
    /// The rings.
    pub(super) rings: Vec<Ring>,
    slots_per_ring: u32,
    used: Vec<u32>,
    accepting: Vec<u32>,
    /// Live connections with bytes to read, by ring, in turn: one that always has more must not keep the
    /// buffers from the others.
    wanting: Vec<VecDeque<Id>>,
    places: Vec<Option<Place>>,
}

/// The key of a connection's ring operations.
pub(super) fn key(id: Id) -> Key {
    Key::new(id.bits())
}

impl Sockets {
    /// No connection yet.
    pub(super) fn new(rings: Vec<Ring>, slots_per_ring: u32) -> Self {
        let count = rings.len();
        Self {
            rings,
            slots_per_ring,
            used: vec![0; count],
            accepting: vec![0; count],
            wanting: vec![VecDeque::new(); count],
            places: Vec::new(),
        }
    }

    /// A socket came into `slot` of `ring` and belongs to `id`.
    pub(super) fn put(&mut self, id: Id, ring: usize, slot: Slot) {
        let index = id.index as usize;
        if self.places.len() <= index {
            self.places.resize(index + 1, None);
        }
        assert!(self.places[index].is_none(), "connection {index} has a socket already");
        self.places[index] = Some(Place {
            id,
            slot,
            ring: ring as u8,
            is_reading: false,
            is_watched: false,
            is_ending: false,
            wants_read: false,
            awaits_writable: false,
        });
    }

    /// The place of a connection, unless it is gone.
    pub(super) fn get(&mut self, id: Id) -> Option<&mut Place> {
        let place = self.places.get_mut(id.index as usize)?.as_mut()?;
        (place.id == id).then_some(place)
    }

    /// Where to send to. The engine only names connections that have a socket.
    pub(super) fn locate(&self, id: Id) -> (usize, Slot) {
        let place = self.places[id.index as usize].as_ref();
        let place = place.expect("a delivery goes to a connection with a socket");
        (place.ring as usize, place.slot)
    }

    /// Forgets the place of a connection and returns it.
    pub(super) fn take(&mut self, id: Id) -> Option<Place> {
        self.get(id)?;
        self.places[id.index as usize].take()
    }

    /// Starts a read that waits for bytes.
    pub(super) fn read(&mut self, id: Id) {
        let Some(place) = self.get(id) else { return };
        place.is_reading = true;
        let Place { ring, slot, .. } = *place;
        self.rings[usize::from(ring)].read(slot, key(id));
    }

    /// Puts a live connection at the end of the line of those to be read.
    pub(super) fn want_read(&mut self, id: Id) {
        let Some(place) = self.get(id).filter(|place| !place.wants_read) else { return };
        place.wants_read = true;
        let ring = usize::from(place.ring);
        self.wanting[ring].push_back(id);
    }

    /// Whether somebody stands in that line.
    pub(super) fn has_wanting(&self) -> bool {
        self.wanting.iter().any(|line| !line.is_empty())
    }

    /// Reads what is there now from the first in `ring`'s line.
    pub(super) fn read_wanting(&mut self, ring: usize) {
        let mut reads = 0;
        while reads < READS_MAX {
            let Some(id) = self.wanting[ring].pop_front() else { return };
            let Some(place) = self.get(id) else { continue };
            place.wants_read = false;
            let slot = place.slot;
            self.rings[ring].read_now(slot, key(id));
            reads += 1;
        }
    }

    /// Watches for bytes from now on.
    pub(super) fn watch(&mut self, id: Id) {
        let Some(place) = self.get(id) else { return };
        place.is_watched = true;
        let Place { ring, slot, .. } = *place;
        self.rings[usize::from(ring)].watch_readable(slot, key(id));
    }

    /// Reports once when the socket takes bytes again.
    pub(super) fn await_writable(&mut self, id: Id) {
        let Some(place) = self.get(id) else { return };
        place.awaits_writable = true;
        let Place { ring, slot, .. } = *place;
        self.rings[usize::from(ring)].await_writable(slot, key(id));
    }

    /// Ends what is pending for a place and closes its slot.
    pub(super) fn close(&mut self, place: Place) {
        let ring = &mut self.rings[usize::from(place.ring)];
        let key = key(place.id);
        if place.is_watched {
            ring.unwatch_readable(key);
        }
        if place.is_reading {
            ring.cancel_read(key);
        }
        if place.awaits_writable {
            ring.cancel_writable(key);
        }
        ring.close(place.slot, key);
    }

    /// A slot of `ring` was filled.
    pub(super) fn filled(&mut self, ring: usize) {
        self.used[ring] += 1;
    }

    /// A slot of `ring` was closed.
    pub(super) fn freed(&mut self, ring: usize) {
        self.used[ring] -= 1;
    }

    /// An accept was started on `ring`, or ended.
    pub(super) fn accepting(&mut self, ring: usize, change: i32) {
        self.accepting[ring] = self.accepting[ring].saturating_add_signed(change);
    }

    /// The first ring that has room for another accept. Filling rings in order keeps the sends of
    /// a chunk in few submissions.
    pub(super) fn ring_for_accept(&self) -> Option<usize> {
        let reserve = MOVE_RESERVE.min(self.slots_per_ring / 4);
        let taken = |ring: usize| self.used[ring] + self.accepting[ring] + reserve;
        (0..self.rings.len()).find(|&ring| taken(ring) < self.slots_per_ring)
    }

    /// Free slots of `ring`, accepts in flight not counted.
    pub(super) fn free(&self, ring: usize) -> u32 {
        self.slots_per_ring.saturating_sub(self.used[ring] + self.accepting[ring])
    }

    /// All slots, and those that hold a socket.
    pub(super) fn slots(&self) -> (u64, u64) {
        let used = self.used.iter().map(|&used| u64::from(used)).sum();
        (u64::from(self.slots_per_ring) * self.rings.len() as u64, used)
    }
}
