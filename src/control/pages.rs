//! Pages of history: read and encoded here, not on the shards.
//!
//! ```text
//! question ─► way into the log known? ──no──► the home shard is asked for one (O(1)), and it is kept
//!                  │ yes                            │
//!                  ▼                                ▼
//!             follow the log, as a replica does ─► the page, if its bytes are kept; else encoded and kept
//! ```
//!
//! What is kept is bounded and pins nothing: the ways into logs are weak, so that a home shard lets go
//! of segments as if nobody read them, and bodies count in `http_bytes_max`. Frames never change, so
//! everybody who wants the same comments of an epoch gets the same bytes: fifty thousand loads of a
//! page are one encoding. A read costs a token of `http_reads_per_sec`, of which one address has half
//! while others ask.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use uproar_engine::address::Address;
use uproar_engine::control::{Reply, Request};
use uproar_engine::ids::{EventId, Position};
use uproar_engine::log::{Grant, Log, WeakGrant};
use uproar_engine::page;
use uproar_engine::share::Budget;
use uproar_engine::time::Now;

use super::answer::Refused;
use super::answer_bytes::{AnswerBytes, Body};
use super::node::Node;

/// Events whose logs can be read without asking a shard; beyond it the longest unread is forgotten.
const LOGS_MAX: usize = 1_024;
/// Pages kept, whatever their size.
const PAGES_MAX: usize = 256;
/// The part of `http_bytes_max` that pages may take which nobody is reading.
const KEPT_PART: u64 = 4;
/// How long something is kept that nobody asks for.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// Which bytes: the comments of an epoch of an event, by their offsets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    event: EventId,
    epoch: u64,
    offsets: Range<u64>,
}

/// A page as it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// JSON objects with commas between them.
    pub(super) comments: Bytes,
    /// The head of the log.
    pub(super) position: Position,
}

/// What the control plane keeps in order to answer with pages.
#[derive(Debug, Default)]
pub(super) struct Pages {
    /// What bodies hold.
    pub(super) bytes: AnswerBytes,
    kept: Mutex<Kept>,
    reads: Mutex<Budget>,
    /// How often each limit was hit.
    over_rate: AtomicU64,
    over_bytes: AtomicU64,
    /// Pages answered, and those that had to be encoded.
    answered: AtomicU64,
    encoded: AtomicU64,
}

#[derive(Debug, Default)]
struct Kept {
    logs: Recent<EventId, (WeakGrant, u64)>,
    pages: Recent<Key, Body>,
}

impl Pages {
    /// Reads refused, by the limit that was hit.
    pub(super) fn refused(&self) -> [(&'static str, u64); 2] {
        [("rate", self.over_rate.load(Relaxed)), ("bytes", self.over_bytes.load(Relaxed))]
    }

    /// Pages answered, and pages encoded.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.answered.load(Relaxed), self.encoded.load(Relaxed))
    }

    /// Takes a read from the node's budget.
    pub(super) fn admit(&self, node: &Node, from: Address) -> Result<(), Refused> {
        let now = Now { mono_us: 1 + node.started.elapsed().as_micros() as u64, wall_ms: 0 };
        let per_second = node.loaded().config.server.http_reads_per_sec;
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        if reads.take(now, per_second, from.digest()) {
            return Ok(());
        }
        self.over_rate.fetch_add(1, Relaxed);
        Err(Refused::unavailable("overloaded", "the node is asked for too many pages; try again"))
    }

    /// Counts a body that has no room.
    pub(super) fn too_many_bytes(&self) -> Refused {
        self.over_bytes.fetch_add(1, Relaxed);
        Refused::unavailable("overloaded", "the node holds as many answers as it may; try again")
    }

    /// The newest `limit` comments of an event, of those before offset `before` if given.
    pub(super) async fn page(
        &self,
        node: &Node,
        event: &EventId,
        limit: u32,
        before: Option<u64>,
        from: Address,
    ) -> Result<Page, Refused> {
        let wanted = Wanted { event, limit, before, from };
        if let Some(page) = self.known(node, &wanted)? {
            return Ok(page);
        }
        match node.ask_home(event, Request::Follow { event: event.clone() }).await? {
            Reply::Followed { log, position } => {
                let upgraded = log.as_ref().and_then(WeakGrant::upgrade);
                // It may be gone again already: then nothing is retained.
                let (Some(log), Some(grant)) = (log, upgraded) else {
                    self.answered.fetch_add(1, Relaxed);
                    return Ok(Page { comments: Bytes::new(), position });
                };
                let mut kept = self.kept();
                kept.logs.keep(event.clone(), (log, position.epoch), LOGS_MAX);
                self.read(&mut kept, node, &wanted, &grant, position.epoch)
            }
            Reply::NoSuchEvent => Err(Refused::no_such_event()),
            other => unreachable!("the engine answered a request with another's reply: {other:?}"),
        }
    }

