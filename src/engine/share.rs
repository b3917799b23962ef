//! What one event's post budget is divided by while it is scarce: nobody may use it up for all.
//!
//! The budget itself is one [`Bucket`]: a rate, and a burst of two seconds' worth. An address that
//! posts alone may have all of it. While somebody else asks as well, it has half: a bucket of its
//! own with half the rate. When somebody has used up the common bucket, those who have taken little
//! find a reserve behind it, so that the first post of who comes late is not refused either.
//!
//! ```text
//! debt of the common bucket   0 ───────── everybody ───────── 2 s ── who has taken little ── 2.5 s
//! ```
//!
//! Only a few addresses are remembered, those that took most: an address with half of the budget
//! is always among them.

use crate::bucket::{BURST_US, Bucket};
use crate::time::Now;

/// Addresses remembered for an event.
const SPENDERS: usize = 4;
/// How long somebody who asked counts as asking.
const ASKING_US: u64 = 2_000_000;
/// The part of the burst behind the common bucket's end that is for those who have taken little.
const RESERVE_US: u64 = BURST_US / 4;
/// Whoever's own bucket is less in debt than this has taken little.
const LITTLE_US: u64 = BURST_US / 2;

/// One address and what it has taken lately.
#[derive(Clone, Copy, Debug, Default)]
struct Spender {
    /// [`crate::address::Address::digest`].
    address: u32,
    /// Half of the budget.
    own: Bucket,
    /// When it last asked, in monotonic microseconds.
    asked_us: u64,
}

/// Who posts into an event.
#[derive(Clone, Debug, Default)]
struct Spenders([Spender; SPENDERS]);

/// An event's post budget.
#[derive(Debug, Default)]
pub struct Budget {
    common: Bucket,
    /// Made when half of the burst is used up, dropped when all of it is there again.
    spenders: Option<Box<Spenders>>,
}

impl Budget {
    /// Takes one post of `address` at `per_second` posts a second; false when there is none for it. 0 is no cap.
    #[must_use]
    pub fn take(&mut self, now: Now, per_second: u32, address: u32) -> bool {
        if per_second == 0 {
            return true;
        }
        let debt_us = self.common.debt_us(now);
        if debt_us == 0 {
            self.spenders = None;
        } else if debt_us >= BURST_US / 2 {
            self.spenders.get_or_insert_default();
        }
        let Some(spenders) = &mut self.spenders else {
            return self.common.take(now, per_second);
        };
        let (spender, is_contended) = spenders.asks(now, address);
        let has_little = spender.own.debt_us(now) < LITTLE_US;
        let burst_us = if is_contended && has_little { BURST_US + RESERVE_US } else { BURST_US };
        // Half of an odd rate is rounded up: an event of one post a second is for everybody.
        let half = per_second.div_ceil(2);
        if (is_contended && !spender.own.has(now, half, BURST_US))
            || !self.common.take_within(now, per_second, burst_us)
        {
            return false;
        }
        // Alone it may go beyond its half, which is then used up for as long as others ask.
        spender.own.charge(now, half, BURST_US);
        true
    }
}

impl Spenders {
    /// Notes that `address` asks; its entry, and whether somebody else asks as well.
    fn asks(&mut self, now: Now, address: u32) -> (&mut Spender, bool) {
        let known = self.0.iter().position(|spender| spender.address == address);
        let is_asking = |spender: &Spender| spender.asked_us + ASKING_US > now.mono_us;
        let is_contended = self.0.iter().enumerate().any(|(place, spender)| {
            known != Some(place) && spender.asked_us > 0 && is_asking(spender)
        });
        let place = known.filter(|&place| self.0[place].asked_us > 0).unwrap_or_else(|| {
            // Whoever took least is forgotten first.
            let taken = |&place: &usize| self.0[place].own.debt_us(now);
            let place = (0..SPENDERS).min_by_key(taken).expect("there are places");
            self.0[place] = Spender { address, ..Spender::default() };
            place
        });
        let spender = &mut self.0[place];
        spender.asked_us = now.mono_us.max(1);
        (spender, is_contended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 100;

    fn at(ms: u64) -> Now {
        Now { mono_us: 1_000_000 + ms * 1_000, wall_ms: 0 }
    }

    /// Posts taken in a stretch of seconds, by address, when each asks this often a millisecond.
    fn taken<const N: usize>(
        budget: &mut Budget,
        seconds: std::ops::Range<u64>,
        asks: [(u32, u64); N],
    ) -> [u32; N] {
        let mut taken = [0; N];
        for ms in seconds.start * 1_000..seconds.end * 1_000 {
            for (&(address, every_ms), taken) in asks.iter().zip(&mut taken) {
                if ms.is_multiple_of(every_ms) {
                    *taken += u32::from(budget.take(at(ms), RATE, address));
                }
            }
        }
        taken
    }

    #[test]
    fn whoever_is_alone_has_all_of_it() {
        let mut budget = Budget::default();
        let [first] = taken(&mut budget, 0..10, [(1, 1)]);
        assert!((1_199..=1_201).contains(&first), "the burst and ten seconds: {first}");
    }

    #[test]
    fn who_comes_late_is_served_at_once_and_has_half() {
        let mut budget = Budget::default();
        let _ = taken(&mut budget, 0..10, [(1, 1)]);
        assert!(budget.take(at(10_000), RATE, 2), "the first post of another address");
        let [greedy, other] = taken(&mut budget, 10..30, [(1, 1), (2, 1)]);
        assert!((900..=1_100).contains(&greedy), "half of 2,000: {greedy}");
        assert!((900..=1_150).contains(&other), "half of 2,000 and the reserve: {other}");
        // Whoever asks for less than half gets all of it, however much the other asks.
        let [greedy, modest] = taken(&mut budget, 30..50, [(1, 1), (2, 25)]);
        assert!(modest >= 795, "all of its 800 but for what it owed: {modest}");
        assert!((950..=1_250).contains(&greedy), "{greedy}");
        // And alone again it has everything, once nobody has asked for two seconds.
        let _ = taken(&mut budget, 50..53, [(1, 1)]);
        let [alone] = taken(&mut budget, 53..63, [(1, 1)]);
        assert!((999..=1_001).contains(&alone), "{alone}");
    }

    #[test]
    fn a_crowd_does_not_hide_who_takes_most() {
        let mut budget = Budget::default();
        let mut taken = [0; 2];
        for ms in 0..30_000u64 {
            taken[0] += u32::from(budget.take(at(ms), RATE, 1));
            if ms.is_multiple_of(20) {
                // Half of the budget is asked for by 997 addresses in turn.
                taken[1] += u32::from(budget.take(at(ms), RATE, 2 + (ms / 20 % 997) as u32));
            }
        }
        assert!(taken[1] >= 1_490, "the crowd's 1,500 posts: {taken:?}");
        assert!(taken[0] >= 1_400, "and the rest is the greedy one's: {taken:?}");
    }

    #[test]
    fn a_quiet_event_remembers_nobody() {
        let mut budget = Budget::default();
        let _ = taken(&mut budget, 0..1, [(1, 1)]);
        assert!(budget.spenders.is_some());
        assert!(budget.take(at(60_000), RATE, 1));
        assert!(budget.spenders.is_none());
        assert!((0..1_000).all(|_| budget.take(at(60_000), 0, 1)), "0 is no cap");
    }
}
