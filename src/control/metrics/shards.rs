//! The table of shard metrics: one row a family, one sample a shard and label value.

use uproar_engine::control::PostRefusal;
use uproar_engine::report::{
    AcceptFailure, Budget, CloseCause, Contradiction, Forgotten, GapCause, Histogram, LingerCut,
    Refusal, Report,
};

use super::exposition::{Family, Kind, Number};

/// How a row reads a report.
enum Read {
    Count(fn(&Report) -> u64),
    Micros(fn(&Report) -> u64),
    Permille(fn(&Report) -> u64),
    /// One sample a value of the named label.
    Each(&'static str, fn(&Report) -> Vec<(&'static str, u64)>),
    Histogram(fn(&Report) -> &Histogram),
}

struct Row {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    read: Read,
}

const fn counter(name: &'static str, help: &'static str, read: fn(&Report) -> u64) -> Row {
    Row { name, kind: Kind::Counter, help, read: Read::Count(read) }
}

const fn gauge(name: &'static str, help: &'static str, read: fn(&Report) -> u64) -> Row {
    Row { name, kind: Kind::Gauge, help, read: Read::Count(read) }
}

fn refusals(report: &Report) -> Vec<(&'static str, u64)> {
    Refusal::ALL.map(|r| (r.label(), report.counters.refusals[r as usize])).to_vec()
}

fn closes(report: &Report) -> Vec<(&'static str, u64)> {
    CloseCause::ALL.map(|c| (c.label(), report.counters.closes[c as usize])).to_vec()
}

fn budgets(of: &[u64; Budget::ALL.len()]) -> Vec<(&'static str, u64)> {
    Budget::ALL.map(|b| (b.label(), of[b as usize])).to_vec()
}

fn posts_refused(report: &Report) -> Vec<(&'static str, u64)> {
    PostRefusal::ALL.map(|r| (r.code(), report.counters.posts_refused[r as usize])).to_vec()
}

fn lingers_cut(report: &Report) -> Vec<(&'static str, u64)> {
    LingerCut::ALL.map(|c| (c.label(), report.counters.lingers_cut[c as usize])).to_vec()
}

fn contradictions(report: &Report) -> Vec<(&'static str, u64)> {
    Contradiction::ALL.map(|c| (c.label(), report.shell.contradictions[c as usize])).to_vec()
}

fn accepts_failed(report: &Report) -> Vec<(&'static str, u64)> {
    AcceptFailure::ALL.map(|f| (f.label(), report.shell.accepts_failed[f as usize])).to_vec()
}

fn by_gap_cause(counts: [u64; GapCause::ALL.len()]) -> Vec<(&'static str, u64)> {
    GapCause::ALL.map(|cause| (cause.label(), counts[cause as usize])).to_vec()
}

