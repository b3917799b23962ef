//! A chunk of the engine's sends, submitted ring by ring.

use std::io;

use uproar_engine::engine::Source;
use uproar_engine::time::Now;
use uproar_ring::{Outgoing, Slot};

use crate::shard::driver::{Driver, mono_us};
use crate::shard::kernel::Kernel;

impl<K: Kernel> Driver<K> {
    /// Sends the next chunk. False when there was nothing to send.
    pub(super) fn flush(&mut self, now: Now) -> bool {
        if !self.engine.has_work() && self.engine.due_us(now) > now.mono_us {
            return false;
        }
        self.engine.next_chunk(now, &mut self.chunk);
        if self.chunk.deliveries.is_empty() {
            return false;
        }
        let began_us = mono_us(self.started);
        let mut failures = Vec::new();
        for ring in 0..self.sockets.rings.len() {
            self.send_on(ring, &mut failures);
        }
        let now = Now { mono_us: mono_us(self.started), ..now };
        let spent_us = now.mono_us - began_us;
        self.shell.send_us += spent_us;
        self.engine.settle(now, &mut self.chunk, &mut failures, spent_us);
        true
    }

    /// Sends the part of the chunk whose sockets are in `ring`.
    fn send_on(&mut self, ring: usize, failures: &mut Vec<(u32, io::Result<usize>)>) {
        let chunk = &self.chunk;
        let mut indices = Vec::with_capacity(chunk.deliveries.len());
        let mut sends: Vec<(Slot, Outgoing<'_>)> = Vec::with_capacity(chunk.deliveries.len());
        for (index, delivery) in chunk.deliveries.iter().enumerate() {
            let (at, slot) = self.sockets.locate(delivery.id);
            if at != ring {
                continue;
            }
            let bytes = match delivery.source {
                Source::Log { own, segment, start, len, then, .. } => {
                    let frames = Outgoing::from_words(chunk.segment(segment).words(), start, len);
                    match (own, then) {
                        (Some((start, len)), _) => {
                            Outgoing::from_slice(chunk.private(start, len)).then(frames)
                        }
                        (None, Some((next, len))) => {
                            let words = chunk.segment(next).words();
                            frames.then(Outgoing::from_words(words, 0, len))
                        }
                        (None, None) => frames,
                    }
                }
                Source::Private { start, len } => Outgoing::from_slice(chunk.private(start, len)),
            };
            indices.push(index as u32);
            sends.push((slot, bytes));
        }
        if sends.is_empty() {
            return;
        }
        let first = failures.len();
        self.sockets.rings[ring].send_all(sends.into_iter(), failures);
        for (index, _) in &mut failures[first..] {
            *index = indices[*index as usize];
        }
    }
}
