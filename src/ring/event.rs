//! Completions, decoded: what the kernel says has happened, as a plain enum.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::buffers::Buffer;
use crate::ring::Slot;

/// The caller's name for a connection or a request, 56 bits; it comes back with each event.
/// A generation in it tells a completion of a closed connection from one of its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u64);

impl Key {
    /// The bits a key may use.
    pub const MASK: u64 = (1 << 56) - 1;

    /// Makes a key of the low 56 bits.
    #[must_use]
    pub const fn new(bits: u64) -> Self {
        Self(bits & Self::MASK)
    }

    /// The bits again.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// One completion.
#[derive(Debug)]
pub enum Event {
    /// An accept ended: a socket in `slot`, or why not (ENFILE: the table is full).
    Accepted {
        /// Which of the accepts in flight; it is free for another now.
        lane: u16,
        /// Where the socket is.
        slot: io::Result<Slot>,
        /// The other end; an error leaves it unknown.
        peer: Option<SocketAddr>,
    },
    /// A read ended: bytes, `None` at the end of the stream, or an error.
    Read {
        /// The reader.
        key: Key,
        /// `WouldBlock`: nothing there. `ENOBUFS`: all buffers are out, try again.
        result: io::Result<Option<Buffer>>,
    },
    /// A multishot read brought bytes, `None` at the end of the stream, or an error.
    ReadMany {
        /// The reader.
        key: Key,
        /// `ENOBUFS`: all buffers are out; arm it again.
        result: io::Result<Option<Buffer>>,
        /// Whether the read goes on; if not, arm it again.
        armed: bool,
    },
    /// The multishot poll saw the socket become readable or fail.
    Readable {
        /// The poller.
        key: Key,
        /// Whether the poll goes on; if not, arm it again.
        armed: bool,
        /// The peer will send nothing more, or the socket has failed. The poll is edge-triggered and may not
        /// speak again, so read until the end is read.
        is_last: bool,
        /// The kernel ended the poll with an error (also after a cancel).
        failed: bool,
    },
    /// The one-shot poll saw the socket become writable or fail; a send will tell.
    Writable {
        /// The poller.
        key: Key,
    },
    /// A cancel or poll removal ended, whether it found its target or not.
    Cancelled {
        /// As given.
        key: Key,
    },
    /// The slot is free.
    Closed {
        /// As given.
        key: Key,
    },
    /// A socket went to another ring, or could not (ENFILE: that ring's table is full).
    SlotSent {
        /// As given.
        key: Key,
        /// The kernel's word.
        result: io::Result<()>,
    },
    /// A socket came from another ring.
    Arrived {
        /// The sender's token.
        token: Key,
        /// Where it is now.
        slot: Slot,
    },
    /// A direct descriptor has become an ordinary one as well.
    Installed {
        /// As given.
        key: Key,
        /// The ordinary descriptor.
        fd: io::Result<OwnedFd>,
    },
    /// The timer set with [`crate::Ring::set_timer`] is due.
    Timer,
    /// Something wrote to the eventfd that [`crate::Ring::watch_wake`] watches.
    Woken {
        /// Whether the watch goes on; if not, drain the eventfd and arm it again.
        armed: bool,
    },
}

/// What a completion belongs to: the top byte of `user_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tag {
    Accept = 1,
    Read,
    PollIn,
    PollOut,
    Cancel,
    Close,
    SendSlot,
    Arrive,
    Install,
    Timer,
    Send,
    ReadMany,
    Wake,
}

impl Tag {
    pub(crate) fn with(self, key: Key) -> u64 {
        (self as u64) << 56 | key.0
    }

    pub(crate) fn split(user_data: u64) -> (Self, Key) {
        let tag = match user_data >> 56 {
            1 => Self::Accept,
            2 => Self::Read,
            3 => Self::PollIn,
            4 => Self::PollOut,
            5 => Self::Cancel,
            6 => Self::Close,
            7 => Self::SendSlot,
            8 => Self::Arrive,
            9 => Self::Install,
            10 => Self::Timer,
            11 => Self::Send,
            12 => Self::ReadMany,
            13 => Self::Wake,
            other => unreachable!("completion with tag {other}, which this crate never set"),
        };
        (tag, Key::new(user_data))
    }
}
