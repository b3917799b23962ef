//! When a member was last sent something, without a note for each member or each send.
//!
//! Every so often a room notes where its log ended. Whoever has a frame from behind that place was sent it later:
//!
//! ```text
//!  offsets   ───────────┬──────────────┬─────────────►
//!                 older.end       newer.end        end
//!  cursor    up to here │  up to here  │ behind it
//!  sent      nobody knows  since older.tick  since newer.tick
//! ```
//!
//! A send to one member therefore says nothing about the others: it is the member's own cursor that is asked.
//! A member that joined with its cursor behind a place joined after the room had noted it, which is as good.
//!
//! Not here: what silence calls for (`engine::timers`).

/// How many places a keepalive interval is divided into: what a member was sent is known to within two of them.
const PLACES: u32 = 8;

/// A place in the log, and when the log ended there.
#[derive(Clone, Copy, Debug, Default)]
struct Milestone {
    end: u64,
    tick: u32,
}

/// The two places a room remembers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    newer: Milestone,
    older: Milestone,
}

impl Traffic {
    /// The log, which ended at `end` until now, grows. `interval`: the keepalive's, in ticks.
    pub fn grows(&mut self, tick: u32, end: u64, interval: u32) {
        // 0 is never: the clock of a shard starts later.
        if self.newer.tick == 0 || tick - self.newer.tick > interval / PLACES {
            self.older = self.newer;
            self.newer = Milestone { end, tick };
        }
    }

    /// A tick that a member with this cursor was sent something in or after; 0 when that is not known.
    #[must_use]
    pub fn sent_tick(&self, cursor: u64) -> u32 {
        let known = [self.newer, self.older].into_iter().find(|place| cursor > place.end);
        known.map_or(0, |place| place.tick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_was_sent_what_its_cursor_stands_behind() {
        let mut traffic = Traffic::default();
        assert_eq!(traffic.sent_tick(1), 0);
        // A frame a tick, offset 1 at tick 1,000.
        (0..500).for_each(|i| traffic.grows(1_000 + i, 1 + u64::from(i), 80));
        // Current, or a tenth of an interval behind: known to within a quarter of the interval.
        for behind in [0, 8] {
            let sent = 1_000 + 499 - behind;
            let told = traffic.sent_tick(1 + 500 - u64::from(behind));
            assert!((sent - 20..=sent).contains(&told), "{told} for {sent}");
        }
        assert_eq!(
            traffic.sent_tick(400),
            0,
            "who fell far behind was sent nothing that is known of"
        );
    }

    #[test]
    fn a_single_frame_is_known_at_once() {
        let mut traffic = Traffic::default();
        traffic.grows(70, 5, 80);
        assert_eq!((traffic.sent_tick(5), traffic.sent_tick(6)), (0, 70));
        traffic.grows(300, 6, 80);
        assert_eq!((traffic.sent_tick(6), traffic.sent_tick(7)), (70, 300));
    }
}
