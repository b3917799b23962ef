//! What is on the screen.

use std::fmt::Write;
use std::time::Duration;

use super::snapshot::{HotRoom, Snapshot};
use crate::terminal;

/// Connections from which on the memory of one says something. Fewer share the tables of a node
/// that were made at start, and each would look as large as its part of them.
const CONNECTIONS_TELLING: f64 = 1_000.0;

/// The screen for a report, and the one `elapsed` before it if there is one.
#[must_use]
pub fn frame(now: &Snapshot, before: Option<(&Snapshot, Duration)>) -> String {
    let mut text = String::new();
    let seconds = before.map_or(0.0, |(_, elapsed)| elapsed.as_secs_f64());
    // A node that restarted in between counts from zero again.
    let before =
        before.map(|(before, _)| before).filter(|b| b.uptime_seconds <= now.uptime_seconds);
    let rate = |name: &str| {
        let grown = before.map(|before| now.sum(name) - before.sum(name));
        grown.filter(|_| seconds > 0.0).map_or_else(|| "-".to_owned(), |g| short(g / seconds))
    };
    let _ = writeln!(
        text,
        "{} {}  {}  up {}",
        terminal::line(&now.node),
        terminal::line(&now.version),
        state(now),
        uptime(now.uptime_seconds)
    );
    let _ = writeln!(
        text,
        "connections {} of {}   handshakes {}   rooms {} and {} replicas   blocked {}",
        short(now.sum("uproar_connections")),
        short(now.sum("uproar_connections_max")),
        short(now.sum("uproar_handshakes")),
        short(now.sum("uproar_rooms")),
        short(now.sum("uproar_room_replicas")),
        short(now.sum("uproar_blocked_connections")),
    );
    let _ = writeln!(
        text,
        "a second: comments {}   deliveries {}   writes {}   sent {}B   upgrades {}   missed {}",
        rate("uproar_comments_total"),
        rate("uproar_deliveries_total"),
        rate("uproar_log_writes_total"),
        rate("uproar_sent_bytes_total"),
        rate("uproar_upgrades_total"),
        rate("uproar_gap_comments_total"),
    );
    let _ = writeln!(text, "memory: {}", memory(now));
    let _ = writeln!(text, "pass over a room: {}", passes(now, before));
    shards(&mut text, now, before, seconds);
    if let Some(hot) = &now.hot_rooms {
        rooms(&mut text, "VIEWERS", &hot.by_viewers);
        rooms(&mut text, "COMMENTS", &hot.by_comments);
    }
    text
}

/// Long names are cut: they may have 128 characters.
fn rooms(text: &mut String, order: &str, rooms: &[HotRoom]) {
    if rooms.is_empty() {
        return;
    }
    let _ = writeln!(
        text,
        "\n{:40}  VIEWERS  COMMENTS/s  DELIVERIES/s",
        format!("HOT ROOMS BY {order}")
    );
    for room in rooms {
        let _ = writeln!(
            text,
            "{:40.40}  {:>7}  {:>10.1}  {:>12}",
            terminal::line(&room.event),
            short(room.viewers as f64),
            room.comments_per_second,
            short(room.deliveries_per_second),
        );
    }
}

/// Ready, or why not; of a drain also how far it is.
fn state(now: &Snapshot) -> String {
    let name = "uproar_drain_phase";
    let phases = now.label_values(name, "phase");
    match phases.iter().find(|phase| now.sum_where(name, "phase", phase) > 0.0) {
        Some(phase) => {
            let gone = now.sum("uproar_drain_progress_ratio") * 100.0;
            let (state, phase) = (terminal::line(&now.state), terminal::line(phase));
            format!("{state} ({phase}, {gone:.0} % gone)")
        }
        None => terminal::line(&now.state),
    }
}

fn memory(now: &Snapshot) -> String {
    let each = |space: &str| {
        let name = "uproar_memory_per_connection_bytes";
        let spaces = now.label_values(name, "space");
        let bytes = spaces.iter().any(|s| s == space).then(|| now.sum_where(name, "space", space));
        bytes.map_or_else(|| "-".into(), short)
    };
    let mut text = format!(
        "process {}B   logs {}B of {}B",
        short(now.sum("process_resident_memory_bytes")),
        short(now.sum("uproar_log_bytes")),
        short(now.sum("uproar_log_bytes_max")),
    );
    if now.sum("uproar_connections") >= CONNECTIONS_TELLING {
        let (user, kernel) = (each("user"), each("kernel"));
        let _ = write!(text, "   a connection {user}B, and {kernel}B of the kernel's");
    }
    text
}

/// Mean duration since the last report, and the worst lag so far.
fn passes(now: &Snapshot, before: Option<&Snapshot>) -> String {
    let grown = |suffix: &str| {
        let name = format!("uproar_pass_duration_seconds{suffix}");
        now.sum(&name) - before.map_or(0.0, |before| before.sum(&name))
    };
    let count = grown("_count");
    let mean = if count > 0.0 {
        format!("{:.1} ms", grown("_sum") / count * 1_000.0)
    } else {
        "none".into()
    };
    format!("{mean} on average   most behind {}", short(now.sum("uproar_pass_lag_frames_max")))
}

fn shards(text: &mut String, now: &Snapshot, before: Option<&Snapshot>, seconds: f64) {
    let target = now.sum("uproar_cpu_target_ratio") * 100.0;
    let _ = writeln!(
        text,
        "\nSHARD  CPU  BUSY of {target:.0}%          PAUSE  CONNECTIONS  DELIVERIES/s  SOCKETS"
    );
    for shard in now.label_values("uproar_shard_up", "shard") {
        let of = |name: &str| now.sum_where(name, "shard", &shard);
        if of("uproar_shard_up") == 0.0 {
            let _ = writeln!(text, "{shard:>5}  does not answer");
            continue;
        }
        let busy = of("uproar_shard_busy_ratio");
        let name = "uproar_deliveries_total";
        let deliveries = before
            .filter(|_| seconds > 0.0)
            .map(|before| (of(name) - before.sum_where(name, "shard", &shard)) / seconds);
        let _ = writeln!(
            text,
            "{shard:>5}  {:>3}  {:>4.0}% {:10}  {:>7.2}  {:>11}  {:>12}  {:>7}",
            of("uproar_shard_cpu"),
            busy * 100.0,
            bar(busy),
            of("uproar_governor_pause_ratio"),
            short(of("uproar_connections")),
            deliveries.map_or_else(|| "-".into(), short),
            short(of("uproar_ring_slots_used")),
        );
    }
}

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
