//! What is on the screen.

use std::time::Duration;

use super::snapshot::{HotRoom, Snapshot};
use crate::terminal;

/// Connections from which on the memory of one says something. Fewer share the tables of a node
/// that were made at start, and each would look as large as its part of them.
const CONNECTIONS_TELLING: f64 = 1_000.0;

/// How much of the screen there is. What does not fit is left out, and it is said how much; the state of the node
/// and of its shards comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: usize,
    /// Characters of a line.
    pub columns: usize,
}

impl Size {
    /// Everything is shown, as where the output is no terminal.
    pub const ENDLESS: Self = Self { rows: usize::MAX, columns: usize::MAX };
}

/// Lines of a table besides its rows: a blank one and its heads.
const TABLE_LINES: usize = 2;
/// Rooms that are shown of each order before shards get more lines.
const ROOMS_MIN: usize = 2;

/// What the columns mean.
pub const LEGEND: &str = "\
CONNECTIONS  viewers and publishers, live, of connections_max
handshakes   sockets that have not finished their request
replicas     copies on this node's other shards of rooms that spread
blocked      viewers whose socket takes no more: they read slowly
deliveries   comments handed to the kernel, one for each viewer and comment
writes       sends that carried them; fewer than deliveries is coalescing
missed       comments that slow viewers were told they missed (gaps)
pass         one walk over all viewers of a room with what is new
most behind  comments that a viewer lagged at most when a pass reached it
BUSY         share of the shard's core in use, and cpu_target_percent;
             above it hot rooms rest between passes
PAUSE        that rest, in lengths of the pass; 0 is none
SOCKETS      places in the shard's socket tables in use
HOT ROOMS    the most viewers, and the most comments a second; DELIVERIES
             is what the room costs";

/// The screen for a report, and the one `elapsed` before it if there is one.
#[must_use]
pub fn frame(now: &Snapshot, before: Option<(&Snapshot, Duration)>, size: Size) -> String {
    let seconds = before.map_or(0.0, |(_, elapsed)| elapsed.as_secs_f64());
    let last = before.map(|(before, _)| before);
    // A node that restarted in between counts from zero again.
    let is_restarted = last.is_some_and(|last| last.uptime_seconds > now.uptime_seconds);
    let last = last.filter(|_| !is_restarted && seconds > 0.0);
    let mut lines = head(now, last, seconds, is_restarted);

    let shards = shards(now, last, seconds);
    let rooms: Vec<(&str, &[HotRoom])> = now.hot_rooms.as_ref().map_or_else(Vec::new, |hot| {
        let both = [("VIEWERS", &*hot.by_viewers), ("COMMENTS", &*hot.by_comments)];
        both.into_iter().filter(|(_, rooms)| !rooms.is_empty()).collect()
    });
    let left = size.rows.saturating_sub(lines.len());
    let rooms_min: usize =
        rooms.iter().map(|(_, rooms)| TABLE_LINES + rooms.len().min(ROOMS_MIN)).sum();
    let for_shards = left.saturating_sub(rooms_min + TABLE_LINES).max(1);
    lines.push(String::new());
    lines.push(shards_head(now));
    lines.extend(cut(shards, for_shards, "shards"));
    for (at, (order, rooms_of)) in rooms.iter().enumerate() {
        let left = size.rows.saturating_sub(lines.len()) / (rooms.len() - at);
        if left > TABLE_LINES {
            lines.push(String::new());
            lines.push(rooms_head(order));
            lines.extend(cut(rooms_of.iter().map(room).collect(), left - TABLE_LINES, "rooms"));
        }
    }
    lines.truncate(size.rows);
    let narrow = |line: &String| line.chars().take(size.columns).collect::<String>();
    lines.iter().map(|line| narrow(line) + "\n").collect()
}

