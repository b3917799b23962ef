//! How busy the shard's core is on the shard's behalf.
//!
//! Busy is the time the shard did not sleep, less the time it stood in the run queue behind
//! others; interrupts that ran on top of it are in there, whichever way the kernel accounts
//! them. Softirq work done while the shard slept (packets coming in) is added from
//! `/proc/stat`, because it uses up the same core.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// `/proc/stat` grows with the number of CPUs; it is read every so many samples.
const SOFTIRQ_EVERY: u32 = 5;
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
    softirq: Softirq,
    samples: u32,
    cpu_us: u64,
    busy_permille: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Softirq {
    at_us: u64,
    total_us: u64,
    /// Share of the core since the last look.
    permille: u64,
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
            softirq: Softirq::default(),
            samples: 0,
            cpu_us: 0,
            busy_permille: 0,
        }
    }

    /// CPU time of the thread so far, in microseconds, as of the last sample.
    pub(super) fn cpu_us(&self) -> u64 {
        self.cpu_us
    }

    /// The last sample.
    pub(super) fn busy_permille(&self) -> u32 {
        self.busy_permille
    }

    /// The busy share since the last call; `slept_us` is all sleep of the shard so far.
    pub(super) fn sample(&mut self, now_us: u64, slept_us: u64) -> u32 {
        let (cpu_us, delayed_us) = self.read_schedstat().unwrap_or((self.cpu_us, self.delayed_us));
        if self.samples.is_multiple_of(SOFTIRQ_EVERY) {
            self.look_at_softirq(now_us);
        }
        let wall = (now_us - self.at_us).max(1);
        let slept = (slept_us - self.slept_us).min(wall);
        let delayed = (delayed_us - self.delayed_us).min(wall - slept);
        let while_asleep = slept * self.softirq.permille / 1_000;
        self.busy_permille = ((wall - slept - delayed + while_asleep) * 1_000 / wall) as u32;
        (self.at_us, self.slept_us) = (now_us, slept_us);
        (self.cpu_us, self.delayed_us) = (cpu_us, delayed_us);
        self.samples = self.samples.wrapping_add(1);
        self.busy_permille
    }

    /// CPU time and run-queue delay of this thread, in microseconds.
    fn read_schedstat(&self) -> Option<(u64, u64)> {
        let mut text = [0u8; 96];
        let len = self.schedstat.as_ref()?.read_at(&mut text, 0).ok()?;
        let mut fields = std::str::from_utf8(&text[..len]).ok()?.split_ascii_whitespace();
        let mut next_us = || fields.next()?.parse::<u64>().ok().map(|ns| ns / 1_000);
        Some((next_us()?, next_us()?))
    }

    fn look_at_softirq(&mut self, now_us: u64) {
        let Some(total_us) = self.read_softirq_us() else { return };
        let old = self.softirq;
        let wall = now_us.saturating_sub(old.at_us).max(1);
        let share = total_us.saturating_sub(old.total_us) * 1_000 / wall;
        // The first look has nothing to compare with.
        let permille = if old.at_us == 0 { 0 } else { share.min(1_000) };
        self.softirq = Softirq { at_us: now_us, total_us, permille };
    }

    /// Time this CPU has spent in interrupts and softirqs, in microseconds.
    fn read_softirq_us(&self) -> Option<u64> {
        let mut text = vec![0u8; 64 * 1_024];
        let len = self.stat.as_ref()?.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(&text[..len]).ok()?;
        softirq_jiffies(text, self.cpu).map(|jiffies| jiffies * JIFFY_US)
    }
}

/// Fields 6 and 7 of the CPU's line in `/proc/stat` (proc(5)): irq and softirq.
fn softirq_jiffies(stat: &str, cpu: usize) -> Option<u64> {
    let name = format!("cpu{cpu}");
    let line = stat.lines().find(|line| line.split(' ').next() == Some(&name))?;
    let mut fields = line.split_ascii_whitespace().skip(6).map(str::parse::<u64>);
    Some(fields.next()?.ok()? + fields.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_line_is_found_and_its_interrupt_fields_added() {
        let stat =
            "cpu  9 9 9 9 9 9 9 9 0 0\ncpu1 1 0 0 5 0 1 1 0 0 0\ncpu10 1 2 3 4 5 6 7 8 0 0\n";
        assert_eq!(softirq_jiffies(stat, 10), Some(13));
        assert_eq!(softirq_jiffies(stat, 1), Some(2));
        assert_eq!(softirq_jiffies(stat, 2), None);
    }

    #[test]
    fn busy_is_what_was_not_slept() {
        let mut load = Load { schedstat: None, stat: None, ..Load::new(0, 1_000_000) };
        assert_eq!(load.sample(1_100_000, 30_000), 700);
        assert_eq!(load.sample(1_200_000, 130_000), 0);
    }
}
