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

/// What a cancel was to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// [`crate::Ring::accept`].
    Accept,
    /// [`crate::Ring::read`].
    Read,
    /// [`crate::Ring::discard`].
    Discard,
    /// [`crate::Ring::read_many`].
    ReadMany,
    /// [`crate::Ring::watch_readable`].
    Readable,
    /// [`crate::Ring::await_writable`].
    Writable,
}

impl Operation {
    pub(crate) fn tag(self) -> Tag {
        match self {
            Self::Accept => Tag::Accept,
            Self::Read => Tag::Read,
            Self::Discard => Tag::Discard,
            Self::ReadMany => Tag::ReadMany,
            Self::Readable => Tag::PollIn,
            Self::Writable => Tag::PollOut,
        }
    }

    pub(crate) fn cancel_tag(self) -> Tag {
        match self {
            Self::Accept => Tag::CancelAccept,
            Self::Read => Tag::CancelRead,
            Self::Discard => Tag::CancelDiscard,
            Self::ReadMany => Tag::CancelReadMany,
            Self::Readable => Tag::CancelPollIn,
            Self::Writable => Tag::CancelPollOut,
        }
    }
}

/// One completion. `B` is how a read hands out its bytes; only a double of the ring has another one.
#[derive(Debug)]
pub enum Event<B = Buffer> {
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
        result: io::Result<Option<B>>,
    },
    /// A discard ended: how many bytes went unseen, 0 at the end of the stream, or an error.
    Discarded {
        /// The reader.
        key: Key,
        /// `ECANCELED` after a cancel.
        result: io::Result<usize>,
    },
    /// A multishot read brought bytes, `None` at the end of the stream, or an error.
    ReadMany {
        /// The reader.
        key: Key,
        /// `ENOBUFS`: all buffers are out; arm it again.
        result: io::Result<Option<B>>,
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
    /// A cancel ended. What it was to end completes by itself, before or after, and is not over until then.
    Cancelled {
        /// As given.
        key: Key,
        /// What it was to end.
        operation: Operation,
        /// The kernel's word. ENOENT: there is no such operation (any more). EALREADY: it is being carried
        /// out just now and goes on; cancel it again.
        result: io::Result<()>,
    },
    /// A close ended: the ring's table has no file in that slot.
    Closed {
        /// As given.
        key: Key,
        /// An error says that there was no file before either.
        result: io::Result<()>,
    },
    /// The bytes that the peer has not taken, a FIN among them.
    Unsent {
        /// As given.
        key: Key,
        /// An error says that there was no socket.
        result: io::Result<u32>,
    },
    /// A connection will be closed as usual instead of reset.
    NotReset {
        /// As given.
        key: Key,
        /// The kernel's word.
        error: io::Error,
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
    /// The timer set with [`crate::Ring::set_timer`] is due, or could not be set.
    Timer {
        /// The kernel's word.
        result: io::Result<()>,
    },
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
    Discard,
    Close,
    SendSlot,
    Arrive,
    Install,
    Timer,
    Send,
    ReadMany,
    Wake,
    CancelAccept,
    CancelRead,
    CancelDiscard,
    CancelReadMany,
    CancelPollIn,
    CancelPollOut,
    Linger,
    Unsent,
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
            5 => Self::Discard,
            6 => Self::Close,
            7 => Self::SendSlot,
            8 => Self::Arrive,
            9 => Self::Install,
            10 => Self::Timer,
            11 => Self::Send,
            12 => Self::ReadMany,
            13 => Self::Wake,
            14 => Self::CancelAccept,
            15 => Self::CancelRead,
            16 => Self::CancelDiscard,
            17 => Self::CancelReadMany,
            18 => Self::CancelPollIn,
            19 => Self::CancelPollOut,
            20 => Self::Linger,
            21 => Self::Unsent,
            other => unreachable!("completion with tag {other}, which this crate never set"),
        };
        (tag, Key::new(user_data))
    }
}
