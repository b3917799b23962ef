//! A connection: the protocol state over one socket. Small, because there are 50,000 of them;
//! whatever most connections never need is behind a pointer that is empty until then.

use std::net::SocketAddr;

use crate::address::Address;
use crate::bucket::Bucket;
use crate::codec::Codec;
use crate::http;
use crate::mesh::Join;
use crate::patience::Patience;
use crate::report::CloseCause;
use crate::table::Id;
use crate::ws::reader::Reader;
use crate::ws::rest::Rest;

/// What a connection is doing.
#[derive(Debug)]
pub enum Phase {
    /// Its request has not arrived whole.
    Handshake(Box<Handshake>),
    /// Its socket is on its way to another shard; the request follows once the socket is there.
    Leaving(Box<Leaving>),
    /// Its request is plain HTTP; its socket is on its way to the control plane.
    Handing,
    /// Its socket has come from another shard, the request has not.
    Arriving {
        /// What the two halves share.
        token: u64,
    },
    /// It watches an event.
    Live {
        /// The room on this shard.
        room: Id,
        /// Its place among the members of its feed.
        member: u32,
    },
    /// Test-only: it gets every message back.
    Echo,
    /// Its last word is said.
    Closing {
        /// Where we are in what the peer still sends; `None` when it has ended: close once our bytes are out.
        rest: Option<Box<Rest>>,
    },
}

impl Phase {
    /// Memory of a request that has not arrived whole, in bytes.
    #[must_use]
    pub fn head_bytes_held(&self) -> u64 {
        match self {
            Self::Handshake(handshake) => handshake.bytes.capacity() as u64,
            _ => 0,
        }
    }
}

/// A request that is still arriving.
#[derive(Debug)]
pub struct Handshake {
    /// What has arrived of it.
    pub bytes: Vec<u8>,
    /// The other end.
    pub peer: Option<SocketAddr>,
    /// The address it is counted by while it is unfinished.
    pub counted_by: Option<Address>,
    /// Up to here nobody needs to look for its end again, in bytes.
    pub searched: u32,
    /// It is read again at this length, whether its end has come or not.
    pub read_again_at: u32,
}

impl Handshake {
    /// Whether to read what has arrived, now that there is more: its end is there, or it is so long that it is
    /// refused, or it has doubled since it was last read, as a mistake in it is answered before its end.
    /// So a head that drips costs a few times what a whole one costs, not its square.
    pub fn is_due(&mut self, bytes_max: usize) -> bool {
        let has_end = http::has_end(&self.bytes, self.searched as usize);
        self.searched = self.bytes.len() as u32;
        let is_due =
            has_end || self.searched >= self.read_again_at || self.bytes.len() >= bytes_max;
        if is_due {
            self.was_read();
        }
        is_due
    }

    /// Notes that what has arrived was read, and is not the whole.
    pub fn was_read(&mut self) {
        self.searched = self.bytes.len() as u32;
        self.read_again_at = self.searched.saturating_mul(2);
    }
}

/// The request of a leaving connection, to be sent after its socket.
#[derive(Debug)]
pub struct Leaving {
    /// Where it goes.
    pub to: u32,
    /// The request.
    pub join: Join,
}

/// Who posts over a connection; made by the first post, or by the query of the upgrade.
#[derive(Debug)]
pub struct Author {
    /// The user id; empty until the first post of somebody who gave none.
    pub user: Box<str>,
    /// The name to show.
    pub name: Option<Box<str>>,
}

/// Bytes for one connection only, in order. A log frame that was cut by a short write comes
/// first: its rest must go out before anything else.
///
/// ```text
///  bytes  │ sent │ rest of a cut frame │ answers: acks, errors, pongs, notices │
///                └─────────────── waiting ─────────────────────────────────────┘
/// ```
#[derive(Debug, Default)]
pub struct Private {
    bytes: Vec<u8>,
    sent: usize,
    rest: usize,
}

