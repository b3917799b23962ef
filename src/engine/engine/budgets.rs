//! The budgets: what all connections of a shard together may hold of answers that wait, of unfinished messages
//! and of request heads. A connection's own limits say what one may hold; 55,000 of them would be gigabytes.
//!
//! The sums are kept as bytes come and go. A call that leaves one over its share ends with a search for those who
//! hold most: bytes times the time they have been held. A post that a network cut in two is small
//! and young, what is held on purpose is large or old, so nobody who goes on is given up for those who do not.
//! A search frees a quarter of the share besides the excess, so each costs whoever fills the
//! budget that much traffic.
//!
//! Not here: the limits of one connection (`session`, `handshake`), when nothing more is read (`reading`).

use super::Engine;
use crate::connection::{Connection, Phase};
use crate::http::Rejection;
use crate::report::{Budget, CloseCause};
use crate::table::Id;
use crate::time::Now;

/// RFC 6455's registry of close codes: the server is overloaded; connect again later.
const CLOSE_OVERLOADED: u16 = 1013;
/// One part in so many of a share is freed besides the excess.
const FREED_PART: u64 = 4;
/// Classes of holders, by the power of two of what they hold times how long.
const CLASSES: usize = 64;

/// What a connection holds of `budget`, and since which tick. Nothing when it cannot be given up for it.
fn holding(connection: &Connection, budget: Budget) -> Option<(u64, Option<u32>)> {
    let (bytes, since) = match (budget, &connection.phase) {
        (Budget::Answers, _) => {
            let since = connection.is_blocked.then_some(connection.socket_tick);
            (connection.answer_bytes_held(), since)
        }
        (Budget::Unfinished, _) => (connection.reader.bytes_held(), connection.reader.since()),
        (Budget::Heads, Phase::Handshake(handshake)) => {
            (handshake.bytes.capacity(), Some(connection.phase_tick))
        }
        (Budget::Heads, _) => return None,
    };
    (bytes > 0).then_some((bytes as u64, since))
}

/// The class of a holder: 0 is the least.
fn class(bytes: u64, since: Option<u32>, tick: u32) -> usize {
    let ticks = since.map_or(0, |since| tick.saturating_sub(since));
    (bytes * (u64::from(ticks) + 1)).ilog2() as usize
}

impl Engine {
    /// What counts against `budget` now.
    pub(super) fn held(&self, budget: Budget) -> u64 {
        match budget {
            Budget::Answers => self.answer_bytes,
            Budget::Unfinished => self.unfinished_bytes,
            Budget::Heads => self.head_bytes,
        }
    }

    /// This shard's part of `budget`.
    pub(super) fn share(&self, budget: Budget) -> u64 {
        self.limits.budget_share(budget, self.setup.shards)
    }

    /// Keeps every budget, at the end of a call that may have added to it.
    pub(super) fn keep_budgets(&mut self, now: Now) {
        for budget in Budget::ALL {
            let (held, share) = (self.held(budget), self.share(budget));
            if held > share {
                self.relieve(now, budget, held - share + share / FREED_PART);
            }
        }
    }

    /// Gives up connections that hold most of `budget` until `excess` bytes are free, or nobody is left.
    pub(super) fn relieve(&mut self, now: Now, budget: Budget, excess: u64) {
        let tick = now.tick();
        let mut held = [0; CLASSES];
        for (_, connection) in self.connections.iter() {
            if let Some((bytes, since)) = holding(connection, budget) {
                held[class(bytes, since, tick)] += bytes;
            }
        }
        let (mut least, mut freed) = (CLASSES - 1, held[CLASSES - 1]);
        while freed < excess && least > 0 {
            least -= 1;
            freed += held[least];
        }
        let mut greatest: Vec<(usize, u64, Id)> = self
            .connections
            .iter()
            .filter_map(|(id, connection)| {
                let (bytes, since) = holding(connection, budget)?;
                Some((class(bytes, since, tick), bytes, id))
            })
            .filter(|(class, ..)| *class >= least)
            .collect();
        greatest.sort_unstable_by_key(|(class, _, id)| (std::cmp::Reverse(*class), *id));
        let mut left = excess;
        for (_, bytes, id) in greatest {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(bytes);
            self.counters.budget_hits[budget as usize] += 1;
            self.give_up(now, id, budget);
        }
    }

    fn give_up(&mut self, now: Now, id: Id, budget: Budget) {
        match budget {
            Budget::Heads => self.refuse(now, id, &Rejection::OVERLOADED),
            Budget::Unfinished => {
                let reason = "too much of unfinished messages";
                self.close(now, id, CLOSE_OVERLOADED, reason, CloseCause::Budget);
            }
            // It does not read what waits for it: it would not read a close frame either.
            Budget::Answers => self.drop_connection(now, id, CloseCause::Budget),
        }
    }

    /// Changes the private queue of a connection, makes it before if there is none, frees it after if nothing
    /// waits, and keeps the sums.
    pub(super) fn change_private(
        &mut self,
        id: Id,
        change: impl FnOnce(&mut crate::connection::Private),
    ) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let mut private = connection.private.take().unwrap_or_default();
        let before = (private.waiting().len() as u64, private.answer_bytes_held() as u64);
        change(&mut private);
        self.private_bytes = self.private_bytes - before.0 + private.waiting().len() as u64;
        self.answer_bytes = self.answer_bytes - before.1 + private.answer_bytes_held() as u64;
        if !private.waiting().is_empty() {
            connection.private = Some(private);
        }
    }

    /// Changes what a connection is doing; a request that was arriving arrives no more.
    pub(super) fn change_phase(&mut self, id: Id, phase: Phase) -> Option<Phase> {
        let connection = self.connections.get_mut(id)?;
        let before = std::mem::replace(&mut connection.phase, phase);
        self.left_phase(&before);
        Some(before)
    }

    /// Takes a request that arrives no more from the sums.
    pub(super) fn left_phase(&mut self, before: &Phase) {
        if let Phase::Handshake(handshake) = before {
            self.head_bytes -= handshake.bytes.capacity() as u64;
            self.unfinished.leave(handshake.counted_by);
        }
    }
}
