//! What bodies of plain HTTP hold of memory, all together: pages of history until their readers have
//! them, and posts until they are whole.
//!
//! `http_bytes_max` bounds the sum, and one address has at most half of it, so that readers who do
//! not read keep neither the node's memory nor everybody else's answers. A page that many wait for
//! is one body and counts once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use uproar_engine::address::Address;

/// The sum, and each address's part of it.
#[derive(Clone, Debug, Default)]
pub(super) struct AnswerBytes(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    sums: Mutex<Sums>,
    /// The sum for who looks on: the thread of REST may be made to wait while it has the lock, and nobody
    /// else may wait for it.
    shown: AtomicU64,
}

#[derive(Debug, Default)]
struct Sums {
    bytes: u64,
    /// Without those who hold nothing.
    by_address: HashMap<Address, u64>,
}

/// Bytes that count, until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    sums: AnswerBytes,
    address: Address,
    bytes: u64,
}

impl AnswerBytes {
    /// Counts nothing yet for `address`.
    pub(super) fn hold(&self, address: Address) -> Held {
        Held { sums: self.clone(), address, bytes: 0 }
    }

    /// What is held now.
    pub(super) fn bytes(&self) -> u64 {
        self.0.shown.load(Relaxed)
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.0.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Counts `more` bytes as well; false, and nothing is counted, if that is too much of `bytes_max`. A body
    /// larger than what one may hold is taken when nothing else is held: there is one at most.
    #[must_use]
    pub(super) fn grow(&mut self, more: u64, bytes_max: u64) -> bool {
        let mut sums = self.sums.sums();
        let of_address = sums.by_address.get(&self.address).copied().unwrap_or(0);
        let fits = sums.bytes + more <= bytes_max && of_address + more <= bytes_max / 2;
        if !fits && sums.bytes > self.bytes {
            return false;
        }
        sums.bytes += more;
        self.sums.0.shown.store(sums.bytes, Relaxed);
        *sums.by_address.entry(self.address).or_default() += more;
        self.bytes += more;
        true
    }

    /// These bytes as a body that counts until the last of its readers has it.
    pub(super) fn body(self, bytes: Vec<u8>) -> Body {
        Body(Arc::new(Counted { bytes, _held: self }))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut sums = self.sums.sums();
        sums.bytes -= self.bytes;
        self.sums.0.shown.store(sums.bytes, Relaxed);
        if let Some(of_address) = sums.by_address.get_mut(&self.address) {
            *of_address -= self.bytes;
            if *of_address == 0 {
                sums.by_address.remove(&self.address);
            }
        }
    }
}

/// A body, shared by all who read it.
#[derive(Clone, Debug)]
pub(super) struct Body(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    bytes: Vec<u8>,
    _held: Held,
}

impl Body {
    /// For one more reader.
    pub(super) fn read(&self) -> Bytes {
        Bytes::from_owner(self.clone())
    }

    /// Whether this is all there is of it: nobody reads.
    pub(super) fn is_idle(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn the_sum_is_bounded_and_one_address_has_half_of_it() {
        let all = AnswerBytes::default();
        let hold = |last: u8| all.hold(Address::from(IpAddr::from([127, 0, 0, last])));
        let mut first = hold(1);
        assert!(first.grow(30, 100) && first.grow(20, 100));
        assert!(!hold(1).grow(1, 100), "it has half");
        let (mut second, mut third) = (hold(2), hold(3));
        assert!(second.grow(40, 100) && third.grow(10, 100));
        assert!(!third.grow(1, 100), "there is no more");
        let body = first.body(vec![0; 50]);
        let reader = body.read();
        assert!(!body.is_idle());
        drop(body);
        assert_eq!(all.bytes(), 100, "somebody is still reading");
        drop(reader);
        assert_eq!(all.bytes(), 50);
        assert!(third.grow(30, 100));
        drop((second, third));
        assert_eq!(all.bytes(), 0);
        assert!(all.sums().by_address.is_empty());
        let mut large = hold(1);
        assert!(large.grow(500, 100), "a page that never fits is served alone");
        assert!(!hold(2).grow(1, 100));
    }
}
