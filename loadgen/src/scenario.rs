//! Scenarios: named sets of plain parameters. `--print` shows one, flags override each.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::schedule::Arrivals;

/// The longest window or wait, in seconds: a year. Instants are 64-bit nanoseconds and must not overflow.
const SECS_MAX: f64 = 365.0 * 86_400.0;
/// The shortest window, and the shortest time between two things done again and again, in seconds.
const INTERVAL_SECS_MIN: f64 = 0.01;
/// Comments a second in each event; more than any host can send.
const RATE_MAX: f64 = 1e6;
/// Beyond it the first event has everyone but one viewer for each of the others.
const ZIPF_MAX: f64 = 100.0;
/// The largest factor between two steps; it keeps rates finite over all steps that anyone asks for.
const STEP_FACTOR_MAX: f64 = 1_000.0;

/// What is spoken with the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Speak {
    /// `uproar.json.v1`.
    Json,
    /// `uproar.rkyv.v1`.
    Rkyv,
    /// Any broadcast server, by the templates `--path`, `--hello` and `--publish`.
    Generic,
}

/// The course a run takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scenario {
    /// The target: 50,000 viewers over 1,000 events, 50,000 deliveries a second; then faster, to find the highest rate that holds
    Prove,
    /// Everyone in one event
    Hot,
    /// Step the rate up until a service level breaks; report the knee
    Ramp,
    /// Everyone leaves at once and comes back
    Storm,
    /// A share of the viewers reads slowly or never
    Slow,
    /// People come and go all the time
    Churn,
    /// Nobody writes: memory and CPU of silence
    Idle,
    /// Hours of the same, watching for growth
    Soak,
    /// Viewers disconnect and resume by position; every comment exactly once
    Resume,
}

impl Scenario {
    /// The name as typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Prove => "prove",
            Self::Hot => "hot",
            Self::Ramp => "ramp",
            Self::Storm => "storm",
            Self::Slow => "slow",
            Self::Churn => "churn",
            Self::Idle => "idle",
            Self::Soak => "soak",
            Self::Resume => "resume",
        }
    }
}

