//! Every bound of a node, each with a name, a unit and a default.
//!
//! The configuration table (`src/config`) maps a flag, a file key and a variable of the same
//! name to each field; the engine only ever reads the resolved values. Constants that no
//! operator should need to change stand below the struct, with their reasons.

use crate::report::Budget;

/// What to do with a subscriber whose cursor has fallen out of its room's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LagPolicy {
    /// Move the cursor ahead and announce the hole with a `gap` notice.
    Skip,
    /// Close the connection with 4000.
    Evict,
}

/// The resolved limits of a node. `0` means "no limit" only where a field says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Request head of the upgrade, in bytes; more is answered 431.
    pub handshake_bytes_max: u32,
    /// Sockets of the node whose request is not whole; one more is let in, and the oldest answered 503. Divided evenly
    /// among the shards. 0: a quarter of `connections_max`.
    pub handshakes_max: u32,
    /// From accept to a whole upgrade request, in milliseconds; more is answered 408.
    pub handshake_ms_max: u32,
    /// Payload of one WebSocket frame from a client, in bytes; more is closed with 1009.
    pub frame_bytes_max: u32,
    /// Payload of one reassembled message from a client, in bytes; more is closed with 1009.
    pub message_bytes_max: u32,
    /// Frames of one message without payload that do not end it; one more is closed with 1008.
    pub empty_fragments_max: u32,
    /// From the first byte of a message to its last, in milliseconds; more is closed with 1008.
    pub message_ms_max: u32,
    /// Unfinished messages of all connections together, in bytes of memory; beyond it those that hold most for
    /// longest are closed with 1013. Divided evenly among the shards.
    pub unfinished_bytes_max: u64,
    /// Request heads of all connections together, in bytes of memory, those on their way to another shard
    /// included; beyond it those that hold most for longest are answered 503. Divided evenly among the shards.
    pub heads_bytes_max: u64,
    /// Text of one comment, in bytes of UTF-8; more is refused with `too_long`.
    pub comment_bytes_max: u32,
    /// Sustained posts a second over one connection, with a burst of two seconds' worth. 0: no cap.
    pub posts_per_sec_connection: u32,
    /// How far comment times may be ahead of the clock after it was set back, in milliseconds; beyond it they follow it.
    pub clock_lead_ms_max: u32,
    /// Commands over that rate within ten seconds, the last of which is answered and closed with 1008. 0: no limit.
    pub over_rate_commands_max: u32,
    /// Pings and pongs over one connection within a second; one more is closed with 1008. 0: no limit.
    pub control_frames_per_sec_max: u32,
    /// Sustained posts a second into one event, with a burst of two seconds' worth. 0: no cap.
    pub posts_per_sec_event: u32,
    /// Live connections on the node; more are answered 503 `full`.
    pub connections_max: u32,
    /// Viewers from one address, and beside them its unfinished requests on each shard; more are answered 429. 0: no
    /// cap.
    pub connections_per_address_max: u32,
    /// Rooms on the node; one more takes the place of a room without viewers, and is answered 503 `rooms_full`
    /// when there is none. Divided evenly among the shards.
    pub rooms_max: u32,
    /// An event that nobody watches and that never had a comment is forgotten after this, in milliseconds; at
    /// once when `rooms_max` is reached.
    pub room_empty_ms_max: u32,
    /// Keys of posts that all rooms together remember, in bytes; beyond it the room that remembers most forgets
    /// its oldest. Divided evenly among the shards.
    pub retry_keys_bytes_max: u64,
    /// An event without viewers and comments for this long is forgotten, in milliseconds.
    pub room_idle_ms_max: u32,
    /// All logs of the node together, in bytes; beyond it the room that holds most loses its oldest
    /// frames. Divided evenly among the shards.
    pub log_bytes_max: u64,
    /// The log of one room, all codecs together, in bytes.
    pub room_log_bytes_max: u64,
    /// The log of one room, in frames.
    pub room_log_frames_max: u32,
    /// Comments a joining viewer gets when it does not say, in frames.
    pub history_frames: u32,
    /// The most history a joining viewer may ask for, and a REST page may hold, in frames.
    pub history_frames_max: u32,
    /// What happens to a subscriber that falls out of the log.
    pub lag_policy: LagPolicy,
    /// A subscriber with bytes waiting that accepts none for this long is evicted, in milliseconds.
    pub stall_ms_max: u32,
    /// Bytes waiting for one connection alone (acks, errors, pongs); more ends it, without a close frame, which it
    /// would not read either. The rest of a cut log frame does not count.
    pub private_queue_bytes_max: u32,
    /// The same of all connections together, in bytes of memory; beyond it those that hold most for longest are
    /// ended. Divided evenly among the shards.
    pub answers_bytes_max: u64,
    /// Silence after which a connection is pinged, in milliseconds; two silent intervals end
    /// it. 0: no keepalive.
    pub keepalive_ms: u32,
    /// From our close frame or refusal to the peer's end, in milliseconds; then the socket is closed anyway.
    pub close_ms_max: u32,
    /// Bytes thrown away of a peer after our close frame or refusal; with more its connection is reset.
    pub linger_bytes_max: u32,
    /// Connections that are heard to their end at once; beyond them the oldest is reset. Divided evenly among the
    /// shards. 0: a sixteenth of `connections_max`.
    pub lingering_max: u32,
    /// Subscribers of one room on one shard beyond which the room spreads to other shards.
    pub spread_subscribers_min: u32,
    /// CPU time of a shard the governor aims for, in percent of its core.
    pub cpu_target_percent: u32,
    /// The longest pause the governor puts between two passes over a room, in milliseconds.
    pub coalesce_ms_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_bytes_max: 8 * 1024,
            handshakes_max: 0,
            handshake_ms_max: 10_000,
            frame_bytes_max: 16 * 1024,
            message_bytes_max: 16 * 1024,
            empty_fragments_max: 100,
            message_ms_max: 10_000,
            unfinished_bytes_max: 16 * 1024 * 1024,
            heads_bytes_max: 16 * 1024 * 1024,
            comment_bytes_max: 2_000,
            posts_per_sec_connection: 5,
            clock_lead_ms_max: 60_000,
            over_rate_commands_max: 100,
            control_frames_per_sec_max: 100,
            posts_per_sec_event: 200,
            connections_max: 55_000,
            connections_per_address_max: 0,
            rooms_max: 65_536,
            room_empty_ms_max: 10_000,
            retry_keys_bytes_max: 16 * 1024 * 1024,
            room_idle_ms_max: 300_000,
            log_bytes_max: 64 * 1024 * 1024,
            room_log_bytes_max: 4 * 1024 * 1024,
            room_log_frames_max: 8_192,
            history_frames: 50,
            history_frames_max: 500,
            lag_policy: LagPolicy::Skip,
            stall_ms_max: 30_000,
            private_queue_bytes_max: 64 * 1024,
            answers_bytes_max: 64 * 1024 * 1024,
            keepalive_ms: 50_000,
            close_ms_max: 5_000,
            linger_bytes_max: 4 * 1024 * 1024,
            lingering_max: 0,
            spread_subscribers_min: 4_096,
            cpu_target_percent: 70,
            coalesce_ms_max: 250,
        }
    }
}

