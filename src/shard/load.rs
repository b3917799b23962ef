//! How busy the shard's core is on the shard's behalf.
//!
//! Busy is the time the shard did not sleep, less the time it stood in the run queue behind
//! others; interrupts that ran on top of it are in there, whichever way the kernel accounts
//! them. Softirq work done while the shard slept (packets coming in) uses up the same core: it is
//! added from `/proc/stat`, as far as the core was not idle beyond the shard's own time, because
//! the softirq count there contains what ran on top of the shard as well.
//!
//! The governor can only make fan-out cheaper, so it is told fan-out's part of the busy share: all of it but what
//! the shard spent on input. Softirq work and preemption are divided between the two as the shard's own time is.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// `/proc/stat` grows with the number of CPUs; it is read every so many samples.
const STAT_EVERY: u32 = 5;
/// Microseconds of one `/proc/stat` tick; `USER_HZ` is 100 on every Linux architecture we run on.
const JIFFY_US: u64 = 10_000;

/// Measures one shard. Make it on the shard's thread.
#[derive(Debug)]
pub(super) struct Load {
    cpu: usize,
    schedstat: Option<File>,
    stat: Option<File>,
    at_us: u64,
    slept_us: u64,
    delayed_us: u64,
    input_us: u64,
    core: Core,
    /// Softirq work while the shard sleeps, in permille of the core.
    asleep_permille: u64,
    own_us: u64,
    samples: u32,
    cpu_us: u64,
    busy: Busy,
}

/// What the shard has done with its time so far, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spent {
    pub(super) slept_us: u64,
    pub(super) input_us: u64,
}

/// Busy shares between two samples, in permille of the core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Busy {
    /// On the shard's behalf.
    pub(super) core_permille: u32,
    /// Without what input costs.
    pub(super) fanout_permille: u32,
}

/// Running totals at the last look at `/proc/stat`, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Core {
    at_us: u64,
    idle_us: u64,
    softirq_us: u64,
    /// Of the shard: time neither asleep nor waiting for the CPU.
    own_us: u64,
}

impl Load {
    /// A meter for this thread, pinned to `cpu`. Without `/proc` it counts sleep alone.
    pub(super) fn new(cpu: usize, now_us: u64) -> Self {
        Self {
            cpu,
            schedstat: File::open("/proc/thread-self/schedstat").ok(),
            stat: File::open("/proc/stat").ok(),
            at_us: now_us,
            slept_us: 0,
            delayed_us: 0,
            input_us: 0,
            core: Core::default(),
            asleep_permille: 0,
            own_us: 0,
            samples: 0,
            cpu_us: 0,
            busy: Busy::default(),
        }
    }

    /// CPU time of the thread so far, in microseconds, as of the last sample.
    pub(super) fn cpu_us(&self) -> u64 {
        self.cpu_us
    }

    /// Time that the thread stood in the run queue so far, in microseconds, as of the last sample.
    pub(super) fn run_delay_us(&self) -> u64 {
        self.delayed_us
    }

    /// The last sample.
    pub(super) fn busy(&self) -> Busy {
        self.busy
    }

    /// The busy shares since the last call.
    pub(super) fn sample(&mut self, now_us: u64, spent: Spent) -> Busy {
        let Spent { slept_us, input_us } = spent;
        let (cpu_us, delayed_us) = self.read_schedstat().unwrap_or((self.cpu_us, self.delayed_us));
        let wall = (now_us - self.at_us).max(1);
        let slept = (slept_us - self.slept_us).min(wall);
        let delayed = (delayed_us - self.delayed_us).min(wall - slept);
        let own = wall - slept - delayed;
        self.own_us += own;
        if self.samples.is_multiple_of(STAT_EVERY) {
            self.look_at_core(now_us);
        }
        let core = (own * 1_000 / wall + self.asleep_permille).min(1_000);
        let awake = (wall - slept).max(1);
        let input = (input_us - self.input_us).min(awake);
        let fanout = core * (awake - input) / awake;
        self.busy = Busy { core_permille: core as u32, fanout_permille: fanout as u32 };
        (self.at_us, self.slept_us, self.input_us) = (now_us, slept_us, input_us);
        (self.cpu_us, self.delayed_us) = (cpu_us, delayed_us);
        self.samples = self.samples.wrapping_add(1);
        self.busy
    }

