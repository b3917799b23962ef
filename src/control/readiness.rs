//! Whether the node takes new viewers: what `/ready` says and why.
//!
//! Three independent facts, one answer. Starting and draining are decided by us, full by the
//! last poll of the shards; an answer may therefore be a second old, and the shards, who count
//! for themselves, have the last word on each upgrade.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The facts. All atomics are independent, so their order among each other does not matter.
#[derive(Debug, Default)]
pub struct Readiness {
    is_started: AtomicBool,
    is_draining: AtomicBool,
    is_ending: AtomicBool,
    is_full: AtomicBool,
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
    /// `connections_max` is reached.
    Full,
}

impl State {
    /// All states, in no order that matters.
    pub const ALL: [Self; 4] = [Self::Starting, Self::Ready, Self::Draining, Self::Full];

    /// The protocol's `code`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Full => "full",
        }
    }

    /// A sentence for whoever looks.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::Starting => "the node is starting",
            Self::Ready => "the node takes viewers",
            Self::Draining => "the node is draining; use another",
            Self::Full => "the node has as many connections as it may; use another",
        }
    }
}

impl Readiness {
    /// The state now.
    #[must_use]
    pub fn state(&self) -> State {
        match () {
            () if self.is_draining.load(Relaxed) => State::Draining,
            () if !self.is_started.load(Relaxed) => State::Starting,
            () if self.is_full.load(Relaxed) => State::Full,
            () => State::Ready,
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

    /// Whether `connections_max` is reached, as the last poll saw it.
    pub fn set_full(&self, is_full: bool) {
        self.is_full.store(is_full, Relaxed);
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
        readiness.drain();
        assert_eq!(readiness.state(), State::Draining);
        assert!(readiness.undrain());
        readiness.set_full(false);
        assert_eq!(readiness.state(), State::Ready);
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