/// The first of these lines, the last of which says how many are left out.
fn cut(mut lines: Vec<String>, at_most: usize, what: &str) -> Vec<String> {
    if at_most <= 1 {
        lines.truncate(at_most);
    } else if lines.len() > at_most {
        let left_out = lines.len() - at_most.saturating_sub(1);
        lines.truncate(at_most.saturating_sub(1));
        lines.push(format!("       and {left_out} {what} more"));
    }
    lines
}

fn head(now: &Snapshot, last: Option<&Snapshot>, seconds: f64, is_restarted: bool) -> Vec<String> {
    let rate = |name: &str| {
        let grown = last.and_then(|last| now.grown(last, name));
        grown.map_or_else(|| "-".to_owned(), |grown| short(grown / seconds))
    };
    let sum = |name: &str| short(now.sum(name));
    let commit = now.commit.as_deref().map_or_else(String::new, |commit| format!(" ({commit})"));
    let again = if is_restarted { "  RESTARTED since the last look" } else { "" };
    let mut lines = vec![
        format!(
            "{} {}{}  up {}{again}",
            terminal::line(&now.node),
            terminal::line(&now.version),
            terminal::line(&commit),
            uptime(now.uptime_seconds)
        ),
        format!("state: {}", state(now)),
        format!(
            "connections {} of {}   handshakes {}   blocked {}",
            sum("uproar_connections"),
            sum("uproar_connections_max"),
            sum("uproar_handshakes"),
            sum("uproar_blocked_connections"),
        ),
        format!(
            "a second: comments {}   deliveries {}   writes {}   sent {}B",
            rate("uproar_comments_total"),
            rate("uproar_deliveries_total"),
            rate("uproar_log_writes_total"),
            rate("uproar_sent_bytes_total"),
        ),
        format!(
            "          upgrades {}   missed {}",
            rate("uproar_upgrades_total"),
            rate("uproar_gap_comments_total"),
        ),
    ];
    lines.push(memory(now));
    lines.push(format!(
        "rooms {} and {} replicas   pass {}",
        sum("uproar_rooms"),
        sum("uproar_room_replicas"),
        passes(now, last)
    ));
    lines
}

fn rooms_head(order: &str) -> String {
    format!("{:40}  VIEWERS  COMMENTS/s  DELIVERIES/s", format!("HOT ROOMS BY {order}"))
}

/// Long names are cut: they may have 128 characters.
fn room(room: &HotRoom) -> String {
    format!(
        "{:40.40}  {:>7}  {:>10.1}  {:>12}",
        terminal::line(&room.event),
        short(room.viewers as f64),
        room.comments_per_second,
        short(room.deliveries_per_second),
    )
}

/// Ready, or every reason why not; of a drain also how far it is.
fn state(now: &Snapshot) -> String {
    let with_value = |name: &str, label: &str| -> Vec<String> {
        let values = now.label_values(name, label);
        values.into_iter().filter(|value| now.sum_where(name, label, value) > 0.0).collect()
    };
    let mut state = terminal::line(&now.state);
    // The gravest comes first; it is the one that the report names.
    for reason in with_value("uproar_not_ready", "reason") {
        if reason != now.state {
            state += &format!(", {}", terminal::line(&reason));
        }
    }
    if let Some(phase) = with_value("uproar_drain_phase", "phase").first() {
        let gone = now.sum("uproar_drain_progress_ratio") * 100.0;
        state += &format!(" ({}, {gone:.0} % gone)", terminal::line(phase));
    }
    state
}

fn memory(now: &Snapshot) -> String {
    let each = |space: &str| {
        let name = "uproar_memory_per_connection_bytes";
        let spaces = now.label_values(name, "space");
        let bytes = spaces.iter().any(|s| s == space).then(|| now.sum_where(name, "space", space));
        bytes.map_or_else(|| "-".into(), short)
    };
    let mut line = format!(
        "memory: process {}B   logs {}B of {}B",
        short(now.sum("process_resident_memory_bytes")),
        short(now.sum("uproar_log_bytes")),
        short(now.sum("uproar_log_bytes_max")),
    );
    if now.sum("uproar_connections") >= CONNECTIONS_TELLING {
        let (user, kernel) = (each("user"), each("kernel"));
        line += &format!("   a connection {user}B + {kernel}B kernel");
    }
    line
}

