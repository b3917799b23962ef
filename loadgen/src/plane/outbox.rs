//! Bytes on their way out of one ring: upgrade requests, posts, pongs, closes.
//!
//! Everything is gathered and leaves in one batched submission. What a socket does not take
//! waits here until it is writable; a publisher behind a full socket therefore never blocks
//! the schedule of the others.

use std::collections::HashMap;
use std::io;
use std::ops::Range;

use uproar_ring::{Outgoing, Ring, SEND_CHUNK_MAX, Slot};

/// One write: the viewer it is for, and where its bytes are.
#[derive(Debug)]
struct Parcel {
    viewer: u32,
    slot: Slot,
    range: Range<usize>,
}

/// The writes gathered since the last flush, and the rests of earlier ones.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    parcels: Vec<Parcel>,
    /// Unsent rests by viewer; small, as sockets are rarely full in this direction.
    rests: HashMap<u32, Vec<u8>>,
    failures: Vec<(u32, io::Result<usize>)>,
}

impl Outbox {
    /// Queues what `write` appends.
    pub(super) fn put(&mut self, viewer: u32, slot: Slot, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(rest) = self.rests.get_mut(&viewer) {
            write(rest);
            return;
        }
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.parcels.push(Parcel { viewer, slot, range: start..self.bytes.len() });
    }

    /// Queues again what an earlier write left over, now that the socket is writable.
    pub(super) fn retry(&mut self, viewer: u32, slot: Slot) {
        if let Some(rest) = self.rests.remove(&viewer) {
            self.put(viewer, slot, |out| out.extend_from_slice(&rest));
        }
    }

    /// Forgets what is queued for a viewer whose connection ended.
    pub(super) fn forget(&mut self, viewer: u32) {
        self.rests.remove(&viewer);
        self.parcels.retain(|parcel| parcel.viewer != viewer);
    }

    /// Sends everything. Calls `blocked` for viewers whose socket is full and `broken` for
    /// those whose socket has failed.
    pub(super) fn flush(
        &mut self,
        ring: &mut Ring,
        mut blocked: impl FnMut(&mut Ring, u32, Slot),
        mut broken: impl FnMut(u32, io::Error),
    ) {
        if self.parcels.is_empty() {
            return;
        }
        let parcels = std::mem::take(&mut self.parcels);
        for chunk in parcels.chunks(SEND_CHUNK_MAX) {
            let bytes = &self.bytes;
            let sends = chunk
                .iter()
                .map(|parcel| (parcel.slot, Outgoing::from_slice(&bytes[parcel.range.clone()])));
            ring.send_all(sends, &mut self.failures);
            for (index, result) in self.failures.drain(..) {
                let parcel = &chunk[index as usize];
                let taken = match result {
                    Ok(taken) => taken,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                    Err(error) => {
                        broken(parcel.viewer, error);
                        continue;
                    }
                };
                let rest = &self.bytes[parcel.range.start + taken..parcel.range.end];
                let waiting = self.rests.entry(parcel.viewer).or_default();
                if waiting.is_empty() {
                    blocked(ring, parcel.viewer, parcel.slot);
                }
                waiting.extend_from_slice(rest);
            }
        }
        self.bytes.clear();
    }
}
