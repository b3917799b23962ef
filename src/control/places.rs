//! The places for plain HTTP connections, and who has them.
//!
//! An address that is alone may have all places. When they are all taken and somebody else comes,
//! the address that has more than half of them gives one back: that of its oldest connection, as
//! one that keeps a place by being slow is. So one address holds at most half while others ask.
//!
//! One task owns the places; connections tell it over a channel that they have ended.

use std::collections::{HashMap, VecDeque};

use tokio::sync::{mpsc, oneshot};
use uproar_engine::address::Address;

/// Which place.
type Number = u64;

/// The places of one port.
#[derive(Debug)]
pub(super) struct Places {
    places_max: usize,
    taken: usize,
    next: Number,
    /// Oldest first; nobody without a place is listed.
    by_address: HashMap<Address, VecDeque<Holder>>,
    ended: mpsc::Sender<(Address, Number)>,
    has_ended: mpsc::Receiver<(Address, Number)>,
}

#[derive(Debug)]
struct Holder {
    number: Number,
    evict: oneshot::Sender<()>,
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    address: Address,
    number: Number,
    ended: mpsc::Sender<(Address, Number)>,
    evicted: oneshot::Receiver<()>,
}

/// What became of somebody who wants a place.
#[derive(Debug)]
pub(super) enum Seated {
    /// Here is one.
    Free(Place),
    /// Here is one that another connection had to give back.
    InsteadOf(Place),
    /// There is none.
    Full,
}

impl Places {
    pub(super) fn new(places_max: usize) -> Self {
        // Whoever loses its place leaves as well, at most once for each that was given.
        let (ended, has_ended) = mpsc::channel(2 * places_max + 1);
        Self { places_max, taken: 0, next: 0, by_address: HashMap::new(), ended, has_ended }
    }

    /// Waits until a connection has ended, and frees its place.
    pub(super) async fn freed(&mut self) {
        let ended = self.has_ended.recv().await;
        self.free(ended);
    }

    fn free(&mut self, ended: Option<(Address, Number)>) {
        let Some((address, number)) = ended else { return };
        let Some(holders) = self.by_address.get_mut(&address) else { return };
        // One that was evicted is not listed any more, and its place has another holder.
        let Some(place) = holders.iter().position(|holder| holder.number == number) else { return };
        holders.remove(place);
        self.taken -= 1;
        if holders.is_empty() {
            self.by_address.remove(&address);
        }
    }

    /// A place for somebody from `address`.
    pub(super) fn take(&mut self, address: Address) -> Seated {
        while let Ok(ended) = self.has_ended.try_recv() {
            self.free(Some(ended));
        }
        if self.taken < self.places_max {
            return Seated::Free(self.seat(address));
        }
        match self.evict_for(address) {
            true => Seated::InsteadOf(self.seat(address)),
            false => Seated::Full,
        }
    }

    fn seat(&mut self, address: Address) -> Place {
        let (evict, evicted) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        self.taken += 1;
        self.by_address.entry(address).or_default().push_back(Holder { number, evict });
        Place { address, number, ended: self.ended.clone(), evicted }
    }

    /// Takes a place from whoever has more than half of them, if that is somebody else.
    fn evict_for(&mut self, address: Address) -> bool {
        let most = self.by_address.iter_mut().max_by_key(|(_, holders)| holders.len());
        let Some((&greedy, holders)) = most else { return false };
        if greedy == address || holders.len() <= self.places_max.div_ceil(2) {
            return false;
        }
        let oldest = holders.pop_front().expect("more than half is at least one");
        self.taken -= 1;
        // It may be ending by itself at this moment.
        let _ = oldest.evict.send(());
        true
    }
}

impl Place {
    /// Waits until the place is needed for somebody else.
    pub(super) async fn evicted(&mut self) {
        // The owner of the places is gone only when the port is: nobody else needs this one.
        if (&mut self.evicted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The channel holds everyone who can end before its owner looks; nobody frees places once it is gone.
        let _ = self.ended.try_send((self.address, self.number));
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn address(last: u8) -> Address {
        IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)).into()
    }

    fn is_evicted(place: &mut Place) -> bool {
        place.evicted.try_recv().is_ok()
    }

    fn seat(places: &mut Places, last: u8) -> Option<Place> {
        match places.take(address(last)) {
            Seated::Free(place) | Seated::InsteadOf(place) => Some(place),
            Seated::Full => None,
        }
    }

    #[test]
    fn who_is_alone_may_have_all_places_and_keeps_half_when_others_come() {
        let mut places = Places::new(4);
        let mut greedy: Vec<Place> = (0..4).map(|_| seat(&mut places, 1).expect("free")).collect();
        assert!(seat(&mut places, 1).is_none(), "no more than there are");
        let first = places.take(address(2));
        assert!(matches!(first, Seated::InsteadOf(_)), "{first:?}");
        let second = seat(&mut places, 3).expect("another address");
        let evicted: Vec<bool> = greedy.iter_mut().map(is_evicted).collect();
        assert_eq!(evicted, [true, true, false, false], "the oldest go first");
        assert!(seat(&mut places, 4).is_none(), "half of them is not taken away");
        // Those who lost their places end, which frees nothing.
        greedy.drain(..2);
        assert!(seat(&mut places, 4).is_none());
        drop(first);
        assert!(seat(&mut places, 4).is_some());
        drop(greedy);
        drop(second);
        let all: Vec<_> = (0..4).map(|_| seat(&mut places, 9)).collect();
        assert!(all.iter().all(Option::is_some), "every place is free again");
        assert_eq!(places.taken, 4);
        drop(all);
        assert!(seat(&mut places, 9).is_some());
        assert_eq!((places.taken, places.by_address.len()), (1, 1));
    }

    #[test]
    fn the_only_place_is_not_taken_away() {
        let mut places = Places::new(1);
        let _mine = seat(&mut places, 1).expect("free");
        assert!(seat(&mut places, 2).is_none());
    }
}
