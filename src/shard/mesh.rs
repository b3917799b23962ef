//! What shards share: their links, where to send sockets, and the two counts of the whole node.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use std::collections::HashMap;
use uproar_engine::address::Address;
use uproar_ring::Waker;

/// One of a shard's rings, as others see it.
#[derive(Debug)]
pub(super) struct Door<A> {
    /// Where to send sockets.
    pub(super) address: A,
    /// Free slots when its shard last looked.
    pub(super) free: AtomicU32,
}

/// One shard, as others see it.
#[derive(Debug)]
pub(super) struct Neighbour<A> {
    /// Its rings.
    pub(super) doors: Vec<Door<A>>,
    /// Wakes it.
    pub(super) waker: Waker,
}

impl<A: Copy> Neighbour<A> {
    /// The ring with the most free slots. It may be full all the same; the kernel will say so.
    pub(super) fn roomiest(&self) -> A {
        let door = self.doors.iter().max_by_key(|door| door.free.load(Ordering::Relaxed));
        door.expect("a shard has at least one ring").address
    }
}

/// Counts of the whole node.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Connections that count against the limit: live ones, those that are being heard to their end, and those
    /// whose end the kernel has not confirmed.
    pub(super) connections: AtomicU32,
    /// Places taken of each address, while the per-address limit is on.
    addresses: Mutex<HashMap<Address, u32>>,
}

impl Node {
    /// Takes a place of `address`, which has `places_max`; false when all are taken.
    pub(super) fn take_place(&self, address: IpAddr, places_max: u32) -> bool {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = addresses.entry(address.into()).or_default();
        let is_free = *taken < places_max;
        *taken += u32::from(is_free);
        is_free
    }

    /// Gives one back.
    pub(super) fn free_place(&self, address: IpAddr) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let address = address.into();
        if let Some(count) = addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_is_counted_as_one() {
        let node = Node::default();
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(node.take_place(ip("2001:db8::1"), 2));
        assert!(node.take_place(ip("2001:db8::ffff:0:0:2"), 2));
        assert!(!node.take_place(ip("2001:db8::4"), 2));
        assert!(node.take_place(ip("2001:db8:0:1::1"), 2));
        node.free_place(ip("2001:db8::3"));
        assert!(node.take_place(ip("2001:db8::1"), 2));
    }
}
