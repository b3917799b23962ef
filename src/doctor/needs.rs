//! The numbers: what a target needs of kernel settings and limits.
//!
//! This is the one place for them. The files in `tuning/` are written for the default target,
//! and a test compares every value there with what stands here.

use super::target::Target;
use crate::control;

/// A page, as the kernel counts TCP memory, in bytes.
const PAGE_BYTES: u64 = 4_096;
/// Share of viewers that read slowly at the same time, as one in so many.
const SLOW_ONE_IN: u64 = 10;
/// Pages that a stalled viewer pins for each 16 KiB of send buffer (measured: under 48 KiB).
const SLOW_PAGES_PER_16_KIB: u64 = 12;
/// Locked memory of one private ring, in bytes (measured: 1,024 submissions, 16,384 completions).
const RING_LOCKED_BYTES: u64 = 340 * 1024;
/// Locked memory of a shard's executor, in bytes (measured).
const EXECUTOR_LOCKED_BYTES: u64 = 192 * 1024;
/// Memory of an idle connection, kernel included, in bytes: the promise of the project.
const CONNECTION_BYTES: u64 = 8 * 1024;
/// The process without connections and logs, in bytes.
const PROCESS_BYTES: u64 = 64 * 1024 * 1024;
/// Received packets that may wait for one CPU, at least: a pass over everyone is acknowledged
/// by everyone, spread over CPUs and time.
const PACKETS_WAITING_MIN: u64 = 4_096;

/// A kernel setting whose numbers must be at least these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// Its name, with dots.
    pub key: &'static str,
    /// The least values, in the order of the setting.
    pub at_least: Vec<u64>,
    /// The first place that matters for the target; others only keep it in order.
    pub decisive: usize,
    /// Whether too little refuses or loses viewers, and not only delays them.
    pub is_vital: bool,
    /// Whether it exists only where a module is loaded.
    pub is_optional: bool,
    /// What goes wrong below.
    pub why: &'static str,
}

/// The kernel settings that the target needs raised.
#[must_use]
pub fn sysctls(target: &Target) -> Vec<Sysctl> {
    let connections = target.connections;
    let backlog = target.accept_backlog;
    let one = |key, value, why| Sysctl {
        key,
        at_least: vec![value],
        decisive: 0,
        is_vital: false,
        is_optional: false,
        why,
    };
    let pages = tcp_pages(connections, target.send_buffer_bytes);
    vec![
        one(
            "net.core.somaxconn",
            backlog,
            "caps accept_backlog; beyond it connection attempts wait for a retry of 1 s and more",
        ),
        one(
            "net.ipv4.tcp_max_syn_backlog",
            backlog,
            "half-open connections beyond it are dropped or fall back to SYN cookies",
        ),
        one(
            "net.ipv4.tcp_syncookies",
            1,
            "without cookies, a full backlog refuses everyone who comes back after a restart",
        ),
        Sysctl {
            at_least: vec![pages * 3 / 4, pages, pages * 3 / 2],
            decisive: 1,
            is_vital: true,
            ..one(
                "net.ipv4.tcp_mem",
                pages,
                "above the second number the kernel shrinks buffers of everyone, above the third \
                 it drops segments",
            )
        },
        one(
            "net.core.netdev_max_backlog",
            // A power of two near a quarter of the viewers.
            (connections / 4).max(PACKETS_WAITING_MIN).next_power_of_two(),
            "received packets beyond it are dropped (second column of /proc/net/softnet_stat)",
        ),
        Sysctl {
            is_vital: true,
            is_optional: true,
            ..one(
                "net.netfilter.nf_conntrack_max",
                connections * 2,
                "a full table drops packets of new connections; old entries stay after reconnects",
            )
        },
    ]
}

impl Sysctl {
    /// The line of a sysctl.d file; a dash lets the setting be absent.
    #[must_use]
    pub fn line(&self) -> String {
        let numbers: Vec<String> = self.at_least.iter().map(u64::to_string).collect();
        let dash = if self.is_optional { "-" } else { "" };
        format!("{dash}{} = {}", self.key, numbers.join(" "))
    }
}

/// Pages of TCP memory at which the target still has no pressure.
fn tcp_pages(connections: u64, send_buffer_bytes: u64) -> u64 {
    let slow = (send_buffer_bytes * SLOW_PAGES_PER_16_KIB).div_ceil(16 * 1024);
    connections + connections.div_ceil(SLOW_ONE_IN) * slow
}

/// Ordinary descriptors that the layout plans for, or the widest ring where that is more.
#[must_use]
pub fn descriptors(target: &Target) -> u64 {
    let own =
        control::descriptors(target.http_connections, target.shards(), target.rings_per_shard);
    own.max(target.connections.min(control::SLOTS_PER_RING_MAX))
}

/// Memory that the rings of a node lock, in bytes.
#[must_use]
pub fn ring_bytes(shards: u64, rings_per_shard: u64) -> u64 {
    shards * (EXECUTOR_LOCKED_BYTES + rings_per_shard * RING_LOCKED_BYTES)
}

/// RLIMIT_MEMLOCK below which glommio starts no executor, in bytes.
pub(super) const EXECUTOR_MEMLOCK_BYTES: u64 = 512 * 1024;

/// RLIMIT_MEMLOCK, in bytes. Twice the rings, as those of the last process are freed only a
/// moment after its end, and a restart comes sooner.
#[must_use]
pub fn memlock_bytes(shards: u64, rings_per_shard: u64) -> u64 {
    2 * ring_bytes(shards, rings_per_shard)
}

/// Memory of the whole node at the target, the kernel's part and slow viewers included, in bytes.
#[must_use]
pub fn memory_bytes(target: &Target) -> u64 {
    let slow = tcp_pages(target.connections, target.send_buffer_bytes) - target.connections;
    target.connections * CONNECTION_BYTES + slow * PAGE_BYTES + target.log_bytes + PROCESS_BYTES
}
