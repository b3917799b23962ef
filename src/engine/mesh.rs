//! What one shard says to another, and the outbox where it waits until the link has room.
//!
//! Links are bounded and in order. What may pile up is bounded here as well: commands (moves,
//! posts, answers) by [`COMMANDS_MAX`], everything else by being state instead of messages: an
//! "appended" that has not left yet covers all later ones, so a full link loses no append.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::codec::{Post, Reference};
use crate::control::PostRefusal;
use crate::http::Upgrade;
use crate::ids::CommentId;
use crate::log::Grant;
use crate::room::SentTo;
use crate::table::Id;

/// Commands that may wait for one link; beyond it posts get `overloaded` and moves 503.
pub const COMMANDS_MAX: usize = 1_024;

/// A message on a mesh link.
#[derive(Debug)]
pub enum MeshMessage {
    /// The request half of a moving connection; its socket travels through the rings.
    Join(Box<Join>),
    /// A post by a subscriber of a replica, for the home shard to append.
    Post(Box<RemotePost>),
    /// The home shard's answer to a [`MeshMessage::Post`].
    Answer(Box<Answer>),
    /// The log of a room has grown; look at it.
    Appended {
        /// The room on its home shard.
        room: Id,
        /// All viewers of the room on this node.
        viewers: u32,
        /// When the oldest comment was appended that this is about, in monotonic microseconds of the node.
        appended_us: u64,
    },
    /// How many subscribers a replica has.
    Members {
        /// The room on its home shard.
        room: Id,
        /// Subscribers of the replica.
        members: u32,
    },
    /// A replica is gone.
    Released {
        /// The room on its home shard.
        room: Id,
        /// How many grants it had received since it was made; one still under way makes it anew.
        grants: u32,
    },
    /// How many live connections the sender has.
    Load {
        /// Live connections.
        connections: u32,
    },
}

/// The request half of a moving connection.
#[derive(Debug)]
pub struct Join {
    /// What the two halves share.
    pub token: u64,
    /// The request.
    pub upgrade: Box<Upgrade>,
    /// Bytes that came after the request head.
    pub early: Vec<u8>,
    /// The other end.
    pub peer: Option<SocketAddr>,
    /// Set when the home shard places the connection on another: what that one needs to follow.
    pub spread: Option<Spread>,
}

/// Everything a shard needs to serve a room whose home is elsewhere.
#[derive(Debug)]
pub struct Spread {
    /// The home shard.
    pub home: u32,
    /// The room there.
    pub room: Id,
    /// The room's epoch.
    pub epoch: u64,
    /// All viewers of the room on this node.
    pub viewers: u32,
    /// The logs, by codec index.
    pub logs: [Option<Grant>; 2],
    /// Where the replica tells how far it has sent.
    pub sent_to: SentTo,
}

/// A post on its way to the home shard.
#[derive(Debug)]
pub struct RemotePost {
    /// The room on its home shard.
    pub room: Id,
    /// The connection to answer, on the sending shard.
    pub connection: Id,
    /// Who.
    pub user: Box<str>,
    /// The name to show.
    pub name: Option<Box<str>>,
    /// What.
    pub post: Post,
    /// From where: [`crate::address::Address::digest`].
    pub address: u32,
}

/// The answer to a [`RemotePost`].
#[derive(Debug)]
pub struct Answer {
    /// The connection to tell.
    pub connection: Id,
    /// The client's own reference.
    pub reference: Option<Reference>,
    /// Id and offset, or why not.
    pub result: Result<(CommentId, u64), PostRefusal>,
}

/// What waits for the link to one shard.
#[derive(Debug, Default)]
pub struct Outbox {
    commands: VecDeque<MeshMessage>,
    /// Rooms of this shard that have grown; each at most once (its follower entry says so).
    pub appended: VecDeque<Id>,
    /// Replicas on this shard whose number of members changed; each at most once.
    pub members: VecDeque<Id>,
    /// A load that has not been told yet.
    pub load: Option<u32>,
}

impl Outbox {
    /// Whether another command fits.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.commands.len() < COMMANDS_MAX
    }

    /// Queues a command. Answers and releases come through even when it is full: they are bounded by
    /// the commands that caused them.
    pub fn push(&mut self, message: MeshMessage) {
        self.commands.push_back(message);
    }

    /// The oldest command.
    pub fn pop(&mut self) -> Option<MeshMessage> {
        self.commands.pop_front()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
            && self.appended.is_empty()
            && self.members.is_empty()
            && self.load.is_none()
    }
}
