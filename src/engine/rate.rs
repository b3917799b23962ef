//! How often something happens, in twelve bytes: a count over the last ten seconds.
//!
//! Two windows of fixed length: the whole one before, of which the part that is still within ten
//! seconds counts, and the present one. Off by at most what the windows hide, and never kept by a timer.

use crate::time::{Now, TICK_US};

/// Ticks in a window.
const WINDOW_TICKS: u32 = 100;
/// Seconds in a window.
const WINDOW_S: u64 = WINDOW_TICKS as u64 * TICK_US / 1_000_000;

const _: () = assert!(WINDOW_S > 0, "a window is whole seconds");

/// The counts. A fresh one has counted nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    /// Number of the present window since the clock's start.
    window: u32,
    /// In the window before, and in the present one.
    counts: [u32; 2],
}

impl Rate {
    /// Counts one.
    pub fn count(&mut self, now: Now) {
        *self = self.at(now);
        self.counts[1] = self.counts[1].saturating_add(1);
    }

    /// How many in 1,000 seconds, by the last ten.
    #[must_use]
    pub fn per_1000_s(self, now: Now) -> u64 {
        let [before, present] = self.at(now).counts.map(u64::from);
        let left = u64::from(WINDOW_TICKS - now.tick() % WINDOW_TICKS);
        let within = before * left * 1_000 / u64::from(WINDOW_TICKS) + present * 1_000;
        within / WINDOW_S
    }

    /// The counts as the windows of `now` have them.
    fn at(self, now: Now) -> Self {
        let window = now.tick() / WINDOW_TICKS;
        let counts = match window.wrapping_sub(self.window) {
            0 => self.counts,
            1 => [self.counts[1], 0],
            _ => [0, 0],
        };
        Self { window, counts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { mono_us: 7_000_000_000 + ms * 1_000, wall_ms: 0 }
    }

    #[test]
    fn a_steady_rate_is_seen_as_it_is_and_forgotten_after_two_windows() {
        let mut rate = Rate::default();
        (0..400).for_each(|i| rate.count(at(i * 50)));
        for ms in [20_000, 22_500, 25_000] {
            let seen = rate.per_1000_s(at(ms)) as i64;
            // Nothing came after 20 s, so the share of the last window shrinks from there.
            let expected = 20_000 * (30_000 - ms as i64) / 10_000;
            assert!((seen - expected).abs() <= 200, "{ms} ms: {seen}, not {expected}");
        }
        assert_eq!(rate.per_1000_s(at(30_000)), 0);
        assert_eq!(Rate::default().per_1000_s(at(0)), 0);
    }
}
