//! The engine's limits as settings: a row for each field of [`uproar_engine::limits::Limits`].
//!
//! The engine owns the meaning and the default of a limit; a test holds the defaults here
//! equal to the engine's.

use uproar_engine::patience::COUNT_MAX;

use super::setting::{Kind, Reload, Setting};
use super::value::Value;

macro_rules! limits {
    ($($group:literal { $($field:ident = $default:literal, $kind:expr, $help:literal;)* })*) => {
        /// The rows of the engine's limits. All of them change live.
        pub(super) static LIMITS: &[Setting] = &[$($(Setting {
            name: stringify!($field),
            group: $group,
            kind: $kind,
            default: $default,
            reload: Reload::Live,
            is_hidden: false,
            help: $help,
            assign: |config, text, kind| {
                config.limits.$field = Value::parse(text, kind)?;
                Ok(())
            },
            text: |config| Value::text(&config.limits.$field),
        },)*)*];
    };
}

const fn bytes(min: u64, max: u64) -> Kind {
    Kind::Number { unit: "bytes", min, max }
}

const fn ms(min: u64, max: u64) -> Kind {
    Kind::Number { unit: "ms", min, max }
}

const fn count(unit: &'static str, min: u64, max: u64) -> Kind {
    Kind::Number { unit, min, max }
}

const DAY_MS: u64 = 86_400_000;
const MIB: u64 = 1024 * 1024;

