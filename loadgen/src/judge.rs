//! What a step's measurements amount to; no clock, file or process in here, so that tests inject them.
//!
//! Three questions, in this order. Was anything lost, doubled, changed or refused? That is judged whatever the
//! load generator's state. Was the window the server's own, or was the client at its limit, others on the CPUs,
//! or nothing delivered? Then every level of latency, rate, CPU and memory is *not measured*, neither
//! held nor broken. And at last: do the levels hold?

use hdrhistogram::Histogram;

use crate::memory;
use crate::report::{LoadgenUse, ServerUse};
use crate::slo::{Level, Measured, Reading, Standing, Verdict};
use crate::tally::Counters;

/// Beyond this share of its CPU a thread counts as saturated, and a CPU beyond this share of its time, in percent.
pub(crate) const SATURATED_PERCENT: f64 = 90.0;
/// A thread that was ready this long and had no CPU was not measured alone, in percent.
pub(crate) const STARVED_PERCENT: f64 = 10.0;
/// A server whose CPUs others and the host's other guests use this much was not measured alone, in percent.
const DISTURBED_PERCENT: f64 = 10.0;
/// Posts later than this (99th percentile) mean that the load generator was, in seconds.
const SLIPPAGE_MAX_SECS: f64 = 0.05;
/// Less than this share of the comments that the rate asks for is another rate, in percent.
const POSTED_PERCENT_MIN: f64 = 99.0;
/// A server's process with less CPU time for a delivery than any system call takes is another one, in microseconds.
const CPU_US_MIN: f64 = 0.05;
/// From so many deliveries on that is beyond doubt.
const DELIVERIES_MIN: f64 = 10_000.0;

/// A window's measurements.
#[derive(Clone, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) latency: &'a Histogram<u64>,
    pub(crate) counters: &'a Counters,
    /// Comments that had not come when the step's drain was over; a part of those lost.
    pub(crate) missing: u64,
    /// Comments in the run's own events that it did not post.
    pub(crate) foreign: u64,
    pub(crate) connections: u64,
    pub(crate) viewers: u64,
    /// Slow viewers that the server has ended, as it may.
    pub(crate) closed_slow: u64,
    /// Posts that the window should have and had.
    pub(crate) posts_stated: f64,
    pub(crate) posts: u64,
    /// Posts more or less that chance and the window's edges make.
    pub(crate) posts_noise: f64,
    /// Deliveries to all, whenever they were due.
    pub(crate) deliveries: f64,
    pub(crate) loadgen: &'a LoadgenUse,
    pub(crate) server: Option<&'a ServerUse>,
    /// CPU of each shard by the server's metrics, in percent of one.
    pub(crate) shards_percent: &'a [f64],
    /// Why its CPU says nothing here, if so.
    pub(crate) cpu_distorted: Option<&'a str>,
    pub(crate) memory: &'a memory::Facts,
    /// Bytes a connection, look by look, and what a line through all looks rose by.
    pub(crate) memory_looks: &'a [f64],
    pub(crate) growth_bytes: Option<f64>,
    pub(crate) logs_percent: Reading,
}

/// What they amount to.
#[derive(Clone, Debug)]
pub(crate) struct Judgement {
    pub(crate) verdicts: Vec<Verdict>,
    /// Who was at the limit, in words.
    pub(crate) limit: String,
    /// Whether that makes the levels unmeasured, so that another try could help.
    pub(crate) is_distorted: bool,
    pub(crate) is_client_limited: bool,
    pub(crate) standing: Standing,
    /// Nothing that no load excuses: lost unannounced, twice, out of order, changed.
    pub(crate) is_sound: bool,
    pub(crate) memory_bytes: Reading,
}

