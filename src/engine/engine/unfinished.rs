//! Those who have not sent a whole request: in the order in which they came, all together and by address.
//!
//! A socket that says nothing is not a viewer and takes no viewer's place: `connections_per_address_max` counts
//! upgrades (`placing`). So that sockets without a request are bounded as well, an address may have as many of
//! them with this shard as it may have viewers, and **the oldest gives way to the newcomer**: who is slow on
//! purpose shuts out nobody who is not. The same of all together (`handshakes_max`): without it they would be
//! bounded by the slots of all shards only, each of which has one for every connection of the node.
//!
//! Not here: how long a request may take (`timers`), what a shard does when its slots are used up
//! (`handshake`), the bytes of request heads (`budgets`).

use std::net::SocketAddr;

use hashbrown::HashMap;

use super::Engine;
use crate::address::Address;
use crate::connection::{Connection, Phase};
use crate::http::Rejection;
use crate::order::Order;
use crate::table::{Id, Table};
use crate::time::Now;

/// `handshakes_max` of 0 is this part of `connections_max`, but at least so many, as a small node may be asked by
/// many at once, too.
const HANDSHAKES_PART: u32 = 4;
const HANDSHAKES_MIN: u32 = 256;
/// Connections, of all or of an address, that give way to one newcomer. More than one only while a reload has made the limit
/// lower than what is there.
const GIVING_WAY_MAX: usize = 2;
/// Entries whose memory stays when no address has unfinished requests.
const ADDRESSES_KEPT: usize = 64;

/// Who they are.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    /// All of them.
    pub(super) all: Order,
    /// By address, of those that came while the limit was on.
    by_address: HashMap<Address, Order>,
}

impl Unfinished {
    /// A request is whole, or given up.
    pub(super) fn leave(&mut self, counted_by: Option<Address>) {
        self.all.leave();
        let Some(address) = counted_by else { return };
        let order = self.by_address.get_mut(&address).expect("it was counted by its address");
        order.leave();
        if order.is_empty() {
            self.by_address.remove(&address);
        }
    }

    /// Asserts that the counts are these, by the address that counts.
    pub(super) fn check(&self, found: &HashMap<Option<Address>, u32>) {
        assert_eq!(self.all.len(), found.values().sum::<u32>(), "unfinished requests are counted");
        let by_address =
            found.iter().filter_map(|(address, count)| Some((address.as_ref()?, count)));
        for (address, count) in by_address {
            assert_eq!(self.by_address.get(address).map(Order::len), Some(*count), "{address:?}");
        }
        assert_eq!(self.by_address.len(), found.keys().flatten().count());
    }

    /// How many are counted by their address.
    pub(super) fn counted_by_address(&self) -> u32 {
        self.by_address.values().map(Order::len).sum()
    }
}

/// Whether `id` has not sent its whole request.
pub(super) fn is_unfinished(connections: &Table<Connection>, id: Id) -> bool {
    matches!(connections.get(id).map(|connection| &connection.phase), Some(Phase::Handshake(_)))
}

impl Engine {
    /// The address by which a connection that comes now is counted.
    pub(super) fn counted_address(&self, peer: Option<SocketAddr>) -> Option<Address> {
        let peer = peer.filter(|_| self.limits.connections_per_address_max > 0)?;
        Some(Address::from(peer.ip()))
    }

    /// This shard's part of `handshakes_max`.
    fn handshakes_share(&self) -> u32 {
        let node = match self.limits.handshakes_max {
            0 => (self.limits.connections_max / HANDSHAKES_PART).max(HANDSHAKES_MIN),
            given => given,
        };
        node.div_ceil(self.setup.shards)
    }

    /// Notes a newcomer. The oldest give way.
    pub(super) fn begin_request(&mut self, now: Now, id: Id, counted_by: Option<Address>) {
        self.unfinished.all.push(id);
        for _ in 0..GIVING_WAY_MAX {
            if self.unfinished.all.len() <= self.handshakes_share() {
                break;
            }
            let Some(oldest) = self.oldest_unfinished() else { break };
            self.give_up_request(now, oldest, &Rejection::HANDSHAKES_FULL);
        }
        self.begin_of_address(now, id, counted_by);
    }

    fn begin_of_address(&mut self, now: Now, id: Id, counted_by: Option<Address>) {
        let Some(address) = counted_by else { return };
        self.unfinished.by_address.entry(address).or_default().push(id);
        for _ in 0..GIVING_WAY_MAX {
            let connections = &self.connections;
            let is_in = |id| is_unfinished(connections, id);
            let Some(order) = self.unfinished.by_address.get_mut(&address) else { return };
            order.tidy(is_in);
            if order.len() <= self.limits.connections_per_address_max {
                return;
            }
            let Some(oldest) = order.oldest(is_in) else { return };
            self.give_up_request(now, oldest, &Rejection::ADDRESS_UNFINISHED);
        }
    }

    /// Who has sent no whole request for longest.
    pub(super) fn oldest_unfinished(&mut self) -> Option<Id> {
        let connections = &self.connections;
        self.unfinished.all.oldest(|id| is_unfinished(connections, id))
    }

    /// Gives memory back that a rush has left behind; once a tick.
    pub(super) fn tidy_unfinished(&mut self) {
        let connections = &self.connections;
        self.unfinished.all.tidy(|id| is_unfinished(connections, id));
        let by_address = &mut self.unfinished.by_address;
        if by_address.capacity() > 4 * by_address.len() + 4 * ADDRESSES_KEPT {
            by_address.shrink_to(2 * by_address.len() + ADDRESSES_KEPT);
        }
    }
}
