//! What a plane counts and times. Plain numbers that can be added up over planes and hosts.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::probe::cpus::CpuBooks;

/// The longest latency a histogram holds, in microseconds: an hour. Longer ones count as this.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// Declares [`Counters`] with addition over all fields.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)*) => {
        /// Counted since the run began; only grows.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        pub(crate) struct Counters { $($(#[doc = $doc])+ pub(crate) $name: u64,)* }

        impl Counters {
            /// Adds another plane's numbers.
            pub(crate) fn add(&mut self, other: &Self) { $(self.$name += other.$name;)* }

            /// What was counted after `earlier`.
            pub(crate) fn since(&self, earlier: &Self) -> Self {
                Self { $($name: self.$name.saturating_sub(earlier.$name),)* }
            }
        }
    };
}

counters! {
    /// Connects begun.
    connects_begun,
    /// Connections that became live.
    connects_done,
    /// Connects that failed in the kernel (refused, timed out, no port left).
    connects_failed,
    /// Upgrades answered with another status than 101.
    upgrades_refused,
    /// Viewers that stay away after too many failed connects.
    gave_up,
    /// Live connections that the server or the kernel ended although the scenario did not want it.
    closed_unexpectedly,
    /// Deliberately slow viewers that the server ended, as it may.
    closed_slow,
    /// Connections closed because the scenario wanted it.
    closed_by_plan,
    /// Bytes received after the upgrade.
    bytes_received,
    /// Comments received by viewers.
    deliveries,
    /// Comments received by deliberately slow viewers; not in `deliveries` and not timed.
    deliveries_slow,
    /// Comments received that this run did not post.
    deliveries_foreign,
    /// Comments received that were in the log before their viewer came (back); not timed.
    deliveries_replayed,
    /// Comments parsed whole and compared byte for byte.
    checked,
    /// Comments handed to the kernel by publishers.
    posts,
    /// Posts acknowledged by the server.
    acks,
    /// Acks of no post that its publisher waits for: a second one, or one without a `ref` or with an unknown one.
    acks_stray,
    /// Posts the server refused.
    posts_refused,
    /// Posts whose publisher left, by plan or not, before they were answered.
    posts_abandoned,
    /// Posts that the server had not answered when the run or step ended, although their publisher was there.
    posts_unanswered,
    /// Posts that the server had acknowledged, and not delivered to their publisher when the run or step ended.
    posts_unseen,
    /// Posts that left later than they were due because their publisher was away by plan; their latency runs from when they were due.
    posts_deferred,
    /// Posts that never left, because their publisher was gone or was away for too many.
    posts_skipped,
    /// Comments that a connected viewer should have got and had not when the run ended, gap or not.
    lost,
    /// Comments covered by gap notices to ordinary viewers; a part of `lost`.
    gap_comments,
    /// Gap notices received by ordinary viewers.
    gaps,
    /// Comments covered by gap notices to deliberately slow viewers.
    gap_comments_slow,
    /// Comments that came after later ones.
    reordered,
    /// Comments that came twice.
    duplicates,
    /// Posts that stand at two offsets of the log; each load generator thread counts them.
    appended_twice,
    /// Comments that differ from what others saw at the offset, or that an ack contradicts.
    disagreements,
    /// Messages or frames that break the protocol.
    protocol_errors,
    /// Resumes answered with everything since.
    resumes_recovered,
    /// Resumes the server could not honour in full.
    resumes_incomplete,
    /// Drain notices received.
    drains,
    /// Pings received and answered.
    pings,
    /// Receives that found the provided buffers used up and were retried.
    buffers_exhausted,
}

/// A latency histogram in microseconds, three significant digits.
pub(crate) fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds are valid constants")
}

/// Counts one latency; beyond the range it counts as the longest.
pub(crate) fn record(histogram: &mut Histogram<u64>, latency_us: u64) {
    histogram.saturating_record(latency_us.max(1));
}

/// A stretch of the schedule with its own histogram: comments belong to it by due instant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Window {
    /// First due instant, in monotonic nanoseconds.
    pub(crate) from_ns: u64,
    /// First due instant after it.
    pub(crate) to_ns: u64,
    /// Latencies of its comments, all viewers together.
    #[serde(with = "compressed")]
    pub(crate) latency: Histogram<u64>,
    /// How late its posts left, after their due instant.
    #[serde(with = "compressed")]
    pub(crate) slippage: Histogram<u64>,
    /// Posts due in it that left, whenever they did.
    pub(crate) posts: u64,
    /// Of its deliveries those that came before its end: what came later was not carried at this rate.
    pub(crate) in_time: u64,
}