limits! {
    "Admission" {
        connections_max = "55000", count("connections", 1, 10_000_000),
            "Live connections on the node; more are answered 503 `full`. Each shard has sockets \
             for all of them, so raising it past what was planned at start needs a restart.";
        connections_per_address_max = "0", count("connections", 0, 10_000_000),
            "Viewers from one IP address, where the /64 of an IPv6 address counts as one; more are \
             answered 429. Sockets without a whole request take no viewer's place: as many of them \
             may wait with each shard, and beyond that the oldest is closed. 0 is no cap; behind a \
             proxy, which is one address, leave it at 0. A reload that sets it counts who comes from \
             then on.";
        rooms_max = "65536", count("rooms", 1, 16_777_216),
            "Rooms (events with viewers or retained comments) on the node, divided evenly among \
             the shards. One more takes the place of an event without viewers, the one with the fewest \
             comments first; when all have viewers it is answered 503 `rooms_full`.";
        handshake_bytes_max = "8192", bytes(1_024, 65_536),
            "Size of a request head; more is answered 431.";
        handshakes_max = "0", count("connections", 0, 10_000_000),
            "Sockets whose request is not whole, of the node, divided evenly among the shards. With one \
             more the oldest is answered 503, or closed if it has said nothing. They do not count as \
             connections. 0 is a quarter of connections_max.";
        handshake_ms_max = "10000", ms(100, 600_000),
            "Time from accept to a whole request; more is answered 408 and closed.";
        heads_bytes_max = "16777216", bytes(65_536, 1024 * 1024 * MIB),
            "Memory of request heads of all sockets together, divided evenly among the shards; beyond it \
             those that hold most for longest are answered 503 `overloaded`.";
    }
    "Messages and posts" {
        frame_bytes_max = "16384", bytes(125, 64 * MIB),
            "Payload of one WebSocket frame from a client; more is closed with 1009.";
        message_bytes_max = "16384", bytes(125, 64 * MIB),
            "Payload of one message from a client, all its frames together; more is closed with \
             1009. What a connection is sending us is held in memory up to this size.";
        empty_fragments_max = "100", count("frames", 1, 1_000_000),
            "Frames of one message that carry nothing and do not end it: they count against no other \
             limit. With one more the connection is closed with 1008.";
        message_ms_max = "10000", ms(100, 600_000),
            "Time from the first byte of a message to its last; more is closed with 1008. Time in which \
             the node itself did not read does not count.";
        unfinished_bytes_max = "16777216", bytes(65_536, 1024 * 1024 * MIB),
            "Memory of unfinished messages of all connections together, divided evenly among the shards; \
             beyond it the connections that hold most for longest are closed with 1013.";
        comment_bytes_max = "2000", bytes(1, 16_384),
            "Text of one comment in UTF-8; more is refused with `too_long`.";
        posts_per_sec_connection = "5", count("posts/s", 0, 1_000_000),
            "Sustained posts a second over one connection, with a burst of two seconds' worth; \
             more are refused with `rate_limited`. 0 is no cap.";
        over_rate_commands_max = "100", count("commands", 0, COUNT_MAX as u64),
            "Commands over that rate, whatever they are, from one connection within ten seconds: each \
             is answered, and with this many the connection is closed with 1008. 0 is no limit.";
        control_frames_per_sec_max = "100", Kind::NumberOrZero { unit: "frames/s", min: 10, max: COUNT_MAX as u64 },
            "Pings and pongs from one connection within a second; with one more it is closed with 1008. \
             0 is no limit.";
        posts_per_sec_event = "200", count("posts/s", 0, 1_000_000),
            "Sustained posts a second into one event, with a burst of two seconds' worth; more \
             are refused with `rate_limited`. 0 is no cap.";
    }
    "Logs of rooms" {
        log_bytes_max = "67108864", bytes(MIB, 1024 * 1024 * MIB),
            "All retained comments of the node in memory, divided evenly among the shards; beyond \
             it the room that holds most loses its oldest comments, so who writes little keeps all.";
        room_log_bytes_max = "4194304", bytes(65_536, 1024 * MIB),
            "Retained comments of one room, all codecs together; the oldest go first.";
        room_log_frames_max = "8192", count("frames", 16, 1_048_576),
            "Retained comments of one room; the oldest go first. It is also how far a slow viewer \
             may fall behind.";
        clock_lead_ms_max = "60000", ms(0, DAY_MS),
            "How far the times of an event's comments may be ahead of the clock after it was set back: until \
             it has caught up they stand still, so that they never run backwards. When the clock was wrong by \
             more, they follow it.";
        room_empty_ms_max = "10000", ms(100, 30 * DAY_MS),
            "An event without viewers that never had a comment is forgotten after this, and at once \
             when `rooms_max` is reached.";
        retry_keys_bytes_max = "16777216", bytes(65_536, 1024 * MIB),
            "Keys of posts that the node remembers so that retries are not appended again, divided \
             evenly among the shards; beyond it the event that remembers most forgets its oldest. A key \
             takes about 70 bytes.";
        room_idle_ms_max = "300000", ms(1_000, 30 * DAY_MS),
            "An event without viewers and new comments for this long is forgotten.";
        history_frames = "50", count("frames", 0, 65_536),
            "Comments that a joining viewer gets when it does not say how many.";
        history_frames_max = "500", count("frames", 0, 65_536),
            "The most comments a joining viewer may ask for, and a REST page may hold.";
    }
    "Slow and silent viewers" {
        lag_policy = "skip", Kind::Choice(&["skip", "evict"]),
            "What happens to a viewer that falls out of its room's log: `skip` moves it ahead and \
             announces the gap, `evict` closes it with 4000. Whose socket took all it was given is \
             moved ahead in any case.";
        stall_ms_max = "30000", ms(1_000, DAY_MS),
            "A viewer with bytes waiting that accepts none for this long is evicted.";
        private_queue_bytes_max = "65536", bytes(4_096, 64 * MIB),
            "Bytes waiting for one connection alone (acks, errors, pongs); more ends it without a \
             close frame, which it would not read either.";
        answers_bytes_max = "67108864", bytes(65_536, 1024 * 1024 * MIB),
            "The same for all connections together, in memory, divided evenly among the shards; beyond it \
             the connections that hold most for longest are ended.";
        keepalive_ms = "50000", Kind::NumberOrZero { unit: "ms", min: 1_000, max: DAY_MS },
            "Silence after which a connection is pinged; two silent intervals end it. Keep it \
             under the idle time-out of proxies on the way (often 60 s). 0 is no keepalive.";
        close_ms_max = "5000", ms(100, 600_000),
            "Time for a peer to end after our close frame or refusal; then the socket is closed anyway.";
        linger_bytes_max = "4194304", bytes(4_096, 1_024 * MIB),
            "Bytes that are read and thrown away of a peer after our close frame or refusal, so that it can \
             read that; with more its connection is reset.";
        lingering_max = "0", count("connections", 0, 10_000_000),
            "Connections that are heard to their end after our close frame or refusal, at once; beyond them \
             the oldest is reset. They count as connections. 0 is a sixteenth of connections_max.";
    }
    "Fan-out" {
        spread_subscribers_min = "4096", count("subscribers", 1, 10_000_000),
            "Subscribers of one room on one shard beyond which new ones are placed on other \
             shards.";
        cpu_target_percent = "70", count("percent", 10, 100),
            "CPU use of a shard's core that the governor aims for: above it, comments wait a \
             little and leave together.";
        coalesce_ms_max = "250", ms(0, 10_000),
            "The longest the governor lets comments wait to leave together; a bound on the \
             latency it may add.";
    }
}