    /// The page, without asking anybody.
    fn known(&self, node: &Node, wanted: &Wanted<'_>) -> Result<Option<Page>, Refused> {
        let mut kept = self.kept();
        let Some((log, epoch)) = kept.logs.find(wanted.event) else { return Ok(None) };
        let epoch = *epoch;
        // One reader at a time has segments in its hands, and only under this lock: what can be upgraded is
        // therefore held by the home shard as well, and up to date.
        match log.upgrade() {
            Some(grant) => self.read(&mut kept, node, wanted, &grant, epoch).map(Some),
            None => {
                kept.logs.forget(wanted.event);
                Ok(None)
            }
        }
    }

    fn read(
        &self,
        kept: &mut Kept,
        node: &Node,
        wanted: &Wanted<'_>,
        grant: &Grant,
        epoch: u64,
    ) -> Result<Page, Refused> {
        let log = Log::follow(grant);
        let position = Position { epoch, offset: log.head() };
        let offsets = page::offsets(&log, wanted.limit, wanted.before);
        let key = Key { event: wanted.event.clone(), epoch, offsets };
        let comments = match kept.pages.find(&key) {
            Some(body) => body.read(),
            None => self.encode(kept, node, wanted.from, &log, key)?,
        };
        self.answered.fetch_add(1, Relaxed);
        Ok(Page { comments, position })
    }

    fn encode(
        &self,
        kept: &mut Kept,
        node: &Node,
        from: Address,
        log: &Log,
        key: Key,
    ) -> Result<Bytes, Refused> {
        let bytes_max = u64::from(node.loaded().config.server.http_bytes_max);
        let mut held = self.bytes.hold(from);
        // What lies in the log is about what the JSON takes: who has no room for that is not worth the encoding.
        let least = page::frame_bytes(log, key.offsets.clone());
        self.make_room(kept, bytes_max.saturating_sub(least));
        if !held.grow(least, bytes_max) {
            // What nobody reads may be this address's half.
            self.make_room(kept, 0);
            if !held.grow(least, bytes_max) {
                return Err(self.too_many_bytes());
            }
        }
        let mut json = Vec::with_capacity(least as usize);
        page::write(log, key.offsets.clone(), &mut json);
        json.shrink_to_fit();
        let more = (json.len() as u64).saturating_sub(least);
        if !held.grow(more, bytes_max) {
            return Err(self.too_many_bytes());
        }
        self.encoded.fetch_add(1, Relaxed);
        let body = held.body(json);
        let comments = body.read();
        kept.pages.keep(key, body, PAGES_MAX);
        self.make_room(kept, bytes_max);
        Ok(comments)
    }

    /// Forgets pages that nobody reads, the longest unasked first, until all bodies hold at most `bytes_max` and
    /// those pages at most their part of it.
    fn make_room(&self, kept: &mut Kept, bytes_max: u64) {
        let mut idle: u64 = kept.pages.values().filter(|page| page.is_idle()).map(size).sum();
        while idle > bytes_max / KEPT_PART || self.bytes.bytes() > bytes_max {
            let Some(page) = kept.pages.forget_oldest(Body::is_idle) else { return };
            idle -= size(&page);
        }
    }

    /// Lets go of what nobody has asked for lately.
    pub(super) fn sweep(&self) {
        let mut kept = self.kept();
        kept.logs.forget_unused(IDLE_MAX);
        kept.pages.forget_unused(IDLE_MAX);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(page: &Body) -> u64 {
    page.as_ref().len() as u64
}

/// What is asked for, and from where.
struct Wanted<'a> {
    event: &'a EventId,
    limit: u32,
    before: Option<u64>,
    from: Address,
}

/// Things that were asked for lately.
#[derive(Debug)]
struct Recent<K, V>(HashMap<K, (V, Instant)>);

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    fn find(&mut self, key: &K) -> Option<&V> {
        let (value, used_at) = self.0.get_mut(key)?;
        *used_at = Instant::now();
        Some(value)
    }

    fn keep(&mut self, key: K, value: V, most: usize) {
        while self.0.len() >= most && self.forget_oldest(|_| true).is_some() {}
        self.0.insert(key, (value, Instant::now()));
    }

    fn forget(&mut self, key: &K) {
        self.0.remove(key);
    }

    fn forget_oldest(&mut self, may_go: impl Fn(&V) -> bool) -> Option<V> {
        let candidates = self.0.iter().filter(|(_, (value, _))| may_go(value));
        let oldest = candidates.min_by_key(|(_, (_, used_at))| *used_at)?.0.clone();
        self.0.remove(&oldest).map(|(value, _)| value)
    }

    fn forget_unused(&mut self, since: Duration) {
        self.0.retain(|_, (_, used_at)| used_at.elapsed() < since);
    }

    fn values(&self) -> impl Iterator<Item = &V> {
        self.0.values().map(|(value, _)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_longest_ago_is_forgotten_first() {
        let mut recent = Recent::default();
        for (key, value) in [(1, "a"), (2, "b"), (3, "c")] {
            recent.keep(key, value, 3);
        }
        assert_eq!(recent.find(&1), Some(&"a"));
        recent.keep(4, "d", 3);
        assert_eq!(recent.find(&2), None);
        assert_eq!(recent.forget_oldest(|value| *value != "c"), Some("a"));
        recent.forget_unused(Duration::ZERO);
        assert_eq!(recent.values().count(), 0);
    }
}
