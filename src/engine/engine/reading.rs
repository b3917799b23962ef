//! When nothing more is read from a connection, and when it is again.
//!
//! Whoever asks and does not take the answers would have them kept for it. So a connection whose answers wait while
//! its socket takes no bytes is not read from: what it says stays in the kernel's receive buffer, which is
//! bounded, and TCP tells its sender to wait. The same when over a few kilobytes of answers wait for their turn, or
//! when many of its posts are under way to another shard. The rest of a cut log frame is no answer: a
//! viewer that reads slowly is heard.
//!
//! ```text
//!   shell: bytes are there ──► may_read? ──yes──► reads
//!                                 └──no──► paused ── the answers are out ──► Output::ReadOn ──► may_read? …
//! ```
//!
//! A paused peer has said something that nobody heard yet: it is not silent, and its message is not late.

use super::{Engine, Output};
use crate::connection::{Connection, Phase};
use crate::mesh::POSTS_AWAY_READ_MAX;
use crate::table::Id;
use crate::time::Now;

/// Answers waiting for their turn, in bytes, beyond which nothing more is read: one read of the shortest commands
/// causes some ten times as much.
const ANSWERS_READ_MAX: usize = 4 * 1024;

/// Whether what a connection says may cause more answers now.
fn may_ask(connection: &Connection) -> bool {
    let answers = connection.answers();
    let is_deaf = connection.is_blocked && answers > 0;
    !is_deaf && answers <= ANSWERS_READ_MAX && connection.posts_away < POSTS_AWAY_READ_MAX
}

impl Engine {
    /// Whether to read from a live connection now. If not, [`Output::ReadOn`] says when to look again.
    pub fn may_read(&mut self, id: Id) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return true };
        if connection.is_paused {
            return false;
        }
        let is_asking = matches!(connection.phase, Phase::Live { .. } | Phase::Echo);
        if !is_asking || may_ask(connection) {
            return true;
        }
        connection.is_paused = true;
        self.paused += 1;
        self.counters.reads_paused += 1;
        false
    }

    /// Goes on reading from a paused connection if its answers are out, or if it is closing: then it is only
    /// listened to for the end.
    pub(super) fn read_on(&mut self, now: Now, id: Id) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !connection.is_paused {
            return;
        }
        let is_asking = matches!(connection.phase, Phase::Live { .. } | Phase::Echo);
        if is_asking && (connection.answers() > 0 || !may_ask(connection)) {
            return;
        }
        connection.is_paused = false;
        connection.heard_tick = now.tick();
        connection.reader.begin_again(now.tick());
        self.paused -= 1;
        self.outputs.push_back(Output::ReadOn { id });
    }
}
