//! The rows as text for people, and as JSON.

use std::fmt::Write;

use serde_json::{Value, json as object};

use super::check::{Check, Verdict};
use super::fits;
use super::needs::sysctls;
use super::target::Target;

/// A line for each row, its reason below, and the fix where there is one.
#[must_use]
pub fn human(target: &Target, checks: &[Check]) -> String {
    let width = |text: fn(&Check) -> &String| {
        checks.iter().map(|check| text(check).chars().count()).max().unwrap_or(0).min(44)
    };
    let (what, now) = (width(|check| &check.what), width(|check| &check.now));
    let mut text = format!(
        "target: {} connections, {} shards, {} rings each\n\n",
        target.connections,
        target.shards(),
        target.rings_per_shard
    );
    let _ = writeln!(text, "{:7}  {:what$}  {:now$}  NEEDED", "", "WHAT", "NOW");
    for check in checks {
        let (word, needed) = (check.verdict.word(), &check.needed);
        let _ = writeln!(text, "{word:7}  {:what$}  {:now$}  {needed}", check.what, check.now);
        if check.verdict != Verdict::Fits {
            let _ = writeln!(text, "{:9}why: {}", "", check.why);
        }
        if let Some(fix) = &check.fix {
            let _ = writeln!(text, "{:9}fix: {fix}", "");
        }
    }
    let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let (misfits, advice) = (count(Verdict::Misfit), count(Verdict::Advice));
    let _ = match misfits {
        0 => writeln!(text, "\nthe target fits this host; {advice} settings could be better"),
        _ => {
            writeln!(text, "\nthe target does not fit: {misfits} to fix, {advice} could be better")
        }
    };
    text
}

/// A sysctl.d file with what the target needs raised, for `tuning/apply --from`.
#[must_use]
pub fn sysctl_file(target: &Target) -> String {
    let header = format!(
        "# Kernel settings for a node of {} connections, by `uproar doctor --sysctl`.\n",
        target.connections
    );
    let lines =
        sysctls(target).into_iter().map(|need| format!("# {}\n{}\n", need.why, need.line()));
    std::iter::once(header).chain(lines).collect::<Vec<_>>().join("\n")
}

/// Everything, for machines.
#[must_use]
pub fn json(target: &Target, checks: &[Check]) -> Value {
    object!({ "target": target, "fits": fits(checks), "checks": checks })
}
