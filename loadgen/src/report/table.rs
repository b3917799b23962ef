//! The summary a person reads when a run ends.

use super::{Latency, Report, Step};
use crate::growth::Growth;
use crate::slo::Verdict;

/// The whole summary.
pub(crate) fn summary(report: &Report) -> String {
    let mut lines = vec![format!(
        "{}: {} viewers, {} events, {} B comments, {}",
        report.scenario,
        report.parameters.viewers,
        report.parameters.events,
        report.parameters.comment_bytes,
        report.machine.cpu
    )];
    lines.push(format!(
        "{:<14}{:>8}{:>11}{:>9}{:>9}{:>9}{:>9}{:>9}{:>7}{:>8}{:>8}  limit",
        "step", "conns", "deliv/s", "p50", "p90", "p99", "p99.9", "max", "cpu%", "us/dlv", "lost"
    ));
    lines.extend(report.steps.iter().map(row));
    if let Some(step) = report.steps.first() {
        lines.extend(memory(step));
        lines.extend(shards(step));
        lines.extend(step.growth.filter(|_| step.secs >= 60.0).map(grown));
        lines.extend(
            step.returns_secs.iter().map(|secs| format!("everyone back after {secs:.2} s")),
        );
    }
    if let Some(unfinished) = &report.unfinished {
        let Latency { count, p50, p90, p99, p999, max, .. } = unfinished.latency;
        lines.push(format!(
            "unfinished step: {count} deliveries, p50 {} p90 {} p99 {} p99.9 {} max {}",
            time(p50),
            time(p90),
            time(p99),
            time(p999),
            time(max)
        ));
        lines.extend(unfinished.growth.map(grown));
    }
    lines.push(format!(
        "connect p50 {} p99 {}; post slippage p99 {}; loadgen {} B a viewer, {} us a comment",
        time(report.connect.p50),
        time(report.connect.p99),
        time(report.steps.first().map_or(0.0, |step| step.loadgen.slippage_p99_secs)),
        report.loadgen_bytes_per_viewer.map_or("-".to_owned(), |bytes| format!("{bytes:.0}")),
        report.loadgen_us_per_delivery.map_or("-".to_owned(), |us| format!("{us:.2}")),
    ));
    if let Some(highest) = &report.highest {
        lines.push(format!(
            "highest rate that held: {:.0} deliveries/s ({:.2} comments/s an event); {}",
            highest.deliveries_per_sec, highest.rate, highest.stopped_by
        ));
    }
    let c = &report.counters;
    lines.push(format!(
        "whole run: {} deliveries, {} posts, {} acks, {} lost ({} announced by {} gaps), {} reordered, \
         {} duplicates, {} disagreements, {} protocol errors, {} checked whole",
        c.deliveries, c.posts, c.acks, c.lost, c.gap_comments, c.gaps, c.reordered, c.duplicates,
        c.disagreements, c.protocol_errors, c.checked
    ));
    let slow = c.deliveries_slow + c.gap_comments_slow + c.closed_slow;
    if slow > 0 {
        lines.push(format!(
            "slow viewers: {} deliveries, {} comments announced as gaps, {} ended by the server",
            c.deliveries_slow, c.gap_comments_slow, c.closed_slow
        ));
    }
    let troubles = [
        (c.connects_failed, "connects failed"),
        (c.upgrades_refused, "upgrades refused"),
        (c.gave_up, "viewers gave up"),
        (c.closed_unexpectedly, "closed unexpectedly"),
        (c.posts_refused, "posts refused"),
        (c.posts_unanswered, "posts unanswered"),
    ];
    if troubles.iter().any(|&(count, _)| count > 0) {
        let troubles = troubles.map(|(count, what)| format!("{count} {what}"));
        lines.push(format!("trouble: {}", troubles.join(", ")));
    }
    lines.extend(report.troubles.iter().map(|trouble| format!("  {trouble}")));
    for step in report.steps.iter().take(1) {
        let is_local = step.server.is_some();
        lines
            .extend(step.verdicts.iter().map(|v| judgement(v, is_local, &report.parameters.admin)));
    }
    for step in report.steps.iter().filter(|step| !step.is_sound) {
        lines.push(format!("BROKEN  what no load excuses, in step {}", step.label));
    }
    if let Some(aborted) = &report.aborted {
        lines.push(format!("ended early: {aborted}"));
    }
    lines.push(if report.passed { "PASS".to_owned() } else { "FAIL".to_owned() });
    lines.join("\n")
}

/// A level, whether it holds, and what was measured, or why nothing was.
fn judgement(verdict: &Verdict, is_local: bool, admin: &str) -> String {
    let word = if verdict.holds { "holds" } else { "BROKEN" };
    let measured = match (verdict.measured, unmeasured(&verdict.level, is_local, admin)) {
        (Some(value), _) => format!("measured {value:.3}"),
        (None, Some(reason)) => format!("not measured: {reason}"),
        (None, None) => "not measured".to_owned(),
    };
    format!("{word:<7} {} ({measured})", verdict.level)
}

