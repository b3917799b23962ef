//! Completions, translated into calls of the engine.

use std::io;
use std::net::SocketAddr;

use uproar_engine::table::Id;
use uproar_engine::time::Now;
use uproar_ring::{Event, Operation, Slot};

use crate::shard::driver::Driver;
use crate::shard::kernel::Kernel;
use crate::shard::sockets::{Errand, Place};

impl<K: Kernel> Driver<K> {
    /// Handles one completion of `ring`.
    pub(super) fn handle(&mut self, now: Now, ring: usize, event: Event<K::Buffer>) {
        match event {
            Event::Accepted { lane, slot, peer } => {
                self.accepting.ended(ring, lane);
                self.sockets.accepting(ring, -1);
                match slot {
                    Ok(slot) => self.accepted(now, ring, slot, peer),
                    // A later refill tries again and looks at the free slots.
                    Err(error) => self.accepting.failed(now.tick(), &error),
                }
            }
            Event::Read { key, result } => {
                self.read_ended(now, ring, Id::from_bits(key.bits()), result);
            }
            Event::Readable { key, armed, is_last, failed } => {
                let id = Id::from_bits(key.bits());
                let place = self.sockets.reported(ring, id, Operation::Readable, !armed);
                let Some(place) = place else { return };
                place.is_ending |= is_last;
                if failed {
                    return self.engine.failed(now, id);
                }
                self.sockets.want_read(id);
                if !armed {
                    self.sockets.watch(id);
                }
            }
            Event::Writable { key } => {
                let id = Id::from_bits(key.bits());
                if self.sockets.reported(ring, id, Operation::Writable, true).is_some() {
                    self.engine.writable(now, id);
                }
            }
            // The accept ends by itself, with an error or with a connection.
            Event::Cancelled { operation: Operation::Accept, .. } => {}
            Event::Cancelled { key, operation, result } => {
                self.sockets.cancelled(Id::from_bits(key.bits()), operation, &result);
            }
            Event::ReadMany { .. } => unreachable!("a shard polls and never reads by multishot"),
            Event::Discarded { key, result } => {
                self.discarded(now, ring, Id::from_bits(key.bits()), &result);
            }
            Event::Closed { key, result } => {
                self.sockets.closed(Id::from_bits(key.bits()), &result);
            }
            Event::Unsent { key, result } => {
                self.sockets.unsent(Id::from_bits(key.bits()), &result);
            }
            Event::NotReset { key, error } => {
                self.sockets.not_reset(Id::from_bits(key.bits()), &error);
            }
            Event::SlotSent { key, result } => {
                let id = Id::from_bits(key.bits());
                match result {
                    _ if !self.sockets.errand_ended(id, Errand::Send) => {}
                    Ok(()) => self.engine.moved(id),
                    Err(error) => {
                        self.note_failed_move(&error);
                        self.engine.move_failed(now, id);
                    }
                }
            }
            Event::Arrived { token, slot } => {
                self.sockets.filled(ring);
                let id = self.engine.arrived(now, token.bits());
                self.sockets.put(id, ring, slot);
            }
            Event::Installed { key, fd } => self.installed(now, Id::from_bits(key.bits()), fd),
            Event::Timer { result } => self.timer_fired(result),
            // Shards sleep on the eventfd itself.
            Event::Woken { .. } => {}
        }
    }

    fn accepted(&mut self, now: Now, ring: usize, slot: Slot, peer: Option<SocketAddr>) {
        self.sockets.filled(ring);
        let id = self.engine.accept(now, peer);
        self.sockets.put(id, ring, slot);
        self.sockets.read(id);
    }

    fn discarded(&mut self, now: Now, ring: usize, id: Id, result: &io::Result<usize>) {
        if self.sockets.reported(ring, id, Operation::Discard, true).is_none() {
            return;
        }
        match *result {
            Ok(0) => self.engine.ended(now, id),
            Ok(len) => {
                self.engine.discarded(now, id, len as u32);
                // If the engine wants more thrown away, that goes first; else an edge of the poll may have come
                // and gone meanwhile.
                self.do_outputs(now);
                if self.sockets.get(id).is_some_and(|place| place.is_watched) {
                    self.sockets.want_read(id);
                }
            }
            Err(_) => self.engine.failed(now, id),
        }
    }

    fn read_ended(&mut self, now: Now, ring: usize, id: Id, result: io::Result<Option<K::Buffer>>) {
        let is_known = self.sockets.reported(ring, id, Operation::Read, true).is_some();
        match result {
            Ok(Some(buffer)) => {
                if is_known {
                    let ring = &mut self.sockets.rings[ring];
                    let is_full = K::len(&buffer) == ring.buffer_bytes();
                    self.engine.received(now, id, ring.bytes(&buffer));
                    // The poll reports an edge. Bytes and the end behind them can be one.
                    let may_be_more =
                        |place: &mut Place| place.is_watched && (is_full || place.is_ending);
                    if self.sockets.get(id).is_some_and(may_be_more) {
                        self.sockets.want_read(id);
                    }
                }
                self.sockets.rings[ring].recycle(buffer);
            }
            // The connection is closed, and this was the end of its read.
            _ if !is_known => {}
            Ok(None) => self.engine.ended(now, id),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.raw_os_error() == Some(NO_BUFFERS) => {
                self.shell.buffers_exhausted += 1;
                if self.sockets.get(id).is_some_and(|place| !place.is_watched) {
                    // A read that was waiting for its first bytes.
                    self.sockets.read(id);
                } else {
                    self.sockets.want_read(id);
                }
            }
            Err(_) => self.engine.failed(now, id),
        }
    }
}

/// `ENOBUFS` (errno 105 on Linux): every provided buffer is out.
const NO_BUFFERS: i32 = 105;