impl Private {
    /// What has not been sent.
    #[must_use]
    pub fn waiting(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// The buffer to append to.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Notes that all that waits is the rest of a log frame.
    pub fn is_rest(&mut self) {
        self.rest = self.waiting().len();
    }

    /// Bytes waiting besides the rest of a log frame: what its own requests have caused.
    #[must_use]
    pub fn answers(&self) -> usize {
        self.waiting().len() - self.rest
    }

    /// Memory that answers hold, in bytes; 0 when none waits.
    #[must_use]
    pub fn answer_bytes_held(&self) -> usize {
        if self.answers() == 0 { 0 } else { self.bytes_held() - self.rest }
    }

    /// Notes that the kernel took `len` bytes more. Space is given back when half is spent, and memory when
    /// the queue has become much shorter than it was.
    pub fn advance(&mut self, len: usize) {
        self.sent += len;
        self.rest = self.rest.saturating_sub(len);
        if self.sent * 2 >= self.bytes.len() {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        if self.bytes.capacity() > 4 * self.bytes.len() {
            self.bytes.shrink_to(2 * self.bytes.len());
        }
    }

    /// Memory held, in bytes.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        size_of::<Self>() + self.bytes.capacity()
    }
}

/// One connection. Ticks are those of the timer wheel; 0 means "not".
#[derive(Debug)]
pub struct Connection {
    /// What it is doing.
    pub phase: Phase,
    /// An incomplete frame or message.
    pub reader: Reader,
    /// Bytes for it alone.
    pub private: Option<Box<Private>>,
    /// Who posts over it.
    pub author: Option<Box<Author>>,
    /// Its rate of posts.
    pub posts: Bucket,
    /// How often it went beyond its rates.
    pub patience: Patience,
    /// When the present phase began.
    pub phase_tick: u32,
    /// When the last byte came from it; a little earlier after the upgrade, to spread the pings.
    pub heard_tick: u32,
    /// When the unanswered ping went out.
    pub pinged_tick: u32,
    /// While it is blocked, since when the kernel takes no more bytes for it; else when bytes of its own last
    /// went out whole.
    pub socket_tick: u32,
    /// When the drain that told it last closes it: see `draining`. 0: none has told it.
    pub drain_tick: u32,
    /// Where it comes from, once it is live: [`crate::address::Address::digest`].
    pub address: u32,
    /// Why it was closed, for the counters.
    pub cause: CloseCause,
    /// How its frames are encoded.
    pub codec: Codec,
    /// Posts of it that another shard has not answered yet.
    pub posts_away: u8,
    /// It stands in the ready queue.
    pub is_ready: bool,
    /// The shell was told not to read from it, and waits for [`crate::engine::Output::ReadOn`].
    pub is_paused: bool,
    /// The shell was asked to report when the socket can be written to.
    pub is_blocked: bool,
    /// It was blocked and has not been sent everything since.
    pub is_slow: bool,
    /// It counts as a live connection of the node.
    pub is_counted: bool,
    /// It was refused, and counts against the limits while it is heard to its end.
    pub is_refused: bool,
    /// A close frame has been queued or received; only its answer may follow.
    pub is_close_sent: bool,
}

impl Connection {
    /// A connection in `phase` that began at `tick`.
    #[must_use]
    pub fn new(phase: Phase, tick: u32) -> Self {
        Self {
            phase,
            reader: Reader::default(),
            private: None,
            author: None,
            posts: Bucket::default(),
            patience: Patience::default(),
            phase_tick: tick,
            heard_tick: tick,
            pinged_tick: 0,
            socket_tick: 0,
            drain_tick: 0,
            address: 0,
            cause: CloseCause::Peer,
            codec: Codec::Json,
            posts_away: 0,
            is_ready: false,
            is_paused: false,
            is_blocked: false,
            is_slow: false,
            is_counted: false,
            is_refused: false,
            is_close_sent: false,
        }
    }

    /// Bytes waiting for it alone.
    #[must_use]
    pub fn private_len(&self) -> usize {
        self.private.as_ref().map_or(0, |private| private.waiting().len())
    }

    /// Of these, the answers to what it said itself.
    #[must_use]
    pub fn answers(&self) -> usize {
        self.private.as_ref().map_or(0, |private| private.answers())
    }

    /// Memory that these hold, in bytes.
    #[must_use]
    pub fn answer_bytes_held(&self) -> usize {
        self.private.as_ref().map_or(0, |private| private.answer_bytes_held())
    }
}

// 50,000 connections at this size are 6 MB; the rest of the 512 bytes goes to the table entry, the
// wheel, the member, the shell's slot and allocator slack.
const _: () = assert!(size_of::<Connection>() <= 104);

#[cfg(test)]
mod tests {
    use super::*;

    /// How often a head is read that arrives byte by byte.
    fn reads(head: &[u8]) -> u32 {
        let mut handshake = Handshake {
            bytes: Vec::new(),
            peer: None,
            counted_by: None,
            searched: 0,
            read_again_at: 0,
        };
        let mut reads = 0;
        for &byte in head {
            handshake.bytes.push(byte);
            reads += u32::from(handshake.is_due(8_192));
        }
        reads
    }

    #[test]
    fn a_head_that_drips_is_read_a_few_times() {
        let long = [b"GET / HTTP/1.1\r\na: ", &[b'x'; 8_000][..], b"\r\n\r\n"].concat();
        for (name, head) in [
            ("one long line", long),
            ("short lines", [&b"GET / HTTP/1.1\r\n"[..], &b"a:b\r\n".repeat(1_600)].concat()),
            ("nothing but line ends", b"\r\n".repeat(4_000)),
            ("nothing but line feeds", b"\n".repeat(8_000)),
        ] {
            let reads = reads(&head);
            assert!((2..=15).contains(&reads), "{name}: {reads}");
        }
    }
}
