//! Where connections are: which ring, which slot, and what is pending there.
//!
//! ```text
//!  put ──► Place ──(close)──► Closing ──(last completion of everything pending, and of the close)──► free
//! ```
//!
//! A slot is free when the kernel has said that nothing refers to its file any more. Until then the
//! connection counts, in the rings' slots and against the limits, though the engine has forgotten it.
//!
//! Keys of ring operations are connection ids with their generation, so a completion says whose it is. One that
//! fits nothing here contradicts the books (`books`): it is counted and set right, never ignored.
//!
//! Not here: the way from `Closing` to free (`closing`).

use std::collections::{HashMap, VecDeque};

use uproar_engine::table::Id;
use uproar_ring::{Key, Operation, Slot};

use crate::shard::BUFFERS;
use crate::shard::books::{Books, Contradiction};
use crate::shard::closing::{Closing, Held};
use crate::shard::kernel::Kernel;

/// Free slots that accepts leave to connections that move in from other shards.
const MOVE_RESERVE: u32 = 64;

/// Reads of one turn and ring for live connections. The buffers beyond are for requests, whose reads take one
/// whenever their bytes come.
const READS_MAX: usize = 96;

const _: () = assert!(READS_MAX < BUFFERS as usize);

/// The read of a connection that is in flight; there is one at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Nothing,
    /// It waits for bytes.
    Waits,
    /// It takes what is there, if anything, and ends within its submission.
    Now,
    /// As [`Self::Now`], and an edge has come meanwhile: read again.
    NowAndAgain,
    /// It throws away what comes.
    Discards,
}

impl Reading {
    /// What a cancel of it has to name.
    pub(super) fn operation(self) -> Option<Operation> {
        match self {
            Self::Nothing => None,
            Self::Waits | Self::Now | Self::NowAndAgain => Some(Operation::Read),
            Self::Discards => Some(Operation::Discard),
        }
    }
}

/// What is being done with the socket as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    None,
    /// It is on its way to another ring.
    Send,
    /// It becomes an ordinary descriptor.
    Install,
}

/// A connection's place, and the requests in flight for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    generation: u32,
    pub(super) slot: Slot,
    pub(super) ring: u8,
    pub(super) reading: Reading,
    errand: Errand,
    /// Its multishot poll has not ended.
    pub(super) is_watched: bool,
    /// Its poll for space has not ended.
    pub(super) awaits_writable: bool,
    /// The peer has sent its last byte: reads go on until one finds the end.
    pub(super) is_ending: bool,
    /// It stands in the line of those that want to be read.
    wants_read: bool,
}

// One for each of 50,000 connections.
const _: () = assert!(size_of::<Option<Place>>() <= 16);

/// The rings of a shard with the places of its connections.
#[derive(Debug)]
pub(super) struct Sockets<K> {
    /// The rings.
    pub(super) rings: Vec<K>,
    /// What the kernel said that cannot be.
    pub(super) books: Books,
    /// Connections that were reset because their peers had not taken everything.
    pub(super) resets: u64,
    pub(super) slots_per_ring: u32,
    pub(super) used: Vec<u32>,
    accepting: Vec<u32>,
    /// Live connections with bytes to read, by ring, in turn: one that always has more must not keep the
    /// buffers from the others.
    wanting: Vec<VecDeque<Id>>,
    places: Vec<Option<Place>>,
    /// Connections that are closed and may still be referred to.
    pub(super) closing: HashMap<Id, Closing>,
    /// What is over since the driver last looked.
    pub(super) freed: Vec<Held>,
    /// Multishot polls whose last completion has not come.
    pub(super) polls: u64,
}

/// The key of a connection's ring operations.
pub(super) fn key(id: Id) -> Key {
    Key::new(id.bits())
}

