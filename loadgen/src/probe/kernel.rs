//! The kernel's own books: slab caches and socket memory.

use std::fs;

/// Caches that no socket uses and that other processes of the host grow, by how their names begin.
/// What is not listed counts, so an unknown cache can only make the result worse.
const UNRELATED: [&str; 28] = [
    "ext4_",
    "jbd2_",
    "xfs_",
    "btrfs_",
    "fuse_",
    "ovl_",
    "nfs_",
    "buffer_head",
    "radix_tree_node",
    "inode_cache",
    "proc_inode_cache",
    "shmem_inode_cache",
    "kernfs_node_cache",
    "vm_area_struct",
    "anon_vma",
    "task_struct",
    "mm_struct",
    "signal_cache",
    "sighand_cache",
    "files_cache",
    "fs_cache",
    "names_cache",
    "cred_jar",
    "pid",
    "maple_node",
    "task_group",
    "bio-",
    // Left behind by whoever closes first, for a minute: connections of the past.
    "tw_sock_",
];

/// Live objects of slab caches and pages of TCP's buffers, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KernelMemory {
    /// Slab caches except those of files and processes: live objects, each with its share of the
    /// slab's pages (`/proc/slabinfo`, which only root may read; else `Slab:` of `/proc/meminfo`).
    /// Whole slabs would count places that others left free, and miss objects that fill them.
    pub(crate) slab_bytes: u64,
    /// TCP buffers (`/proc/net/sockstat`), both ends of every connection on this host.
    pub(crate) tcp_bytes: u64,
}

impl KernelMemory {
    /// Reads the books now.
    pub(crate) fn now() -> Self {
        let slab_bytes = slabinfo_bytes().unwrap_or_else(meminfo_slab_bytes);
        Self { slab_bytes, tcp_bytes: tcp_bytes() }
    }
}

fn slabinfo_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/slabinfo").ok()?;
    let mut bytes = 0;
    for line in text.lines().skip(2) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if UNRELATED.iter().any(|start| fields[0].starts_with(start)) {
            continue;
        }
        // name active objects size per-slab pages-per-slab : …
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        bytes += number(1)? * number(5)? * page_bytes() / number(4)?.max(1);
    }
    Some(bytes)
}

fn meminfo_slab_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Slab:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1_024
}

fn tcp_bytes() -> u64 {
    let text = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("TCP:")).unwrap_or("");
    let pages = line.split_whitespace().skip_while(|word| *word != "mem").nth(1);
    pages.and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * page_bytes()
}

fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_has_books() {
        // That sockets show in them is the calibration's test: it opens enough of them, and tries again.
        assert!(KernelMemory::now().slab_bytes > 1 << 20);
    }
}