/// What a private queue may hold beyond its limit: a close frame or a refusal, in bytes.
pub const LAST_BYTES_MAX: u32 = 512;
/// Bytes that one read takes from a socket at most.
pub const READ_BYTES_MAX: u32 = 4 * 1024;

impl Limits {
    /// What one shard of `shards` may hold of a budget: its part, but at least what its own limit allows to
    /// one connection, or a node of many shards would hold that limit against nobody.
    #[must_use]
    pub fn budget_share(&self, budget: Budget, shards: u32) -> u64 {
        // Buffers double as they grow.
        let (total, one) = match budget {
            Budget::Answers => {
                (self.answers_bytes_max, 2 * (self.private_queue_bytes_max + LAST_BYTES_MAX))
            }
            Budget::Unfinished => {
                (self.unfinished_bytes_max, self.message_bytes_max + LAST_BYTES_MAX)
            }
            Budget::Heads => {
                (self.heads_bytes_max, 2 * (self.handshake_bytes_max + READ_BYTES_MAX))
            }
        };
        (total / u64::from(shards)).max(one.into())
    }
}

/// An `event_id`, in bytes: what a URL path segment and a log line can bear.
pub const EVENT_ID_BYTES_MAX: usize = 128;
/// `user`, `name`, `ref` and `key`, each, in bytes.
pub const LABEL_BYTES_MAX: usize = 64;
/// How long a post's `key` is remembered, in milliseconds, and how many of them a room keeps.
pub const KEY_MS_MAX: u64 = 300_000;
/// The most recent keys a room remembers; the oldest go first.
pub const KEYS_MAX: usize = 8_192;
