//! What a shard knows about itself: plain counters and gauges, copied out on request.
//!
//! Counters only grow. The engine fills [`Counters`] and the gauges of rooms and sessions, the
//! shard's shell adds [`Shell`]. Names, types and HELP texts of the exported metrics are in
//! the control plane.

use crate::control::PostRefusal;

/// Why an upgrade was refused; the order is the order of [`Counters::refusals`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Refusal {
    /// The request could not be understood (400, 404, 426).
    BadRequest,
    /// The request head was too long (431).
    TooLarge,
    /// The request did not arrive whole in time (408).
    Timeout,
    /// Too many connections from this address (429).
    AddressFull,
    /// An address had too many unfinished requests, and this was the oldest (429).
    AddressUnfinished,
    /// `handshakes_max` was reached, and this was the oldest (503).
    HandshakesFull,
    /// `connections_max` is reached (503).
    Full,
    /// The node is draining (503).
    Draining,
    /// `rooms_max` is reached (503).
    RoomsFull,
    /// The mesh or the target shard's descriptor table is full (503).
    Overloaded,
}

impl Refusal {
    /// All reasons, in order.
    pub const ALL: [Self; 10] = [
        Self::BadRequest,
        Self::TooLarge,
        Self::Timeout,
        Self::AddressFull,
        Self::AddressUnfinished,
        Self::HandshakesFull,
        Self::Full,
        Self::Draining,
        Self::RoomsFull,
        Self::Overloaded,
    ];
    /// The value of the `reason` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::TooLarge => "too_large",
            Self::Timeout => "timeout",
            Self::AddressFull => "address_full",
            Self::AddressUnfinished => "address_unfinished",
            Self::HandshakesFull => "handshakes_full",
            Self::Full => "full",
            Self::Draining => "draining",
            Self::RoomsFull => "rooms_full",
            Self::Overloaded => "overloaded",
        }
    }
}

/// How a live connection ended; the order is the order of [`Counters::closes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CloseCause {
    /// The peer closed or reset the connection.
    Peer,
    /// The peer broke the WebSocket protocol, a size limit or UTF-8 (1002, 1003, 1007, 1009), or sent too many empty
    /// fragments (1008).
    PeerFault,
    /// The private queue was over its limit.
    QueueFull,
    /// Too many commands over the rate, or too many pings and pongs (1008).
    OverRate,
    /// Two keepalive intervals without a byte.
    Silent,
    /// Evicted: fell out of the log under the evict policy (4000).
    Lag,
    /// Evicted: accepted no byte for `stall_ms_max`.
    Stalled,
    /// A message took longer than `message_ms_max` (1008).
    SlowMessage,
    /// It held most of a budget that was used up, see [`Budget`] (1013, or without a word).
    Budget,
    /// The node drained (1012).
    Drain,
    /// The kernel reported an error on the socket.
    SocketError,
}

impl CloseCause {
    /// All causes, in order.
    pub const ALL: [Self; 11] = [
        Self::Peer,
        Self::PeerFault,
        Self::QueueFull,
        Self::OverRate,
        Self::Silent,
        Self::Lag,
        Self::Stalled,
        Self::SlowMessage,
        Self::Budget,
        Self::Drain,
        Self::SocketError,
    ];
    /// The value of the `cause` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::PeerFault => "peer_fault",
            Self::QueueFull => "queue_full",
            Self::OverRate => "over_rate",
            Self::Silent => "silent",
            Self::Lag => "lag",
            Self::Stalled => "stalled",
            Self::SlowMessage => "slow_message",
            Self::Budget => "budget",
            Self::Drain => "drain",
            Self::SocketError => "socket_error",
        }
    }
}

/// Why a connection was not heard to its end; the order is the order of [`Counters::lingers_cut`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum LingerCut {
    /// `close_ms_max`.
    Time,
    /// `linger_bytes_max`.
    Bytes,
    /// `lingering_max`, or a shard without free sockets.
    Count,
}