impl<K: Kernel> Sockets<K> {
    /// No connection yet.
    pub(super) fn new(rings: Vec<K>, slots_per_ring: u32) -> Self {
        let count = rings.len();
        Self {
            rings,
            books: Books::default(),
            resets: 0,
            slots_per_ring,
            used: vec![0; count],
            accepting: vec![0; count],
            wanting: vec![VecDeque::new(); count],
            places: Vec::new(),
            closing: HashMap::new(),
            freed: Vec::new(),
            polls: 0,
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
            generation: id.generation,
            slot,
            ring: ring as u8,
            reading: Reading::Nothing,
            errand: Errand::None,
            is_watched: false,
            awaits_writable: false,
            is_ending: false,
            wants_read: false,
        });
    }

    /// The place of a connection, unless it is gone.
    pub(super) fn get(&mut self, id: Id) -> Option<&mut Place> {
        let place = self.places.get_mut(id.index as usize)?.as_mut()?;
        (place.generation == id.generation).then_some(place)
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

    /// A completion for `id` came, the last of its operation or not: its place, if it is connected and waits for
    /// such a completion. Otherwise it is dealt with here.
    pub(super) fn reported(
        &mut self,
        ring: usize,
        id: Id,
        operation: Operation,
        is_over: bool,
    ) -> Option<&mut Place> {
        if operation == Operation::Readable && is_over {
            self.polls = self.polls.saturating_sub(1);
        }
        let is_pending = |place: &Place| match operation {
            Operation::Readable => place.is_watched,
            Operation::Writable => place.awaits_writable,
            _ => place.reading.operation() == Some(operation),
        };
        let is_known =
            self.get(id).is_some_and(|place| usize::from(place.ring) == ring && is_pending(place));
        if !is_known {
            self.reported_late(ring, id, operation, is_over);
            return None;
        }
        let place = self.get(id)?;
        if is_over {
            match operation {
                Operation::Readable => place.is_watched = false,
                Operation::Writable => place.awaits_writable = false,
                _ => {
                    let again = place.reading == Reading::NowAndAgain;
                    place.reading = Reading::Nothing;
                    if again {
                        self.want_read(id);
                    }
                }
            }
        }
        self.get(id)
    }

    /// Starts a read that waits for bytes.
    pub(super) fn read(&mut self, id: Id) {
        let Some(place) = self.get(id) else { return };
        debug_assert_eq!(place.reading, Reading::Nothing, "one read at a time");
        place.reading = Reading::Waits;
        let Place { ring, slot, .. } = *place;
        self.rings[usize::from(ring)].read(slot, key(id));
    }

    /// Waits for bytes and throws away at most `len` of them, unless a read is in flight: what that brings
    /// leads here again.
    pub(super) fn discard(&mut self, id: Id, len: u32) {
        let Some(place) = self.get(id).filter(|place| place.reading == Reading::Nothing) else {
            return;
        };
        place.reading = Reading::Discards;
        let Place { ring, slot, .. } = *place;
        self.rings[usize::from(ring)].discard(slot, key(id), len);
    }

    /// Puts a live connection at the end of the line of those to be read.
    pub(super) fn want_read(&mut self, id: Id) {
        let Some(place) = self.get(id).filter(|place| !place.wants_read) else { return };
        match place.reading {
            Reading::Nothing => {
                place.wants_read = true;
                let ring = usize::from(place.ring);
                self.wanting[ring].push_back(id);
            }
            Reading::Now => place.reading = Reading::NowAndAgain,
            // Its completion will tell.
            Reading::NowAndAgain | Reading::Waits | Reading::Discards => {}
        }
    }

    /// Whether somebody stands in that line.
    pub(super) fn has_wanting(&self) -> bool {
        self.wanting.iter().any(|line| !line.is_empty())
    }

    /// Reads what is there now from the first in `ring`'s line that may be read from. Who may not leaves the line,
    /// and comes back when the engine says so: the poll reported an edge, and will not report it again.
    pub(super) fn read_wanting(&mut self, ring: usize, mut may_read: impl FnMut(Id) -> bool) {
        let mut reads = 0;
        while reads < READS_MAX {
            let Some(id) = self.wanting[ring].pop_front() else { return };
            let Some(place) = self.get(id) else { continue };
            place.wants_read = false;
            if place.reading != Reading::Nothing {
                continue;
            }
            if !may_read(id) {
                continue;
            }
            let Some(place) = self.get(id) else { continue };
            place.reading = Reading::Now;
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
        self.polls += 1;
        self.rings[usize::from(ring)].watch_readable(slot, key(id));
    }

    /// Reports once when the socket takes bytes again.
    pub(super) fn await_writable(&mut self, id: Id) {
        let Some(place) = self.get(id) else { return };
        place.awaits_writable = true;
        let Place { ring, slot, .. } = *place;
        self.rings[usize::from(ring)].await_writable(slot, key(id));
    }

    /// Gives a copy of the socket to another ring; false when the connection is gone.
    pub(super) fn send(&mut self, id: Id, target: K::Address, token: Key) -> bool {
        let Some(place) = self.get(id) else { return false };
        place.errand = Errand::Send;
        let Place { ring, slot, .. } = *place;
        self.rings[usize::from(ring)].send_slot(slot, target, token, key(id));
        true
    }

    /// Makes an ordinary descriptor of the socket.
    pub(super) fn install(&mut self, id: Id) {
        let Some(place) = self.get(id) else { return };
        place.errand = Errand::Install;
        let Place { ring, slot, .. } = *place;
        self.rings[usize::from(ring)].install(slot, key(id));
    }

    /// A send or an install ended; whether one was under way.
    pub(super) fn errand_ended(&mut self, id: Id, errand: Errand) -> bool {
        let is_known = self.get(id).is_some_and(|place| place.errand == errand);
        if let Some(place) = self.get(id).filter(|_| is_known) {
            place.errand = Errand::None;
        } else {
            self.books.contradicted(Contradiction::Unknown, id, &errand);
        }
        is_known
    }

    /// A slot of `ring` was filled.
    pub(super) fn filled(&mut self, ring: usize) {
        self.used[ring] += 1;
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
