//! What a shard asks of a ring.
//!
//! A shard's code is written against this and compiled for [`Ring`] alone; its tests put a double in its
//! place that answers as the kernel may, in any order and with any error (`tests`).

use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use uproar_ring::{Buffer, Event, Key, Operation, Outgoing, Ring, RingAddress, Slot};

/// A ring. The functions are [`Ring`]'s; see there.
pub(super) trait Kernel {
    /// Bytes that were read.
    type Buffer: Debug;
    /// Names the ring to others.
    type Address: Copy + Debug + Send + Sync;

    fn accept(&mut self, listener: BorrowedFd<'_>, lane: u16);
    fn read(&mut self, slot: Slot, key: Key);
    fn read_now(&mut self, slot: Slot, key: Key);
    fn discard(&mut self, slot: Slot, key: Key, len: u32);
    fn watch_readable(&mut self, slot: Slot, key: Key);
    fn await_writable(&mut self, slot: Slot, key: Key);
    fn cancel(&mut self, operation: Operation, key: Key);
    fn close(&mut self, slot: Slot, key: Key);
    fn reset(&mut self, slot: Slot, key: Key);
    fn ask_unsent(&mut self, slot: Slot, key: Key);
    fn send_slot(&mut self, slot: Slot, target: Self::Address, token: Key, key: Key);
    fn install(&mut self, slot: Slot, key: Key);
    fn send_all<'a>(
        &mut self,
        sends: impl Iterator<Item = (Slot, Outgoing<'a>)>,
        failures: &mut Vec<(u32, io::Result<usize>)>,
    );
    fn bytes(&mut self, buffer: &Self::Buffer) -> &mut [u8];
    fn len(buffer: &Self::Buffer) -> usize;
    fn recycle(&mut self, buffer: Self::Buffer);
    fn buffer_bytes(&self) -> usize;
    fn turn(&mut self, events: &mut Vec<Event<Self::Buffer>>, max: usize);
    fn submit(&mut self);
    fn set_timer(&mut self, after: Duration);
    fn has_work(&mut self) -> bool;
    fn mute(&mut self);
    fn unmute(&mut self);
    fn submits(&self) -> u64;
    fn overflows(&self) -> u64;
}

impl Kernel for Ring {
    type Buffer = Buffer;
    type Address = RingAddress;

    fn accept(&mut self, listener: BorrowedFd<'_>, lane: u16) {
        self.accept(listener, lane);
    }

    fn read(&mut self, slot: Slot, key: Key) {
        self.read(slot, key);
    }

    fn read_now(&mut self, slot: Slot, key: Key) {
        self.read_now(slot, key);
    }

    fn discard(&mut self, slot: Slot, key: Key, len: u32) {
        self.discard(slot, key, len);
    }

    fn watch_readable(&mut self, slot: Slot, key: Key) {
        self.watch_readable(slot, key);
    }

    fn await_writable(&mut self, slot: Slot, key: Key) {
        self.await_writable(slot, key);
    }

    fn cancel(&mut self, operation: Operation, key: Key) {
        self.cancel(operation, key);
    }

    fn close(&mut self, slot: Slot, key: Key) {
        self.close(slot, key);
    }

    fn reset(&mut self, slot: Slot, key: Key) {
        self.reset(slot, key);
    }

    fn ask_unsent(&mut self, slot: Slot, key: Key) {
        self.ask_unsent(slot, key);
    }

    fn send_slot(&mut self, slot: Slot, target: RingAddress, token: Key, key: Key) {
        self.send_slot(slot, target, token, key);
    }

    fn install(&mut self, slot: Slot, key: Key) {
        self.install(slot, key);
    }

    fn send_all<'a>(
        &mut self,
        sends: impl Iterator<Item = (Slot, Outgoing<'a>)>,
        failures: &mut Vec<(u32, io::Result<usize>)>,
    ) {
        self.send_all(sends, failures);
    }

    fn bytes(&mut self, buffer: &Buffer) -> &mut [u8] {
        self.bytes(buffer)
    }

    fn len(buffer: &Buffer) -> usize {
        buffer.len()
    }

    fn recycle(&mut self, buffer: Buffer) {
        self.recycle(buffer);
    }

    fn buffer_bytes(&self) -> usize {
        self.buffer_bytes()
    }

    fn turn(&mut self, events: &mut Vec<Event>, max: usize) {
        self.turn(events, max);
    }

    fn submit(&mut self) {
        self.submit();
    }

    fn set_timer(&mut self, after: Duration) {
        self.set_timer(after);
    }

    fn has_work(&mut self) -> bool {
        self.has_work()
    }

    fn mute(&mut self) {
        self.mute();
    }

    fn unmute(&mut self) {
        self.unmute();
    }

    fn submits(&self) -> u64 {
        self.submits()
    }

    fn overflows(&self) -> u64 {
        self.overflows()
    }
}
