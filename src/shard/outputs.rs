//! What the engine wants done with sockets.

use std::sync::atomic::Ordering;

use uproar_engine::engine::{Output, Parting};
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
                Output::AskPlace { id, join, places_max } => {
                    let ip = join.peer.map(|peer| peer.ip());
                    let ip = ip.filter(|&ip| self.node.take_place(ip, places_max));
                    if let Some(ip) = ip {
                        self.addresses.insert(id.index, ip);
                    }
                    self.engine.place_answered(now, id, *join, ip.is_some());
                }
                Output::HoldPlace { id, peer } => {
                    self.addresses.insert(id.index, peer.ip());
                }
                Output::FreePlace { peer } => self.node.free_place(peer.ip()),
                Output::Live { id } => {
                    self.node.connections.fetch_add(1, Ordering::Relaxed);
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
                    // The place goes where the socket went.
                    let address = self.addresses.remove(&id.index);
                    let address = address.filter(|_| parting != Parting::Moved);
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
                self.node.free_place(address);
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
