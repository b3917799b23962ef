//! After the last word: the peer is heard until it ends, so that the word is not destroyed by a reset.
//!
//! ```text
//!  close frame or refusal ──► Closing { rest: Some } ──(its close frame, its end)──► Closing { rest: None } ──► gone
//!                                   │ linger_bytes_max, close_ms_max, lingering_max
//!                                   └──────────────► cut: gone at once, and counted
//! ```
//!
//! Who is heard counts as a connection, also when it was never let in. The room and the reader are given back
//! before; what is left is an entry, a timer and a slot.

use super::{Engine, Output, Parting};
use crate::connection::{Connection, Phase};
use crate::report::LingerCut;
use crate::table::{Id, Table};
use crate::time::Now;
use crate::ws::rest::Rest;

/// Fewer bytes are read as usual: that costs no more than throwing them away, and what follows comes with them.
const DISCARD_BYTES_MIN: u64 = 4_096;
/// `lingering_max` of 0 is this part of `connections_max`.
const LINGERING_PART: u32 = 16;
impl Engine {
    /// Begins to hear a connection to its end; its last word is queued or will be. The oldest give way.
    pub(super) fn linger(&mut self, id: Id, rest: Rest) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.phase = Phase::Closing { rest: Some(Box::new(rest)) };
        self.counters.lingers += 1;
        self.lingering.push(id);
        while self.lingering.len() > self.lingering_share() {
            self.cut_oldest();
        }
        let connections = &self.connections;
        self.lingering.tidy(|id| is_lingering(connections, id));
    }

    /// This shard's part of `lingering_max`.
    pub(super) fn lingering_share(&self) -> u32 {
        let node = match self.limits.lingering_max {
            0 => self.limits.connections_max / LINGERING_PART,
            given => given,
        };
        node.div_ceil(self.setup.shards).max(1)
    }

    /// Lets the oldest go, so that others get their places.
    pub(super) fn cut_oldest(&mut self) {
        let connections = &self.connections;
        if let Some(id) = self.lingering.oldest(|id| is_lingering(connections, id)) {
            self.cut_off(id, LingerCut::Count);
        }
    }

    pub(super) fn cut_off(&mut self, id: Id, why: LingerCut) {
        self.counters.lingers_cut[why as usize] += 1;
        // Who has heard the word and waits for the end gets an ordinary one.
        let parting = if why == LingerCut::Time { Parting::Dropped } else { Parting::Cut };
        self.remove(id, parting);
    }

    /// Bytes of a connection that lingers.
    pub(super) fn hear(&mut self, now: Now, id: Id, bytes: &[u8]) {
        let Some(rest) = self.rest(id) else { return };
        let has_ended = rest.hear(bytes);
        self.heard(now, id, has_ended);
    }

    /// As [`Self::hear`], of bytes that begin at another place in the stream than the last.
    pub(super) fn hear_from(&mut self, now: Now, id: Id, place: Rest, bytes: &[u8]) {
        let Some(rest) = self.rest(id) else { return };
        rest.go_on_from(place);
        self.hear(now, id, bytes);
    }

    /// The shell has thrown `len` bytes away unseen, as [`Output::Discard`] asked.
    pub fn discarded(&mut self, now: Now, id: Id, len: u32) {
        let Some(rest) = self.rest(id) else { return };
        rest.pass(len);
        self.counters.bytes_received += u64::from(len);
        self.heard(now, id, false);
    }

    fn rest(&mut self, id: Id) -> Option<&mut Rest> {
        match &mut self.connections.get_mut(id)?.phase {
            Phase::Closing { rest } => rest.as_deref_mut(),
            _ => None,
        }
    }

    fn heard(&mut self, now: Now, id: Id, has_ended: bool) {
        if has_ended {
            return self.peer_has_ended(now, id);
        }
        let bytes_max = self.limits.linger_bytes_max;
        let Some(rest) = self.rest(id) else { return };
        let left = bytes_max.saturating_sub(rest.heard_bytes());
        if left == 0 {
            return self.cut_off(id, LingerCut::Bytes);
        }
        let unseen = rest.unseen_max();
        if unseen >= DISCARD_BYTES_MIN {
            let len = unseen.min(left.into()) as u32;
            self.outputs.push_back(Output::Discard { id, len });
        }
    }

    /// A closing connection's peer will say nothing more: close once our bytes are out.
    pub(super) fn peer_has_ended(&mut self, now: Now, id: Id) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if let Phase::Closing { rest } = &mut connection.phase
            && rest.take().is_some()
        {
            self.lingering.leave();
        }
        self.finish_closing(now, id);
    }
}

/// Whether `id` is heard to its end.
fn is_lingering(connections: &Table<Connection>, id: Id) -> bool {
    let phase = connections.get(id).map(|connection| &connection.phase);
    matches!(phase, Some(Phase::Closing { rest: Some(_) }))
}
