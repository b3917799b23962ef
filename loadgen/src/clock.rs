//! Monotonic time and CPU time, the only clocks of this tool.

use rustix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC in nanoseconds; the same for all processes of a host.
pub(crate) fn now_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// CPU time of this thread, in microseconds.
pub(crate) fn thread_cpu_us() -> u64 {
    nanoseconds(ClockId::ThreadCPUTime) / 1_000
}

/// How long this thread was ready to run and had no CPU, in microseconds; 0 where the kernel does not say.
pub(crate) fn thread_waited_us() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let waited_ns = text.split_whitespace().nth(1).and_then(|ns| ns.parse::<u64>().ok());
    waited_ns.unwrap_or(0) / 1_000
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
