//! What must be true of everything all viewers of a run see together: one order per event and
//! epoch, ids that name one comment, acks and keys that tell the truth.

use std::collections::{BTreeMap, BTreeSet};

use super::wire::Seen;

/// How long a key is promised to work, in microseconds.
const KEY_US: u64 = 300_000_000;

/// An event's log in one epoch.
type Log = (usize, u64);

/// The memory of a run.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    logs: BTreeMap<Log, BTreeMap<u64, Seen>>,
    ids: BTreeMap<u128, (Log, u64)>,
    /// Texts that somebody posted, and whether a key may explain that one appears twice.
    posted: BTreeSet<(usize, String)>,
    /// Where a text without a key has appeared.
    places: BTreeMap<(usize, String), (u64, u64)>,
    acks: BTreeMap<(Log, u64), (u128, String)>,
    /// When a key of a user was first sent, and what was answered.
    sent: BTreeMap<(usize, String, String), u64>,
    keys: BTreeMap<(Log, String, String), (u128, u64)>,
    /// How far times may be ahead of the clock, in milliseconds.
    clock_lead_ms_max: u64,
    /// The node remembers few keys, and forgets others.
    pub(crate) is_forgetful: bool,
    pub(crate) comments: u64,
    pub(crate) gaps: u64,
    pub(crate) recovered: u64,
}

impl Oracle {
    pub(crate) fn new(clock_lead_ms_max: u32, is_forgetful: bool) -> Self {
        Self { is_forgetful, clock_lead_ms_max: clock_lead_ms_max.into(), ..Self::default() }
    }

    pub(crate) fn posted(&mut self, event: usize, text: &str) {
        self.posted.insert((event, text.into()));
    }

    /// A comment that a viewer or a REST page shows.
    pub(crate) fn comment(&mut self, event: usize, epoch: u64, offset: u64, seen: &Seen) {
        let log = (event, epoch);
        self.comments += 1;
        let lead_ms = self.clock_lead_ms_max;
        let comments = self.logs.entry(log).or_default();
        if let Some(known) = comments.get(&offset) {
            assert_eq!(known, seen, "{log:?} offset {offset} is one comment for everybody");
            return;
        }
        assert!(offset >= 1, "offsets count from 1");
        // Times run back only to follow a clock that was wrong by more than the limit.
        let is_sound = |older: u64, newer: u64| older <= newer || older - newer > lead_ms;
        let before = comments.get(&(offset - 1)).map_or(0, |older| older.time);
        let after = comments.get(&(offset + 1)).map_or(u64::MAX, |newer| newer.time);
        assert!(
            is_sound(before, seen.time) && is_sound(seen.time, after),
            "time ran back: {seen:?}"
        );
        comments.insert(offset, seen.clone());
        let place = self.ids.insert(seen.id, (log, offset));
        assert!(place.is_none(), "the id of {seen:?} names another comment, {place:?}");
        assert_eq!(seen.id >> 76 & 0xf, 7, "an id is a UUIDv7");
        let text = (event, seen.text.clone());
        assert!(self.posted.contains(&text), "nobody posted {seen:?}");
        if !seen.text.starts_with("keyed") {
            let twice = self.places.insert(text, (epoch, offset));
            assert!(twice.is_none(), "{seen:?} appears twice, first at {twice:?}");
        }
        if let Some((id, text)) = self.acks.get(&(log, offset)) {
            assert_eq!((id, text), (&seen.id, &seen.text), "the ack told the truth");
        }
    }

    /// An ack, over a connection or HTTP.
    pub(crate) fn ack(&mut self, event: usize, epoch: u64, offset: u64, id: u128, text: &str) {
        let log = (event, epoch);
        if let Some(seen) = self.logs.get(&log).and_then(|log| log.get(&offset)) {
            assert_eq!((seen.id, &*seen.text), (id, text), "the ack names the comment it made");
        }
        let known = self.acks.entry((log, offset)).or_insert_with(|| (id, text.into()));
        assert_eq!((known.0, &*known.1), (id, text), "acks of {log:?} {offset} agree");
    }

    /// An ack of a post with a key. Whichever post of that key was appended came after the first
    /// of them all was sent.
    pub(crate) fn keyed(
        &mut self,
        log: Log,
        (user, key): (&str, &str),
        now_us: u64,
        answer: (u128, u64),
    ) {
        let sent_us = self.sent[&(log.0, user.to_owned(), key.to_owned())];
        let entry = (log, user.to_owned(), key.to_owned());
        let known = *self.keys.entry(entry).or_insert(answer);
        if now_us - sent_us < KEY_US && !self.is_forgetful {
            assert_eq!(known, answer, "{user} {key} was appended once to {log:?}");
        }
    }

    /// A post with a key is sent.
    pub(crate) fn sends_key(&mut self, event: usize, user: &str, key: &str, now_us: u64) {
        self.sent.entry((event, user.to_owned(), key.to_owned())).or_insert(now_us);
    }
}