impl LingerCut {
    /// All, in order.
    pub const ALL: [Self; 3] = [Self::Time, Self::Bytes, Self::Count];
    /// The value of the `limit` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Time => "close_ms_max",
            Self::Bytes => "linger_bytes_max",
            Self::Count => "lingering_max",
        }
    }
}

/// A completion that contradicts what a shard knows of its sockets; the order is the order of
/// [`Shell::contradictions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Contradiction {
    /// It belongs to no connection, or to none that waits for it.
    Unknown,
    /// A cancel was not carried out; it is tried again.
    CancelRefused,
    /// The last completion of a closed connection's operation did not come; it is asked for again.
    Overdue,
    /// A close found no file in the slot.
    NoFile,
}

impl Contradiction {
    /// All kinds, in order.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::CancelRefused, Self::Overdue, Self::NoFile];
    /// The value of the `kind` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::CancelRefused => "cancel_refused",
            Self::Overdue => "overdue",
            Self::NoFile => "no_file",
        }
    }
}

/// Why an accept failed; the order is the order of [`Shell::accepts_failed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum AcceptFailure {
    /// The peer, the network or a firewall undid the connection before it was accepted.
    Peer,
    /// The host is out of descriptors, memory or slots.
    Exhausted,
    /// Anything else: the listener is not what it was.
    Listener,
}

impl AcceptFailure {
    /// All, in order.
    pub const ALL: [Self; 3] = [Self::Peer, Self::Exhausted, Self::Listener];
    /// The value of the `reason` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Exhausted => "exhausted",
            Self::Listener => "listener",
        }
    }
}

/// Why a viewer fell out of its room's log; the order is the order of [`Counters::gaps`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum GapCause {
    /// Its socket had taken no more bytes, and it has not caught up since.
    Viewer,
    /// Its socket took all it was given: the shard's passes were slower than the log lost its oldest comments.
    Pass,
}

impl GapCause {
    /// All causes, in order.
    pub const ALL: [Self; 2] = [Self::Viewer, Self::Pass];
    /// The value of the `cause` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Pass => "pass",
        }
    }
}

/// Memory that strangers can make a node hold, summed over all connections; each sum has a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Budget {
    /// Answers that wait in private queues: `answers_bytes_max`.
    Answers,
    /// Messages that have not arrived whole: `unfinished_bytes_max`.
    Unfinished,
    /// Request heads: `heads_bytes_max`.
    Heads,
}

impl Budget {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Answers, Self::Unfinished, Self::Heads];
    /// The value of the `budget` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Answers => "answers",
            Self::Unfinished => "unfinished",
            Self::Heads => "heads",
        }
    }
}

/// Whose limit made a post key be forgotten before its time; the order is the order of [`Counters::keys_forgotten`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Forgotten {
    /// The event had its newest 8,192.
    Event,
    /// The node had `retry_keys_bytes_max`.
    Node,
}

impl Forgotten {
    /// All, in order.
    pub const ALL: [Self; 2] = [Self::Event, Self::Node];
    /// The value of the `limit` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Node => "node",
        }
    }
}

