//! A chunk: the sends that go to the kernel in one submission, and the memory they point at.
//!
//! Sends of log frames borrow the log's own segments, which the chunk keeps alive; private bytes are
//! copied into its scratch memory, because their queue may change before the kernel has answered.
//!
//! Not here: what goes into a chunk and what its result means (`delivery`).

use std::sync::Arc;

use crate::log::Segment;
use crate::table::Id;

/// Sends of one chunk: enough to make the submission cheap, few enough for reads in between.
pub const CHUNK_SENDS_MAX: usize = 128;

/// Where a send's bytes are.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// Whole frames `from..next` in a segment of the chunk, or at the end of one and the start of
    /// the next.
    Log {
        /// First byte and length of what goes ahead of the frames, in the chunk's scratch memory: the
        /// connection's own bytes. The frames then do not go on in a second segment.
        own: Option<(u32, u32)>,
        /// Index into the chunk's segments.
        segment: u32,
        /// First byte.
        start: u32,
        /// Bytes.
        len: u32,
        /// The segment that follows and how many of its first bytes, when the frames go on there.
        then: Option<(u32, u32)>,
        /// Offset of the first frame.
        from: u64,
        /// Offset after the last.
        next: u64,
    },
    /// Bytes in the chunk's scratch memory.
    Private {
        /// First byte.
        start: u32,
        /// Bytes.
        len: u32,
    },
}

impl Source {
    /// Bytes of the send.
    #[must_use]
    pub fn len(self) -> u32 {
        match self {
            Self::Log { len, then, .. } => self.own_len() + len + then.map_or(0, |(_, more)| more),
            Self::Private { len, .. } => len,
        }
    }

    /// Bytes of the send that are the connection's own.
    #[must_use]
    pub fn own_len(self) -> u32 {
        match self {
            Self::Log { own, .. } => own.map_or(0, |(_, len)| len),
            Self::Private { len, .. } => len,
        }
    }

    /// Never true: the engine makes no empty sends.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// One send.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// To whom.
    pub id: Id,
    /// What.
    pub source: Source,
}

/// Sends that are submitted together. It keeps alive what they point at.
#[derive(Debug)]
pub struct Chunk {
    /// The sends, at most one a connection.
    pub deliveries: Vec<Delivery>,
    pub(super) sends_max: usize,
    segments: Vec<Arc<Segment>>,
    pub(super) scratch: Vec<u8>,
}

impl Default for Chunk {
    fn default() -> Self {
        Self::new(CHUNK_SENDS_MAX)
    }
}

impl Chunk {
    /// A chunk of at most `sends_max` sends. The simulator's are small, so that a pass takes many.
    #[must_use]
    pub fn new(sends_max: usize) -> Self {
        Self { deliveries: Vec::new(), sends_max, segments: Vec::new(), scratch: Vec::new() }
    }

    /// The segment behind [`Source::Log`].
    #[must_use]
    pub fn segment(&self, index: u32) -> &Segment {
        &self.segments[index as usize]
    }

    /// The connection's own bytes behind a [`Source`].
    #[must_use]
    pub fn private(&self, start: u32, len: u32) -> &[u8] {
        &self.scratch[start as usize..(start + len) as usize]
    }

    pub(super) fn clear(&mut self) {
        self.deliveries.clear();
        self.segments.clear();
        self.scratch.clear();
    }

    pub(super) fn is_full(&self) -> bool {
        self.deliveries.len() >= self.sends_max
    }

    pub(super) fn keep(&mut self, segment: &Arc<Segment>) -> u32 {
        // Members of one feed mostly share the last segment, or the last two.
        let recent = self.segments.iter().rev().take(2);
        if let Some(back) = recent.into_iter().position(|kept| Arc::ptr_eq(kept, segment)) {
            return (self.segments.len() - 1 - back) as u32;
        }
        self.segments.push(Arc::clone(segment));
        self.segments.len() as u32 - 1
    }
}
