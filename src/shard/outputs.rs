//! What the engine wants done with sockets.

use std::sync::atomic::Ordering;

use uproar_engine::engine::Output;
use uproar_engine::table::Id;
use uproar_engine::time::Now;
use uproar_ring::Key;

use crate::shard::driver::Driver;
use crate::shard::handing::Leaver;
use crate::shard::sockets::key;

impl Driver {
    /// Does everything the engine asks for, in order.
    pub(super) fn do_outputs(&mut self, now: Now) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Read { id } => self.sockets.read(id),
                Output::Live { id, peer } => {
                    self.node.connections.fetch_add(1, Ordering::Relaxed);
                    // A connection that moved in is counted here from now on.
                    if let Some(peer) = peer.filter(|_| self.counts_addresses)
                        && !self.addresses.contains_key(&id.index)
                    {
                        self.node.add_address(peer.ip());
                        self.addresses.insert(id.index, peer.ip());
                    }
                    self.sockets.watch(id);
                }
                Output::Move { id, to, token } => self.send_socket(now, id, to, token),
                Output::Handover { id, read, peer } => {
                    self.forget_address(id);
                    let Some(place) = self.sockets.take(id) else { continue };
                    let ring = usize::from(place.ring);
                    self.sockets.rings[ring].install(place.slot, key(id));
                    self.leavers.insert(id, Leaver { place, read, peer });
                }
                Output::AwaitWritable { id } => self.sockets.await_writable(id),
                Output::Close { id, was_counted, .. } => {
                    if was_counted {
                        self.node.connections.fetch_sub(1, Ordering::Relaxed);
                    }
                    self.forget_address(id);
                    if let Some(place) = self.sockets.take(id) {
                        self.sockets.close(place);
                    }
                }
            }
        }
    }

    fn send_socket(&mut self, now: Now, id: Id, to: u32, token: u64) {
        let Some(place) = self.sockets.get(id).copied() else {
            return self.engine.move_failed(now, id);
        };
        let target = self.neighbours[to as usize].roomiest();
        let ring = &mut self.sockets.rings[usize::from(place.ring)];
        ring.send_slot(place.slot, target, Key::new(token), key(id));
    }

    fn forget_address(&mut self, id: Id) {
        if let Some(address) = self.addresses.remove(&id.index) {
            self.node.remove_address(address);
        }
    }
}
