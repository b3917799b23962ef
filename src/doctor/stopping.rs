//! How long the service manager waits for a node that ends, beside how long a full one takes.

use super::check::{Check, Verdict};
use super::target::Target;
use super::tree::Tree;

/// Where a unit and what is edited of it stand; the last that says something wins.
const UNITS: [&str; 3] = [
    "usr/lib/systemd/system/uproar.service",
    "etc/systemd/system/uproar.service",
    "etc/systemd/system/uproar.service.d/override.conf",
];

pub(super) fn check(target: &Target, tree: &Tree) -> Check {
    let needed = target.deadline_ms.div_ceil(1_000) + 1;
    let row = Check::new(
        "TimeoutStopSec of uproar.service, seconds",
        "a full node closes drain_closes_per_sec a second; systemd gives it more time while it asks for it, but \
         a supervisor that does not know EXTEND_TIMEOUT_USEC kills it",
    );
    let mut texts = UNITS.iter().rev().filter_map(|path| tree.read(path));
    let said = texts.find_map(|text| timeout_stop(&text));
    let fix = format!(
        "TimeoutStopSec={needed} in a drop-in of the unit, --stop-timeout {needed} of a container; or a higher \
         drain_closes_per_sec"
    );
    match said {
        None => row.needed(format!("at least {needed}")).now("no such unit"),
        said => row.at_least(said, needed, Verdict::Advice, fix),
    }
}

fn timeout_stop(unit: &str) -> Option<u64> {
    let last = unit.lines().rev().find_map(|line| line.trim().strip_prefix("TimeoutStopSec="));
    seconds(last?)
}

/// A time span as systemd writes and reads it (systemd.time(7)), in seconds: `75`, `1min 15s`, `infinity`.
pub(crate) fn seconds(span: &str) -> Option<u64> {
    if span.trim() == "infinity" {
        return Some(u64::MAX);
    }
    let mut ms = 0;
    for part in span.split_whitespace() {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let (number, unit) = part.split_at(digits);
        let unit_ms = match unit {
            "ms" => 1,
            "" | "s" | "sec" => 1_000,
            "min" | "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        ms += number.parse::<u64>().ok()?.checked_mul(unit_ms)?;
    }
    Some(ms / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_systemd_writes_them() {
        for (span, read) in [
            ("75", Some(75)),
            ("75s", Some(75)),
            ("1min 15s", Some(75)),
            ("1h", Some(3_600)),
            ("90000ms", Some(90)),
            ("infinity", Some(u64::MAX)),
            ("soon", None),
        ] {
            assert_eq!(seconds(span), read, "{span}");
        }
        assert_eq!(timeout_stop("[Service]\nTimeoutStopSec=30\n TimeoutStopSec=2min\n"), Some(120));
    }
}
