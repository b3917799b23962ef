//! Bytes on their way out: pointers that only the kernel follows, and the borrow that keeps what they
//! point at alive.
//!
//! Most sends are one stretch of memory. A send that crosses from one log segment into the next has
//! two and goes out as SENDMSG; its header and vectors live here, made when the first one comes.

use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;

use crate::ring::SEND_CHUNK_MAX;

/// One or two stretches of bytes to send.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    pub(crate) first: (*const u8, u32),
    pub(crate) second: Option<(*const u8, u32)>,
    memory: PhantomData<&'a ()>,
}

impl<'a> Outgoing<'a> {
    /// Ordinary memory.
    #[must_use]
    pub fn from_slice(bytes: &'a [u8]) -> Self {
        Self::one(bytes.as_ptr(), bytes.len() as u32)
    }

    /// `len` bytes from byte `start` of memory that other threads may still be appending to,
    /// behind those bytes. No reference to plain bytes is made, so their writes are no race.
    #[must_use]
    pub fn from_words(words: &'a [AtomicU64], start: u32, len: u32) -> Self {
        let end = u64::from(start) + u64::from(len);
        assert!(end <= words.len() as u64 * 8, "bytes {start}+{len} are outside the memory");
        Self::one(words.as_ptr().cast::<u8>().wrapping_add(start as usize), len)
    }

    /// These bytes and then those of `next`, in one send.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        assert!(self.second.is_none() && next.second.is_none(), "a send has two stretches at most");
        Self { second: Some(next.first), ..self }
    }

    fn one(start: *const u8, len: u32) -> Self {
        Self { first: (start, len), second: None, memory: PhantomData }
    }

    /// How many bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.first.1 as usize + self.second.map_or(0, |(_, len)| len as usize)
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One header and its two vectors, by place in the chunk.
#[derive(Debug, Default)]
pub(crate) struct Vectors {
    cells: Vec<(libc::msghdr, [libc::iovec; 2])>,
}

impl Vectors {
    /// Fills the cell of send `index` and returns its header, which stays where it is.
    pub(crate) fn fill(&mut self, index: usize, bytes: Outgoing<'_>) -> *const libc::msghdr {
        if self.cells.is_empty() {
            // SAFETY: all-zero bytes are a valid msghdr and iovec: null pointers and lengths of 0.
            let empty = unsafe { std::mem::zeroed() };
            self.cells = vec![empty; SEND_CHUNK_MAX];
        }
        let (header, vectors) = &mut self.cells[index];
        let parts = [Some(bytes.first), bytes.second];
        *vectors = parts.map(|part| {
            let (start, len) = part.unwrap_or((std::ptr::null(), 0));
            // The kernel only reads what a send points at.
            libc::iovec { iov_base: start.cast_mut().cast(), iov_len: len as usize }
        });
        header.msg_iov = vectors.as_mut_ptr();
        header.msg_iovlen = vectors.len();
        header
    }
}
