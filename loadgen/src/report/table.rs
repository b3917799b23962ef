//! The summary a person reads when a run ends.

use super::{Latency, Outcome, Report, Spread, Step};
use crate::growth::Growth;
use crate::slo::{Standing, Verdict, bytes};

/// The whole summary.
pub(crate) fn summary(report: &Report) -> String {
    let machine = &report.machine;
    let mut lines = vec![
        format!(
            "{}: {} viewers, {} events, {} B comments, {}",
            report.scenario,
            report.parameters.viewers,
            report.parameters.events,
            report.parameters.comment_bytes,
            machine.cpu
        ),
        format!(
            "{}; server on {}, load generator on {}",
            machine.network,
            cpus(Some(&machine.server_cpus)),
            cpus(machine.loadgen_cpus.as_deref())
        ),
    ];
    lines.push(format!(
        "{:<11}{:>7}{:>10}{:>9}{:>8}{:>8}{:>8}{:>8}{:>8}{:>7}{:>9}{:>8}{:>6}  limit",
        "step",
        "conns",
        "offered/s",
        "deliv/s",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "cpu%",
        "us/dlv",
        "client%",
        "lost"
    ));
    lines.extend(report.steps.iter().map(row));
    lines.extend(spread(&report.spread));
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
            "highest rate that held: {:.0} deliveries/s of {:.0} offered ({:.2} comments/s an event); {}",
            highest.deliveries_per_sec, highest.offered_per_sec, highest.rate, highest.stopped_by
        ));
    }
    lines.extend(counted(report));
    for step in
        report.steps.iter().filter(|step| step.rate == report.parameters.rate && !step.is_repeated)
    {
        lines.extend(step.verdicts.iter().map(|verdict| judgement(&step.label, verdict)));
    }
    for step in &report.steps {
        lines.extend(other_than_levels(step));
    }
    if let Some(aborted) = &report.aborted {
        lines.push(format!("ended early: {aborted}"));
    }
    if report.outcome == Outcome::Unmeasured {
        lines.push(
            "nothing failed, but what is marked is neither held nor broken: see \"limit\" and \"not measured\""
                .to_owned(),
        );
    }
    lines.push(report.outcome.word().to_owned());
    lines.join("\n")
}

/// Totals of the whole run, and what went wrong in it.
fn counted(report: &Report) -> Vec<String> {
    let c = &report.counters;
    let mut lines = vec![format!(
        "whole run: {} deliveries, {} posts, {} acks, {} lost ({} announced by {} gaps), {} reordered, \
         {} duplicates, {} appended twice, {} not ours, {} disagreements, {} protocol errors, {} checked whole",
        c.deliveries,
        c.posts,
        c.acks,
        c.lost,
        c.gap_comments,
        c.gaps,
        c.reordered,
        c.duplicates,
        c.appended_twice,
        c.deliveries_foreign,
        c.disagreements,
        c.protocol_errors,
        c.checked
    )];
    if c.posts_deferred > 0 {
        lines.push(format!(
            "{} posts were due while their publisher was away by plan; they left when it was back, and count from when they were due",
            c.posts_deferred
        ));
    }
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
        (c.posts_unseen, "posts acknowledged but not delivered"),
        (c.acks_stray, "acks of no post that waits for one"),
        (c.posts_skipped, "posts skipped"),
    ];
    if troubles.iter().any(|&(count, _)| count > 0) {
        let troubles = troubles.map(|(count, what)| format!("{count} {what}"));
        lines.push(format!("trouble: {}", troubles.join(", ")));
    }
    lines.extend(report.troubles.iter().map(|trouble| format!("  {trouble}")));
    lines
}

/// A level, what it came to, and what was measured, or why nothing was.
fn judgement(label: &str, verdict: &Verdict) -> String {
    let Verdict { level, standing, shown, .. } = verdict;
    match standing {
        Standing::Holds => format!("holds         {label:<10} {level} (measured {shown})"),
        Standing::Broken => format!("BROKEN        {label:<10} {level} (measured {shown})"),
        Standing::Unmeasured => format!("not measured  {label:<10} {level} ({shown})"),
    }
}

