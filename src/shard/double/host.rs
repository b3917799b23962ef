//! What the rings of the double share, and the faults that they know.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

use uproar_ring::{Key, Slot};

use super::error;

/// ENFILE: the ring's table is full.
const TABLE_FULL: i32 = 23;
pub(super) const ACCEPT_ERRORS: [(i32, &str); 5] = [
    (TABLE_FULL, "accept: ENFILE"),
    (24, "accept: EMFILE"),
    (104, "accept: ECONNRESET"),
    (22, "accept: EINVAL"),
    (105, "accept: ENOBUFS"),
];
/// EOWNERDEAD: the thread of the target ring is gone.
pub(super) const MOVE_ERRORS: [(i32, &str); 4] = [
    (TABLE_FULL, "move: ENFILE"),
    (105, "move: ENOBUFS"),
    (12, "move: ENOMEM"),
    (130, "move: EOWNERDEAD"),
];

/// Every fault that is injected. The names of errors are the kernel's.
pub(super) const FAULTS: [&str; 33] = [
    "accept: ECONNRESET",
    "accept: EINVAL",
    "accept: EMFILE",
    "accept: ENFILE",
    "accept: ENOBUFS",
    "cancel: EALREADY, and it goes on",
    "cancel: ENOENT, and it goes on",
    "cancel: ENOENT, as it has ended",
    "cancel: answered after the end of what it was for",
    "cancel: answered before the end of what it was for",
    "cancel: answered twice",
    "close: answered before the end of an operation",
    "discard: ECONNRESET",
    "install: EMFILE",
    "move: ENFILE",
    "move: ENOBUFS",
    "move: ENOMEM",
    "move: EOWNERDEAD",
    "move: arrives after its sender knows",
    "move: arrives before its sender knows",
    "poll: ends by itself",
    "poll: fails",
    "read: EAGAIN",
    "read: ECONNRESET",
    "read: ENOBUFS",
    "request: ECONNRESET",
    "reset: EBADF",
    "send: EAGAIN",
    "send: ECONNRESET",
    "send: ENOBUFS",
    "send: short",
    "unsent: EBADF",
    "unsent: the peer has not taken everything",
];

/// What the rings of a node share.
#[derive(Debug)]
pub(super) struct Host {
    /// By ring: what slots refer to.
    pub(super) tables: Vec<BTreeMap<Slot, u32>>,
    slots_max: usize,
    /// Slots, with their rings, of whose filling the shard has not been told.
    pub(super) unseen: BTreeSet<(usize, Slot)>,
    /// By ring: sockets that were put into its table, and of which it has not been told.
    pub(super) arriving: Vec<Vec<(Key, Slot)>>,
    /// Tokens of sockets whose sender knows that they are there, and whose receiver does not.
    pub(super) told: BTreeSet<u64>,
    pub(super) next_file: u32,
    pub(super) faults: BTreeMap<&'static str, u64>,
}

impl Host {
    pub(super) fn new(rings: usize, slots_max: usize) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            tables: vec![BTreeMap::new(); rings],
            slots_max,
            unseen: BTreeSet::new(),
            arriving: vec![Vec::new(); rings],
            told: BTreeSet::new(),
            next_file: 0,
            faults: BTreeMap::new(),
        }))
    }

    pub(super) fn count(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// Puts a file into the table of a ring; ENFILE when that is full.
    pub(super) fn fill(&mut self, ring: usize, file: u32) -> io::Result<Slot> {
        let table = &mut self.tables[ring];
        if table.len() == self.slots_max {
            return error(TABLE_FULL);
        }
        let slot = (0..).find(|slot| !table.contains_key(slot)).expect("one is free");
        table.insert(slot, file);
        self.unseen.insert((ring, slot));
        Ok(slot)
    }
}