/// Mean duration since the last report, and the worst lag so far.
fn passes(now: &Snapshot, last: Option<&Snapshot>) -> String {
    let grown = |suffix: &str| {
        let name = format!("uproar_pass_duration_seconds{suffix}");
        last.map_or_else(|| now.sum(&name), |last| now.grown(last, &name).unwrap_or(0.0))
    };
    let count = grown("_count");
    let mean = if count > 0.0 {
        format!("{:.1} ms", grown("_sum") / count * 1_000.0)
    } else {
        "none".into()
    };
    format!("{mean} on average   most behind {}", short(now.sum("uproar_pass_lag_frames_max")))
}

fn shards_head(now: &Snapshot) -> String {
    let target = now.sum("uproar_cpu_target_ratio") * 100.0;
    format!("SHARD  CPU  BUSY of {target:.0}%          PAUSE  CONNECTIONS  DELIVERIES/s  SOCKETS")
}

/// A line for each shard: first those that do not answer, then the busiest, if not all have room.
fn shards(now: &Snapshot, last: Option<&Snapshot>, seconds: f64) -> Vec<String> {
    let of = |name: &str, shard: &str| now.sum_where(name, "shard", shard);
    let mut shards = now.label_values("uproar_shard_up", "shard");
    let grave = |shard: &String| {
        let is_up = of("uproar_shard_up", shard) > 0.0;
        if is_up { of("uproar_shard_busy_ratio", shard) } else { f64::MAX }
    };
    if shards.len() > SHARDS_IN_ORDER {
        shards.sort_by(|a, b| grave(b).total_cmp(&grave(a)));
    }
    let line = |shard: &String| {
        let of = |name: &str| of(name, shard);
        let label = terminal::line(shard);
        if of("uproar_shard_up") == 0.0 {
            return format!("{label:>5}  does not answer");
        }
        let busy = of("uproar_shard_busy_ratio");
        let name = "uproar_deliveries_total";
        let deliveries = last.and_then(|last| now.grown_where(last, name, "shard", shard));
        format!(
            "{label:>5}  {:>3}  {:>4.0}% {:10}  {:>7.2}  {:>11}  {:>12}  {:>7}",
            of("uproar_shard_cpu"),
            busy * 100.0,
            bar(busy),
            of("uproar_governor_pause_ratio"),
            short(of("uproar_connections")),
            deliveries.map_or_else(|| "-".into(), |grown| short(grown / seconds)),
            short(of("uproar_ring_slots_used")),
        )
    };
    shards.iter().map(line).collect()
}

/// Up to so many shards are shown by their number.
const SHARDS_IN_ORDER: usize = 4;

/// A share as up to ten marks.
fn bar(share: f64) -> String {
    "#".repeat((share.clamp(0.0, 1.0) * 10.0).round() as usize)
}

/// Three digits and a decimal prefix.
fn short(number: f64) -> String {
    const PREFIXES: [(f64, &str); 3] = [(1e9, "G"), (1e6, "M"), (1e4, "k")];
    for (from, prefix) in PREFIXES {
        if number >= from {
            let unit = if prefix == "k" { 1e3 } else { from };
            let scaled = number / unit;
            let digits = usize::from(scaled < 10.0);
            return format!("{scaled:.digits$}{prefix}");
        }
    }
    let digits = usize::from(number.fract() != 0.0 && number < 10.0);
    format!("{number:.digits$}")
}

fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (number, text) in [
            (0.0, "0"),
            (7.25, "7.2"),
            (9_999.0, "9999"),
            (55_000.0, "55k"),
            (1.5e6, "1.5M"),
            (2e9, "2.0G"),
        ] {
            assert_eq!(short(number), text);
        }
        assert_eq!([uptime(61), uptime(3_660), uptime(90_000)], ["1m01s", "1h01m", "1d01h"]);
    }
}
