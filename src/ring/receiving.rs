//! Multishot reads, for those who mostly receive: one submission, then a completion with a
//! buffer for every arrival.
//!
//! A pending one pins about 590 B of kernel memory more than a poll, which is why a server of
//! mostly silent connections polls instead; a load generator receives all the time and saves a
//! submission and a completion an arrival (`uproar-loadgen floor` measures it).

use io_uring::opcode;
use io_uring::types::Fixed;

use crate::buffers::GROUP;
use crate::event::{Key, Operation, Tag};
use crate::ring::{Ring, Slot};

impl Ring {
    /// Reads whatever arrives, into provided buffers, until cancelled or out of buffers.
    pub fn read_many(&mut self, slot: Slot, key: Key) {
        let entry = opcode::RecvMulti::new(Fixed(slot), GROUP).build();
        self.push(&entry.user_data(Tag::ReadMany.with(key)));
    }

    /// Ends the multishot read of `key`; it ends with an error that is not armed.
    pub fn cancel_read_many(&mut self, key: Key) {
        self.cancel(Operation::ReadMany, key);
    }
}
