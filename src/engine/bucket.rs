//! A token bucket in eight bytes: a sustained rate with a burst of two seconds' worth.

use crate::time::Now;

/// What may come at once: so many microseconds' worth of the rate.
pub const BURST_US: u64 = 2_000_000;

/// The state: when the bucket would be full again. A fresh bucket is full.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// Monotonic microseconds; the bucket is full from then on.
    full_at_us: u64,
}

impl Bucket {
    /// Takes one token at `per_second` tokens a second; false when there is none. 0 is no cap.
    #[must_use]
    pub fn take(&mut self, now: Now, per_second: u32) -> bool {
        per_second == 0 || self.take_within(now, per_second, BURST_US)
    }

    /// The same with another burst, in microseconds' worth of the rate, which is not 0.
    #[must_use]
    pub fn take_within(&mut self, now: Now, per_second: u32, burst_us: u64) -> bool {
        let has_one = self.has(now, per_second, burst_us);
        if has_one {
            self.full_at_us = self.full_at_us.max(now.mono_us) + cost_us(per_second);
        }
        has_one
    }

    /// Whether there is a token.
    #[must_use]
    pub fn has(&self, now: Now, per_second: u32, burst_us: u64) -> bool {
        self.debt_us(now) + cost_us(per_second) <= burst_us
    }

    /// Takes a token whether there is one or not; more than a burst is never owed.
    pub fn charge(&mut self, now: Now, per_second: u32, burst_us: u64) {
        let full_at_us = self.full_at_us.max(now.mono_us) + cost_us(per_second);
        self.full_at_us = full_at_us.min(now.mono_us + burst_us);
    }

    /// What was taken and has not come back yet, in microseconds' worth of the rate.
    #[must_use]
    pub fn debt_us(&self, now: Now) -> u64 {
        self.full_at_us.saturating_sub(now.mono_us)
    }
}

/// Microseconds from one token to the next.
fn cost_us(per_second: u32) -> u64 {
    1_000_000 / u64::from(per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_two_seconds_then_the_rate() {
        let mut bucket = Bucket::default();
        let at = |us| Now { mono_us: us, wall_ms: 0 };
        let taken = (0..100).filter(|_| bucket.take(at(1_000_000), 5)).count();
        assert_eq!(taken, 10);
        assert!(!bucket.take(at(1_100_000), 5));
        assert!(bucket.take(at(1_200_000), 5));
        assert!((0..1_000).all(|_| bucket.take(at(1_200_000), 0)), "0 is no cap");
    }
}
