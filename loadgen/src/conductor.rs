//! The course of a run: connect, fill, steps of posting, drains; watching both sides all along.
//!
//! A step posts at one rate for a measured window, then stops and waits until every viewer has
//! everything (or the drain time is over), so each step is judged on its own. Rising rates are
//! steps until a service level breaks.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::clock::now_ns;
use crate::command::{Command, Leave};
use crate::crew::{Crew, Silent};
use crate::observer::{Observer, Snapshot};
use crate::probe::metrics;
use crate::report::{Highest, Latency, Sample, Step};
use crate::scenario::{Parameters, Scenario, Speak};
use crate::slo::{Level, Measured};
use crate::tally::{Counters, Tally, Window};

/// How often the planes are asked for their numbers.
const LOOK: Duration = Duration::from_millis(250);
/// A window begins this long after it is announced, so that every plane knows of it.
const LEAD_NS: u64 = 100_000_000;
/// Beyond this share of its CPU a load generator thread counts as saturated, in percent.
const SATURATED_PERCENT: f64 = 90.0;
/// A server whose CPUs others use this much was not measured alone, in percent.
const DISTURBED_PERCENT: f64 = 15.0;
/// A load generator thread that was ready this long and had no CPU was not measured alone either, in percent.
const STARVED_PERCENT: f64 = 10.0;
/// Posts later than this (99th percentile) mean that the load generator was, in seconds.
const SLIPPAGE_MAX_SECS: f64 = 0.05;
/// After this long not everyone comes back any more.
const RETURN_SECS_MAX: f64 = 60.0;
/// The knee is found when the rate that broke is at most this much above the one that held.
const KNEE_PRECISION: f64 = 1.1;

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Abort {
    #[error(transparent)]
    Silent(#[from] Silent),
    #[error("the server process has ended")]
    ServerGone,
    #[error("interrupted")]
    Interrupted,
    #[error("only {live} of {wanted} viewers could connect{hint}")]
    NotConnected { live: u64, wanted: u64, hint: String },
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
        let first = self.step("steady".to_owned(), parameters.rate, parameters.duration_secs)?;
        if parameters.step_secs > 0.0 && first {
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
            let hint = tally.troubles.first().map(|text| format!(": {text}")).unwrap_or_default();
            return Err(Abort::NotConnected { live: tally.live, wanted, hint });
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
        let mut best = 0;
        let mut stopped_by = format!("all {} steps held", p.steps_max);
        for _ in 0..p.steps_max {
            let rate = match broke {
                None => held * p.step_factor,
                Some(broke) if broke / held <= KNEE_PRECISION => break,
                Some(broke) => (held * broke).sqrt(),
            };
            let holds = self.step(format!("x{:.2}", rate / p.rate), rate, p.step_secs)?;
            if holds {
                held = rate;
                best = self.findings.steps.len() - 1;
                continue;
            }
            let step = self.findings.steps.last().expect("a step was just made");
            let broken = step.verdicts.iter().find(|verdict| !verdict.holds);
            let broken = match broken {
                Some(verdict) => verdict.level.as_str(),
                None if step.counters.posts_refused > 0 => "the server's limit of posts",
                None if step.counters.posts_unanswered > 0 => "the answer of posts",
                None => "loss",
            };
            stopped_by = format!("{broken} broke at {rate:.2} comments/s an event");
            if step.is_client_limited {
                stopped_by += "; client-limited, so the server may hold more";
            }
            broke = Some(rate);
        }
        let step = &self.findings.steps[best];
        let (rate, deliveries_per_sec) = (step.rate, step.deliveries_per_sec);
        self.findings.highest = Some(Highest { rate, deliveries_per_sec, stopped_by });
        Ok(())
    }

    /// One measured window; says whether its levels held.
    fn step(&mut self, label: String, rate: f64, secs: f64) -> Result<bool, Abort> {
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
        let memory = self.observer.memory();
        let end_tally = self.look(&label)?;
        let end = self.observer.snapshot();
        self.crew.tell(&Command::Rate { per_event: 0.0, from_ns });
        let tally = self.drain()?;
        let window = tally.windows.get(window).cloned();
        let window = window.unwrap_or_else(|| Window::new(0, 0));
        let mut counters = tally.counters.since(&before.counters);
        // What is lost is what is lost now; a tail judged earlier may have come since.
        counters.lost = tally.counters.lost.saturating_sub(before.counters.lost);
        counters.posts_unanswered = tally.counters.posts_unanswered;
        let shares = Shares { start, end, start_tally, end_tally, memory, missing: tally.missing };
        let step =
            self.judge_step(label, rate, counters, tally.live, &window, returns_secs, &shares);
        let holds = step.holds;
        self.findings.histograms.push((step.label.clone(), window.latency));
        self.findings.steps.push(step);
        Ok(holds)
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
            let unanswered = self.unanswered(&tally.counters);
            if tally.behind == 0 && unanswered == 0 && is_back || now_ns() >= deadline {
                tally.counters.posts_unanswered = unanswered;
                self.findings.last = Some(tally.clone());
                return Ok(tally);
            }
            std::thread::sleep(LOOK);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one call, and each is another fact")]
    fn judge_step(
        &self,
        label: String,
        rate: f64,
        counters: Counters,
        connections: u64,
        window: &Window,
        returns_secs: Vec<f64>,
        shares: &Shares,
    ) -> Step {
        let Shares { start, end, start_tally, end_tally, memory, missing } = shares;
        let secs = (end.time_ns - start.time_ns) as f64 / 1e9;
        let in_window = end_tally.counters.since(&start_tally.counters);
        let deliveries = (in_window.deliveries + in_window.deliveries_slow) as f64;
        let per_delivery = |us: f64| (deliveries > 0.0).then(|| us / deliveries);
        let loadgen = crate::report::LoadgenUse {
            busiest_percent: (end_tally.cpu_us_max - start_tally.cpu_us_max) as f64 / secs / 1e4,
            starved_percent: (end_tally.waited_us_max - start_tally.waited_us_max) as f64
                / secs
                / 1e4,
            us_per_delivery: per_delivery((end_tally.cpu_us - start_tally.cpu_us) as f64),
            slippage_p99_secs: window.slippage.value_at_quantile(0.99) as f64 / 1e6,
        };
        let server = self.observer.server_use(start, end, memory, connections, deliveries);
        let metrics = metrics::growth(&start.metrics, &end.metrics);
        let shards_percent = metrics::shards_percent(&metrics, secs);
        let shards_mean = shards_percent.iter().sum::<f64>() / shards_percent.len() as f64;
        let growth = crate::growth::of(&self.findings.samples, &label);
        let measured = Measured {
            latency: &window.latency,
            counters: &counters,
            connections,
            // Of a server elsewhere only what it says of itself.
            cpu_percent: server
                .as_ref()
                .map(|server| server.cpu_percent)
                .or((!shards_percent.is_empty()).then_some(shards_mean)),
            // Less than nothing: others' sockets came or went meanwhile.
            memory_bytes: server
                .as_ref()
                .filter(|s| s.kernel_bytes_per_connection >= 0.0)
                .map(|s| s.user_bytes_per_connection + s.kernel_bytes_per_connection),
            growth_bytes: growth.map(|growth| growth.bytes),
            logs_percent: metrics::logs_percent(&end.metrics),
        };
        let verdicts: Vec<_> = self.levels.iter().map(|level| level.judge(measured)).collect();
        let is_clean = counters.lost == 0
            && counters.duplicates == 0
            && counters.reordered == 0
            && counters.disagreements == 0
            && counters.protocol_errors == 0
            && counters.closed_unexpectedly == 0
            && counters.resumes_incomplete == 0
            && counters.posts_refused == 0
            && counters.posts_unanswered == 0
            && connections + self.closed_slow() >= u64::from(self.parameters.viewers);
        // What no load excuses: late and announced is not among it.
        let unannounced = counters.lost.saturating_sub(counters.gap_comments + missing);
        let is_sound = unannounced == 0
            && counters.duplicates == 0
            && counters.reordered == 0
            && counters.disagreements == 0
            && counters.protocol_errors == 0;
        let is_client_limited = loadgen.busiest_percent >= SATURATED_PERCENT
            || loadgen.starved_percent >= STARVED_PERCENT
            || loadgen.slippage_p99_secs > SLIPPAGE_MAX_SECS;
        let is_server_limited = server.as_ref().is_some_and(|s| s.cpu_percent >= SATURATED_PERCENT)
            || shards_percent.iter().any(|&percent| percent >= SATURATED_PERCENT);
        let disturbed_percent = server.as_ref().map_or(0.0, |server| server.disturbed_percent);
        let limit = match (is_client_limited, is_server_limited) {
            (true, false) => "client-limited".to_owned(),
            (true, true) => "both saturated".to_owned(),
            (false, true) => "server saturated".to_owned(),
            (false, false) if server.is_none() && shards_percent.is_empty() => {
                "server not measured".to_owned()
            }
            (false, false) if disturbed_percent >= DISTURBED_PERCENT => {
                format!("disturbed: others took {disturbed_percent:.0} % of the server's CPUs")
            }
            (false, false) => "nobody saturated".to_owned(),
        };
        Step {
            label,
            rate,
            secs,
            connections,
            deliveries_per_sec: deliveries / secs,
            latency: Latency::of(&window.latency),
            is_sound,
            holds: is_clean && verdicts.iter().all(|verdict| verdict.holds),
            metrics,
            shards_percent,
            limit,
            is_client_limited: is_client_limited && !is_server_limited,
            counters,
            server,
            loadgen,
            growth,
            returns_secs,
            verdicts,
        }
    }

    /// Slow viewers that the server has ended so far.
    fn closed_slow(&self) -> u64 {
        self.findings.last.as_ref().map_or(0, |tally| tally.counters.closed_slow)
    }

    /// Posts without an answer whose publisher is still there.
    fn unanswered(&self, counters: &Counters) -> u64 {
        match self.parameters.speak {
            Speak::Generic => 0,
            Speak::Json | Speak::Rkyv => counters
                .posts
                .saturating_sub(counters.acks + counters.posts_refused + counters.posts_abandoned),
        }
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

/// Both ends of a window.
#[derive(Debug)]
struct Shares {
    start: Snapshot,
    end: Snapshot,
    start_tally: Tally,
    end_tally: Tally,
    memory: crate::observer::Memory,
    /// Comments that had not come when the step's drain was over.
    missing: u64,
}
