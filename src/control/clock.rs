//! The host's wall clock, watched: comments carry its time, so a step of it is counted and told.
//!
//! A step is where wall time and monotonic time part by a second or more between two looks. A clock that is slewed
//! right, as it should be, never parts that far from one look to the next.
//!
//! Not here: what comment times do about it (the engine's `posting`).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// The smallest step that is one, in milliseconds.
const STEP_MS_MIN: i64 = 1_000;
/// Both clocks are read within this time, or the look says nothing: the process may have been stopped in between.
const LOOK_MAX: Duration = Duration::from_millis(100);

/// The steps so far.
#[derive(Debug, Default)]
pub(super) struct Clock {
    last: Mutex<Option<(Instant, SystemTime)>>,
    ahead: AtomicU64,
    back: AtomicU64,
}

impl Clock {
    /// Looks at both clocks; what to log, if the wall clock was set since the last look.
    pub(super) fn look(&self) -> Option<String> {
        let (before, wall, after) = (Instant::now(), SystemTime::now(), Instant::now());
        if after - before > LOOK_MAX { None } else { self.step(after, wall) }
    }

    fn step(&self, mono: Instant, wall: SystemTime) -> Option<String> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (old_mono, old_wall) = last.replace((mono, wall))?;
        let passed = match wall.duration_since(old_wall) {
            Ok(passed) => passed.as_millis() as i64,
            Err(back) => -(back.duration().as_millis() as i64),
        };
        let step_ms = passed - (mono - old_mono).as_millis() as i64;
        let seconds = step_ms.unsigned_abs() as f64 / 1e3;
        if step_ms >= STEP_MS_MIN {
            self.ahead.fetch_add(1, Relaxed);
            Some(format!(
                "the host's clock was set ahead by {seconds} s, or the host slept; comment times follow it"
            ))
        } else if step_ms <= -STEP_MS_MIN {
            self.back.fetch_add(1, Relaxed);
            Some(format!(
                "the host's clock was set back by {seconds} s; comment times stand still until it has caught up, \
                 or follow it if they are ahead by over clock_lead_ms_max"
            ))
        } else {
            None
        }
    }

    /// Steps by direction, as the metrics name it.
    pub(super) fn counts(&self) -> [(&'static str, u64); 2] {
        [("ahead", self.ahead.load(Relaxed)), ("back", self.back.load(Relaxed))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_told_from_time_that_passes() {
        let clock = Clock::default();
        let (mono, wall) = (Instant::now(), SystemTime::now());
        let at = |mono_s: u64, wall_s: i64| {
            let wall = if wall_s < 0 {
                wall - Duration::from_secs(wall_s.unsigned_abs())
            } else {
                wall + Duration::from_secs(wall_s as u64)
            };
            clock.step(mono + Duration::from_secs(mono_s), wall)
        };
        assert_eq!(at(0, 0), None);
        assert_eq!(at(100, 100), None, "a look may be late");
        let line = at(101, 86_501).expect("a day ahead");
        assert!(line.contains("ahead by 86400 s"), "{line}");
        assert_eq!(at(102, 86_502), None, "it is told once");
        let line = at(103, 103).expect("set right");
        assert!(line.contains("back by 86400 s"), "{line}");
        let line = at(104, -3_600).expect("before the start");
        assert!(line.contains("back by 3704 s"), "{line}");
        assert_eq!(clock.counts(), [("ahead", 1), ("back", 2)]);
        assert!(clock.look().is_some() && clock.look().is_none(), "the real clocks agree");
    }
}
