//! Provided buffers: memory the kernel picks from when bytes arrive, so that an idle
//! connection holds none.
//!
//! ```text
//!  ring of entries      [ e0 e1 e2 … eN-1 ]   shared with the kernel; we advance `tail`
//!  buffers              [ b0 | b1 | … ]       entry i names a buffer, not always b_i
//! ```

use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// The group id of a ring's only buffer group.
pub(crate) const GROUP: u16 = 0;

/// Bytes that were read. It names a buffer that the kernel has given up; hand it back with
/// [`crate::Ring::recycle`]. Not `Clone`: two handles to one buffer would alias.
#[derive(Debug)]
pub struct Buffer {
    id: u16,
    len: u32,
    ring: i32,
}

impl Buffer {
    pub(crate) fn new(id: u16, len: u32, ring: i32) -> Self {
        Self { id, len, ring }
    }

    /// How many bytes were read.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Never true: an end of stream has no buffer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The memory of one ring's buffers. It is never unmapped: the kernel tears a closed ring down
/// in the background and might still write.
#[derive(Debug)]
pub(crate) struct Buffers {
    entries: *mut BufRingEntry,
    memory: *mut u8,
    count: u16,
    bytes_each: u32,
    tail: u16,
    ring: i32,
}

impl Buffers {
    /// Registers `count` (a power of two) buffers of `bytes_each` with `ring`.
    pub(crate) fn register(
        ring: &IoUring,
        raw: i32,
        count: u16,
        bytes_each: u32,
    ) -> std::io::Result<Self> {
        assert!(count.is_power_of_two(), "the kernel takes powers of two, not {count}");
        let map = |bytes: usize| {
            // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches
            // nothing that exists. WHY: the ring of entries must be page-aligned and both must
            // never move; untouched pages cost nothing, which a zeroed Vec does not promise.
            unsafe {
                mmap_anonymous(
                    std::ptr::null_mut(),
                    bytes,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::PRIVATE,
                )
            }
        };
        let entries = map(usize::from(count) * size_of::<BufRingEntry>())?.cast::<BufRingEntry>();
        let memory = map(usize::from(count) * bytes_each as usize)?.cast::<u8>();
        // SAFETY: `entries` is page-aligned, holds `count` entries and is never unmapped.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(entries as u64, count, GROUP, 0)?;
        }
        let mut buffers = Self { entries, memory, count, bytes_each, tail: 0, ring: raw };
        for id in 0..count {
            buffers.push(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// Capacity of one buffer, in bytes.
    pub(crate) fn bytes_each(&self) -> usize {
        self.bytes_each as usize
    }

    /// The bytes of `buffer`.
    pub(crate) fn bytes(&mut self, buffer: &Buffer) -> &mut [u8] {
        assert!(
            buffer.ring == self.ring && buffer.id < self.count && buffer.len <= self.bytes_each
        );
        let start = usize::from(buffer.id) * self.bytes_each as usize;
        // SAFETY: the range lies inside the mapping (asserted above); the kernel gave this buffer
        // up with its completion and gets it back only when the one `Buffer` naming it is
        // recycled; `&mut self` keeps any other borrow of the memory away. WHY: safe code cannot
        // name memory that the kernel writes.
        unsafe { std::slice::from_raw_parts_mut(self.memory.add(start), buffer.len as usize) }
    }

    /// Gives `buffer` back; the kernel sees it after the next [`Self::publish`].
    #[expect(clippy::needless_pass_by_value, reason = "a buffer that was given back is no more")]
    pub(crate) fn recycle(&mut self, buffer: Buffer) {
        assert!(buffer.ring == self.ring, "a buffer goes back to the ring it came from");
        let Buffer { id, .. } = buffer;
        self.push(id);
    }

    fn push(&mut self, id: u16) {
        let at = usize::from(self.tail & (self.count - 1));
        // SAFETY: `at < count`, so the entry is inside the mapping; the kernel reads entries only
        // below the published tail, which this one is not yet. Sums stay inside `memory`.
        unsafe {
            let entry = &mut *self.entries.add(at);
            entry.set_addr(self.memory.add(usize::from(id) * self.bytes_each as usize) as u64);
            entry.set_len(self.bytes_each);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows all recycled buffers to the kernel.
    pub(crate) fn publish(&mut self) {
        // SAFETY: `entries` is the start of a registered buffer ring; its tail is a 16-bit field
        // that the kernel loads with acquire semantics, so it is stored as an atomic.
        unsafe {
            let tail = BufRingEntry::tail(self.entries).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}
