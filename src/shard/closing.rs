//! From a close to a free slot.
//!
//! ```text
//!                    cancel ──► its completion ─────────────┐
//!  close(id) ─┬─ for each pending operation ──► its last one ┼──► free: the slot, the connection, its address
//!             └─ unsent? ─┬─ nothing ──► close ──► its completion ┘
//!                 ▲       ├─ bytes, at the end of patience ──► reset and close ──► …
//!                 └─ tick ┘
//! ```
//!
//! Bytes that the peer has not taken stay in the kernel after a close, for as long as `user_timeout_ms`, and no
//! limit counts them there: so a close waits for them, and counts meanwhile, or throws them away.
//!
//! The completions come in any order. A cancel that finds its poll in the middle of an event is answered
//! EALREADY, and the poll goes on and keeps the file: whatever a cancel answered, only the operation's own last
//! completion says that it is over. What does not come in time is asked for again.

use std::io;
use std::net::IpAddr;

use uproar_engine::engine::Parting;
use uproar_engine::table::Id;
use uproar_engine::time::ticks;
use uproar_ring::{Operation, Slot};

use crate::shard::books::Contradiction;
use crate::shard::kernel::Kernel;
use crate::shard::sockets::{Place, Reading, Sockets, key};

/// Looks after which a last completion is overdue. A look comes once a tick: 5 s, or more turns of the shard if
/// it was kept from turning. Ordinarily all come within the turn that submits the cancels.
const OVERDUE_LOOKS: u8 = 50;

/// What a connection holds of the node's limits until its slot is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// It counts as a connection of the node.
    pub(super) is_counted: bool,
    /// It has a place of this address.
    pub(super) address: Option<IpAddr>,
}

/// An operation that was pending when its connection was closed.
#[derive(Clone, Copy, Debug)]
struct Ending {
    operation: Operation,
    /// Its last completion has come.
    is_over: bool,
    /// Cancels of it that have not been answered.
    cancels: u32,
}

/// What is under way with the slot of a closed connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// The kernel was asked what the peer has not taken.
    Asked,
    /// The peer has not taken everything; at the next look the kernel is asked again.
    Waits,
    /// The close was asked for.
    Closes,
}

/// A connection that is closed and to which the kernel may still refer.
#[derive(Debug)]
pub(super) struct Closing {
    ring: u8,
    /// Its slot, until the close has been answered.
    slot: Option<Slot>,
    /// It fills a slot in the books; a poll that nobody knew of does not.
    fills_slot: bool,
    held: Held,
    /// A read, the poll for bytes, the poll for space.
    endings: [Option<Ending>; 3],
    last: Last,
    /// Looks that the peer has to take everything.
    patience: u32,
    /// Looks since everything was asked for.
    looks: u8,
    /// A cancel was refused: ask again at the next look.
    asks_again: bool,
}

impl Closing {
    fn ending(&mut self, operation: Operation) -> Option<&mut Ending> {
        self.endings.iter_mut().flatten().find(|ending| ending.operation == operation)
    }

    fn is_over(&self) -> bool {
        let is_over = |ending: &Ending| ending.is_over && ending.cancels == 0;
        self.slot.is_none() && self.endings.iter().flatten().all(is_over)
    }
}

impl<K: Kernel> Sockets<K> {
    /// Closes a connection's socket. What it holds is held until the kernel refers to it no more.
    pub(super) fn close(&mut self, id: Id, held: Held, parting: Parting) {
        let Some(Place { slot, ring, reading, is_watched, awaits_writable, .. }) = self.take(id)
        else {
            return;
        };
        let kernel = &mut self.rings[usize::from(ring)];
        let end = |operation, needs_cancel: bool| Ending {
            operation,
            is_over: false,
            cancels: u32::from(needs_cancel),
        };
        // A read that does not wait ends by itself.
        let waits = matches!(reading, Reading::Waits | Reading::Discards);
        let endings = [
            reading.operation().map(|operation| end(operation, waits)),
            is_watched.then(|| end(Operation::Readable, true)),
            awaits_writable.then(|| end(Operation::Writable, true)),
        ];
        for ending in endings.iter().flatten().filter(|ending| ending.cancels > 0) {
            kernel.cancel(ending.operation, key(id));
        }
        let (last, patience) = match parting {
            Parting::Moved | Parting::Cut => (Last::Closes, 0),
            Parting::Dropped => (Last::Asked, 0),
            Parting::Whole { patience_ms } => (Last::Asked, ticks(patience_ms)),
        };
        match parting {
            Parting::Moved => kernel.close(slot, key(id)),
            Parting::Cut => kernel.reset(slot, key(id)),
            Parting::Dropped | Parting::Whole { .. } => kernel.ask_unsent(slot, key(id)),
        }
        let closing = Closing {
            ring,
            slot: Some(slot),
            fills_slot: true,
            held,
            endings,
            last,
            patience,
            looks: 0,
            asks_again: false,
        };
        self.closing.insert(id, closing);
    }

