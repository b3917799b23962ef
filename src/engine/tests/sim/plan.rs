//! What a seed decides before the first step: sizes, all small, so that every limit is met.

use uproar_engine::limits::{LagPolicy, Limits};
use uproar_engine::random::Random;

/// The sizes of a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) shards: u32,
    pub(crate) events: u32,
    /// Names beside those, that somebody makes up.
    pub(crate) made_up: u32,
    /// Viewers come from so many addresses; 0: from nobody knows where.
    pub(crate) addresses: u8,
    /// Keys are forgotten before their time.
    pub(crate) is_forgetful: bool,
    pub(crate) steps: u32,
    pub(crate) viewers_max: usize,
    pub(crate) link_messages_max: usize,
    pub(crate) socket_bytes_max: u32,
    pub(crate) chunk_sends_max: usize,
    pub(crate) limits: Limits,
}

impl Plan {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let mut between = |low: u32, high: u32| low + random.below(high - low + 1);
        let is_large = between(0, 19) == 0;
        let shards = between(1, 4);
        let viewers_max = if is_large { 400 } else { between(5, 60) };
        // What viewers hold who go on, all on one shard, fits; what those hold who do not, does not.
        let budget = |each| u64::from(shards * viewers_max * each);
        let (answers_bytes_max, unfinished_bytes_max, heads_bytes_max) =
            (budget(900), budget(700), budget(1_200));
        let limits = Limits {
            handshake_bytes_max: between(600, 4_000),
            handshakes_max: 4_000,
            handshake_ms_max: between(1_000, 10_000),
            frame_bytes_max: between(700, 8_000),
            message_bytes_max: between(700, 8_000),
            empty_fragments_max: 100,
            message_ms_max: between(5_000, 20_000),
            unfinished_bytes_max,
            heads_bytes_max,
            comment_bytes_max: between(40, 400),
            posts_per_sec_connection: [0, 0, 0, 5][between(0, 3) as usize],
            clock_lead_ms_max: [0, 10_000, 60_000, 86_400_000][between(0, 3) as usize],
            over_rate_commands_max: [0, 4, 100][between(0, 2) as usize],
            control_frames_per_sec_max: [0, 20, 100][between(0, 2) as usize],
            posts_per_sec_event: [0, 0, 0, 20][between(0, 3) as usize],
            connections_max: if between(0, 7) == 0 { 5 } else { 1_000 },
            connections_per_address_max: 0,
            rooms_max: if between(0, 7) == 0 { 1 } else { 64 },
            room_empty_ms_max: 700,
            retry_keys_bytes_max: 1 << 24,
            room_idle_ms_max: between(200, 3_000),
            log_bytes_max: u64::from(shards * between(3_000, 200_000)),
            room_log_bytes_max: u64::from(between(2_000, 60_000)),
            room_log_frames_max: if is_large || between(0, 4) == 0 {
                between(300, 3_000)
            } else {
                between(4, 300)
            },
            history_frames: between(0, 60),
            history_frames_max: between(60, 200),
            lag_policy: [LagPolicy::Skip, LagPolicy::Skip, LagPolicy::Evict]
                [between(0, 2) as usize],
            stall_ms_max: between(3_000, 10_000),
            private_queue_bytes_max: between(1_200, 6_000),
            answers_bytes_max,
            keepalive_ms: [0, 4_000, 50_000][between(0, 2) as usize],
            close_ms_max: between(2_000, 5_000),
            linger_bytes_max: if between(0, 3) == 0 { between(100, 3_000) } else { 1 << 20 },
            lingering_max: if between(0, 3) == 0 { between(1, 6) } else { 4_000 },
            spread_subscribers_min: between(0, 8),
            cpu_target_percent: 70,
            coalesce_ms_max: between(0, 250),
        };
        Self {
            shards,
            events: between(1, 5),
            made_up: 0,
            addresses: 0,
            is_forgetful: false,
            steps: between(150, 500),
            viewers_max: viewers_max as usize,
            link_messages_max: between(1, 6) as usize,
            chunk_sends_max: if between(0, 3) == 0 { 256 } else { between(2, 16) as usize },
            socket_bytes_max: between(300, 8_000),
            limits,
        }
        .with_names_and_keys(random.clone())
        .with_addresses(random.clone())
    }

    /// Viewers of few addresses, with few places each.
    fn with_addresses(mut self, mut random: Random) -> Self {
        let _ = random.bits();
        if random.below(4) == 0 {
            self.addresses = 1 + random.below(4) as u8;
            self.limits.connections_per_address_max = 1 + random.below(12);
            self.limits.handshakes_max = [4_000, 4 + random.below(20)][random.below(2) as usize];
        }
        self
    }

    /// Names that are made up, and little memory for keys. The dice are a copy, so that other plans stay as they are.
    fn with_names_and_keys(mut self, mut random: Random) -> Self {
        if random.below(5) == 0 {
            self.made_up = 10 + random.below(3_000);
        }
        if random.below(4) == 0 {
            self.is_forgetful = true;
            self.limits.retry_keys_bytes_max = u64::from(500 + random.below(5_000));
        }
        self
    }
}