static ROWS: &[Row] = &[
    // Connections.
    gauge("uproar_connections", "Live WebSocket connections.", |r| r.connections),
    gauge(
        "uproar_places_used",
        "Connections that count against connections_max: live, being heard to their end, or not yet let go by the kernel.",
        |r| r.places,
    ),
    gauge(
        "uproar_lingering_connections",
        "Connections that are heard to their end after our close frame or refusal.",
        |r| r.lingering,
    ),
    counter(
        "uproar_lingers_total",
        "Connections that were heard after our close frame or refusal.",
        |r| r.counters.lingers,
    ),
    Row {
        name: "uproar_lingers_cut_total",
        kind: Kind::Counter,
        help: "Of uproar_lingers_total, those closed before the peer's end, by the limit that was hit.",
        read: Read::Each("limit", lingers_cut),
    },
    gauge("uproar_handshakes", "Sockets that have not finished their request yet.", |r| {
        r.handshakes
    }),
    counter("uproar_accepts_total", "Sockets accepted, whatever came of them.", |r| {
        r.counters.accepts
    }),
    counter(
        "uproar_upgrades_total",
        "Upgrades answered 101, each one more live connection.",
        |r| r.counters.upgrades,
    ),
    counter("uproar_handovers_total", "Plain HTTP requests handed to the control plane.", |r| {
        r.counters.handovers
    }),
    counter(
        "uproar_handovers_refused_total",
        "Plain HTTP requests answered 503 because too many waited for the control plane.",
        |r| r.shell.handovers_refused,
    ),
    counter(
        "uproar_moves_total",
        "Sockets moved to the home shard of their room before the upgrade.",
        |r| r.counters.moves,
    ),
    Row {
        name: "uproar_upgrades_refused_total",
        kind: Kind::Counter,
        help: "Upgrades refused, by reason; full, rooms_full and overloaded mean that a limit was hit.",
        read: Read::Each("reason", refusals),
    },
    Row {
        name: "uproar_closes_total",
        kind: Kind::Counter,
        help: "Live connections ended, by cause; lag, stalled and queue_full are slow viewers, over_rate is a flood, slow_message and budget held memory.",
        read: Read::Each("cause", closes),
    },
    Row {
        name: "uproar_budget_hits_total",
        kind: Kind::Counter,
        help: "Connections given up because they held most of a budget that was used up: answers_bytes_max, \
               unfinished_bytes_max, heads_bytes_max.",
        read: Read::Each("budget", |r| budgets(&r.counters.budget_hits)),
    },
    Row {
        name: "uproar_budget_bytes",
        kind: Kind::Gauge,
        help: "Memory that counts against a budget: answers that wait, unfinished messages, request heads.",
        read: Read::Each("budget", |r| budgets(&r.budgets)),
    },
    Row {
        name: "uproar_budget_bytes_max",
        kind: Kind::Gauge,
        help: "The shard's part of a budget.",
        read: Read::Each("budget", |r| budgets(&r.budget_shares)),
    },
    counter(
        "uproar_reads_paused_total",
        "Times a connection was not read on because its answers waited unread, or its posts were under way.",
        |r| r.counters.reads_paused,
    ),
    gauge(
        "uproar_paused_connections",
        "Connections that are not read from until they take their answers.",
        |r| r.paused,
    ),
    counter("uproar_pings_total", "Keepalive pings sent.", |r| r.counters.pings),
    // Comments and their fan-out.
    counter("uproar_comments_total", "Comments appended to logs.", |r| r.counters.comments),
    counter(
        "uproar_comment_times_held_total",
        "Comments that got the time of an earlier one because the host's clock was set back a little.",
        |r| r.counters.times_held,
    ),
    counter(
        "uproar_comment_times_set_back_total",
        "Events whose comment times ran back with the host's clock, which had been ahead by more than clock_lead_ms_max.",
        |r| r.counters.times_set_back,
    ),
    Row {
        name: "uproar_posts_refused_total",
        kind: Kind::Counter,
        help: "Posts refused, by the code the author got.",
        read: Read::Each("code", posts_refused),
    },
    counter(
        "uproar_posts_deduplicated_total",
        "Retried posts that were already in the log and got the first one's ack.",
        |r| r.counters.posts_deduplicated,
    ),
    counter(
        "uproar_deliveries_total",
        "Comments handed to the kernel, one for each viewer and comment.",
        |r| r.counters.deliveries,
    ),
    counter(
        "uproar_log_writes_total",
        "Writes that carried comments; deliveries divided by it is how well coalescing works.",
        |r| r.counters.log_writes,
    ),
    counter("uproar_sent_bytes_total", "Bytes handed to the kernel, of all kinds.", |r| {
        r.counters.bytes_sent
    }),
    counter("uproar_received_bytes_total", "Bytes received after the upgrade.", |r| {
        r.counters.bytes_received
    }),
    counter(
        "uproar_short_writes_total",
        "Writes that the kernel took in part or not at all, because a viewer reads slowly.",
        |r| r.counters.short_writes,
    ),
    gauge("uproar_blocked_connections", "Viewers whose socket buffer is full.", |r| r.blocked),
    Row {
        name: "uproar_gaps_total",
        kind: Kind::Counter,
        help: "Gap notices sent, by cause: viewer, its socket took no more; pass, it took everything, but passes were \
               slower than the log lost its oldest comments.",
        read: Read::Each("cause", |r| by_gap_cause(r.counters.gaps)),
    },
    Row {
        name: "uproar_gap_comments_total",
        kind: Kind::Counter,
        help: "Comments that viewers missed in announced gaps, by cause as uproar_gaps_total.",
        read: Read::Each("cause", |r| by_gap_cause(r.counters.gap_comments)),
    },
    counter("uproar_passes_total", "Finished passes over the subscribers of a room.", |r| {
        r.counters.passes
    }),
    Row {
        name: "uproar_pass_duration_seconds",
        kind: Kind::Histogram,
        help: "Duration of finished passes over the subscribers of a room.",
        read: Read::Histogram(|r| &r.counters.pass_seconds),
    },
    Row {
        name: "uproar_delivery_seconds",
        kind: Kind::Histogram,
        help: "From the append of a comment to the last send of the pass that carried it, one observation a pass.",
        read: Read::Histogram(|r| &r.counters.delivery_seconds),
    },
    gauge(
        "uproar_pass_lag_frames_max",
        "How far behind its room a viewer was at most when a pass reached it, in comments, since start.",
        |r| r.counters.pass_lag_frames_max,
    ),
    // Rooms, logs and memory.
    gauge("uproar_rooms", "Rooms whose home is this shard.", |r| r.rooms),
    gauge("uproar_room_replicas", "Copies here of rooms that spread from other shards.", |r| {
        r.replicas
    }),
    gauge("uproar_rooms_vacant", "Those of uproar_rooms that nobody watches.", |r| r.rooms_vacant),
    counter(
        "uproar_rooms_freed_total",
        "Rooms forgotten after room_idle_ms_max, or room_empty_ms_max when they never had a comment.",
        |r| r.counters.rooms_freed,
    ),
    counter(
        "uproar_rooms_evicted_total",
        "Rooms without viewers forgotten before that, because rooms_max was reached and another needed the place.",
        |r| r.counters.rooms_evicted,
    ),
    gauge("uproar_retry_keys_bytes", "Memory of the post keys that rooms remember.", |r| {
        r.key_bytes
    }),
    Row {
        name: "uproar_retry_keys_forgotten_total",
        kind: Kind::Counter,
        help: "Post keys forgotten before their five minutes, by limit: event, its newest 8,192; node, retry_keys_bytes_max.",
        read: Read::Each("limit", |r| {
            Forgotten::ALL.map(|f| (f.label(), r.counters.keys_forgotten[f as usize])).to_vec()
        }),
    },
    gauge("uproar_log_bytes", "Retained comments, in bytes of log memory.", |r| r.log_bytes),
    counter(
        "uproar_log_evicted_frames_total",
        "Comments dropped because a room, or all together, keep as much as they may: the oldest of who holds most.",
        |r| r.counters.log_evictions,
    ),
    counter(
        "uproar_log_evicted_unsent_frames_total",
        "Of these, those dropped for log_bytes_max before everybody whose socket takes bytes had been sent all of them.",
        |r| r.counters.log_evictions_unsent,
    ),
    gauge(
        "uproar_private_queue_bytes",
        "Bytes waiting in queues of single connections (acks, errors, pongs).",
        |r| r.private_bytes,
    ),
    gauge(
        "uproar_connection_memory_bytes",
        "User-space memory that the shard holds for connections, without logs.",
        |r| r.connection_bytes,
    ),
    gauge("uproar_draining", "1 while the shard is draining.", |r| u64::from(r.drain.is_some())),
    // CPU and the governor.
    gauge("uproar_shard_cpu", "The number of the CPU that the shard is pinned to.", |r| {
        r.shell.cpu.into()
    }),
    Row {
        name: "uproar_shard_cpu_seconds_total",
        kind: Kind::Counter,
        help: "CPU time of the shard's thread.",
        read: Read::Micros(|r| r.shell.cpu_us),
    },
    Row {
        name: "uproar_shard_busy_ratio",
        kind: Kind::Gauge,
        help: "Busy share of the shard's core, softirq included, 0 to 1.",
        read: Read::Permille(|r| r.shell.busy_permille.into()),
    },
    Row {
        name: "uproar_shard_fanout_busy_ratio",
        kind: Kind::Gauge,
        help: "The part of uproar_shard_busy_ratio that the governor holds at its target: without what input costs.",
        read: Read::Permille(|r| r.shell.fanout_permille.into()),
    },
    Row {
        name: "uproar_shard_input_seconds_total",
        kind: Kind::Counter,
        help: "Time the shard spent on what came in: completions, reads, other shards' messages, HTTP requests.",
        read: Read::Micros(|r| r.shell.input_us),
    },
    Row {
        name: "uproar_shard_send_seconds_total",
        kind: Kind::Counter,
        help: "Time the shard spent on sends.",
        read: Read::Micros(|r| r.shell.send_us),
    },
    counter(
        "uproar_shard_turns_cut_total",
        "Turns whose input took its share of the time while sends were due; the rest of it stood in line.",
        |r| r.shell.turns_cut,
    ),
    Row {
        name: "uproar_shard_run_delay_seconds_total",
        kind: Kind::Counter,
        help: "Time the shard was ready to run and its core ran something else; it should have its core to itself.",
        read: Read::Micros(|r| r.shell.run_delay_us),
    },
    counter(
        "uproar_shard_stalls_total",
        "Turns and sleeps of the shard that took 100 ms longer than planned: its core was taken, or the host stood still.",
        |r| r.shell.stalls,
    ),
    Row {
        name: "uproar_shard_stall_seconds_total",
        kind: Kind::Counter,
        help: "How much longer than planned those took, all together.",
        read: Read::Micros(|r| r.shell.stall_us),
    },
    Row {
        name: "uproar_governor_pause_ratio",
        kind: Kind::Gauge,
        help: "Pause the governor adds after a pass, as a multiple of the pass; 0 is no pause.",
        read: Read::Permille(|r| r.pause_permille),
    },
    counter("uproar_shard_wakeups_total", "Times the shard slept and woke.", |r| r.shell.wakeups),
    // Rings and mesh.
    counter("uproar_ring_submits_total", "io_uring_enter calls that submitted something.", |r| {
        r.shell.submits
    }),
    counter(
        "uproar_ring_overflows_total",
        "Completion-queue overflows; more than a few mean that the shard cannot keep up.",
        |r| r.shell.cq_overflows,
    ),
    gauge("uproar_ring_slots", "Descriptor slots of all rings of the shard.", |r| r.shell.slots),
    gauge("uproar_ring_slots_used", "Descriptor slots that hold a socket.", |r| r.shell.slots_used),
    gauge(
        "uproar_ring_polls",
        "Multishot polls whose last completion has not come; as many as uproar_connections, but for closes under way.",
        |r| r.shell.polls,
    ),
    gauge(
        "uproar_closing_connections",
        "Connections that are closed and to whose sockets the kernel may still refer; they count against limits.",
        |r| r.shell.closing,
    ),
    counter(
        "uproar_closes_unsent_total",
        "Closed connections that were reset because their peers did not take what was left within close_ms_max.",
        |r| r.shell.closes_unsent,
    ),
    Row {
        name: "uproar_ring_contradictions_total",
        kind: Kind::Counter,
        help: "Completions that contradict what the shard knows of its sockets, by kind; each is set right.",
        read: Read::Each("kind", contradictions),
    },
    Row {
        name: "uproar_accepts_failed_total",
        kind: Kind::Counter,
        help: "Accepts that failed: undone by the peer, for want of descriptors or memory, or because of the listener.",
        read: Read::Each("reason", accepts_failed),
    },
    counter(
        "uproar_timers_failed_total",
        "Timers that the kernel did not set; the shard stays awake until it does.",
        |r| r.shell.timers_failed,
    ),
    counter(
        "uproar_handovers_failed_total",
        "Plain HTTP requests answered 503 because their socket could not become an ordinary descriptor.",
        |r| r.shell.handovers_failed,
    ),
    counter(
        "uproar_ring_buffers_exhausted_total",
        "Reads that found all buffers in use and were retried.",
        |r| r.shell.buffers_exhausted,
    ),
    counter("uproar_mesh_messages_total", "Messages sent to other shards.", |r| r.shell.mesh_sent),
    counter(
        "uproar_mesh_full_total",
        "Times a link to another shard was full and the message waited.",
        |r| r.shell.mesh_full,
    ),
];

/// Every family, with the samples of these shards.
pub(super) fn families(reports: &[&Report]) -> Vec<Family> {
    ROWS.iter().map(|row| family(row, reports)).collect()
}

fn family(row: &Row, reports: &[&Report]) -> Family {
    let mut family = Family::new(row.name, row.kind, row.help);
    for report in reports {
        let shard = ("shard", report.shard.to_string());
        match row.read {
            Read::Count(read) => family.sample(&[shard], read(report).into()),
            Read::Micros(read) => family.sample(&[shard], Number::Micros(read(report))),
            Read::Permille(read) => family.sample(&[shard], Number::Permille(read(report))),
            Read::Each(label, read) => {
                for (value, count) in read(report) {
                    let labels = [shard.clone(), (label, value.to_owned())];
                    family.sample(&labels, count.into());
                }
            }
            Read::Histogram(read) => family.histogram(&[shard], read(report)),
        }
    }
    family
}