    /// CPU time and run-queue delay of this thread, in microseconds.
    fn read_schedstat(&self) -> Option<(u64, u64)> {
        let mut text = [0u8; 96];
        let len = self.schedstat.as_ref()?.read_at(&mut text, 0).ok()?;
        let mut fields = std::str::from_utf8(&text[..len]).ok()?.split_ascii_whitespace();
        let mut next_us = || fields.next()?.parse::<u64>().ok().map(|ns| ns / 1_000);
        Some((next_us()?, next_us()?))
    }

    fn look_at_core(&mut self, now_us: u64) {
        let old = self.core;
        let Some((idle_us, softirq_us)) = self.read_stat_us() else { return };
        self.core = Core { at_us: now_us, idle_us, softirq_us, own_us: self.own_us };
        // The first look has nothing to compare with.
        if old.at_us > 0 {
            self.asleep_permille = asleep_permille(&old, &self.core);
        }
    }

    /// Time this CPU has been idle and in interrupts, in microseconds.
    fn read_stat_us(&self) -> Option<(u64, u64)> {
        let mut text = vec![0u8; 64 * 1_024];
        let len = self.stat.as_ref()?.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(&text[..len]).ok()?;
        let (idle, softirq) = idle_and_softirq(text, self.cpu)?;
        Some((idle * JIFFY_US, softirq * JIFFY_US))
    }
}

/// Softirq work that did not run on top of the shard, between two looks, in permille of the core.
fn asleep_permille(old: &Core, new: &Core) -> u64 {
    let wall = (new.at_us - old.at_us).max(1);
    let own = new.own_us - old.own_us;
    let idle = new.idle_us.saturating_sub(old.idle_us);
    let softirq = new.softirq_us.saturating_sub(old.softirq_us);
    wall.saturating_sub(idle).saturating_sub(own).min(softirq) * 1_000 / wall
}

/// From the CPU's line in `/proc/stat` (proc(5)): idle and iowait, irq and softirq.
fn idle_and_softirq(stat: &str, cpu: usize) -> Option<(u64, u64)> {
    let name = format!("cpu{cpu}");
    let line = stat.lines().find(|line| line.split(' ').next() == Some(&name))?;
    let mut fields = line.split_ascii_whitespace().skip(4).map(str::parse::<u64>);
    let mut pair = || Some(fields.next()?.ok()? + fields.next()?.ok()?);
    Some((pair()?, pair()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_line_is_found_and_its_fields_added_in_pairs() {
        let stat =
            "cpu  9 9 9 9 9 9 9 9 0 0\ncpu1 1 0 0 5 0 1 1 0 0 0\ncpu10 1 2 3 4 5 6 7 8 0 0\n";
        assert_eq!(idle_and_softirq(stat, 10), Some((9, 13)));
        assert_eq!(idle_and_softirq(stat, 1), Some((5, 2)));
        assert_eq!(idle_and_softirq(stat, 2), None);
    }

    #[test]
    fn softirq_counts_only_where_the_core_was_busy_beyond_the_shard() {
        let core = |idle_us, softirq_us, own_us| Core { at_us: 1, idle_us, softirq_us, own_us };
        let after = |idle, softirq, own| Core { at_us: 1_000_001, ..core(idle, softirq, own) };
        let none = core(0, 0, 0);
        // All of it ran on top of the shard's own sends.
        assert_eq!(asleep_permille(&none, &after(400_000, 300_000, 600_000)), 0);
        // A tenth of the core went to packets that came in while the shard slept.
        assert_eq!(asleep_permille(&none, &after(300_000, 400_000, 600_000)), 100);
        // The core was busy with another process, not with packets.
        assert_eq!(asleep_permille(&none, &after(0, 50_000, 600_000)), 50);
    }

    #[test]
    fn busy_is_what_was_not_slept() {
        let mut load = Load { schedstat: None, stat: None, ..Load::new(0, 1_000_000) };
        let spent = |slept_us, input_us| Spent { slept_us, input_us };
        let busy = |core, fanout| Busy { core_permille: core, fanout_permille: fanout };
        assert_eq!(load.sample(1_100_000, spent(30_000, 0)), busy(700, 700));
        assert_eq!(load.sample(1_200_000, spent(130_000, 0)), busy(0, 0));
        // A flood takes all that fan-out leaves of the core.
        assert_eq!(load.sample(1_300_000, spent(130_000, 60_000)), busy(1_000, 400));
    }
}