/// Declares [`Parameters`], the flags that override them, and how they are printed.
macro_rules! parameters {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:expr,)*) => {
        /// All parameters of a run.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub(crate) struct Parameters { $($(#[doc = $doc])+ pub(crate) $name: $type,)* }

        impl Default for Parameters {
            fn default() -> Self { Self { $($name: $default,)* } }
        }

        /// The same as flags; what is given overrides the scenario.
        #[derive(Clone, Debug, Default, clap::Args)]
        pub(crate) struct Overrides {
            $($(#[doc = $doc])+ #[arg(long, help_heading = "Parameters")] $name: Option<$type>,)*
        }

        impl Overrides {
            /// Puts what was given over the scenario's values.
            pub(crate) fn apply(self, parameters: &mut Parameters) {
                $(if let Some(value) = self.$name { parameters.$name = value; })*
            }
        }

        impl Parameters {
            /// One line a parameter: name, value, meaning.
            pub(crate) fn lines(&self) -> Vec<String> {
                vec![$({
                    let value = serde_json::to_string(&self.$name).expect("parameters are plain");
                    let doc = [$($doc.trim()),+].join(" ");
                    format!("{:<20} = {value:<24} # {doc}", stringify!($name))
                }),*]
            }
        }
    };
}

parameters! {
    /// Host and port of the server.
    target: String = "127.0.0.1:8080".to_owned(),
    /// Host and port of its /metrics; empty: not asked.
    admin: String = String::new(),
    /// What is spoken: json, rkyv or generic.
    speak: Speak = Speak::Json,
    /// Simulated viewers, all hosts together.
    viewers: u32 = 1_000,
    /// Events they are divided among.
    events: u32 = 10,
    /// Popularity of events: the k-th gets a share proportional to 1 / k^zipf; 0 is even.
    zipf: f64 = 0.0,
    /// Publishers in each event, taken from its viewers.
    publishers: u32 = 4,
    /// Comments a second in each event.
    rate: f64 = 1.0,
    /// Bytes of a comment's text, at least 39.
    comment_bytes: u32 = 200,
    /// Spacing of due instants: fixed or poisson.
    arrivals: Arrivals = Arrivals::Fixed,
    /// Comments each event is filled with before everyone connects, so that logs are not fresh.
    fill_per_event: u32 = 0,
    /// Comments a second in each event while it is filled.
    fill_rate: f64 = 4.0,
    /// History each joining viewer asks for, in comments.
    history: u32 = 0,
    /// Connects begun a second.
    connects_per_sec: u32 = 5_000,
    /// Connects that may be in flight.
    connects_in_flight: u32 = 512,
    /// Seconds of posting before the measured window.
    warmup_secs: f64 = 3.0,
    /// Seconds of the measured window.
    duration_secs: f64 = 20.0,
    /// How often the first rate is measured, so that the report can say how far its figures lie apart.
    repeats: u32 = 1,
    /// How often a step may be tried that says nothing about the server: the client was at its limit, or others on its CPUs.
    tries: u32 = 1,
    /// Seconds that stragglers may take after the last comment.
    drain_secs: f64 = 10.0,
    /// Factor from one step of a rising rate to the next; after the first that breaks, steps halve the distance.
    step_factor: f64 = 1.25,
    /// Seconds of each step; 0: no rising rate.
    step_secs: f64 = 0.0,
    /// The most steps.
    steps_max: u32 = 8,
    /// Microseconds that a busy load generator thread sleeps when little has come; 0: it wakes for every comment.
    nap_us: u32 = 50,
    /// Share of viewers that read slowly.
    slow_share: f64 = 0.0,
    /// A slow viewer reads one buffer (4 KiB) this often, in seconds; 0: never.
    slow_read_secs: f64 = 0.0,
    /// Share of viewers that leave, in each bounce of storm, churn and resume.
    bounce_share: f64 = 0.0,
    /// Seconds between bounces.
    bounce_secs: f64 = 0.0,
    /// Service levels that the measured window must hold; empty: only that nothing is lost.
    slo: String = String::new(),
    /// Seed of every random choice.
    seed: u64 = 1,
    /// What event names begin with; empty: something new each run.
    event_prefix: String = String::new(),
    /// Generic: request target of the upgrade; {event} is replaced.
    path: String = "/{event}".to_owned(),
    /// Generic: text message sent after the 101; empty: none.
    hello: String = String::new(),
    /// Generic: text message that publishes; {event}, {sequence} and {marker} are replaced.
    publish: String = "{marker}".to_owned(),
    /// Generic: subprotocol to offer; empty: none.
    subprotocol: String = String::new(),
}

impl Parameters {
    /// The scenario's values.
    pub(crate) fn of(scenario: Scenario) -> Self {
        let base = Self::default();
        match scenario {
            Scenario::Prove => Self {
                viewers: 50_000,
                events: 1_000,
                zipf: 1.0,
                fill_per_event: 120,
                warmup_secs: 4.0,
                repeats: 3,
                tries: 3,
                step_factor: 1.4,
                step_secs: 10.0,
                steps_max: 6,
                slo: "connections>=50000,logs>=95%,memory<=8KB,cpu<=70%,loss=0".to_owned(),
                ..base
            },
            Scenario::Hot => Self { viewers: 10_000, events: 1, rate: 5.0, ..base },
            Scenario::Ramp => Self {
                viewers: 10_000,
                events: 100,
                duration_secs: 5.0,
                step_secs: 5.0,
                steps_max: 24,
                slo: "p99<250ms,loss=0,cpu<=90%".to_owned(),
                ..base
            },
            Scenario::Storm => Self {
                viewers: 15_000,
                events: 100,
                connects_per_sec: 100_000,
                connects_in_flight: 2_048,
                bounce_share: 1.0,
                bounce_secs: 10.0,
                ..base
            },
            // 230 KB for each who never reads: more than both kernels hold for one.
            Scenario::Slow => Self {
                viewers: 5_000,
                events: 1,
                rate: 10.0,
                comment_bytes: 1_000,
                slow_share: 0.1,
                ..base
            },
            Scenario::Churn => Self {
                viewers: 10_000,
                events: 100,
                bounce_share: 0.02,
                bounce_secs: 0.5,
                duration_secs: 60.0,
                history: 50,
                ..base
            },
            Scenario::Idle => Self {
                viewers: 50_000,
                events: 1_000,
                zipf: 1.0,
                rate: 0.0,
                duration_secs: 30.0,
                ..base
            },
            Scenario::Soak => Self {
                viewers: 20_000,
                events: 500,
                zipf: 1.0,
                fill_per_event: 240,
                warmup_secs: 60.0,
                duration_secs: 4.0 * 3_600.0,
                bounce_share: 0.001,
                bounce_secs: 1.0,
                slo: "loss=0,growth<=16MB".to_owned(),
                ..base
            },
            Scenario::Resume => Self {
                viewers: 5_000,
                events: 50,
                rate: 2.0,
                bounce_share: 0.2,
                bounce_secs: 2.0,
                ..base
            },
        }
    }

    /// Says what does not fit together, or means nothing to `scenario`, in one sentence.
    pub(crate) fn check(&self, scenario: Scenario) -> Result<(), String> {
        self.check_audience()?;
        self.check_numbers()?;
        self.check_course()?;
        self.check_templates()?;
        if self.speak == Speak::Generic && self.publishers > 1 {
            return Err("a generic server gives no offsets, so order can only be verified with \
                        --publishers 1"
                .to_owned());
        }
        if self.speak == Speak::Generic && scenario == Scenario::Resume {
            return Err(
                "a generic server gives no positions, so nobody can resume from one".to_owned()
            );
        }
        Ok(())
    }

    /// What only a generic server is told.
    fn check_templates(&self) -> Result<(), String> {
        let base = Self::default();
        if self.speak == Speak::Generic {
            if !self.publish.contains("{marker}") {
                return Err(
                    "--publish must hold {marker}, by which comments are known again".to_owned()
                );
            }
            if !self.path.starts_with('/') {
                return Err(format!("--path is {:?}, but begins with /", self.path));
            }
            return Ok(());
        }
        let given = [
            ("--path", self.path != base.path),
            ("--hello", self.hello != base.hello),
            ("--publish", self.publish != base.publish),
            ("--subprotocol", self.subprotocol != base.subprotocol),
        ];
        match given.iter().find(|(_, is_given)| *is_given) {
            Some((flag, _)) => {
                Err(format!("{flag} is for other servers: add --speak generic, or leave it out"))
            }
            None => Ok(()),
        }
    }

    /// Who takes part.
    fn check_audience(&self) -> Result<(), String> {
        let minimum = crate::marker::MARKER_BYTES as u32;
        if self.comment_bytes < minimum {
            return Err(format!(
                "--comment-bytes is at least {minimum}: a comment carries its marker"
            ));
        }
        if self.viewers == 0 || self.events == 0 || self.events > self.viewers {
            return Err(format!(
                "--viewers is {} and --events is {}: there must be an event, and a viewer for each",
                self.viewers, self.events
            ));
        }
        if self.publishers == 0 {
            return Err("--publishers is at least 1".to_owned());
        }
        if u64::from(self.publishers) * u64::from(self.events) >= 1 << 24 {
            return Err("--publishers times --events is over 16 million, more than the marker can tell apart".to_owned());
        }
        if self.connects_per_sec == 0 || self.connects_in_flight == 0 {
            return Err("--connects-per-sec and --connects-in-flight are at least 1".to_owned());
        }
        Ok(())
    }

    /// Every number with a fraction by itself; what is not a number is in no range.
    fn check_numbers(&self) -> Result<(), String> {
        let least = INTERVAL_SECS_MIN;
        for (flag, value, from, to) in [
            ("--zipf", self.zipf, 0.0, ZIPF_MAX),
            ("--rate", self.rate, 0.0, RATE_MAX),
            ("--fill-rate", self.fill_rate, 0.0, RATE_MAX),
            ("--duration-secs", self.duration_secs, least, SECS_MAX),
            ("--warmup-secs", self.warmup_secs, 0.0, SECS_MAX),
            ("--drain-secs", self.drain_secs, 0.0, SECS_MAX),
            ("--slow-share", self.slow_share, 0.0, 1.0),
            ("--bounce-share", self.bounce_share, 0.0, 1.0),
        ] {
            if !(from..=to).contains(&value) {
                let negative = if value < 0.0 { "cannot be negative: it " } else { "" };
                return Err(format!(
                    "{flag} {negative}is a number from {from} to {to}, not {value}"
                ));
            }
        }
        for (flag, value) in [
            ("--step-secs", self.step_secs),
            ("--slow-read-secs", self.slow_read_secs),
            ("--bounce-secs", self.bounce_secs),
        ] {
            if value != 0.0 && !(least..=SECS_MAX).contains(&value) {
                return Err(format!(
                    "{flag} is 0 or a number from {least} to {SECS_MAX}, not {value}"
                ));
            }
        }
        Ok(())
    }

    /// What the run would never reach, or silently leave out.
    fn check_course(&self) -> Result<(), String> {
        if self.fill_per_event > 0 && self.fill_rate == 0.0 {
            return Err("--fill-per-event needs a --fill-rate above 0".to_owned());
        }
        if self.bounce_share > 0.0 && self.bounce_secs == 0.0 {
            return Err("--bounce-share needs --bounce-secs above 0".to_owned());
        }
        if self.repeats == 0 || self.tries == 0 {
            return Err("--repeats and --tries are at least 1".to_owned());
        }
        if self.step_secs > 0.0 && self.rate == 0.0 {
            return Err(
                "a rate that rises by steps (--step-secs) cannot begin at --rate 0".to_owned()
            );
        }
        if self.step_secs > 0.0 && !(self.step_factor > 1.0 && self.step_factor <= STEP_FACTOR_MAX)
        {
            let factor = self.step_factor;
            return Err(format!("--step-factor is above 1, up to {STEP_FACTOR_MAX}, not {factor}"));
        }
        Ok(())
    }

    /// The names of the events.
    pub(crate) fn event_names(&self) -> Arc<[String]> {
        (0..self.events).map(|event| format!("{}{event}", self.event_prefix)).collect()
    }

    /// The request target of an upgrade to uproar.
    pub(crate) fn live_path(&self, event: &str, viewer: u32, since: Option<(u64, u64)>) -> String {
        match since {
            Some((epoch, offset)) => {
                format!("/v1/events/{event}/live?user=v{viewer}&since={epoch:x}-{offset}")
            }
            None => format!("/v1/events/{event}/live?user=v{viewer}&history={}", self.history),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn every_scenario_is_consistent_and_prints_every_parameter() {
        for &scenario in Scenario::value_variants() {
            let parameters = Parameters::of(scenario);
            assert_eq!(parameters.check(scenario), Ok(()), "{}", scenario.name());
            let lines = parameters.lines();
            assert!(lines.iter().any(|line| line.starts_with("viewers ")));
            assert!(lines.iter().all(|line| line.contains("# ") && !line.ends_with("# ")));
        }
    }

    #[test]
    fn impossible_parameters_are_refused_in_a_sentence() {
        let base = Parameters::default;
        for bad in [
            Parameters { comment_bytes: 10, ..base() },
            Parameters { events: 5_000, ..base() },
            Parameters { publishers: 0, ..base() },
            Parameters { connects_per_sec: 0, ..base() },
            Parameters { connects_in_flight: 0, ..base() },
            Parameters { speak: Speak::Generic, ..base() },
            Parameters { fill_per_event: 10, fill_rate: 0.0, ..base() },
            Parameters { bounce_share: 0.5, ..base() },
            Parameters { step_secs: 5.0, rate: 0.0, ..base() },
            Parameters { step_secs: 5.0, step_factor: 1.0, ..base() },
            Parameters { step_secs: 5.0, step_factor: f64::NAN, ..base() },
            Parameters { duration_secs: 0.0, ..base() },
            Parameters { bounce_share: 5.0, bounce_secs: 1.0, ..base() },
            Parameters { bounce_share: 0.5, bounce_secs: 1e-10, ..base() },
            Parameters { slow_share: 1.1, ..base() },
            Parameters { repeats: 0, ..base() },
            Parameters { tries: 0, ..base() },
        ] {
            let refused = bad.check(Scenario::Hot);
            assert!(refused.is_err_and(|text| text.len() > 20), "{bad:?}");
        }
    }

    #[test]
    fn no_number_is_accepted_that_is_none_or_out_of_range() {
        type Set = fn(&mut Parameters, f64);
        let numbers: [Set; 11] = [
            |p, value| p.zipf = value,
            |p, value| p.rate = value,
            |p, value| p.fill_rate = value,
            |p, value| p.duration_secs = value,
            |p, value| p.warmup_secs = value,
            |p, value| p.drain_secs = value,
            |p, value| p.step_secs = value,
            |p, value| p.slow_share = value,
            |p, value| p.slow_read_secs = value,
            |p, value| p.bounce_share = value,
            |p, value| p.bounce_secs = value,
        ];
        for (which, set) in numbers.iter().enumerate() {
            for value in [-1.0, -1e-10, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
                let mut parameters = Parameters::default();
                set(&mut parameters, value);
                let refused = parameters.check(Scenario::Hot);
                assert!(refused.is_err_and(|text| text.len() > 20), "number {which}: {value}");
            }
        }
    }

    #[test]
    fn only_servers_with_positions_are_resumed_on() {
        let generic = |scenario| Parameters {
            speak: Speak::Generic,
            publishers: 1,
            ..Parameters::of(scenario)
        };
        assert_eq!(generic(Scenario::Churn).check(Scenario::Churn), Ok(()));
        assert!(generic(Scenario::Resume).check(Scenario::Resume).is_err());
        let ramp = Parameters { rate: 0.0, ..Parameters::of(Scenario::Ramp) };
        assert!(ramp.check(Scenario::Ramp).is_err());
    }
}
