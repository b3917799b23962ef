//! The kernel's own books: slab caches and socket memory.

use std::collections::BTreeMap;
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

/// Live objects of slab caches, and pages of TCP's buffers.
#[derive(Clone, Debug, Default)]
pub(crate) struct KernelMemory {
    /// Slab caches except those of files and processes (`/proc/slabinfo`). Live objects, each with its share of the
    /// slab's pages: whole slabs would count places that others left free, and miss objects that fill them.
    caches: BTreeMap<String, Cache>,
    /// TCP buffers (`/proc/net/sockstat`), both ends of every connection on this host, in bytes.
    pub(crate) tcp_bytes: u64,
}

/// One slab cache.
#[derive(Clone, Copy, Debug)]
struct Cache {
    objects: u64,
    /// An object with its share of the slab's pages.
    bytes_each: u64,
}

impl KernelMemory {
    /// Reads the books now; none without the right to (root's), as nothing else says it.
    pub(crate) fn now() -> Option<Self> {
        let text = fs::read_to_string("/proc/slabinfo").ok()?;
        Some(Self { caches: caches(&text)?, tcp_bytes: tcp_bytes() })
    }

    /// TCP sockets of the whole host, whichever network namespace they are in.
    pub(crate) fn sockets(&self) -> u64 {
        self.objects("TCP") + self.objects("TCPv6")
    }

    /// Bytes of all caches.
    pub(crate) fn slab_bytes(&self) -> u64 {
        self.caches.values().map(|cache| cache.objects * cache.bytes_each).sum()
    }

    /// By how much the caches have grown. One that shrank was someone else's, and must not hide what others grew by.
    pub(crate) fn slab_growth(&self, earlier: &Self) -> u64 {
        let sockets = self.sockets().saturating_sub(earlier.sockets());
        let grown = |(name, cache): (&String, &Cache)| {
            let mut objects = cache.objects.saturating_sub(earlier.objects(name));
            if name == "dentry" {
                // A socket has one or none; whoever reads files meanwhile has the rest.
                objects = objects.min(sockets);
            }
            objects * cache.bytes_each
        };
        self.caches.iter().map(grown).sum()
    }

    /// Bytes that each of `count` equal things has cost since `earlier`: whole objects of each cache, so that what
    /// other processes allocate and free meanwhile, less than half an object each, is not in it.
    pub(crate) fn slab_bytes_each(&self, earlier: &Self, count: u32) -> f64 {
        let each = self.caches.iter().map(|(name, cache)| {
            let grown = cache.objects as f64 - earlier.objects(name) as f64;
            (grown / f64::from(count)).round().max(0.0) * cache.bytes_each as f64
        });
        each.sum()
    }

    fn objects(&self, name: &str) -> u64 {
        self.caches.get(name).map_or(0, |cache| cache.objects)
    }
}

fn caches(text: &str) -> Option<BTreeMap<String, Cache>> {
    let related = |line: &&str| !UNRELATED.iter().any(|start| line.starts_with(start));
    let caches = text.lines().skip(2).filter(related).map(|line| {
        // name active objects size per-slab pages-per-slab : …
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let bytes_each = number(5)? * page_bytes() / number(4)?.max(1);
        Some((fields[0].to_owned(), Cache { objects: number(1)?, bytes_each }))
    });
    caches.collect()
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
    fn the_host_has_books_for_root_only() {
        // That sockets show in them is the calibration's test: it opens enough of them, and tries again.
        match KernelMemory::now() {
            Some(books) => assert!(books.slab_bytes() > 1 << 20),
            None => assert!(!rustix::process::geteuid().is_root()),
        }
    }

    #[test]
    fn files_that_others_read_meanwhile_are_no_sockets() {
        let books = |sockets: u64, dentries: u64| KernelMemory {
            caches: [("TCP", sockets, 2_500), ("dentry", dentries, 200)]
                .map(|(name, objects, bytes_each)| (name.to_owned(), Cache { objects, bytes_each }))
                .into(),
            tcp_bytes: 0,
        };
        let (before, after) = (books(0, 1_000), books(100, 90_000));
        assert_eq!(after.slab_growth(&before), 100 * 2_700);
        assert_eq!(after.sockets(), 100);
    }

    #[test]
    fn growth_is_not_hidden_by_what_others_free_and_whole_objects_are_not_blurred_by_it() {
        let books = |sockets: u64, dentries: u64| KernelMemory {
            caches: [("TCP", sockets, 2_500), ("dentry", dentries, 195)]
                .map(|(name, objects, bytes_each)| (name.to_owned(), Cache { objects, bytes_each }))
                .into(),
            tcp_bytes: 0,
        };
        let (before, after) = (books(10, 50_000), books(2_010, 51_400));
        assert_eq!(after.slab_bytes_each(&before, 1_000), 2.0 * 2_500.0 + 195.0);
        let shrunk = books(2_010, 40_000);
        assert_eq!(shrunk.slab_growth(&before), 2_000 * 2_500);
        assert_eq!(shrunk.slab_bytes_each(&before, 1_000), 2.0 * 2_500.0);
    }
}
