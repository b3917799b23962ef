//! A virtual socket: two bounded byte pipes, with a peer that may be slow, stop or vanish.

use std::collections::VecDeque;
use std::io;

/// One TCP connection between a viewer and the node.
#[derive(Debug, Default)]
pub(crate) struct Socket {
    /// From the viewer, not read by the node yet.
    inbound: VecDeque<u8>,
    /// To the viewer, not read by it yet: the send and receive buffers of the kernels in one.
    outbound: VecDeque<u8>,
    capacity: usize,
    /// The viewer sends no more.
    has_ended: bool,
    /// The viewer is gone.
    is_reset: bool,
    /// The node has closed it.
    pub(crate) is_closed: bool,
    /// The node waits for space.
    pub(crate) awaits_writable: bool,
}

/// What the node finds when it reads.
#[derive(Debug)]
pub(crate) enum Read {
    Nothing,
    Bytes(Vec<u8>),
    End,
    Reset,
}

impl Socket {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, ..Self::default() }
    }

    pub(crate) fn viewer_sends(&mut self, bytes: &[u8]) {
        if self.is_closed && !bytes.is_empty() {
            return self.destroy();
        }
        self.inbound.extend(bytes);
    }

    /// The node closes its end. Over bytes that it has not read, or that come later, the kernel sends a reset, and
    /// that destroys what the viewer has not read yet.
    pub(crate) fn node_closes(&mut self) {
        self.is_closed = true;
        if !self.inbound.is_empty() {
            self.destroy();
        }
    }

    fn destroy(&mut self) {
        self.inbound.clear();
        self.outbound.clear();
    }

    pub(crate) fn viewer_reads(&mut self, len: usize) -> Vec<u8> {
        let len = len.min(self.outbound.len());
        self.outbound.drain(..len).collect()
    }

    /// Whether the viewer has read everything and the node's end is closed.
    pub(crate) fn viewer_sees_end(&self) -> bool {
        self.is_closed && self.outbound.is_empty()
    }

    pub(crate) fn viewer_ends(&mut self) {
        self.has_ended = true;
    }

    pub(crate) fn viewer_resets(&mut self) {
        self.is_reset = true;
        self.inbound.clear();
        self.outbound.clear();
    }

    pub(crate) fn node_reads(&mut self, len: usize) -> Read {
        if self.is_reset {
            return Read::Reset;
        }
        if self.inbound.is_empty() {
            return if self.has_ended { Read::End } else { Read::Nothing };
        }
        let len = len.clamp(1, self.inbound.len());
        Read::Bytes(self.inbound.drain(..len).collect())
    }

    /// Whether the node's read would find something.
    pub(crate) fn is_readable(&self) -> bool {
        self.is_reset || self.has_ended || !self.inbound.is_empty()
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.is_reset || self.outbound.len() < self.capacity
    }

    /// Takes at most `most` bytes: `None` when all went, as a ring hides whole sends.
    pub(crate) fn node_sends(&mut self, bytes: &[u8], most: usize) -> Option<io::Result<usize>> {
        assert!(!self.is_closed, "a send on a closed socket");
        if self.is_reset {
            return Some(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let space = (self.capacity - self.outbound.len()).min(most);
        let taken = space.min(bytes.len());
        self.outbound.extend(&bytes[..taken]);
        match taken {
            taken if taken == bytes.len() => None,
            0 => Some(Err(io::ErrorKind::WouldBlock.into())),
            taken => Some(Ok(taken)),
        }
    }
}
