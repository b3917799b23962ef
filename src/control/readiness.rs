//! Whether the node takes new viewers: what `/ready` says and why.
//!
//! Four independent facts: any of them is a reason not to be ready, and all that hold are shown
//! (a node that drains may be stuck as well). Where one word is wanted, the gravest is it. Starting
//! and draining are decided by us, stuck and full by the last poll of the shards; an answer may
//! therefore be a second old, and the shards, who count for themselves, have the last word on each
//! upgrade.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The facts. All atomics are independent, so their order among each other does not matter.
#[derive(Debug, Default)]
pub struct Readiness {
    is_started: AtomicBool,
    is_draining: AtomicBool,
    is_ending: AtomicBool,
    is_full: AtomicBool,
    /// Shards that have not answered for longer than they may, ascending.
    stuck: Mutex<Vec<usize>>,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not all shards accept yet.
    Starting,
    /// New viewers are welcome.
    Ready,
    /// The node is draining.
    Draining,
    /// A shard does not answer; its viewers get nothing, and new ones may land on it.
    Stuck,
    /// `connections_max` is reached.
    Full,
}

impl State {
    /// All states, in no order that matters.
    pub const ALL: [Self; 5] =
        [Self::Starting, Self::Ready, Self::Draining, Self::Stuck, Self::Full];

    /// The protocol's `code`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Stuck => "stuck",
            Self::Full => "full",
        }
    }
}

impl Readiness {
    /// The state now: the gravest of the reasons.
    #[must_use]
    pub fn state(&self) -> State {
        self.reasons().first().copied().unwrap_or(State::Ready)
    }

    /// Every reason not to be ready, gravest first; none when the node is ready.
    #[must_use]
    pub fn reasons(&self) -> Vec<State> {
        let facts = [
            (State::Draining, self.is_draining.load(Relaxed)),
            (State::Starting, !self.is_started.load(Relaxed)),
            (State::Stuck, !self.stuck().is_empty()),
            (State::Full, self.is_full.load(Relaxed)),
        ];
        facts.into_iter().filter(|&(_, is_so)| is_so).map(|(reason, _)| reason).collect()
    }

    /// The state in a sentence for whoever looks.
    #[must_use]
    pub fn sentence(&self) -> String {
        let reasons = self.reasons();
        let stuck = self.stuck_shards();
        let clauses: Vec<String> = reasons
            .iter()
            .map(|reason| match reason {
                State::Starting => "the node is starting".to_owned(),
                State::Ready => unreachable!("to be ready is no reason not to be"),
                State::Draining => "the node is draining".to_owned(),
                State::Stuck if stuck.is_empty() => "a shard did not answer".to_owned(),
                State::Stuck => silence(&stuck),
                State::Full => "the node has as many connections as it may".to_owned(),
            })
            .collect();
        match reasons.as_slice() {
            [] => "the node takes viewers".to_owned(),
            [State::Starting] => clauses.concat(),
            _ => format!("{}; use another node", clauses.join(", and ")),
        }
    }

    /// Every shard accepts.
    pub fn start(&self) {
        self.is_started.store(true, Relaxed);
    }

    /// No new viewers from now on.
    pub fn drain(&self) {
        self.is_draining.store(true, Relaxed);
    }

    /// As [`drain`](Self::drain), and the process ends afterwards, so it cannot be undone.
    pub fn end(&self) {
        self.is_ending.store(true, Relaxed);
        self.drain();
    }

    /// Whether the process ends after its drain.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.is_ending.load(Relaxed)
    }

    /// Viewers again; false when the process is ending and nothing changed.
    #[must_use]
    pub fn undrain(&self) -> bool {
        let may = !self.is_ending.load(Relaxed);
        if may {
            self.is_draining.store(false, Relaxed);
        }
        may
    }

    /// The shards that do not answer, as the last poll saw it.
    pub fn set_stuck(&self, shards: &[usize]) {
        shards.clone_into(&mut self.stuck());
    }

    /// These shards.
    #[must_use]
    pub fn stuck_shards(&self) -> Vec<usize> {
        self.stuck().clone()
    }

    fn stuck(&self) -> MutexGuard<'_, Vec<usize>> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `connections_max` is reached, as the last poll saw it.
    pub fn set_full(&self, is_full: bool) {
        self.is_full.store(is_full, Relaxed);
    }
}

/// Says which shards do not answer; there is at least one.
pub(super) fn silence(shards: &[usize]) -> String {
    let numbers: Vec<String> = shards.iter().map(usize::to_string).collect();
    match numbers.as_slice() {
        [shard] => format!("shard {shard} does not answer"),
        shards => format!("shards {} do not answer", shards.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_fact_answers() {
        let readiness = Readiness::default();
        assert_eq!(readiness.state(), State::Starting);
        readiness.start();
        assert_eq!(readiness.state(), State::Ready);
        readiness.set_full(true);
        assert_eq!(readiness.state(), State::Full);
        readiness.set_stuck(&[1, 3]);
        assert_eq!(readiness.state(), State::Stuck);
        assert_eq!(
            readiness.sentence(),
            "shards 1, 3 do not answer, and the node has as many connections as it may; use another node"
        );
        readiness.drain();
        assert_eq!(readiness.state(), State::Draining);
        assert_eq!(readiness.reasons(), [State::Draining, State::Stuck, State::Full]);
        assert!(readiness.undrain());
        readiness.set_stuck(&[]);
        readiness.set_full(false);
        assert_eq!(readiness.state(), State::Ready);
        assert_eq!(
            (readiness.reasons(), readiness.sentence()),
            (vec![], "the node takes viewers".into())
        );
    }

    #[test]
    fn an_ending_process_cannot_be_undrained() {
        let readiness = Readiness::default();
        readiness.start();
        readiness.end();
        assert!(!readiness.undrain());
        assert_eq!(readiness.state(), State::Draining);
    }
}
