//! The memory ledger: what holds the node's memory, in user space and in the kernel, and what a
//! connection costs.
//!
//! User space adds up to the process's proportional set size: what the engines count for
//! connections and logs, and the rest. The kernel shows nobody what one process's sockets cost,
//! so that side is counted objects times their size, and this node's share of the host's TCP
//! buffers. Sizes come from /proc/slabinfo where it may be read, and otherwise are those of
//! Linux 6.18.

use std::fs;
use std::sync::OnceLock;

use uproar_engine::report::Report;

use super::exposition::{Family, Kind, Number};
use super::observed::Observed;
use crate::control::node::Node;
use crate::doctor::ring_bytes;

/// What the objects behind a connection take of their slabs, in bytes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Objects {
    /// Socket, inode, directory entry and file of an IPv4 connection.
    socket: u64,
    /// The same of an IPv6 connection.
    socket_v6: u64,
    /// The request that watches a live connection for bytes.
    poll: u64,
}

/// By the slab's name: pages of a slab of 4 KiB, divided by its objects, on Linux 6.18.
const SIZES: [(&str, u64); 6] = [
    ("TCP", 2_520),
    ("TCPv6", 2_520),
    ("sock_inode_cache", 862),
    ("dentry", 195),
    ("filp", 195),
    ("io_kiocb", 256),
];

impl Objects {
    /// The sizes of this kernel, as far as it shows them.
    fn of(slabinfo: &str) -> Self {
        let size = |slab: &str| {
            let known = SIZES.iter().find(|(name, _)| *name == slab).map_or(0, |&(_, size)| size);
            slab_size(slabinfo, slab).unwrap_or(known)
        };
        let file = size("sock_inode_cache") + size("dentry") + size("filp");
        Self { socket: size("TCP") + file, socket_v6: size("TCPv6") + file, poll: size("io_kiocb") }
    }

    /// The same, read once: a running kernel does not change them.
    fn here() -> Self {
        static HERE: OnceLock<Objects> = OnceLock::new();
        *HERE.get_or_init(|| Self::of(&fs::read_to_string("/proc/slabinfo").unwrap_or_default()))
    }
}

/// Bytes of a slab for each of its objects: columns 5 and 6 of slabinfo(5).
fn slab_size(slabinfo: &str, slab: &str) -> Option<u64> {
    let mut fields = slabinfo
        .lines()
        .map(str::split_whitespace)
        .find_map(|mut fields| (fields.next() == Some(slab)).then_some(fields))?;
    let per_slab: u64 = fields.nth(3)?.parse().ok()?;
    let pages: u64 = fields.next()?.parse().ok()?;
    (pages * rustix::param::page_size() as u64).checked_div(per_slab)
}

/// Bytes in buffers of the host's TCP sockets, and how many sockets that is.
pub(super) fn tcp_buffers(sockstat: &str) -> Option<(u64, u64)> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let fields: Vec<&str> = line.split_whitespace().collect();
    let field = |name| {
        let at = fields.iter().position(|field| *field == name)?;
        fields.get(at + 1)?.parse::<u64>().ok()
    };
    Some((field("mem")? * rustix::param::page_size() as u64, field("alloc")?))
}

/// A row in KiB of a file such as smaps_rollup or status, in bytes.
pub(super) fn kib_row(text: &str, row: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(row)?.strip_prefix(':'))?;
    rest.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1_024)
}

