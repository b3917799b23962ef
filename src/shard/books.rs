//! Completions that contradict the books: each is counted, and told in at most one line a minute.
//!
//! None of them is expected of a sound kernel and a sound shard. One that was ignored let sockets live on for
//! days that no limit counted, so there is no completion that nobody looks at.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use uproar_engine::report::Contradiction as Kind;
use uproar_engine::table::Id;

pub(super) use uproar_engine::report::Contradiction;

/// The shortest time between two lines.
const SILENCE: Duration = Duration::from_secs(60);

/// What the kernel said that cannot be.
#[derive(Debug, Default)]
pub(super) struct Books {
    counts: [u64; Kind::ALL.len()],
    line: Line,
}

impl Books {
    /// Counts a contradiction. `about` says which completion it was.
    pub(super) fn contradicted(&mut self, kind: Kind, id: Id, about: &dyn Debug) {
        self.counts[kind as usize] += 1;
        if let Some(more) = self.line.due() {
            tracing::error!(
                kind = kind.label(),
                connection = id.index,
                ?about,
                since_last_line = more,
                "a completion contradicts the books of sockets; it was set right, and is a bug or the kernel's: \
                 watch uproar_ring_contradictions_total and report it with `uname -r`"
            );
        }
    }

    /// How often, by kind.
    pub(super) fn counts(&self) -> [u64; Kind::ALL.len()] {
        self.counts
    }
}

/// A line of the log that comes at most once a minute.
#[derive(Debug, Default)]
pub(super) struct Line {
    told: Option<Instant>,
    untold: u64,
}

impl Line {
    /// Something happened that deserves the line: how often since the last one, if it is due.
    pub(super) fn due(&mut self) -> Option<u64> {
        self.untold += 1;
        let now = Instant::now();
        if self.told.is_some_and(|told| now.duration_since(told) < SILENCE) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_once_and_then_counts() {
        let mut line = Line::default();
        assert_eq!(line.due(), Some(1));
        assert_eq!((line.due(), line.due()), (None, None));
        line.told = line.told.map(|told| told.checked_sub(SILENCE).unwrap());
        assert_eq!(line.due(), Some(3));
    }
}