/// Why `level` could not be measured; none when that is not known.
fn unmeasured(level: &str, is_local: bool, admin: &str) -> Option<&'static str> {
    let measure = level.split(['<', '>', '=']).next().unwrap_or(level).trim();
    let is_latency = measure == "max" || measure.starts_with('p');
    match measure {
        "logs" if admin.is_empty() => Some("it needs --admin"),
        "logs" => Some("the server's metrics do not say it"),
        "memory" | "growth" if !is_local => Some("no server process is known on this host"),
        "growth" => Some("the window is too short"),
        "cpu" if !is_local && admin.is_empty() => {
            Some("no server process is known on this host, and --admin is not given")
        }
        "cpu" if !is_local => Some("the server's metrics do not say it"),
        _ if is_latency => Some("nothing was delivered"),
        _ => None,
    }
}

fn grown(growth: Growth) -> String {
    format!(
        "server memory over the window: {:+.1} MiB fitted, {:+.1} MiB an hour",
        growth.bytes / 1_048_576.0,
        growth.bytes_per_hour / 1_048_576.0
    )
}

fn row(step: &Step) -> String {
    let Latency { p50, p90, p99, p999, max, .. } = step.latency;
    let server = step.server.as_ref();
    let cpu = server.map_or("-".to_owned(), |server| format!("{:.1}", server.cpu_percent));
    let each = server.and_then(|server| server.cpu_us_per_delivery);
    let each = each.map_or("-".to_owned(), |us| format!("{us:.2}"));
    format!(
        "{:<14}{:>8}{:>11.0}{:>9}{:>9}{:>9}{:>9}{:>9}{:>7}{:>8}{:>8}  {}",
        step.label,
        step.connections,
        step.deliveries_per_sec,
        time(p50),
        time(p90),
        time(p99),
        time(p999),
        time(max),
        cpu,
        each,
        step.counters.lost,
        step.limit
    )
}

fn shards(step: &Step) -> Option<String> {
    let shares: Vec<String> = step.shards_percent.iter().map(|p| format!("{p:.1} %")).collect();
    (!shares.is_empty())
        .then(|| format!("CPU of each shard, by its metrics: {}", shares.join(", ")))
}

fn memory(step: &Step) -> Option<String> {
    // Fewer connections than this drown in what else the host does.
    let server = step.server.as_ref().filter(|_| step.connections >= 1_000)?;
    if server.kernel_bytes_per_connection < 0.0 {
        return Some(
            "server memory: not measured, others' sockets came or went meanwhile".to_owned(),
        );
    }
    Some(format!(
        "server memory a connection: {:.0} B user + {:.0} B kernel = {:.0} B; whole process {:.1} MiB",
        server.user_bytes_per_connection,
        server.kernel_bytes_per_connection,
        server.user_bytes_per_connection + server.kernel_bytes_per_connection,
        server.pss_bytes as f64 / 1_048_576.0
    ))
}

/// Seconds in the unit that suits them.
pub(crate) fn time(secs: f64) -> String {
    if secs >= 10.0 {
        format!("{secs:.1}s")
    } else if secs >= 1.0 {
        format!("{secs:.2}s")
    } else if secs >= 0.001 {
        format!("{:.1}ms", secs * 1e3)
    } else {
        format!("{:.0}us", secs * 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_suits_them() {
        assert_eq!([0.0000051, 0.0123, 1.234, 61.0].map(time), ["5us", "12.3ms", "1.23s", "61.0s"]);
    }

    #[test]
    fn what_was_not_measured_says_why() {
        let verdict = |level: &str, measured| Verdict {
            level: level.to_owned(),
            measured,
            holds: measured.is_some(),
        };
        let text = |level, measured, is_local, admin| {
            judgement(&verdict(level, measured), is_local, admin)
        };
        assert_eq!(text("p99<1s", Some(0.5), true, ""), "holds   p99<1s (measured 0.500)");
        let lacks = |level, is_local, admin| text(level, None, is_local, admin);
        assert_eq!(
            lacks("logs>=95%", true, ""),
            "BROKEN  logs>=95% (not measured: it needs --admin)"
        );
        assert!(lacks("memory <= 8KB", false, "h:1").contains("no server process"));
        assert!(lacks("growth<=1MB", true, "").contains("too short"));
        assert!(lacks("cpu<70%", false, "h:1").contains("metrics do not say"));
        assert!(lacks("p99.9<1s", true, "").contains("nothing was delivered"));
        assert_eq!(lacks("errors=0", true, ""), "BROKEN  errors=0 (not measured)");
    }
}
