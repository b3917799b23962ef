//! The governor: holds a shard at its CPU target by pausing between passes.
//!
//! A send costs the kernel the same whatever its size, so fewer sends is the only big lever: the
//! longer a room waits between two passes, the more comments one send carries. The pause after a
//! pass is `factor × what the pass cost`, so it falls on the rooms that cause the load, and a
//! small room beside a hot one hardly waits. The factor is the one controlled variable: it grows
//! and shrinks in proportion to itself, because the rooms it must fit span five decades of cost.
//!
//! Not here: measuring CPU time (the shell does, softirq included), deciding who is due (`fanout`).

/// The least factor for a room whose passes end with comments waiting: it is never idle, so its core is
/// short of time by definition. It leaves such a room 62 % of the core and makes the cycle steady, which
/// keeps the tail of the latency short; the controlled part alone swings around its target.
const FACTOR_SATURATED: f64 = 0.6;
/// Below this factor a pause saves nothing worth its latency; the factor is 0 instead.
const FACTOR_MIN: f64 = 0.02;
/// The largest factor: a pass of 25 µs may still be made to wait the longest pause.
const FACTOR_MAX: f64 = 10_000.0;
/// Weight of the newest sample. Samples come every tick (100 ms); a pass over a large room takes
/// several, so a single sample says little.
const SMOOTHING: f64 = 0.25;
/// Relative distance from the target that is left alone.
const DEADBAND: f64 = 0.02;

/// The controller.
#[derive(Clone, Debug, Default)]
pub struct Governor {
    factor: f64,
    /// Smoothed busy share of the core, 0 to 1.
    busy: f64,
}

impl Governor {
    /// Takes the busy share of the core since the last tick and adjusts the factor.
    pub fn sample(&mut self, busy_permille: u32, target_percent: u32) {
        let sample = f64::from(busy_permille) / 1_000.0;
        self.busy += SMOOTHING * (sample - self.busy);
        let target = f64::from(target_percent) / 100.0;
        let error = self.busy / target - 1.0;
        if error > DEADBAND {
            self.factor =
                (self.factor.max(FACTOR_MIN) * (1.0 + error.min(0.4) * 0.7)).min(FACTOR_MAX);
        } else if error < -DEADBAND {
            self.factor *= 1.0 + error.max(-0.5) * 0.4;
            if self.factor < FACTOR_MIN {
                self.factor = 0.0;
            }
        }
    }

    /// How long a room rests after a pass that cost `cost_us`, in microseconds; `is_saturated` says
    /// that comments which came during the pass are waiting for the next.
    #[must_use]
    pub fn pause_us(&self, cost_us: u64, is_saturated: bool, max_ms: u32) -> u64 {
        let least = if is_saturated { FACTOR_SATURATED } else { 0.0 };
        ((cost_us as f64 * self.factor.max(least)) as u64).min(u64::from(max_ms) * 1_000)
    }

    /// The factor in permille, for the report.
    #[must_use]
    pub fn factor_permille(&self) -> u64 {
        (self.factor * 1_000.0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// A shard with `rooms` equal rooms: a pass costs `pass_us`, is made when comments are there
    /// and the pause is over. Returns the mean busy share over the last second of `seconds`.
    fn simulate(rooms: usize, pass_us: u64, per_second: u64, seconds: u64, seed: u64) -> f64 {
        const STEP_US: u64 = 1_000;
        let mut governor = Governor::default();
        let mut random = Random::new(seed);
        let mut waiting = vec![0u64; rooms];
        let mut rest_until = vec![0u64; rooms];
        // Work queued on the core, and what it did in the present tick and in the last second.
        let (mut debt, mut used_tick, mut used_last) = (0u64, 0u64, 0u64);
        let mut turn = 0;
        for step in 0..seconds * 1_000 {
            let now = step * STEP_US;
            for room in &mut waiting {
                let due = u64::from(random.below(1_000_000)) < per_second * STEP_US;
                *room += u64::from(due);
            }
            let mut room_us = STEP_US;
            while room_us > 0 {
                if debt == 0 {
                    let due = (0..rooms).map(|i| (turn + i) % rooms);
                    let next = due.into_iter().find(|&i| waiting[i] > 0 && rest_until[i] <= now);
                    let Some(next) = next else { break };
                    turn = next + 1;
                    waiting[next] = 0;
                    debt = pass_us;
                    rest_until[next] = now + pass_us + governor.pause_us(pass_us, false, 250);
                }
                let spent = debt.min(room_us);
                debt -= spent;
                room_us -= spent;
                used_tick += spent;
                if step >= (seconds - 1) * 1_000 {
                    used_last += spent;
                }
            }
            if step % 100 == 99 {
                let noise = random.below(60) as i64 - 30;
                let busy = (used_tick / 100) as i64 + noise;
                governor.sample(busy.clamp(0, 1_000) as u32, 70);
                used_tick = 0;
            }
        }
        used_last as f64 / 1e6
    }

    #[test]
    fn five_seconds_after_a_step_the_core_is_at_60_to_75_percent() {
        // (rooms, pass in µs, comments a second and room): each would need 1 to 9 cores.
        let loads =
            [(1, 75_000, 50), (1, 225_000, 20), (20, 5_000, 20), (200, 500, 20), (4, 20_000, 90)];
        for (rooms, pass_us, per_second) in loads {
            for seed in 0..20 {
                let busy = simulate(rooms, pass_us, per_second, 6, seed);
                assert!(
                    (0.60..=0.76).contains(&busy),
                    "{rooms} × {pass_us} µs: {busy} (seed {seed})"
                );
            }
        }
    }

    #[test]
    fn an_idle_shard_flushes_at_once() {
        let mut governor = Governor::default();
        (0..100).for_each(|_| governor.sample(500, 70));
        assert_eq!(governor.pause_us(1_000_000, false, 250), 0);
        assert_eq!(governor.pause_us(10_000, true, 250), 6_000, "unless it never is idle");
        (0..100).for_each(|_| governor.sample(1_000, 70));
        assert!(
            governor.pause_us(1_000_000, false, 250) == 250_000,
            "bounded by the longest pause"
        );
        (0..100).for_each(|_| governor.sample(100, 70));
        assert_eq!(
            governor.pause_us(1_000_000, false, 250),
            0,
            "the pause goes when the load does"
        );
    }
}