    /// A completion came for a connection that has no place (any more), or not for this operation.
    pub(super) fn reported_late(
        &mut self,
        ring: usize,
        id: Id,
        operation: Operation,
        is_over: bool,
    ) {
        let closing = self.closing.get_mut(&id).filter(|closing| usize::from(closing.ring) == ring);
        if let Some(ending) = closing.and_then(|closing| closing.ending(operation))
            && !ending.is_over
        {
            ending.is_over = is_over;
            return self.settle(id);
        }
        self.books.contradicted(Contradiction::Unknown, id, &operation);
        if is_over || self.get(id).is_some() {
            return;
        }
        // A poll that nobody knows of keeps a file that nobody counts: end it.
        self.rings[ring].cancel(operation, key(id));
        let ending = Some(Ending { operation, is_over: false, cancels: 1 });
        let orphan = || Closing {
            ring: ring as u8,
            slot: None,
            fills_slot: false,
            held: Held::default(),
            endings: [None; 3],
            last: Last::Closes,
            patience: 0,
            looks: 0,
            asks_again: false,
        };
        let closing = self.closing.entry(id).or_insert_with(orphan);
        if let Some(free) =
            closing.endings.iter_mut().find(|ending| ending.is_none_or(|e| e.is_over))
        {
            *free = ending;
        }
    }

    /// A cancel was answered.
    pub(super) fn cancelled(&mut self, id: Id, operation: Operation, result: &io::Result<()>) {
        let closing = self.closing.get_mut(&id);
        let ending = closing.and_then(|closing| closing.ending(operation));
        let Some(ending) = ending.filter(|ending| ending.cancels > 0) else {
            return self.books.contradicted(Contradiction::Unknown, id, &("cancel", operation));
        };
        ending.cancels -= 1;
        let has_ended = ending.is_over;
        match result {
            Ok(()) => {}
            // It has ended by itself; its completion has come or is on its way.
            Err(error) if error.raw_os_error() == Some(NOT_FOUND) => {}
            Err(error) => {
                if !has_ended && let Some(closing) = self.closing.get_mut(&id) {
                    closing.asks_again = true;
                }
                self.books.contradicted(Contradiction::CancelRefused, id, &(operation, error));
            }
        }
        self.settle(id);
    }

    /// The kernel said how much the peer of a closed connection has not taken.
    pub(super) fn unsent(&mut self, id: Id, result: &io::Result<u32>) {
        let closing = self.closing.get_mut(&id).filter(|closing| closing.last == Last::Asked);
        let Some((closing, slot)) = closing.and_then(|c| c.slot.map(|slot| (c, slot))) else {
            return self.books.contradicted(Contradiction::Unknown, id, &"unsent");
        };
        let kernel = &mut self.rings[usize::from(closing.ring)];
        match result {
            Ok(1..) if closing.patience > 0 => {
                closing.last = Last::Waits;
                return;
            }
            Ok(1..) => {
                self.resets += 1;
                kernel.reset(slot, key(id));
            }
            Ok(0) => kernel.close(slot, key(id)),
            Err(error) => {
                kernel.close(slot, key(id));
                self.books.contradicted(Contradiction::NoFile, id, error);
            }
        }
        closing.last = Last::Closes;
    }

    /// A connection that was to be reset is closed as usual.
    pub(super) fn not_reset(&mut self, id: Id, error: &io::Error) {
        self.books.contradicted(Contradiction::NoFile, id, error);
    }

    /// A close was answered.
    pub(super) fn closed(&mut self, id: Id, result: &io::Result<()>) {
        let closing = self.closing.get_mut(&id);
        let Some(closing) = closing.filter(|closing| closing.slot.is_some()) else {
            return self.books.contradicted(Contradiction::Unknown, id, &"close");
        };
        closing.slot = None;
        if let Err(error) = result {
            // There is no file in the slot, which is what was wanted, and was not ours to lose.
            self.books.contradicted(Contradiction::NoFile, id, error);
        }
        self.settle(id);
    }

    /// Frees what nothing refers to any more.
    fn settle(&mut self, id: Id) {
        if !self.closing.get(&id).is_some_and(Closing::is_over) {
            return;
        }
        let Some(closing) = self.closing.remove(&id) else { return };
        if closing.fills_slot {
            self.used[usize::from(closing.ring)] -= 1;
            self.freed.push(closing.held);
        }
        if self.closing.is_empty() {
            // A drain may have had all connections in here at once.
            self.closing.shrink_to(CLOSING_KEPT);
        }
    }

    /// Asks again for last completions that have not come. Call it once a tick.
    pub(super) fn look_after_closing(&mut self) {
        for (&id, closing) in &mut self.closing {
            if closing.last == Last::Waits
                && let Some(slot) = closing.slot
            {
                closing.last = Last::Asked;
                closing.patience -= 1;
                closing.looks = 0;
                self.rings[usize::from(closing.ring)].ask_unsent(slot, key(id));
            }
            closing.looks += 1;
            if closing.looks >= OVERDUE_LOOKS {
                self.books.contradicted(Contradiction::Overdue, id, &closing.endings);
            } else if !closing.asks_again {
                continue;
            }
            (closing.looks, closing.asks_again) = (0, false);
            for ending in closing.endings.iter_mut().flatten() {
                if !ending.is_over && ending.cancels == 0 {
                    ending.cancels += 1;
                    self.rings[usize::from(closing.ring)].cancel(ending.operation, key(id));
                }
            }
        }
    }

    /// Closed connections that the kernel may still refer to.
    pub(super) fn closing(&self) -> u64 {
        self.closing.len() as u64
    }
}

/// Entries whose memory stays when nobody is closing.
const CLOSING_KEPT: usize = 64;

/// `ENOENT` (errno 2).
const NOT_FOUND: i32 = 2;
