//! A token bucket in eight bytes: a sustained rate with a burst of two seconds' worth.

use crate::time::Now;

/// Seconds' worth of the rate that may come at once.
const BURST_SECONDS: u64 = 2;

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
        if per_second == 0 {
            return true;
        }
        let cost_us = 1_000_000 / u64::from(per_second);
        let full_at_us = self.full_at_us.max(now.mono_us) + cost_us;
        if full_at_us - now.mono_us > BURST_SECONDS * 1_000_000 {
            return false;
        }
        self.full_at_us = full_at_us;
        true
    }
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
