//! What one shard says to another, and the outbox where it waits until the link has room.
//!
//! Links are bounded and in order. What may pile up beside them is bounded as well:
//!
//! - Posts by credit. A shard has at most [`POSTS_AWAY_MAX`] posts with another that have not been answered; who
//!   sends a post has the place of its answer, so answers need no limit of their own. Beyond it posts get `overloaded`,
//!   those of connections first that have most under way.
//! - Moves by credit, too: at most [`JOINS_AWAY_MAX`], and their bytes count against the budget of request heads
//!   of the shard that sends them, until the other has said that it took them. Beyond it upgrades get 503.
//! - Releases by the replicas there are.
//! - Everything else by being state instead of messages: an "appended" that has not left yet covers all later
//!   ones, so a full link loses no append.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::codec::{Post, Reference};
use crate::control::PostRefusal;
use crate::http::Upgrade;
use crate::ids::CommentId;
use crate::limits::READ_BYTES_MAX;
use crate::log::Grant;
use crate::room::SentTo;
use crate::table::Id;

/// Posts of one shard that another has not answered.
pub const POSTS_AWAY_MAX: u32 = 1_024;
/// Connections of one shard whose request another has not taken: a storm's worth of moves.
pub const JOINS_AWAY_MAX: u32 = 4_096;
/// Posts of one connection under way to another shard, beyond which it is not read on: enough to keep a link
/// busy. One read brings fewer than the rest of the byte that counts them.
pub const POSTS_AWAY_READ_MAX: u8 = 64;

const _: () = {
    /// The shortest post, its frame included: `{"type":"post","text":"x"}`, masked.
    const POST_BYTES_MIN: u32 = 32;
    assert!(POSTS_AWAY_READ_MAX as u32 + READ_BYTES_MAX / POST_BYTES_MIN <= u8::MAX as u32);
};

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
    /// Requests from the receiver that the sender has taken and dealt with, since it last said so.
    Taken(Taken),
}

/// Requests of moving connections that a shard has taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// How many.
    pub joins: u32,
    /// Their memory, as [`Join::bytes_held`] says.
    pub bytes: u64,
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
    /// It has one of the places of its address, and takes it along.
    pub has_place: bool,
    /// Set when the home shard places the connection on another: what that one needs to follow.
    pub spread: Option<Spread>,
}

impl Join {
    /// Memory of it, in bytes: the same on both shards.
    #[must_use]
    pub fn bytes_held(&self) -> u64 {
        let upgrade = &self.upgrade;
        let labels = [&upgrade.user, &upgrade.name].into_iter().flatten();
        let strings = upgrade.event.as_str().len()
            + upgrade.accept_key.len()
            + labels.map(|label| label.len()).sum::<usize>();
        (size_of::<Self>() + size_of::<Upgrade>() + strings + self.early.capacity()) as u64
    }
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
    /// Requests of that shard that have been dealt with; not told yet.
    pub taken: Taken,
    /// Posts to that shard that it has not answered.
    pub posts_away: u32,
    /// Requests of connections on their way to that shard that it has not taken.
    pub joins_away: Taken,
}

impl Outbox {
    /// Whether a connection with `own` posts under way may send that shard another. The more there are, the
    /// fewer one connection may have: whoever has none finds a place as long as there is one, and the
    /// most that `n` connections can take for themselves is all but one part in `n + 1`.
    #[must_use]
    pub fn has_room_for_post(&self, own: u8) -> bool {
        own < u8::MAX && POSTS_AWAY_MAX - self.posts_away > own.into()
    }

    /// Whether another connection may move to that shard.
    #[must_use]
    pub fn has_room_for_join(&self) -> bool {
        self.joins_away.joins < JOINS_AWAY_MAX
    }

    /// Queues a command.
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
            && self.taken == Taken::default()
    }
}