impl Window {
    /// A window of comments due from `from_ns` to `to_ns`.
    pub(crate) fn new(from_ns: u64, to_ns: u64) -> Self {
        let (latency, slippage) = (latency_histogram(), latency_histogram());
        Self { from_ns, to_ns, latency, slippage, posts: 0, in_time: 0 }
    }
}

/// What one load generator thread has used so far; a thread of another host is as good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PlaneUse {
    /// The CPU it is pinned to.
    pub(crate) cpu: usize,
    /// Its CPU time, in microseconds.
    pub(crate) cpu_us: u64,
    /// How long it was ready and had no CPU, in microseconds.
    pub(crate) waited_us: u64,
    /// What the whole CPU did: softirqs of its receive path, other threads, the host's other guests.
    pub(crate) books: CpuBooks,
}

/// Connections that are being made, by what they wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Underway {
    /// The kernel's handshake.
    pub(crate) connecting: u64,
    /// The answer to the upgrade.
    pub(crate) upgrading: u64,
    /// The welcome.
    pub(crate) welcoming: u64,
}

impl Underway {
    fn add(&mut self, other: Self) {
        self.connecting += other.connecting;
        self.upgrading += other.upgrading;
        self.welcoming += other.welcoming;
    }

    /// What most of them wait for; none when there are none.
    pub(crate) fn explain(self) -> Option<String> {
        let phases = [
            (self.connecting, "the server does not accept their connections"),
            (self.upgrading, "the server does not answer their upgrades"),
            (
                self.welcoming,
                "the server sends them no welcome: does it speak another protocol? See --speak",
            ),
        ];
        let (count, text) = phases.into_iter().max_by_key(|&(count, _)| count)?;
        (count > 0).then(|| format!("{count} still wait: {text}"))
    }
}

/// Everything a plane hands out: its numbers so far.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) counters: Counters,
    /// Live connections now.
    pub(crate) live: u64,
    /// Viewers that have not reached the newest acknowledged offset of their event.
    pub(crate) behind: u64,
    /// The comments that those miss; a part of `lost` while they do.
    pub(crate) missing: u64,
    /// Posts without an answer, and posts acknowledged that their publishers have not received; filled in by `Judge` only.
    pub(crate) unanswered: u64,
    pub(crate) unseen: u64,
    /// When the latest viewer became live, by the conductor's monotonic clock, in nanoseconds.
    pub(crate) last_live_ns: u64,
    /// Latencies since the last collection, by receipt.
    #[serde(with = "compressed")]
    pub(crate) recent: Histogram<u64>,
    /// How late posts left, after their due instant.
    #[serde(with = "compressed")]
    pub(crate) slippage: Histogram<u64>,
    /// From due instant to ack.
    #[serde(with = "compressed")]
    pub(crate) ack: Histogram<u64>,
    /// From connect to live.
    #[serde(with = "compressed")]
    pub(crate) connect: Histogram<u64>,
    /// By window, in the order they were opened.
    pub(crate) windows: Vec<Window>,
    /// Viewers whose connection is being made, by how far it has come; filled in by `Judge` only.
    pub(crate) underway: Underway,
    /// Each plane's own, in an order that stays: a maximum of totals would mix the threads up.
    pub(crate) planes: Vec<PlaneUse>,
    /// First error texts, at most a few.
    pub(crate) troubles: Vec<String>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            counters: Counters::default(),
            live: 0,
            behind: 0,
            unanswered: 0,
            unseen: 0,
            missing: 0,
            last_live_ns: 0,
            recent: latency_histogram(),
            slippage: latency_histogram(),
            ack: latency_histogram(),
            connect: latency_histogram(),
            windows: Vec::new(),
            underway: Underway::default(),
            planes: Vec::new(),
            troubles: Vec::new(),
        }
    }

    /// Counts one delivery's latency: in the stretch it was due in, and in the current second.
    pub(crate) fn delivered(&mut self, due_ns: u64, now_ns: u64) {
        let latency_us = now_ns.saturating_sub(due_ns) / 1_000;
        record(&mut self.recent, latency_us);
        if let Some(window) = self.window_of(due_ns) {
            record(&mut window.latency, latency_us);
            window.in_time += u64::from(now_ns < window.to_ns);
        }
    }

    /// Counts how late one post left: in the stretch it was due in, and over the whole run.
    pub(crate) fn posted(&mut self, due_ns: u64, now_ns: u64) {
        let late_us = now_ns.saturating_sub(due_ns) / 1_000;
        record(&mut self.slippage, late_us);
        if let Some(window) = self.window_of(due_ns) {
            record(&mut window.slippage, late_us);
            window.posts += 1;
        }
    }

    /// Counts a post that leaves late because its publisher was away, which says nothing about this tool.
    pub(crate) fn posted_on_return(&mut self, due_ns: u64) {
        self.counters.posts_deferred += 1;
        if let Some(window) = self.window_of(due_ns) {
            window.posts += 1;
        }
    }

    fn window_of(&mut self, due_ns: u64) -> Option<&mut Window> {
        let due_in = |window: &&mut Window| window.from_ns <= due_ns && due_ns < window.to_ns;
        self.windows.iter_mut().rev().find(due_in)
    }
}

