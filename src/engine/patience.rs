//! How often a connection has gone beyond what it is for, in six bytes that fit its padding.
//!
//! Two counts, each over a window that begins with the first of its kind: commands over the rate, and pings and
//! pongs. A window that is over is forgotten when the next one begins, so of two windows that follow each other
//! directly each may be used up: in any ten seconds fewer than twice `over_rate_commands_max` commands.
//!
//! Not here: what happens when a count is full (the session), what the rate of commands is (`bucket`).

use crate::time::Now;

/// The window of over-rate commands, in ticks: 10 s.
pub const COMMANDS_TICKS: u16 = 100;
/// The window of pings and pongs, in ticks: 1 s.
pub const CONTROLS_TICKS: u16 = 10;
/// The most that a count can hold, and so the largest limit.
pub const COUNT_MAX: u8 = 250;

/// The counts. Ticks are those of the clock modulo 2^16 (1.8 hours); [`Self::forget`] clears windows before
/// they can be mistaken for present ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    commands_from: u16,
    controls_from: u16,
    commands: u8,
    controls: u8,
}

impl Patience {
    /// Counts a command over the rate. False when it is the `most`th of its window; 0 is no limit.
    #[must_use]
    pub fn take_command(&mut self, now: Now, most: u8) -> bool {
        let count = count(now, &mut self.commands_from, &mut self.commands, COMMANDS_TICKS);
        most == 0 || count < most
    }

    /// Counts a ping or pong. False when it is one more than `most` in its window; 0 is no limit.
    #[must_use]
    pub fn take_control(&mut self, now: Now, most: u8) -> bool {
        let count = count(now, &mut self.controls_from, &mut self.controls, CONTROLS_TICKS);
        most == 0 || count <= most
    }

    /// Forgets windows that are over.
    pub fn forget(&mut self, now: Now) {
        if age(now, self.commands_from) >= COMMANDS_TICKS {
            self.commands = 0;
        }
        if age(now, self.controls_from) >= CONTROLS_TICKS {
            self.controls = 0;
        }
    }
}

fn age(now: Now, from: u16) -> u16 {
    (now.tick() as u16).wrapping_sub(from)
}

fn count(now: Now, from: &mut u16, count: &mut u8, window: u16) -> u8 {
    if *count == 0 || age(now, *from) >= window {
        (*from, *count) = (now.tick() as u16, 0);
    }
    *count = count.saturating_add(1);
    *count
}

const _: () = {
    assert!(size_of::<Patience>() == 6);
    // A count that is full must still be told from one that is over.
    assert!(COUNT_MAX < u8::MAX);
};

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { mono_us: 86_400_000_000 + ms * 1_000, wall_ms: 0 }
    }

    #[test]
    fn the_hundredth_command_within_ten_seconds_is_one_too_many() {
        let mut patience = Patience::default();
        assert!((0..99).all(|i| patience.take_command(at(i * 100), 100)));
        assert!(!patience.take_command(at(9_900), 100));
        let mut patience = Patience::default();
        assert!((0..99).all(|i| patience.take_command(at(i * 100), 100)));
        assert!(patience.take_command(at(10_000), 100), "another window has begun");
        assert!((0..98).all(|_| patience.take_command(at(10_000), 100)));
        assert!(!patience.take_command(at(10_000), 100));
    }

    #[test]
    fn a_hundred_pings_a_second_are_taken_for_ever_and_one_more_is_not() {
        let mut patience = Patience::default();
        assert!((0..100_000).all(|i| patience.take_control(at(i * 10), 100)));
        let mut patience = Patience::default();
        assert!((0..100).all(|_| patience.take_control(at(0), 100)));
        assert!(!patience.take_control(at(900), 100));
    }

    #[test]
    fn no_limit_never_ends_and_what_is_over_is_forgotten() {
        let mut patience = Patience::default();
        assert!(
            (0..1_000).all(|_| patience.take_command(at(0), 0) && patience.take_control(at(0), 0))
        );
        patience.forget(at(9_900));
        assert!(!patience.take_command(at(9_900), 100), "ten seconds are not over");
        patience.forget(at(10_000));
        // 2^16 ticks later the window would look like a present one.
        assert!(
            patience.take_command(at(6_553_600), 100) && patience.take_control(at(6_553_600), 100)
        );
    }
}
