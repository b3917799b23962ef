//! The course of a run: connect, fill, steps of posting, drains; watching both sides all along.
//!
//! A step posts at one rate for a measured window, then stops and waits until every viewer has
//! everything (or the drain time is over), so each step is judged on its own. One that says nothing about
//! the server, because the client was at its limit or others were on the CPUs, is tried again. Rising
//! rates are steps until a service level breaks, or until the load generator would be the limit.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::clock::now_ns;
use crate::command::{Command, Leave};
use crate::crew::{Crew, Silent};
use crate::judge::{Facts, STARVED_PERCENT};
use crate::observer::{self, Observer, Snapshot};
use crate::probe::metrics;
use crate::report::{Highest, Latency, Sample, Step};
use crate::scenario::{Parameters, Scenario, Speak};
use crate::schedule::Arrivals;
use crate::slo::{Level, Standing};
use crate::tally::{Counters, Tally, Window};

/// How often the planes are asked for their numbers.
const LOOK: Duration = Duration::from_millis(250);
/// A window begins this long after it is announced, so that every plane knows of it.
const LEAD_NS: u64 = 100_000_000;
/// After this long not everyone comes back any more.
const RETURN_SECS_MAX: f64 = 60.0;
/// The knee is found when the rate that broke is at most this much above the one that held.
const KNEE_PRECISION: f64 = 1.1;
/// A rising rate stays below what would use this share of a load generator's CPU, in percent: beyond it the step
/// would be the client's.
const CLIENT_PERCENT_MAX: f64 = 85.0;
/// And below what would let one of its threads wait this share of the time.
const WAIT_PERCENT_MAX: f64 = STARVED_PERCENT * 0.95;

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Abort {
    #[error(transparent)]
    Silent(#[from] Silent),
    #[error("the server process has ended")]
    ServerGone,
    #[error("interrupted")]
    Interrupted,
    #[error("only {live} of {wanted} viewers could connect: {why}")]
    NotConnected { live: u64, wanted: u64, why: String },
    #[error(
        "the server does not answer posts: {done} of {wanted} acknowledged while filling the logs"
    )]
    NotFilled { done: u64, wanted: u64 },
}

impl Abort {
    /// Whether nothing was measured, because the run could not begin.
    pub(crate) fn is_before_the_run(&self) -> bool {
        matches!(self, Self::NotConnected { .. } | Self::NotFilled { .. })
    }
}

/// What a run has measured so far.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) steps: Vec<Step>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) histograms: Vec<(String, Histogram<u64>)>,
    pub(crate) highest: Option<Highest>,
    pub(crate) last: Option<Tally>,
}

/// Runs one scenario.
#[derive(Debug)]
pub(crate) struct Conductor<'a> {
    pub(crate) scenario: Scenario,
    pub(crate) parameters: &'a Parameters,
    pub(crate) levels: &'a [Level],
    pub(crate) crew: &'a Crew,
    pub(crate) observer: &'a mut Observer,
    /// Why the server's CPU says nothing here, if so.
    pub(crate) cpu_distorted: Option<&'a str>,
    /// Whether nobody else knows the names of the events, so that every comment in them must be this run's.
    pub(crate) are_events_own: bool,
    pub(crate) findings: &'a mut Findings,
}

