//! Time as an input. The engine never reads a clock: every call that needs the time gets it.

/// Microseconds in one tick of the timer wheel.
pub const TICK_US: u64 = 100_000;
/// Milliseconds in one tick.
pub const TICK_MS: u64 = TICK_US / 1_000;

/// The shell's clocks, read together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic microseconds since an arbitrary start.
    pub mono_us: u64,
    /// Unix time in milliseconds; may jump.
    pub wall_ms: u64,
}

impl Now {
    /// Whole ticks since the arbitrary start.
    #[must_use]
    pub fn tick(self) -> u32 {
        (self.mono_us / TICK_US) as u32
    }
}

/// A duration in milliseconds as ticks, rounded up, so that a deadline never comes early.
#[must_use]
pub fn ticks(ms: u32) -> u32 {
    ms.div_ceil(TICK_MS as u32)
}
