//! What the control plane may ask of a shard, and the answers. Plain data: the engine answers
//! every request at once, so a request needs no id and no state.

use crate::ids::{CommentId, EventId, Position};
use crate::limits::Limits;
use crate::log::WeakGrant;

/// A request to the home shard of an event, or to every shard where it names none.
#[derive(Debug)]
pub enum Request {
    /// Append a comment that came over HTTP.
    Post {
        /// Where to.
        event: EventId,
        /// Who wrote it; without one the node makes an id.
        user: Option<Box<str>>,
        /// The name to show.
        name: Option<Box<str>>,
        /// What was written.
        text: Box<str>,
        /// Makes a retry safe, as in the WebSocket `post`.
        key: Option<Box<str>>,
        /// From where it came: [`crate::address::Address::digest`].
        address: u32,
    },
    /// Leave to read an event's log, for pages of its history: nothing is read or encoded here.
    Follow {
        /// Which event.
        event: EventId,
    },
    /// Viewers and positions of an event.
    Event {
        /// Which event.
        event: EventId,
    },
    /// Counters and gauges for `/metrics`.
    Report,
    /// One step of a look for hot rooms.
    HotRooms {
        /// Where it begins: 0, then what the last step said.
        from: u32,
        /// How many rooms a list may have.
        limit: usize,
    },
    /// Stop admitting; close every connection, spread over `spread_ms`. Asking again changes nothing.
    Drain {
        /// Which of the node's drains; with another number it begins anew.
        number: u64,
        /// Over how long the closes are spread, in milliseconds.
        spread_ms: u32,
    },
    /// Admit again; connections not closed yet stay.
    Undrain,
    /// Use these limits from now on.
    Reload {
        /// Which of the node's limits these are, as the report says it.
        generation: u64,
        /// The limits.
        limits: Box<Limits>,
    },
}

/// The answer to a [`Request`].
#[derive(Debug)]
pub enum Reply {
    /// The comment is in the log.
    Posted {
        /// Its id.
        id: CommentId,
        /// Its place.
        position: Position,
    },
    /// The comment was not taken.
    Refused(PostRefusal),
    /// What [`Request::Follow`] asked for.
    Followed {
        /// The way into the canonical log; `None` while nothing is retained.
        log: Option<WeakGrant>,
        /// The head of the log.
        position: Position,
    },
    /// The state of an event.
    Event {
        /// Connections watching it on this node.
        viewers: u32,
        /// The head of its log.
        position: Position,
        /// The oldest retained offset; `position.offset + 1` when nothing is retained.
        tail: u64,
    },
    /// Nobody watches this event and nothing of it is retained.
    NoSuchEvent,
    /// What [`Request::Report`] asked for.
    Report(Box<crate::report::Report>),
    /// What [`Request::HotRooms`] asked for.
    HotRooms(crate::hot::HotRooms),
    /// Done, nothing to say.
    Done,
}

/// Why a comment was not appended. The text forms are part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostRefusal {
    /// The command could not be understood.
    BadCommand,
    /// Control characters or half a surrogate pair in the text, or a label that is too long.
    BadText,
    /// The text is over `comment_bytes_max`.
    TooLong,
    /// Nothing of the text can be seen.
    Empty,
    /// Over `posts_per_sec_connection` or `posts_per_sec_event`.
    RateLimited,
    /// The mesh is full.
    Overloaded,
    /// The node is draining.
    Draining,
    /// A `key` over HTTP without a `user`, whose key it would be.
    KeyNeedsUser,
    /// `rooms_max` is reached, and the event has no room yet.
    RoomsFull,
}

impl PostRefusal {
    /// All reasons, in the order of declaration.
    pub const ALL: [Self; 9] = [
        Self::BadCommand,
        Self::BadText,
        Self::TooLong,
        Self::Empty,
        Self::RateLimited,
        Self::Overloaded,
        Self::Draining,
        Self::KeyNeedsUser,
        Self::RoomsFull,
    ];

    /// The protocol's `code`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::BadCommand => "bad_command",
            Self::BadText => "bad_text",
            Self::TooLong => "too_long",
            Self::Empty => "empty",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::Draining => "draining",
            Self::KeyNeedsUser => "key_needs_user",
            Self::RoomsFull => "rooms_full",
        }
    }

    /// The protocol's `message`: what to do next.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::BadCommand => "not a command of this protocol; see PROTOCOL.md",
            Self::BadText => {
                "the text has control characters or half a surrogate pair, or a label is over 64 bytes"
            }
            Self::TooLong => "the text is longer than this node takes",
            Self::Empty => "the text has nothing that anybody can see",
            Self::RateLimited => "too many posts; wait a second",
            Self::Overloaded => "the node is overloaded; try again in a few seconds",
            Self::Draining => "the node is draining; connect again",
            Self::KeyNeedsUser => "a key belongs to a user; send `user` with it",
            Self::RoomsFull => "the node has as many events as it can hold; use another",
        }
    }
}

// A counter's place in its array is the reason's number.
const _: () = {
    let mut at = 0;
    while at < PostRefusal::ALL.len() {
        assert!(PostRefusal::ALL[at] as usize == at);
        at += 1;
    }
};