/// What a step's levels do not say of it.
fn other_than_levels(step: &Step) -> Option<String> {
    if !step.is_sound {
        return Some(format!("BROKEN        {:<10} what no load excuses", step.label));
    }
    let is_broken = |verdict: &Verdict| verdict.standing == Standing::Broken;
    match step.standing {
        Standing::Broken if !step.verdicts.iter().any(is_broken) => Some(format!(
            "BROKEN        {:<10} something was lost, refused, unanswered, skipped or closed, or not everyone is there",
            step.label
        )),
        Standing::Unmeasured if step.is_repeated => {
            Some(format!("tried again   {:<10} {}", step.label, step.limit))
        }
        Standing::Unmeasured if step.is_distorted => {
            Some(format!("not measured  {:<10} {}", step.label, step.limit))
        }
        Standing::Holds | Standing::Broken | Standing::Unmeasured => None,
    }
}

fn spread(spread: &[Spread]) -> Option<String> {
    let figures: Vec<String> = spread
        .iter()
        .map(|s| format!("{} {} ({} to {})", s.name, short(s.median), short(s.min), short(s.max)))
        .collect();
    (!figures.is_empty()).then(|| {
        format!("median of the first rate's steps (and their spread): {}", figures.join("; "))
    })
}

/// A figure with as many digits as say something.
fn short(value: f64) -> String {
    if value.abs() >= 1_000.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

fn cpus(cpus: Option<&[usize]>) -> String {
    match cpus {
        None => "its workers".to_owned(),
        Some([]) => "an unknown CPU".to_owned(),
        Some(cpus) => {
            let list: Vec<String> = cpus.iter().map(usize::to_string).collect();
            format!("CPU {}", list.join(","))
        }
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
        "{:<11}{:>7}{:>10.0}{:>9.0}{:>8}{:>8}{:>8}{:>8}{:>8}{:>7}{:>9}{:>8.1}{:>6}  {}",
        step.label,
        step.connections,
        step.offered_per_sec,
        step.deliveries_per_sec,
        time(p50),
        time(p90),
        time(p99),
        time(p999),
        time(max),
        cpu,
        each,
        step.loadgen.gone_percent(),
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
    let server = step.server.as_ref()?;
    let each = match &step.memory {
        Ok(each) => each,
        Err(why) => return Some(format!("server memory a connection: not measured: {why}")),
    };
    let (least, most) = step.memory_range.unwrap_or((*each, *each));
    let part = |part: Option<f64>| part.map_or("?".to_owned(), |part| format!("{part:.0}"));
    Some(format!(
        "server memory a connection: {each:.0} B (looks {least:.0} to {most:.0}; at the end {} user + {} kernel); \
         whole process {}",
        part(server.user_bytes_per_connection),
        part(server.kernel_bytes_per_connection),
        server.pss_bytes.map_or("?".to_owned(), |pss| bytes(pss as f64))
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
    fn every_level_says_what_it_came_to() {
        let text = |standing, shown: &str| {
            let level = "growth<=16MB".to_owned();
            judgement(
                "steady",
                &Verdict { level, measured: None, standing, shown: shown.to_owned() },
            )
        };
        assert_eq!(
            text(Standing::Holds, "5.6MB"),
            "holds         steady     growth<=16MB (measured 5.6MB)"
        );
        assert_eq!(
            text(Standing::Broken, "17.0MB"),
            "BROKEN        steady     growth<=16MB (measured 17.0MB)"
        );
        assert_eq!(
            text(Standing::Unmeasured, "too short"),
            "not measured  steady     growth<=16MB (too short)"
        );
    }

    #[test]
    fn a_spread_is_a_line() {
        assert_eq!(spread(&[]), None);
        let of = |name: &str, min, median, max| Spread { name: name.to_owned(), min, median, max };
        let line =
            spread(&[of("server CPU, %", 24.04, 24.51, 25.0), of("B", 6_080.0, 6_083.4, 6_090.0)]);
        assert!(
            line.unwrap().ends_with("server CPU, % 24.5 (24.0 to 25.0); B 6083 (6080 to 6090)")
        );
    }
}