impl Conductor<'_> {
    /// The whole course.
    pub(crate) fn run(&mut self) -> Result<(), Abort> {
        let parameters = self.parameters;
        if parameters.fill_per_event > 0 {
            self.connect(false)?;
            self.fill()?;
        }
        self.connect(true)?;
        let mut standing = Standing::Holds;
        for _ in 0..parameters.repeats {
            let step = self.step_or_again("steady", parameters.rate, parameters.duration_secs)?;
            standing = standing.and(step);
            if standing == Standing::Broken {
                return Ok(());
            }
        }
        if parameters.step_secs > 0.0 && standing == Standing::Holds {
            self.rise()?;
        }
        Ok(())
    }

    fn connect(&mut self, everyone: bool) -> Result<(), Abort> {
        let p = self.parameters;
        let wanted = match everyone {
            true => u64::from(p.viewers),
            // With few viewers an event may have less than its share.
            false => crate::audience::Audience::new(p).publishers.len() as u64,
        };
        self.crew.tell(&Command::Connect { everyone });
        let secs = f64::from(p.viewers) / f64::from(p.connects_per_sec) * 3.0 + 30.0;
        let given_up = self.findings.last.as_ref().map_or(0, |tally| tally.counters.gave_up);
        let is_settled = |tally: &Tally| tally.live + tally.counters.gave_up - given_up >= wanted;
        let tally = self.watch("connect", secs, is_settled)?;
        if tally.live < wanted {
            let told = self.crew.judge()?;
            let mut reasons = tally.troubles;
            reasons.truncate(2);
            reasons.extend(told.underway.explain());
            let why = match reasons.is_empty() {
                true => {
                    format!("the pace of {} connects a second ran out of time", p.connects_per_sec)
                }
                false => reasons.join("; "),
            };
            return Err(Abort::NotConnected { live: tally.live, wanted, why });
        }
        Ok(())
    }

    fn fill(&mut self) -> Result<(), Abort> {
        let p = self.parameters;
        let from_ns = now_ns() + LEAD_NS;
        self.crew.tell(&Command::Rate { per_event: p.fill_rate, from_ns });
        let wanted = u64::from(p.fill_per_event) * u64::from(p.events);
        let secs = f64::from(p.fill_per_event) / p.fill_rate * 2.0 + 10.0;
        self.watch("fill", secs, |tally| tally.counters.posts >= wanted)?;
        self.crew.tell(&Command::Rate { per_event: 0.0, from_ns });
        let tally = self.drain()?;
        let done = match p.speak {
            // A generic server acknowledges by delivering.
            Speak::Generic => tally.counters.posts - tally.behind.min(tally.counters.posts),
            Speak::Json | Speak::Rkyv => tally.counters.acks,
        };
        if done < wanted {
            return Err(Abort::NotFilled { done, wanted });
        }
        Ok(())
    }

    /// Steps of rising rate until a level breaks, then between the last that held and the first
    /// that did not, until those are close; the first step has been made and held.
    fn rise(&mut self) -> Result<(), Abort> {
        let p = self.parameters;
        let mut held = p.rate;
        let mut broke: Option<f64> = None;
        let mut best = self.findings.steps.len() - 1;
        let mut stopped_by = format!("all {} steps held", p.steps_max);
        for _ in 0..p.steps_max {
            let mut rate = match broke {
                None => held * p.step_factor,
                Some(broke) if broke / held <= KNEE_PRECISION => break,
                Some(broke) => (held * broke).sqrt(),
            };
            let client_max = held * self.client_room(best);
            if rate > client_max {
                if client_max / held <= KNEE_PRECISION {
                    stopped_by = match broke {
                        Some(_) => stopped_by,
                        None => "beyond it the load generator would be the limit; the server may hold more".to_owned(),
                    };
                    break;
                }
                rate = client_max;
            }
            let label = format!("x{:.2}", rate / p.rate);
            match self.step_or_again(&label, rate, p.step_secs)? {
                Standing::Holds => {
                    held = rate;
                    best = self.findings.steps.len() - 1;
                    continue;
                }
                Standing::Unmeasured => {
                    let limit = self.findings.steps.last().map_or("", |step| step.limit.as_str());
                    stopped_by = format!("{rate:.2} comments/s an event was not measured: {limit}");
                    break;
                }
                Standing::Broken => {}
            }
            let step = self.findings.steps.last().expect("a step was just made");
            let broken = step.verdicts.iter().find(|v| v.standing == Standing::Broken);
            let broken = match broken {
                Some(verdict) => verdict.level.as_str(),
                None if step.counters.posts_refused > 0 => "the server's limit of posts",
                None if step.counters.posts_unanswered > 0 => "the answer of posts",
                None if step.counters.acks_stray > 0 => "the acks of posts",
                None => "loss",
            };
            stopped_by = format!("{broken} broke at {rate:.2} comments/s an event");
            if step.is_client_limited {
                stopped_by += "; client-limited, so the server may hold more";
            }
            broke = Some(rate);
        }
        let Step { rate, offered_per_sec, deliveries_per_sec, .. } = self.findings.steps[best];
        self.findings.highest =
            Some(Highest { rate, offered_per_sec, deliveries_per_sec, stopped_by });
        Ok(())
    }

    /// By how much the rate of step `at` may rise before the load generator is the limit.
    fn client_room(&self, at: usize) -> f64 {
        room(&self.findings.steps[at].loadgen)
    }

    /// A step, and the same again while it says nothing about the server and tries are left.
    fn step_or_again(&mut self, name: &str, rate: f64, secs: f64) -> Result<Standing, Abort> {
        for tries_left in (0..self.parameters.tries).rev() {
            let is_name =
                |step: &&Step| step.label == name || step.label.starts_with(&format!("{name}."));
            let label = match self.findings.steps.iter().filter(is_name).count() {
                0 => name.to_owned(),
                before => format!("{name}.{}", before + 1),
            };
            let standing = self.step(label, rate, secs)?;
            let step = self.findings.steps.last_mut().expect("a step was just made");
            if standing != Standing::Unmeasured || !step.is_distorted || tries_left == 0 {
                return Ok(standing);
            }
            step.is_repeated = true;
        }
        Ok(Standing::Unmeasured)
    }

    /// One measured window, and what it amounts to.
    fn step(&mut self, label: String, rate: f64, secs: f64) -> Result<Standing, Abort> {
        let p = self.parameters;
        let before = self.crew.judge()?;
        let warm_ns = (p.warmup_secs * 1e9) as u64;
        let from_ns = now_ns() + LEAD_NS;
        let window_ns = from_ns + warm_ns;
        let window = self.findings.histograms.len();
        self.crew.tell(&Command::Rate { per_event: rate, from_ns });
        self.crew
            .tell(&Command::Window { from_ns: window_ns, to_ns: window_ns + (secs * 1e9) as u64 });
        self.watch_until("warm-up", window_ns)?;
        let start = self.observer.snapshot();
        let start_tally = self.look(&label)?;
        let returns_secs = self.hold(&label, window_ns, secs)?;
        let end_tally = self.look(&label)?;
        let end = self.observer.snapshot();
        let memory = self.observer.memory_facts(end_tally.live);
        self.crew.tell(&Command::Rate { per_event: 0.0, from_ns });
        let tally = self.drain()?;
        let window = tally.windows.get(window).cloned();
        let window = window.unwrap_or_else(|| Window::new(0, 0));
        let mut counters = tally.counters.since(&before.counters);
        // What is lost is what is lost now; a tail judged earlier may have come since.
        counters.lost = tally.counters.lost.saturating_sub(before.counters.lost);
        counters.posts_unanswered = tally.unanswered;
        counters.posts_unseen = tally.unseen;
        let ends = Ends { start, end, start_tally, end_tally, memory, returns_secs };
        let step = self.judge_step(label, (rate, secs), counters, &tally, &window, ends);
        let standing = step.standing;
        self.findings.histograms.push((step.label.clone(), window.latency));
        self.findings.steps.push(step);
        Ok(standing)
    }

    /// Lets the window pass, with whatever the scenario does in it.
    fn hold(&mut self, label: &str, window_ns: u64, secs: f64) -> Result<Vec<f64>, Abort> {
        let p = self.parameters;
        let end_ns = window_ns + (secs * 1e9) as u64;
        let mut returns_secs = Vec::new();
        if p.bounce_share > 0.0 && p.bounce_secs > 0.0 {
            let (leave, publishers_too) = match self.scenario {
                Scenario::Resume => (Leave::Resume, false),
                Scenario::Storm => (Leave::Return, true),
                _ => (Leave::Return, false),
            };
            let mut bounce_ns = window_ns;
            while bounce_ns < end_ns {
                self.watch_until(label, bounce_ns)?;
                let wanted = u64::from(p.viewers);
                let (before, begun_ns) = (self.look(label)?, now_ns());
                self.crew.tell(&Command::Bounce { share: p.bounce_share, leave, publishers_too });
                bounce_ns += (p.bounce_secs * 1e9) as u64;
                if self.scenario == Scenario::Storm {
                    let left = |tally: &Tally| {
                        tally.counters.closed_by_plan - before.counters.closed_by_plan
                    };
                    let back = |tally: &Tally| {
                        tally.counters.connects_done - before.counters.connects_done
                    };
                    let is_back = |tally: &Tally| {
                        tally.live >= wanted && left(tally) > 0 && back(tally) >= left(tally)
                    };
                    let tally = self.watch(label, RETURN_SECS_MAX, is_back)?;
                    if is_back(&tally) {
                        returns_secs.push(tally.last_live_ns.saturating_sub(begun_ns) as f64 / 1e9);
                    }
                }
            }
        }
        self.watch_until(label, end_ns)?;
        Ok(returns_secs)
    }

    /// Waits until every viewer has everything and every post its answer, or the drain time is over.
    fn drain(&mut self) -> Result<Tally, Abort> {
        let deadline = now_ns() + (self.parameters.drain_secs * 1e9) as u64;
        let wanted = u64::from(self.parameters.viewers);
        loop {
            self.look("drain")?;
            let mut tally = self.crew.judge()?;
            let is_back = self.parameters.bounce_share == 0.0 || tally.live >= wanted;
            let is_done = tally.behind + tally.unanswered + tally.unseen == 0;
            if is_done && is_back || now_ns() >= deadline {
                tally.counters.posts_unanswered = tally.unanswered;
                tally.counters.posts_unseen = tally.unseen;
                self.findings.last = Some(tally.clone());
                return Ok(tally);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// A window's measurements and what they amount to.
    fn judge_step(
        &self,
        label: String,
        (rate, window_secs): (f64, f64),
        counters: Counters,
        tally: &Tally,
        window: &Window,
        ends: Ends,
    ) -> Step {
        let p = self.parameters;
        let Ends { start, end, start_tally, end_tally, memory, returns_secs } = ends;
        let secs = (end.time_ns - start.time_ns) as f64 / 1e9;
        let connections = tally.live;
        let in_window = end_tally.counters.since(&start_tally.counters);
        let deliveries = (in_window.deliveries + in_window.deliveries_slow) as f64;
        let used_us = |tally: &Tally| tally.planes.iter().map(|plane| plane.cpu_us).sum::<u64>();
        let loadgen = crate::report::LoadgenUse {
            us_per_delivery: (deliveries > 0.0).then(|| {
                used_us(&end_tally).saturating_sub(used_us(&start_tally)) as f64 / deliveries
            }),
            slippage_p99_secs: window.slippage.value_at_quantile(0.99) as f64 / 1e6,
            ..observer::loadgen_use(&start_tally.planes, &end_tally.planes, secs)
        };
        let server = self.observer.server_use(&start, &end, connections, deliveries);
        let metrics = metrics::growth(&start.metrics, &end.metrics);
        let shards_percent = metrics::shards_percent(&metrics, secs);
        let growth = crate::growth::of(&self.findings.samples, &label);
        let samples = self.findings.samples.iter().filter(|sample| sample.phase == label);
        let looks: Vec<f64> = samples.filter_map(|sample| sample.bytes_per_connection).collect();
        let stated = rate * f64::from(p.events) * window_secs;
        let offered_per_sec = rate * f64::from(p.viewers);
        let publishers = f64::from(p.publishers) * f64::from(p.events);
        // Each publisher's phase is random, and of a Poisson process every interval is.
        let noise = 1.0 + 4.0 * publishers.min(stated).sqrt();
        let facts = Facts {
            latency: &window.latency,
            counters: &counters,
            missing: tally.missing,
            foreign: if self.are_events_own { counters.deliveries_foreign } else { 0 },
            connections,
            viewers: p.viewers.into(),
            closed_slow: self.closed_slow(),
            posts_stated: stated,
            posts: window.posts,
            posts_noise: match p.arrivals {
                Arrivals::Fixed => noise,
                Arrivals::Poisson => noise + 4.0 * stated.sqrt(),
            },
            deliveries,
            loadgen: &loadgen,
            server: server.as_ref(),
            shards_percent: &shards_percent,
            cpu_distorted: self.cpu_distorted,
            memory: &memory,
            memory_looks: &looks,
            growth_bytes: growth.map(|growth| growth.bytes),
            logs_percent: match (p.admin.as_str(), metrics::logs_percent(&end.metrics)) {
                (_, Some(percent)) => Ok(percent),
                ("", None) => Err("it needs --admin".to_owned()),
                (_, None) => Err("the server's metrics do not say it".to_owned()),
            },
        };
        let judgement = facts.judge(self.levels);
        let least = looks.iter().copied().reduce(f64::min);
        Step {
            label,
            rate,
            secs,
            connections,
            // A window's edges may have a post more than the rate asks for.
            deliveries_per_sec: (window.in_time as f64 / window_secs).min(offered_per_sec),
            offered_per_sec,
            posts_stated_per_sec: stated / window_secs,
            posts_per_sec: window.posts as f64 / window_secs,
            latency: Latency::of(&window.latency),
            is_sound: judgement.is_sound,
            standing: judgement.standing,
            metrics,
            shards_percent,
            limit: judgement.limit,
            is_client_limited: judgement.is_client_limited,
            is_distorted: judgement.is_distorted,
            is_repeated: false,
            memory: judgement.memory_bytes,
            memory_range: least.zip(looks.iter().copied().reduce(f64::max)),
            verdicts: judgement.verdicts,
            counters,
            server,
            loadgen,
            growth,
            returns_secs,
        }
    }

    /// Slow viewers that the server has ended so far.
    fn closed_slow(&self) -> u64 {
        self.findings.last.as_ref().map_or(0, |tally| tally.counters.closed_slow)
    }

    fn watch_until(&mut self, phase: &str, until_ns: u64) -> Result<(), Abort> {
        let secs = until_ns.saturating_sub(now_ns()) as f64 / 1e9;
        self.watch(phase, secs, |_| false).map(|_| ())
    }

    /// Looks at everything again and again, until `done` or for `secs`.
    fn watch(
        &mut self,
        phase: &str,
        secs: f64,
        done: impl Fn(&Tally) -> bool,
    ) -> Result<Tally, Abort> {
        let deadline = now_ns() + (secs * 1e9) as u64;
        loop {
            let tally = self.look(phase)?;
            let left_ns = deadline.saturating_sub(now_ns());
            if done(&tally) || left_ns == 0 {
                return Ok(tally);
            }
            std::thread::sleep(LOOK.min(Duration::from_nanos(left_ns)));
        }
    }

    /// One look: the planes' numbers, and a sample when a second is over.
    fn look(&mut self, phase: &str) -> Result<Tally, Abort> {
        if self.observer.is_interrupted() {
            return Err(Abort::Interrupted);
        }
        let tally = self.crew.collect()?;
        self.findings.last = Some(tally.clone());
        if let Some(sample) = self.observer.sample(phase, &tally) {
            self.findings.samples.push(sample);
        }
        if self.observer.is_server_gone() {
            return Err(Abort::ServerGone);
        }
        Ok(tally)
    }
}

/// By how much a load may rise before the load generator is the limit: its CPU, or the waits of its threads for it.
fn room(used: &crate::report::LoadgenUse) -> f64 {
    let cpu = CLIENT_PERCENT_MAX / used.gone_percent().max(used.busiest_percent).max(1.0);
    cpu.min(WAIT_PERCENT_MAX / used.starved_percent.max(0.1))
}

/// Both ends of a window.
#[derive(Debug)]
struct Ends {
    start: Snapshot,
    end: Snapshot,
    start_tally: Tally,
    end_tally: Tally,
    memory: crate::memory::Facts,
    /// Seconds from each bounce until everyone was back.
    returns_secs: Vec<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::LoadgenUse;

    #[test]
    fn a_rate_rises_until_the_load_generator_would_be_the_limit() {
        let used = |cpu_percent, stolen_percent, starved_percent| LoadgenUse {
            cpu_percent,
            stolen_percent,
            starved_percent,
            ..LoadgenUse::default()
        };
        assert_eq!(room(&used(34.0, 0.0, 1.0)), 2.5);
        assert_eq!(room(&used(50.0, 35.0, 1.0)), 1.0);
        assert_eq!(room(&used(34.0, 0.0, 8.0)), WAIT_PERCENT_MAX / 8.0);
        assert!(room(&LoadgenUse::default()) > 10.0);
    }
}
