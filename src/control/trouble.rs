//! Trouble with peers, in at most one log line a minute.
//!
//! Who breaks the protocol, asks for nonsense or does not read is counted by the shards and never
//! logged one by one: a hostile peer must not write the log. What the counters grew by is one line.
//!
//! Not here: overload and the node's own trouble, which has alerts (`tuning/observability`).

use std::fmt::Write;
use std::time::{Duration, Instant};

use uproar_engine::report::{CloseCause, Refusal, Report};

/// The shortest time between two lines.
const SILENCE: Duration = Duration::from_secs(60);
/// Connections that ended because of what the peer did, or did not do.
const CLOSES: [CloseCause; 5] = [
    CloseCause::PeerFault,
    CloseCause::QueueFull,
    CloseCause::OverRate,
    CloseCause::Lag,
    CloseCause::Stalled,
];
/// Requests that were refused because of the peer.
const REFUSALS: [Refusal; 6] = [
    Refusal::BadRequest,
    Refusal::TooLarge,
    Refusal::Timeout,
    Refusal::AddressFull,
    Refusal::AddressUnfinished,
    Refusal::HandshakesFull,
];

/// What has been told.
#[derive(Debug)]
pub(super) struct Trouble {
    told: [u64; CLOSES.len() + REFUSALS.len()],
    told_at: Option<Instant>,
}

impl Trouble {
    pub(super) fn new() -> Self {
        Self { told: Default::default(), told_at: None }
    }

    /// The line to log now, if there is one.
    pub(super) fn line(&mut self, now: Instant, reports: &[&Report]) -> Option<String> {
        if self.told_at.is_some_and(|at| now.duration_since(at) < SILENCE) {
            return None;
        }
        let sum = |of: &dyn Fn(&Report) -> u64| reports.iter().map(|report| of(report)).sum();
        let closes = CLOSES
            .iter()
            .map(|&cause| (cause.label(), sum(&|report| report.counters.closes[cause as usize])));
        let refusals = REFUSALS.iter().map(|&reason| {
            (reason.label(), sum(&|report| report.counters.refusals[reason as usize]))
        });
        let mut line = String::new();
        for (told, (label, count)) in self.told.iter_mut().zip(closes.chain(refusals)) {
            let more: u64 = count;
            if more > *told {
                let _ = write!(line, " {label}={}", more - *told);
            }
            *told = more;
        }
        if line.is_empty() {
            return None;
        }
        self.told_at = Some(now);
        Some(format!("trouble with peers since the last such line:{line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_a_minute_with_what_was_added() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut trouble = Trouble::new();
        let mut report = Report::default();
        assert_eq!(trouble.line(at(0), &[&report]), None);
        report.counters.closes[CloseCause::PeerFault as usize] = 3;
        report.counters.closes[CloseCause::Peer as usize] = 9;
        let first = trouble.line(at(1), &[&report, &report]).expect("there is news");
        assert!(first.ends_with(": peer_fault=6"), "{first}");
        report.counters.refusals[Refusal::BadRequest as usize] = 1_000;
        assert_eq!(trouble.line(at(2), &[&report, &report]), None);
        let second = trouble.line(at(61), &[&report, &report]).expect("a minute is over");
        assert!(second.ends_with(": bad_request=2000"), "{second}");
        assert_eq!(trouble.line(at(200), &[&report, &report]), None, "nothing was added");
    }
}
