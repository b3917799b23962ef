//! What workers and their parent tell each other: one JSON object a line.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// From the parent to a worker.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// The first comment of every room is due at this instant, or a part of a period later.
    Publish { at_ns: u64 },
    /// Close everything at once, connect everything again.
    Cycle,
    /// Say what was seen, and end.
    Report,
}

/// From a worker to the parent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// Every connection is open or has failed.
    Ready { open: usize, refused: usize },
    /// Everything that was due has come, or the time is up.
    Done,
    /// The answer to [`Order::Report`].
    Report(Box<Report>),
}

/// What one worker saw.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) open: usize,
    /// Attempts that did not become a live connection, by status or reason.
    pub(crate) refused: BTreeMap<String, usize>,
    /// Live connections that the other end closed, by close code or `eof`, `reset`.
    pub(crate) ended: BTreeMap<String, usize>,
    /// Connections that got a drain notice.
    pub(crate) drain_notices: usize,
    pub(crate) gap_notices: usize,
    pub(crate) pings: usize,
    /// Bytes that were no frame of a server.
    pub(crate) bad_frames: usize,
    pub(crate) posted: u64,
    pub(crate) acks: u64,
    pub(crate) errors: u64,
    /// Processor time of the worker from the first comment on.
    pub(crate) cpu_ns: u64,
    pub(crate) groups: Vec<GroupReport>,
    /// What offenders did and what came of it.
    pub(crate) offences: BTreeMap<String, u64>,
}

/// What the viewers of one group saw.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct GroupReport {
    /// Connections that were to see every comment.
    pub(crate) viewers: usize,
    pub(crate) stalled: usize,
    pub(crate) expected: u64,
    /// Different comments seen, over all viewers.
    pub(crate) seen: u64,
    pub(crate) delivered: u64,
    pub(crate) duplicates: u64,
    pub(crate) late: u64,
    /// From the intended instant to the viewer's `recv`: pairs of microseconds and counts.
    pub(crate) latencies: Vec<(u64, u64)>,
}

/// An empty histogram of microseconds, three digits, up to two minutes.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).expect("the bounds are constants")
}

impl Report {
    /// Adds what another worker saw.
    pub(crate) fn add(&mut self, other: Self) {
        self.open += other.open;
        for (total, part) in [(&mut self.refused, other.refused), (&mut self.ended, other.ended)] {
            part.into_iter().for_each(|(key, count)| *total.entry(key).or_default() += count);
        }
        for (key, count) in other.offences {
            *self.offences.entry(key).or_default() += count;
        }
        self.drain_notices += other.drain_notices;
        self.gap_notices += other.gap_notices;
        self.pings += other.pings;
        self.bad_frames += other.bad_frames;
        self.posted += other.posted;
        self.acks += other.acks;
        self.errors += other.errors;
        self.cpu_ns += other.cpu_ns;
        self.groups.resize_with(self.groups.len().max(other.groups.len()), Default::default);
        for (total, part) in self.groups.iter_mut().zip(other.groups) {
            total.viewers += part.viewers;
            total.stalled += part.stalled;
            total.expected += part.expected;
            total.seen += part.seen;
            total.delivered += part.delivered;
            total.duplicates += part.duplicates;
            total.late += part.late;
            total.latencies.extend(part.latencies);
        }
    }
}