impl Facts<'_> {
    /// Judges the window by `levels`.
    pub(crate) fn judge(&self, levels: &[Level]) -> Judgement {
        let client = self.client_limit();
        let disturbance = self.disturbance();
        let nothing = self.nothing_measured();
        let distorted = client.as_ref().or(disturbance.as_ref()).or(nothing.as_ref());
        let memory_bytes = self.memory.each(self.memory_looks);
        let measured = Measured {
            latency: self.latency,
            counters: self.counters,
            connections: self.connections,
            cpu_percent: self.cpu(),
            memory_bytes: memory_bytes.clone(),
            growth_bytes: self.memory.growth(self.growth_bytes),
            logs_percent: self.logs_percent.clone(),
            rate_percent: Ok(self.posted_percent()),
            distorted: distorted.map(String::as_str),
        };
        let verdicts: Vec<Verdict> = levels.iter().map(|level| level.judge(&measured)).collect();
        let levels =
            verdicts.iter().fold(Standing::Holds, |all, verdict| all.and(verdict.standing));
        let clean = if self.is_clean() { Standing::Holds } else { Standing::Broken };
        let window = if distorted.is_none() { Standing::Holds } else { Standing::Unmeasured };
        let limit = match distorted {
            Some(reason) => reason.clone(),
            None if self.is_server_saturated() => "server saturated".to_owned(),
            None if self.server.is_none() && self.shards_percent.is_empty() => {
                "server not measured".to_owned()
            }
            None => "nobody saturated".to_owned(),
        };
        Judgement {
            verdicts,
            limit,
            is_distorted: distorted.is_some(),
            is_client_limited: client.is_some(),
            standing: clean.and(window).and(levels),
            is_sound: self.is_sound(),
            memory_bytes,
        }
    }

    fn is_clean(&self) -> bool {
        let c = self.counters;
        let wrong = [
            c.lost,
            c.duplicates,
            c.appended_twice,
            c.reordered,
            c.disagreements,
            c.protocol_errors,
            c.closed_unexpectedly,
            c.resumes_incomplete,
            c.posts_refused,
            c.posts_unanswered,
            c.posts_unseen,
            c.acks_stray,
            self.foreign,
            c.posts_skipped,
        ];
        wrong.iter().all(|&count| count == 0) && self.connections + self.closed_slow >= self.viewers
    }

    fn is_sound(&self) -> bool {
        let c = self.counters;
        // Late, and announced, is not among what no load excuses.
        let unannounced = c.lost.saturating_sub(c.gap_comments + self.missing);
        let wrong = [
            unannounced,
            c.posts_unseen.saturating_sub(c.gap_comments + self.missing),
            c.acks_stray,
            self.foreign,
            c.duplicates,
            c.appended_twice,
            c.reordered,
            c.disagreements,
            c.protocol_errors,
        ];
        wrong.iter().all(|&count| count == 0)
    }

    /// How much of what the rate asks for was posted, in percent. What a window's edges and chance take is not missed.
    fn posted_percent(&self) -> f64 {
        if self.posts_stated <= 0.0 {
            return 100.0;
        }
        let posts = self.posts as f64;
        let is_all = posts > 0.0 && (posts - self.posts_stated).abs() <= self.posts_noise;
        if is_all { 100.0 } else { posts / self.posts_stated * 100.0 }
    }

    /// Why the load generator was the limit, if it was.
    fn client_limit(&self) -> Option<String> {
        let LoadgenUse {
            busiest_percent, cpu, cpu_percent, stolen_percent, starved_percent, ..
        } = *self.loadgen;
        let late_secs = self.loadgen.slippage_p99_secs;
        let posted = self.posted_percent();
        let reason = if busiest_percent >= SATURATED_PERCENT {
            format!("a thread used {busiest_percent:.0} % of its CPU")
        } else if cpu_percent + stolen_percent >= SATURATED_PERCENT {
            format!(
                "CPU {cpu} was {:.0} % gone: the thread {busiest_percent:.0}, softirqs and others {:.0}, stolen \
                 by the host {stolen_percent:.0}",
                cpu_percent + stolen_percent,
                (cpu_percent - busiest_percent).max(0.0)
            )
        } else if starved_percent >= STARVED_PERCENT {
            format!("a thread waited {starved_percent:.0} % of the time for its CPU")
        } else if late_secs > SLIPPAGE_MAX_SECS {
            format!("posts left {:.0} ms late", late_secs * 1e3)
        } else if posted < POSTED_PERCENT_MIN {
            format!("{posted:.1} % of the comments that the rate asks for were posted")
        } else {
            return None;
        };
        Some(format!("client-limited: {reason}"))
    }

    /// Who else used what the server needed, if someone did.
    fn disturbance(&self) -> Option<String> {
        let server = self.server?;
        let others = server.others_percent + server.stolen_percent;
        if server.is_pinned && others >= DISTURBED_PERCENT {
            let most = server.others_name.as_ref().map(|name| format!(", most of it {name}"));
            return Some(format!(
                "disturbed: others took {:.0} % of the server's CPUs{}, the host {:.0} %",
                server.others_percent,
                most.unwrap_or_default(),
                server.stolen_percent
            ));
        }
        // A server that may run anywhere is not harmed by what others do where it is not.
        let is_starved = !server.is_pinned
            && server.starved_percent >= STARVED_PERCENT
            && server.own_percent < SATURATED_PERCENT;
        is_starved.then(|| {
            format!(
                "disturbed: a thread of the server waited {:.0} % of the time for a CPU that others had",
                server.starved_percent
            )
        })
    }

    fn nothing_measured(&self) -> Option<String> {
        if self.posts_stated > 0.0 && self.latency.is_empty() {
            return Some(
                "nothing measured: nothing that was due in the window was delivered".to_owned(),
            );
        }
        let is_silent =
            self.posts_stated <= 0.0 && self.server.is_none() && self.shards_percent.is_empty();
        is_silent.then(|| {
            "nothing measured: nobody posts, and the server is known by neither process nor metrics; see \
             --server-pid and --admin"
                .to_owned()
        })
    }

    /// The server's CPU, of its process or else by what it says of itself.
    fn cpu(&self) -> Reading {
        if let Some(reason) = self.cpu_distorted {
            return Err(reason.to_owned());
        }
        let Some(server) = self.server else {
            let shards = self.shards_percent;
            if shards.is_empty() {
                return Err(
                    "no server process is known on this host, and its metrics do not say it; see \
                            --server-pid and --admin"
                        .to_owned(),
                );
            }
            return Ok(shards.iter().sum::<f64>() / shards.len() as f64);
        };
        let is_idle = server.cpu_us_per_delivery.is_some_and(|us| us < CPU_US_MIN);
        if is_idle && self.deliveries > DELIVERIES_MIN {
            return Err(format!(
                "process {} used almost no CPU, so another one serves; see --server-pid and --server-children",
                server.pid
            ));
        }
        Ok(server.cpu_percent)
    }

    fn is_server_saturated(&self) -> bool {
        let of_process = self.server.is_some_and(|server| {
            server.cpu_percent >= SATURATED_PERCENT
                || server.busiest_thread_percent >= SATURATED_PERCENT
        });
        of_process || self.shards_percent.iter().any(|&percent| percent >= SATURATED_PERCENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::latency_histogram;

    /// A window in which nothing is wrong; tests change one thing each.
    #[derive(Clone)]
    struct Window {
        latency: Histogram<u64>,
        counters: Counters,
        loadgen: LoadgenUse,
        server: Option<ServerUse>,
        shards_percent: Vec<f64>,
        memory: memory::Facts,
        posts: u64,
        posts_stated: f64,
        connections: u64,
        cpu_distorted: Option<&'static str>,
    }

    impl Window {
        fn good() -> Self {
            let mut latency = latency_histogram();
            latency.record_n(20_000, 1_000_000).unwrap();
            Self {
                latency,
                counters: Counters { posts: 20_000, acks: 20_000, ..Counters::default() },
                loadgen: LoadgenUse {
                    busiest_percent: 55.0,
                    cpu_percent: 70.0,
                    ..LoadgenUse::default()
                },
                server: Some(ServerUse {
                    pid: 7,
                    is_pinned: true,
                    cpu_percent: 24.5,
                    own_percent: 22.0,
                    cpu_us_per_delivery: Some(4.4),
                    ..ServerUse::default()
                }),
                shards_percent: vec![24.0],
                memory: memory::Facts {
                    is_local: true,
                    has_user: true,
                    has_kernel: true,
                    connections: 50_000,
                    ends: 2,
                    is_calibrated: true,
                    sockets_grown: 100_000.0,
                },
                posts: 20_000,
                posts_stated: 20_000.0,
                connections: 50_000,
                cpu_distorted: None,
            }
        }

        fn judge(&self, levels: &str) -> Judgement {
            let facts = Facts {
                latency: &self.latency,
                counters: &self.counters,
                missing: 0,
                foreign: 0,
                connections: self.connections,
                viewers: 50_000,
                closed_slow: 0,
                posts_stated: self.posts_stated,
                posts: self.posts,
                posts_noise: 250.0,
                deliveries: 1_000_000.0,
                loadgen: &self.loadgen,
                server: self.server.as_ref(),
                shards_percent: &self.shards_percent,
                cpu_distorted: self.cpu_distorted,
                memory: &self.memory,
                memory_looks: &[6_083.0; 5],
                growth_bytes: Some(0.0),
                logs_percent: Ok(99.9),
            };
            facts.judge(&crate::slo::parse(levels).unwrap())
        }
    }

    const LEVELS: &str = "connections>=50000,logs>=95%,memory<=8KB,cpu<=70%,p99<250ms,loss=0";

    /// The window after `change`, judged.
    fn judged(change: impl FnOnce(&mut Window)) -> Judgement {
        let mut window = Window::good();
        change(&mut window);
        window.judge(LEVELS)
    }

    #[test]
    fn a_quiet_window_holds() {
        let judgement = Window::good().judge(LEVELS);
        assert_eq!(
            (judgement.standing, judgement.limit.as_str()),
            (Standing::Holds, "nobody saturated")
        );
        assert!(judgement.is_sound && judgement.memory_bytes == Ok(6_083.0));
    }

    #[test]
    fn a_client_at_its_limit_measures_nothing_wherever_the_limit_shows() {
        type Change = fn(&mut Window);
        let changes: [(&str, Change); 6] = [
            ("a thread used 95 %", |w| w.loadgen.busiest_percent = 95.0),
            ("softirqs and others 38", |w| w.loadgen.cpu_percent = 93.0),
            ("stolen by the host 25", |w| w.loadgen.stolen_percent = 25.0),
            ("a thread waited 12 %", |w| w.loadgen.starved_percent = 12.0),
            ("posts left 80 ms late", |w| w.loadgen.slippage_p99_secs = 0.08),
            ("50.0 % of the comments", |w| w.posts = 10_000),
        ];
        for (reason, change) in changes {
            let judgement = judged(change);
            assert_eq!(judgement.standing, Standing::Unmeasured, "{reason}");
            assert!(
                judgement.is_client_limited && judgement.limit.contains(reason),
                "{}",
                judgement.limit
            );
            let unmeasured: Vec<&str> = judgement
                .verdicts
                .iter()
                .filter(|verdict| verdict.standing == Standing::Unmeasured)
                .map(|verdict| verdict.level.as_str())
                .collect();
            assert_eq!(unmeasured, ["memory<=8KB", "cpu<=70%", "p99<250ms"]);
        }
    }

    #[test]
    fn loss_order_doubles_and_refusals_are_judged_all_the_same() {
        let faults: [fn(&mut Counters); 8] = [
            |c| c.lost = 1,
            |c| c.duplicates = 1,
            |c| c.appended_twice = 1,
            |c| c.reordered = 1,
            |c| c.disagreements = 1,
            |c| c.posts_refused = 1,
            |c| c.posts_unanswered = 1,
            |c| c.posts_skipped = 1,
        ];
        for (at, fault) in faults.into_iter().enumerate() {
            let judgement = judged(|w| {
                w.loadgen.busiest_percent = 99.0;
                fault(&mut w.counters);
            });
            assert_eq!(judgement.standing, Standing::Broken, "fault {at}");
            assert_eq!(judgement.is_sound, at > 4, "fault {at}");
        }
        assert_eq!(judged(|w| w.connections = 49_999).standing, Standing::Broken);
    }

    #[test]
    fn others_on_the_servers_cpus_disturb() {
        type Change = fn(&mut ServerUse);
        let changes: [(Change, bool); 5] = [
            (|s| s.others_percent = 12.0, true),
            (|s| s.stolen_percent = 11.0, true),
            (|s| s.others_percent = 9.0, false),
            (|s| (s.is_pinned, s.others_percent) = (false, 60.0), false),
            (|s| (s.is_pinned, s.starved_percent) = (false, 15.0), true),
        ];
        for (at, (change, is_disturbed)) in changes.into_iter().enumerate() {
            let judgement = judged(|w| change(w.server.as_mut().unwrap()));
            assert_eq!(judgement.limit.starts_with("disturbed: "), is_disturbed, "change {at}");
            assert_eq!(judgement.standing == Standing::Unmeasured, is_disturbed, "change {at}");
            assert!(!judgement.is_client_limited && judgement.is_distorted == is_disturbed);
        }
    }

    #[test]
    fn a_window_without_deliveries_measured_nothing() {
        let judgement = judged(|w| w.latency.reset());
        assert_eq!(judgement.standing, Standing::Unmeasured);
        assert!(judgement.limit.starts_with("nothing measured"), "{}", judgement.limit);
        let silent = judged(|w| {
            w.latency.reset();
            (w.posts, w.posts_stated) = (0, 0.0);
        });
        assert!(silent.limit == "nobody saturated", "silence is measured by memory and CPU");
        let unknown = judged(|w| {
            w.latency.reset();
            (w.posts, w.posts_stated) = (0, 0.0);
            (w.server, w.shards_percent) = (None, Vec::new());
        });
        assert!(unknown.limit.starts_with("nothing measured"), "{}", unknown.limit);
    }

    #[test]
    fn a_peer_on_four_cpus_is_saturated_by_one_thread_or_by_all_of_them() {
        let limit = |change: fn(&mut ServerUse)| {
            judged(|w| {
                w.shards_percent.clear();
                change(w.server.as_mut().unwrap());
            })
            .limit
        };
        assert_eq!(limit(|s| s.cpu_percent = 45.0), "nobody saturated");
        assert_eq!(limit(|s| s.busiest_thread_percent = 97.0), "server saturated");
        assert_eq!(limit(|s| s.cpu_percent = 91.0), "server saturated");
    }

    #[test]
    fn a_process_that_does_nothing_is_not_the_server() {
        let judgement = judged(|w| w.server.as_mut().unwrap().cpu_us_per_delivery = Some(0.001));
        let cpu = judgement.verdicts.iter().find(|verdict| verdict.level == "cpu<=70%").unwrap();
        assert!(cpu.shown.contains("process 7 used almost no CPU"), "{}", cpu.shown);
        assert_eq!(judgement.standing, Standing::Unmeasured);
    }

    #[test]
    fn what_loopback_distorts_is_not_measured_there() {
        let judgement = judged(|w| w.cpu_distorted = Some("on loopback"));
        let standing = |level: &str| {
            judgement.verdicts.iter().find(|verdict| verdict.level == level).unwrap().standing
        };
        assert_eq!(standing("cpu<=70%"), Standing::Unmeasured);
        assert_eq!(
            (standing("memory<=8KB"), standing("loss=0")),
            (Standing::Holds, Standing::Holds)
        );
        assert!(judgement.standing == Standing::Unmeasured && !judgement.is_distorted);
    }

    #[test]
    fn memory_beside_others_sockets_is_not_measured() {
        let judgement = judged(|w| w.memory.sockets_grown = 103_000.0);
        assert!(judgement.memory_bytes.is_err());
        assert_eq!(judgement.standing, Standing::Unmeasured);
        let unprivileged = judged(|w| w.memory.has_kernel = false);
        assert!(unprivileged.memory_bytes.unwrap_err().contains("only root"));
    }
}