/// Events counted by the engine since the shard started.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Sockets handed to the engine by accept.
    pub accepts: u64,
    /// Upgrades answered 101.
    pub upgrades: u64,
    /// Plain HTTP requests handed to the control plane.
    pub handovers: u64,
    /// Upgrades refused, by [`Refusal`].
    pub refusals: [u64; Refusal::ALL.len()],
    /// Live connections ended, by [`CloseCause`].
    pub closes: [u64; CloseCause::ALL.len()],
    /// Connections that were heard after our last word.
    pub lingers: u64,
    /// Of them, those that were not heard to their end, by [`LingerCut`].
    pub lingers_cut: [u64; LingerCut::ALL.len()],
    /// Sockets sent to another shard before their 101.
    pub moves: u64,
    /// Comments appended to logs of this shard.
    pub comments: u64,
    /// Comments whose time is an earlier one's because the clock was set back.
    pub times_held: u64,
    /// Events whose comment times followed the clock back: it had been wrong by more than `clock_lead_ms_max`.
    pub times_set_back: u64,
    /// Posts answered with `error` or an HTTP status, by [`PostRefusal`] order of declaration.
    pub posts_refused: [u64; PostRefusal::ALL.len()],
    /// Posts answered from the key window instead of being appended again.
    pub posts_deduplicated: u64,
    /// Comments handed to the kernel, one per subscriber and comment.
    pub deliveries: u64,
    /// Writes handed to the kernel that carried log frames; `deliveries / log_writes` is coalescing.
    pub log_writes: u64,
    /// Bytes handed to the kernel, all kinds.
    pub bytes_sent: u64,
    /// Bytes received, after the upgrade.
    pub bytes_received: u64,
    /// Writes that the kernel took in part or not at all.
    pub short_writes: u64,
    /// Gap notices sent, by [`GapCause`].
    pub gaps: [u64; GapCause::ALL.len()],
    /// Comments covered by gap notices, by [`GapCause`].
    pub gap_comments: [u64; GapCause::ALL.len()],
    /// Connections given up because a budget was used up, by [`Budget`].
    pub budget_hits: [u64; Budget::ALL.len()],
    /// Times that reading from a connection paused because its answers waited, or its posts were under way.
    pub reads_paused: u64,
    /// Keepalive pings sent.
    pub pings: u64,
    /// Frames dropped from logs because the shard's share of `log_bytes_max` was used up.
    pub log_evictions: u64,
    /// Those of them that went although somebody whose socket takes bytes had not been sent all of what went.
    pub log_evictions_unsent: u64,
    /// Rooms freed after `room_idle_ms_max` or `room_empty_ms_max`.
    pub rooms_freed: u64,
    /// Rooms without viewers freed before that, because `rooms_max` was reached.
    pub rooms_evicted: u64,
    /// Post keys forgotten before their time, by [`Forgotten`].
    pub keys_forgotten: [u64; Forgotten::ALL.len()],
    /// Finished passes over a room's subscribers.
    pub passes: u64,
    /// Duration of finished passes.
    pub pass_seconds: Histogram,
    /// From the append of the oldest comment that a pass sent to its last send, one observation a pass.
    pub delivery_seconds: Histogram,
    /// How far behind the head a subscriber was when a pass reached it, worst of each pass, in frames.
    pub pass_lag_frames_max: u64,
}

/// A histogram with two buckets a power of two: at most 100 µs, 150, 200, 300 and so on up to 3.2768 s.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// Observations per bucket, not cumulative; the last bucket has no upper bound.
    pub buckets: [u64; BOUNDS + 1],
    /// Sum of all observations, in microseconds.
    pub sum_us: u64,
}

/// Buckets with an upper bound. (Arrays of up to 32 elements have defaults.)
const BOUNDS: usize = 31;

impl Histogram {
    /// The upper bound of bucket `i` in microseconds; `None` for the last.
    #[must_use]
    pub fn bound_us(i: usize) -> Option<u64> {
        (i < BOUNDS).then(|| [100, 150][i % 2] << (i / 2))
    }

    /// Counts one duration, in microseconds.
    pub fn observe(&mut self, us: u64) {
        let is_within = |&i: &usize| Self::bound_us(i).is_none_or(|bound| us <= bound);
        let bucket = (0..BOUNDS).find(is_within).unwrap_or(BOUNDS);
        self.buckets[bucket] += 1;
        self.sum_us += us;
    }
}