pub(super) fn families(node: &Node, reports: &[&Report], observed: &Observed) -> [Family; 4] {
    let sum = |of: fn(&Report) -> u64| reports.iter().map(|report| of(report)).sum::<u64>();
    let connections = sum(|r| r.connections);

    let mut user = Family::new(
        "uproar_memory_bytes",
        Kind::Gauge,
        "User memory by holder, together the PSS of /proc/self/smaps_rollup: connections (tables, members, \
         queues) and logs by the engines' own count, other is the rest.",
    );
    let (own, logs) = (sum(|r| r.connection_bytes), sum(|r| r.log_bytes));
    let rest = observed.pss.map(|pss| pss.saturating_sub(own + logs));
    for (part, bytes) in [("connections", Some(own)), ("logs", Some(logs)), ("other", rest)] {
        if let Some(bytes) = bytes {
            user.sample(&[("part", part.to_owned())], bytes.into());
        }
    }

    let objects = Objects::here();
    let is_v6 = node.loaded().config.server.listen.is_ipv6();
    let socket = if is_v6 { objects.socket_v6 } else { objects.socket };
    let slots_used = sum(|r| r.shell.slots_used);
    // The host's sockets are ours and others'; each is taken to hold as much as the next.
    let buffers = observed
        .tcp_buffers
        .map(|(bytes, sockets)| bytes * slots_used.min(sockets) / sockets.max(1));
    let (shards, rings) = (node.layout.cpus.len() as u64, node.layout.rings_per_shard);
    let mut kernel = Family::new(
        "uproar_kernel_memory_bytes",
        Kind::Gauge,
        "Kernel memory by holder, an estimate: sockets and polls are objects in use times slab size, tcp_buffers \
         is this node's share of /proc/net/sockstat by sockets, rings as locked at start, page_tables VmPTE.",
    );
    let sockets = slots_used * socket;
    let polls = connections * objects.poll;
    for (part, bytes) in [
        ("sockets", Some(sockets)),
        ("polls", Some(polls)),
        ("tcp_buffers", buffers),
        ("rings", Some(ring_bytes(shards, rings.into()))),
        ("page_tables", observed.page_tables),
    ] {
        if let Some(bytes) = bytes {
            kernel.sample(&[("part", part.to_owned())], bytes.into());
        }
    }

    let mut each = Family::new(
        "uproar_memory_per_connection_bytes",
        Kind::Gauge,
        "What a live connection takes: user is the connections part of uproar_memory_bytes, kernel is sockets, \
         polls and tcp_buffers of uproar_kernel_memory_bytes, divided by live connections; 0 without any.",
    );
    for (space, bytes) in [("user", own), ("kernel", sockets + polls + buffers.unwrap_or(0))] {
        let bytes = bytes.checked_div(connections).unwrap_or(0);
        each.sample(&[("space", space.to_owned())], bytes.into());
    }
    let age = Family::single(
        "uproar_memory_age_seconds",
        Kind::Gauge,
        "How long ago the kernel was asked for the numbers of memory and of the process: once a second at most.",
        Number::Micros(observed.age().as_micros() as u64),
    );
    [user, kernel, each, age]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLABINFO: &str = "slabinfo - version: 2.1\n\
        # name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables\n\
        tw_sock_TCP           16     16    256   16    1 : tunables    0    0    0\n\
        TCP                   26     26   2368   16    8 : tunables    0    0    0\n";

    #[test]
    fn sizes_come_from_the_kernel_and_otherwise_from_what_was_measured() {
        let page = rustix::param::page_size() as u64;
        assert_eq!(slab_size(SLABINFO, "TCP"), Some(page / 2));
        assert_eq!(slab_size(SLABINFO, "filp"), None);
        let (seen, unseen) = (Objects::of(SLABINFO), Objects::of(""));
        assert_eq!(unseen, Objects { socket: 3_772, socket_v6: 3_772, poll: 256 });
        assert_eq!(seen, Objects { socket: page / 2 + 1_252, ..unseen });
    }

    #[test]
    fn buffers_and_rows_are_found_by_name() {
        let page = rustix::param::page_size() as u64;
        let sockstat =
            "sockets: used 16\nTCP: inuse 2 orphan 0 tw 0 alloc 5 mem 16\nUDP: inuse 0 mem 1\n";
        assert_eq!(tcp_buffers(sockstat), Some((16 * page, 5)));
        assert_eq!(tcp_buffers("TCP: inuse 2"), None);
        assert_eq!(kib_row("Rss:  9 kB\nPss_Dirty: 1 kB\nPss:   7 kB\n", "Pss"), Some(7_168));
    }
}