impl Tally {
    /// Adds another plane's tally.
    pub(crate) fn merge(&mut self, other: &Self) {
        const SAME: &str = "all histograms have the same bounds";
        self.counters.add(&other.counters);
        self.live += other.live;
        self.behind += other.behind;
        self.missing += other.missing;
        self.unanswered += other.unanswered;
        self.unseen += other.unseen;
        self.last_live_ns = self.last_live_ns.max(other.last_live_ns);
        self.recent.add(&other.recent).expect(SAME);
        self.slippage.add(&other.slippage).expect(SAME);
        self.ack.add(&other.ack).expect(SAME);
        self.connect.add(&other.connect).expect(SAME);
        for (at, window) in other.windows.iter().enumerate() {
            match self.windows.get_mut(at) {
                Some(mine) => {
                    mine.latency.add(&window.latency).expect(SAME);
                    mine.slippage.add(&window.slippage).expect(SAME);
                    mine.posts += window.posts;
                    mine.in_time += window.in_time;
                }
                None => self.windows.push(window.clone()),
            }
        }
        self.underway.add(other.underway);
        self.planes.extend_from_slice(&other.planes);
        for trouble in &other.troubles {
            if !self.troubles.contains(trouble) {
                self.troubles.push(trouble.clone());
            }
        }
    }
}

/// Histograms between hosts: HdrHistogram's own compressed form.
mod compressed {
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
    use serde::{Deserialize, de, ser};

    pub(super) fn serialize<S: ser::Serializer>(
        histogram: &Histogram<u64>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        let done = V2DeflateSerializer::new().serialize(histogram, &mut bytes);
        done.map_err(ser::Error::custom)?;
        out.collect_seq(bytes)
    }

    pub(super) fn deserialize<'de, D: de::Deserializer<'de>>(
        from: D,
    ) -> Result<Histogram<u64>, D::Error> {
        let bytes = Vec::<u8>::deserialize(from)?;
        let histogram = Deserializer::new().deserialize(&mut &bytes[..]);
        // Same bounds as all others, so that they can be added.
        let mut whole = super::latency_histogram();
        let sent: Histogram<u64> = histogram.map_err(de::Error::custom)?;
        whole.add(&sent).map_err(de::Error::custom)?;
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_survives_the_way_between_hosts_and_adds_up() {
        let mut tally = Tally::new();
        tally.windows.push(Window::new(0, 100));
        tally.delivered(50, 5_000_000);
        tally.delivered(100, 9_000_000);
        tally.counters.posts = 3;
        tally.planes.push(PlaneUse { cpu: 1, cpu_us: 7, ..PlaneUse::default() });
        let text = serde_json::to_string(&tally).unwrap();
        let mut sum: Tally = serde_json::from_str(&text).unwrap();
        assert_eq!((sum.recent.len(), sum.windows[0].latency.len()), (2, 1));
        sum.merge(&tally);
        assert_eq!((sum.recent.len(), sum.windows[0].latency.len(), sum.counters.posts), (4, 2, 6));
        assert_eq!(sum.planes.len(), 2, "each thread's own numbers stay apart");
    }

    #[test]
    fn what_comes_after_a_window_was_not_carried_in_it() {
        let mut tally = Tally::new();
        tally.windows.push(Window::new(1_000, 2_000));
        for now_ns in [1_500, 1_999, 2_000, 9_000] {
            tally.delivered(1_400, now_ns);
        }
        tally.delivered(900, 1_500);
        assert_eq!((tally.windows[0].latency.len(), tally.windows[0].in_time), (4, 2));
    }

    #[test]
    fn viewers_that_hang_say_where() {
        assert_eq!(Underway::default().explain(), None);
        let hung = Underway { connecting: 1, upgrading: 9, welcoming: 0 };
        assert!(hung.explain().unwrap().starts_with("9 still wait: the server does not answer"));
    }

    #[test]
    fn comments_count_in_the_window_they_were_due_in() {
        let mut tally = Tally::new();
        for from_ns in [1_000, 2_000] {
            tally.windows.push(Window::new(from_ns, from_ns + 1_000));
        }
        for due_ns in [999, 1_000, 1_999, 2_000, 2_999, 3_000] {
            tally.delivered(due_ns, 10_000_000);
        }
        let counts: Vec<u64> = tally.windows.iter().map(|w| w.latency.len()).collect();
        assert_eq!(counts, [2, 2]);
    }
}