/// What the shell adds: rings, CPU and the links to other shards.
#[derive(Clone, Debug, Default)]
pub struct Shell {
    /// The CPU the shard is pinned to.
    pub cpu: u32,
    /// CPU time of the shard's thread, in microseconds.
    pub cpu_us: u64,
    /// Time that the thread was ready to run and its core ran others, in microseconds.
    pub run_delay_us: u64,
    /// Busy share of the core, softirq included, in permille.
    pub busy_permille: u32,
    /// The part of it that the governor counts: without what input costs.
    pub fanout_permille: u32,
    /// Time spent on input (completions, reads, mesh, jobs) and on sends, in microseconds.
    pub input_us: u64,
    /// See `input_us`.
    pub send_us: u64,
    /// Turns whose input was cut short so that sends got their share; the rest stood in line.
    pub turns_cut: u64,
    /// Turns and sleeps that took 100 ms longer than planned.
    pub stalls: u64,
    /// How much longer they took, all together, in microseconds.
    pub stall_us: u64,
    /// Times the shard slept and woke.
    pub wakeups: u64,
    /// `io_uring_enter` calls that submitted something.
    pub submits: u64,
    /// Completion-queue overflows the kernel reported.
    pub cq_overflows: u64,
    /// Descriptor slots of all rings, and how many hold a socket.
    pub slots: u64,
    /// Occupied descriptor slots.
    pub slots_used: u64,
    /// Reads that found the provided buffers used up and were retried.
    pub buffers_exhausted: u64,
    /// Mesh messages sent.
    pub mesh_sent: u64,
    /// Times a mesh link was full; the message waited for the next turn.
    pub mesh_full: u64,
    /// Accepts waiting for somebody to come.
    pub accepts_in_flight: u64,
    /// Accepts that failed, by [`AcceptFailure`].
    pub accepts_failed: [u64; AcceptFailure::ALL.len()],
    /// Multishot polls whose last completion has not come.
    pub polls: u64,
    /// Closed connections to which the kernel may still refer.
    pub closing: u64,
    /// Closed connections that were reset, as their peers had not taken everything.
    pub closes_unsent: u64,
    /// Completions that contradict the books, by [`Contradiction`].
    pub contradictions: [u64; Contradiction::ALL.len()],
    /// Timers that the kernel did not set.
    pub timers_failed: u64,
    /// Plain HTTP connections refused because their socket could not become an ordinary descriptor.
    pub handovers_failed: u64,
    /// Plain HTTP connections refused because the control plane's queue was full.
    pub handovers_refused: u64,
}

/// Everything one shard reports.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The shard's number.
    pub shard: u32,
    /// Engine counters.
    pub counters: Counters,
    /// Live connections (after the 101, until closed).
    pub connections: u64,
    /// Connections that count against `connections_max`: live ones, refused ones that are heard to their end, and
    /// (by the shell) closed ones whose end the kernel has not confirmed.
    pub places: u64,
    /// Connections that are heard to their end after our last word.
    pub lingering: u64,
    /// Sockets still shaking hands.
    pub handshakes: u64,
    /// Rooms whose home is this shard.
    pub rooms: u64,
    /// Those of them that nobody watches.
    pub rooms_vacant: u64,
    /// Replicas here of rooms that have spread from other shards.
    pub replicas: u64,
    /// Bytes of log segments held by rooms of this shard.
    pub log_bytes: u64,
    /// Bytes of the post keys that rooms of this shard remember.
    pub key_bytes: u64,
    /// Bytes waiting in private queues.
    pub private_bytes: u64,
    /// Bytes that count against each [`Budget`].
    pub budgets: [u64; Budget::ALL.len()],
    /// This shard's part of each.
    pub budget_shares: [u64; Budget::ALL.len()],
    /// Subscribers waiting for their socket to become writable.
    pub blocked: u64,
    /// Connections that are not read from until their answers are out.
    pub paused: u64,
    /// The governor's factor: pause after a pass, as permille of the pass's own duration.
    pub pause_permille: u64,
    /// Bytes of user memory the engine holds for connections (tables and queues, not logs).
    pub connection_bytes: u64,
    /// The drain under way.
    pub drain: Option<u64>,
    /// Which of the node's limits are in effect.
    pub limits_generation: u64,
    /// The shell's part.
    pub shell: Shell,
}
