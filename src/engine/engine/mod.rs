//! The engine of one shard: everything that happens goes in as a call, everything to be done
//! comes out as data.
//!
//! ```text
//!  accept received ended failed writable arrived moved …   ──►  │        │ ──► poll_output   (Output)
//!  receive_mesh (from other shards)                        ──►  │ Engine │ ──► poll_mesh     (MeshMessage)
//!  control (requests) ◄──► Reply                                │        │ ──► next_chunk    (Chunk of sends)
//!  tick (timers, governor)                                 ──►  │        │ ◄── settle        (short writes)
//! ```
//!
//! Time comes with each call; there is no clock, socket, thread or `async` in here, so one seed
//! replays a run. The files of this module each hold one part of the story: `handshake`
//! (request to room), `unfinished` (those that have not sent it), `placing` (which shard), `session` (a live connection's messages), `posting`
//! (comments into logs), `lingering` (after the last word), `budgets` and `reading` (what strangers
//! may make it hold), `chunk` and `delivery` (what is sent, and short writes), `linking` (mesh), `timers`,
//! `draining`, `answering` (control plane), `checking` (invariants).

mod answering;
mod budgets;
mod checking;
mod chunk;
mod delivery;
mod draining;
mod handshake;
mod keeping;
mod lingering;
mod linking;
mod placing;
mod posting;
mod reading;
mod remembering;
mod session;
mod stepping;
mod timers;
mod unfinished;
mod vacancy;

use std::collections::VecDeque;
use std::net::SocketAddr;

use hashbrown::HashMap;

pub use chunk::{CHUNK_SENDS_MAX, Chunk, Delivery, Source};
pub use draining::drain_ms_min;

use self::draining::Drain;
use self::keeping::Keeping;
use self::remembering::Retries;
use self::unfinished::Unfinished;
use crate::connection::{Connection, Phase};
use crate::fanout::Fanout;
use crate::governor::Governor;
use crate::limits::Limits;
use crate::mesh::{Join, Outbox};
use crate::order::Order;
use crate::random::Random;
use crate::report::{CloseCause, Counters};
use crate::room::Rooms;
use crate::table::{Id, Table};
use crate::time::Now;
use crate::wheel::Wheel;

/// What the engine wants done. The shell does it before it calls again.
#[derive(Debug)]
pub enum Output {
    /// Read on: the request has not arrived whole.
    Read {
        /// The connection.
        id: Id,
    },
    /// Take one of the places that the node has for viewers of its address, if it has one, and call
    /// [`Engine::place_answered`].
    AskPlace {
        /// The connection.
        id: Id,
        /// Its request, to be given back with the answer.
        join: Box<Join>,
        /// How many places an address has.
        places_max: u32,
    },
    /// The connection came from another shard with a place of its address, which is now this shard's to give back
    /// once the socket is closed.
    HoldPlace {
        /// The connection.
        id: Id,
        /// The other end.
        peer: SocketAddr,
    },
    /// A place that came from another shard without its socket is free.
    FreePlace {
        /// The other end.
        peer: SocketAddr,
    },
    /// The connection is live: watch its socket for bytes from now on.
    Live {
        /// The connection.
        id: Id,
    },
    /// Send the socket to another shard under this token, then call [`Engine::moved`] or
    /// [`Engine::move_failed`].
    Move {
        /// The connection.
        id: Id,
        /// The shard.
        to: u32,
        /// What the two halves share.
        token: u64,
    },
    /// Give the socket to the control plane, then call [`Engine::handed_over`] or
    /// [`Engine::handover_failed`]: the request is plain HTTP.
    Handover {
        /// The connection.
        id: Id,
        /// The bytes that were read.
        read: Vec<u8>,
        /// The other end.
        peer: Option<SocketAddr>,
    },
    /// A refused connection is heard to its end, and counts as a connection of the node from now on.
    Linger {
        /// The connection.
        id: Id,
    },
    /// Wait for bytes and throw away at most this many, then call [`Engine::discarded`]. If a read is in flight, what
    /// it brings leads here again.
    Discard {
        /// The connection.
        id: Id,
        /// Bytes.
        len: u32,
    },
    /// Look again whether there is something to read from a live connection, as [`Engine::may_read`] had said no.
    ReadOn {
        /// The connection.
        id: Id,
    },
    /// Call [`Engine::writable`] when the socket takes bytes again.
    AwaitWritable {
        /// The connection.
        id: Id,
    },
    /// Close the socket. The id is free already.
    Close {
        /// The connection.
        id: Id,
        /// It counted as a connection of the node.
        was_counted: bool,
        /// What is to become of what the peer has not taken. A place of its address goes with a socket that has moved.
        parting: Parting,
    },
}

/// How a socket goes. The kernel keeps bytes for a peer that does not take them, long after a plain close and
/// where no limit counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// It lives on in another shard or in the control plane.
    Moved,
    /// Once the peer has taken everything; it has this long, in milliseconds, and is reset then.
    Whole {
        /// `close_ms_max`.
        patience_ms: u32,
    },
    /// At once, by a reset if the peer has not taken everything: nobody listens any more.
    Dropped,
    /// At once, by a reset.
    Cut,
}

