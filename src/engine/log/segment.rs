//! A segment: a stretch of a log that the home shard appends to while every shard reads it.
//!
//! ```text
//!  words   |frame 0      |frame 1   |frame 2        |          |
//!  ends     ............^..........^...............^
//!  frames = 3: what the writer has published (release); readers load it first (acquire)
//! ```
//!
//! The bytes are stored as atomic words, so appending behind what others read is plain safe
//! code: a word that holds the end of one frame and the start of the next is written twice, the
//! second time with the same first bytes. A frame never straddles segments.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Bytes of one word.
const WORD: usize = size_of::<u64>();

/// A stretch of a log. Only the log that made it appends.
#[derive(Debug)]
pub struct Segment {
    /// Offset of the first frame.
    first: u64,
    words: Box<[AtomicU64]>,
    /// Where frame `i` ends, in bytes; it starts where frame `i - 1` ends.
    ends: Box<[AtomicU32]>,
    frames: AtomicU32,
    /// The segment that follows, once there is one.
    next: OnceLock<Arc<Segment>>,
}

/// A grant that was never followed may be the last to hold a long chain of segments; dropping the chain one
/// inside the other would take a stack frame for each.
impl Drop for Segment {
    fn drop(&mut self) {
        let mut next = self.next.take();
        while let Some(mut segment) = next.and_then(Arc::into_inner) {
            next = segment.next.take();
        }
    }
}

impl Segment {
    pub(super) fn new(first: u64, bytes: usize, frames: usize) -> Arc<Self> {
        Arc::new(Self {
            first,
            words: (0..bytes.div_ceil(WORD)).map(|_| AtomicU64::new(0)).collect(),
            ends: (0..frames).map(|_| AtomicU32::new(0)).collect(),
            frames: AtomicU32::new(0),
            next: OnceLock::new(),
        })
    }

    /// Offset of the first frame.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Published frames.
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.frames.load(Ordering::Acquire)
    }

    /// The offset after the last published frame.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first + u64::from(self.frames())
    }

    /// The memory, for the kernel to read published frames from.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        &self.words
    }

    /// Memory of the segment, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (size_of::<Self>() + self.words.len() * WORD + self.ends.len() * size_of::<u32>()) as u64
    }

    /// Bytes that no frame fills.
    pub(super) fn unused(&self) -> u64 {
        (self.words.len() * WORD) as u64 - u64::from(self.start_of(self.end()))
    }

    /// Where the frame at `offset` starts, in bytes; `offset == end()` gives the end of the last.
    #[must_use]
    pub fn start_of(&self, offset: u64) -> u32 {
        let index = (offset - self.first) as usize;
        if index == 0 { 0 } else { self.ends[index - 1].load(Ordering::Relaxed) }
    }

    /// The published frame that holds byte `at`, for cutting a short write.
    #[must_use]
    pub fn frame_at(&self, at: u32) -> u64 {
        let published = &self.ends[..self.frames() as usize];
        let index = published.partition_point(|end| end.load(Ordering::Relaxed) <= at);
        self.first + index as u64
    }

    /// Copies `len` bytes from byte `start` into `out`.
    pub fn read(&self, start: u32, len: u32, out: &mut Vec<u8>) {
        let (start, end) = (start as usize, (start + len) as usize);
        out.reserve(len as usize);
        let mut at = start;
        while at < end {
            let word = self.words[at / WORD].load(Ordering::Relaxed).to_ne_bytes();
            let stop = (at / WORD * WORD + WORD).min(end);
            out.extend_from_slice(&word[at % WORD..at % WORD + (stop - at)]);
            at = stop;
        }
    }

    /// Appends and publishes a frame; false when there is no room for it.
    pub(super) fn append(&self, frame: &[u8]) -> bool {
        let index = self.frames.load(Ordering::Relaxed) as usize;
        let start = self.start_of(self.first + index as u64) as usize;
        let end = start + frame.len();
        if index == self.ends.len() || end > self.words.len() * WORD {
            return false;
        }
        self.write(start, frame);
        self.ends[index].store(end as u32, Ordering::Relaxed);
        self.frames.store(index as u32 + 1, Ordering::Release);
        true
    }

    fn write(&self, start: usize, bytes: &[u8]) {
        // Up to the next word boundary, then whole words.
        let lead = (WORD - start % WORD).min(bytes.len());
        let (lead_bytes, rest) = bytes.split_at(lead);
        self.merge(start, lead_bytes);
        let mut at = start + lead;
        for word in rest.chunks(WORD) {
            self.merge(at, word);
            at += word.len();
        }
    }

    fn merge(&self, at: usize, bytes: &[u8]) {
        let cell = &self.words[at / WORD];
        let mut word = cell.load(Ordering::Relaxed).to_ne_bytes();
        word[at % WORD..at % WORD + bytes.len()].copy_from_slice(bytes);
        cell.store(u64::from_ne_bytes(word), Ordering::Relaxed);
    }

    pub(super) fn link(&self, next: Arc<Self>) {
        assert!(self.next.set(next).is_ok(), "a segment is followed by one other");
    }

    pub(super) fn next(&self) -> Option<&Arc<Self>> {
        self.next.get()
    }
}
