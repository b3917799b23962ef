//! What the engine wants done with sockets.

use std::sync::atomic::Ordering;

use uproar_engine::engine::Output;
use uproar_engine::table::Id;
use uproar_engine::time::Now;
use uproar_ring::Key;

use crate::shard::closing::Held;
use crate::shard::driver::Driver;
use crate::shard::handing::Leaver;
use crate::shard::kernel::Kernel;

impl<K: Kernel> Driver<K> {
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
                    self.leavers.insert(id, Leaver { read, peer });
                    self.sockets.install(id);
                }
                Output::Linger { .. } => {
                    self.node.connections.fetch_add(1, Ordering::Relaxed);
                }
                Output::Discard { id, len } => self.sockets.discard(id, len),
                Output::ReadOn { id } => self.sockets.want_read(id),
                Output::AwaitWritable { id } => self.sockets.await_writable(id),
                Output::Close { id, was_counted, parting } => {
                    let address = self.addresses.remove(&id.index);
                    self.sockets.close(id, Held { is_counted: was_counted, address }, parting);
                }
            }
        }
    }

    /// Takes back from the node's counts what connections held that are gone for good.
    pub(super) fn release_freed(&mut self) {
        while let Some(Held { is_counted, address }) = self.sockets.freed.pop() {
            if is_counted {
                self.node.connections.fetch_sub(1, Ordering::Relaxed);
            }
            if let Some(address) = address {
                self.node.remove_address(address);
            }
        }
    }

    fn send_socket(&mut self, now: Now, id: Id, to: u32, token: u64) {
        let target = self.neighbours[to as usize].roomiest();
        if !self.sockets.send(id, target, Key::new(token)) {
            self.engine.move_failed(now, id);
        }
    }

    /// A socket stays because another ring could not take it.
    pub(super) fn note_failed_move(&mut self, error: &std::io::Error) {
        if let Some(more) = self.move_line.due() {
            tracing::warn!(
                %error, since_last_line = more,
                "a connection could not move to another shard and was answered 503; ENFILE is a full ring: \
                 compare uproar_ring_slots_used with uproar_ring_slots"
            );
        }
    }
}