/// Who the engine is.
#[derive(Clone, Debug)]
pub struct Setup {
    /// This shard's number.
    pub shard: u32,
    /// How many there are.
    pub shards: u32,
    /// The node's name.
    pub node: String,
    /// Where randomness starts; the shell draws it, a simulation chooses it.
    pub seed: u64,
    /// The limits.
    pub limits: Limits,
    /// Answer every message with itself (conformance suite only).
    pub conformance_echo: bool,
}

/// Half of a move that waits for the other.
#[derive(Debug)]
enum Half {
    Socket(Id),
    Request { join: Box<Join>, from: u32, since_tick: u32 },
}

/// The engine of one shard.
#[derive(Debug)]
pub struct Engine {
    setup: Setup,
    limits: Limits,
    /// Which of the node's limits these are: 0 those it started with.
    limits_generation: u64,
    node_hash: u64,
    random: Random,
    connections: Table<Connection>,
    rooms: Rooms,
    wheel: Wheel,
    fanout: Fanout,
    governor: Governor,
    outputs: VecDeque<Output>,
    outboxes: Vec<Outbox>,
    /// Live connections of each shard, as last heard; this shard's own is exact.
    loads: Vec<u32>,
    told_load: u32,
    halves: HashMap<u64, Half>,
    next_token: u64,
    next_comment: u32,
    drain: Option<Drain>,
    /// Live connections of the node, as the shell last said.
    node_connections: u32,
    counted: u32,
    handshakes: u32,
    /// Refused connections that are heard to their end.
    refused: u32,
    /// Those that are heard to their end, by when they began.
    lingering: Order,
    unfinished: Unfinished,
    keeping: Keeping,
    retries: Retries,
    /// How often somebody came to a room, left one or posted.
    touches: u64,
    private_bytes: u64,
    /// What counts against the budgets: answers waiting, unfinished messages, request heads (those on their
    /// way to another shard included).
    answer_bytes: u64,
    unfinished_bytes: u64,
    head_bytes: u64,
    blocked: u32,
    /// Connections that the shell was told not to read from.
    paused: u32,
    chunk_number: u32,
    /// Frames derived for the present chunk.
    derived_frames: u64,
    /// Passes that have ended since the last chunk was settled: when their oldest comment was appended.
    finished: Vec<u64>,
    /// Connections whose deadlines have come and have not been looked at.
    fired: VecDeque<u32>,
    walks: stepping::Walks,
    scratch: Vec<u8>,
    frame: Vec<u8>,
    counters: Counters,
}

impl Engine {
    /// An engine without connections.
    #[must_use]
    pub fn new(setup: Setup, now: Now) -> Self {
        assert!(setup.shard < setup.shards, "shard {} of {}", setup.shard, setup.shards);
        let mut random = Random::new(setup.seed);
        let shards = setup.shards as usize;
        Self {
            limits: setup.limits.clone(),
            limits_generation: 0,
            node_hash: xxhash_rust::xxh3::xxh3_64(setup.node.as_bytes()),
            connections: Table::default(),
            rooms: Rooms::default(),
            wheel: Wheel::new(now.tick()),
            fanout: Fanout::default(),
            governor: Governor::default(),
            outputs: VecDeque::new(),
            outboxes: (0..shards).map(|_| Outbox::default()).collect(),
            loads: vec![0; shards],
            told_load: 0,
            halves: HashMap::new(),
            next_token: u64::from(setup.shard) << 40 | random.bits() & 0xff_ffff,
            next_comment: random.bits() as u32,
            drain: None,
            node_connections: 0,
            counted: 0,
            handshakes: 0,
            refused: 0,
            lingering: Order::default(),
            unfinished: Unfinished::default(),
            keeping: Keeping::default(),
            retries: Retries::default(),
            touches: 0,
            private_bytes: 0,
            answer_bytes: 0,
            unfinished_bytes: 0,
            head_bytes: 0,
            blocked: 0,
            paused: 0,
            chunk_number: 0,
            derived_frames: 0,
            finished: Vec::new(),
            fired: VecDeque::new(),
            walks: stepping::Walks::default(),
            scratch: Vec::new(),
            frame: Vec::new(),
            counters: Counters::default(),
            random,
            setup,
        }
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// How many connections are live on the whole node, before the next calls.
    pub fn set_node_connections(&mut self, count: u32) {
        self.node_connections = count;
    }

    /// Live connections of this shard.
    #[must_use]
    pub fn live_connections(&self) -> u32 {
        self.counted
    }

    /// The peer closed its end.
    pub fn ended(&mut self, now: Now, id: Id) {
        // Who has heard our last word and ends has done its part; the word may still be on its way out.
        if let Some(Phase::Closing { .. }) = self.connections.get(id).map(|c| &c.phase) {
            return self.peer_has_ended(now, id);
        }
        self.drop_connection(now, id, CloseCause::Peer);
    }

    /// The kernel reported an error on the socket.
    pub fn failed(&mut self, now: Now, id: Id) {
        self.drop_connection(now, id, CloseCause::SocketError);
    }

    /// Ends a connection without another word.
    fn drop_connection(&mut self, now: Now, id: Id, cause: CloseCause) {
        let Some(connection) = self.connections.get(id) else { return };
        // Its request is under way to another shard or to the control plane together with the socket.
        if matches!(connection.phase, Phase::Leaving(_) | Phase::Handing) {
            return;
        }
        // A connection that is closing already keeps the cause of its close. Leaving the room begins
        // a close, so the cause is settled before.
        if !matches!(connection.phase, Phase::Closing { .. }) {
            self.connections.at(id.index).cause = cause;
        }
        self.leave_room(now, id);
        self.remove(id, Parting::Dropped);
    }

    /// Frees the entry and tells the shell to close the socket.
    fn remove(&mut self, id: Id, parting: Parting) {
        let Some(connection) = self.connections.remove(id) else { return };
        self.wheel.cancel(id.index);
        self.private_bytes -= connection.private_len() as u64;
        self.answer_bytes -= connection.answer_bytes_held() as u64;
        self.unfinished_bytes -= connection.reader.bytes_held() as u64;
        self.left_phase(&connection.phase);
        self.blocked -= u32::from(connection.is_blocked);
        self.paused -= u32::from(connection.is_paused);
        match connection.phase {
            Phase::Handshake(_) | Phase::Leaving(_) | Phase::Handing => self.handshakes -= 1,
            Phase::Arriving { token } => {
                self.handshakes -= 1;
                self.halves.remove(&token);
            }
            Phase::Closing { rest: Some(_) } => self.lingering.leave(),
            Phase::Closing { rest: None } | Phase::Live { .. } | Phase::Echo => {}
        }
        self.refused -= u32::from(connection.is_refused);
        if connection.is_counted {
            self.counted -= 1;
            self.counters.closes[connection.cause as usize] += 1;
        }
        let was_counted = connection.is_counted || connection.is_refused;
        self.outputs.push_back(Output::Close { id, was_counted, parting });
    }

    /// Takes a live connection out of its room; it is `Closing` afterwards.
    fn leave_room(&mut self, now: Now, id: Id) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let (room_id, member) = match connection.phase {
            Phase::Live { room, member } => (room, member),
            Phase::Echo => {
                connection.phase = Phase::Closing { rest: None };
                return self.read_on(now, id);
            }
            _ => return,
        };
        connection.phase = Phase::Closing { rest: None };
        connection.phase_tick = now.tick();
        let codec = connection.codec;
        let room = self.rooms.table.get_mut(room_id).expect("a member's room exists");
        let feed = room.feed_mut(codec).expect("a member's feed exists");
        let gone = feed.members.swap_remove(member as usize);
        assert_eq!(gone.connection, id.index, "a member knows its place in {}", room.event);
        if let Some(swapped) = feed.members.get(member as usize) {
            let connection = self.connections.at(swapped.connection);
            let Phase::Live { member: place, .. } = &mut connection.phase else {
                unreachable!("a member of {} is not live", room.event)
            };
            *place = member;
        }
        self.members_changed(now, room_id);
        self.read_on(now, id);
    }

    /// Queues bytes for one connection: `write` appends them. Over the limit the connection ends.
    fn push_private(&mut self, now: Now, id: Id, write: impl FnOnce(&mut Vec<u8>)) {
        self.append_private(id, write);
        let Some(connection) = self.connections.get(id) else { return };
        if connection.answers() > self.limits.private_queue_bytes_max as usize
            && matches!(connection.phase, Phase::Live { .. } | Phase::Echo)
        {
            // It asks faster than it reads: it would not read a close frame in time either.
            self.drop_connection(now, id, CloseCause::QueueFull);
        }
    }

    /// Queues bytes for one connection, whatever waits there already.
    fn append_private(&mut self, id: Id, write: impl FnOnce(&mut Vec<u8>)) {
        self.change_private(id, |private| write(private.buffer()));
        self.hold(id, true);
        self.make_ready(id);
    }

    /// Keeps passes away from a member, or lets them in again.
    fn hold(&mut self, id: Id, is_held: bool) {
        let Some(connection) = self.connections.get(id) else { return };
        let Phase::Live { room, member } = connection.phase else { return };
        let room = self.rooms.table.get_mut(room).expect("a member's room exists");
        let feed = room.feed_mut(connection.codec).expect("a member's feed exists");
        feed.members[member as usize].set_held(is_held);
    }

    /// Puts a connection into the ready queue, unless it is there or cannot be written to.
    fn make_ready(&mut self, id: Id) {
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.is_ready
            && !connection.is_blocked
        {
            connection.is_ready = true;
            self.fanout.ready.push_back(id);
        }
    }
}
