//! From an accepted socket to a decision about its request.

use std::net::SocketAddr;

use super::{Engine, Output, Parting};
use crate::connection::{Connection, Handshake, Phase};
use crate::http::{self, Content, Head, Rejection};
use crate::mesh::Join;
use crate::table::Id;
use crate::time::{Now, ticks};
use crate::ws::rest::Rest;

/// How long a connection may be silent before it can be shed, in milliseconds.
const SHED_MS_MIN: u32 = 1_000;
/// Connections shed in one call.
const SHED_MAX: usize = 1_024;

impl Engine {
    /// A socket was accepted. Read from it until it is live or gone.
    pub fn accept(&mut self, now: Now, peer: Option<SocketAddr>) -> Id {
        self.counters.accepts += 1;
        self.handshakes += 1;
        let counted_by = self.counted_address(peer);
        let bytes = Vec::new();
        let handshake =
            Box::new(Handshake { bytes, peer, counted_by, searched: 0, read_again_at: 0 });
        let id = self.connections.insert(Connection::new(Phase::Handshake(handshake), now.tick()));
        let due = now.tick() + ticks(self.limits.handshake_ms_max);
        self.wheel.schedule(id.index, due);
        self.begin_request(now, id, counted_by);
        id
    }

    /// Bytes arrived. They are unmasked in place.
    pub fn received(&mut self, now: Now, id: Id, bytes: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        match connection.phase {
            Phase::Handshake(_) => self.request_bytes(now, id, bytes),
            Phase::Closing { .. } => {
                self.counters.bytes_received += bytes.len() as u64;
                self.hear(now, id, bytes);
            }
            Phase::Live { .. } | Phase::Echo => {
                connection.heard_tick = now.tick();
                self.session_bytes(now, id, bytes);
            }
            // The shell does not read from a socket that is moving.
            Phase::Leaving(_) | Phase::Handing | Phase::Arriving { .. } => {}
        }
        self.keep_budgets(now);
    }

    fn request_bytes(&mut self, now: Now, id: Id, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Phase::Handshake(handshake) = &mut connection.phase else { return };
        let before = handshake.bytes.capacity() as u64;
        // Most requests arrive in one piece and are read where they lie.
        let whole = if handshake.bytes.is_empty() {
            bytes
        } else {
            handshake.bytes.extend_from_slice(bytes);
            self.head_bytes += handshake.bytes.capacity() as u64 - before;
            if !handshake.is_due(self.limits.handshake_bytes_max as usize) {
                return self.outputs.push_back(Output::Read { id });
            }
            &handshake.bytes
        };
        match http::read_head(whole, &self.limits) {
            Head::Incomplete => {
                if handshake.bytes.is_empty() {
                    handshake.bytes.extend_from_slice(bytes);
                    self.head_bytes += handshake.bytes.capacity() as u64 - before;
                    handshake.was_read();
                }
                self.outputs.push_back(Output::Read { id });
            }
            Head::Plain => {
                let (read, peer) = (whole.to_vec(), handshake.peer);
                self.change_phase(id, Phase::Handing);
                self.wheel.cancel(id.index);
                self.outputs.push_back(Output::Handover { id, read, peer });
            }
            Head::Refused(rejection) => {
                let content = Content::for_request(whole);
                self.answer_request(now, id, &rejection, content);
            }
            Head::Upgrade(upgrade) => {
                let early = whole[upgrade.head_len..].to_vec();
                let peer = handshake.peer;
                let join = Join { token: 0, upgrade, early, peer, has_place: false, spread: None };
                self.ask_place(now, id, join);
            }
        }
    }

    /// The control plane has the socket of a plain HTTP request.
    pub fn handed_over(&mut self, id: Id) {
        self.counters.handovers += 1;
        self.remove(id, Parting::Moved);
    }

    /// The control plane could not take the socket, and the connection stays to be refused. `read` is what was
    /// read from it.
    pub fn handover_failed(&mut self, now: Now, id: Id, read: &[u8]) {
        self.answer(now, id, &Rejection::OVERLOADED, Content::for_request(read));
    }

    /// Lets go of connections that have not sent a request in a second, so that others get their places.
    /// At most about a thousand in one call, the oldest first. Those that linger go before: they have had their answer.
    pub fn shed_handshakes(&mut self, now: Now) {
        for _ in 0..SHED_MAX {
            self.cut_oldest();
        }
        let oldest = now.tick().saturating_sub(ticks(SHED_MS_MIN));
        for _ in 0..SHED_MAX {
            let Some(id) = self.oldest_unfinished() else { return };
            if self.connections.peek(id.index).phase_tick > oldest {
                return;
            }
            self.give_up_request(now, id, &Rejection::OVERLOADED);
        }
    }

    /// Ends a request that has not arrived whole. Who has said nothing at all has not asked
    /// either: browsers connect in advance, and would take the answer for that to a later request.
    pub(super) fn give_up_request(&mut self, now: Now, id: Id, rejection: &Rejection) {
        let Some(connection) = self.connections.get(id) else { return };
        let Phase::Handshake(handshake) = &connection.phase else { return };
        if handshake.bytes.is_empty() {
            self.counters.refusals[rejection.refusal() as usize] += 1;
            return self.remove(id, Parting::Dropped);
        }
        let content = Content::for_request(&handshake.bytes);
        self.answer_request(now, id, rejection, content);
    }

    /// Answers a request with a status and closes the connection once that is out.
    pub(super) fn refuse(&mut self, now: Now, id: Id, rejection: &Rejection) {
        self.answer_request(now, id, rejection, Content::Sent);
    }

    fn answer_request(&mut self, now: Now, id: Id, rejection: &Rejection, content: Content) {
        self.counters.refusals[rejection.refusal() as usize] += 1;
        self.answer(now, id, rejection, content);
    }

    /// As [`Self::refuse`], of what is no upgrade.
    fn answer(&mut self, now: Now, id: Id, rejection: &Rejection, content: Content) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        self.handshakes -= 1;
        if let Phase::Arriving { token } = connection.phase {
            self.halves.remove(&token);
        }
        connection.phase_tick = now.tick();
        connection.is_refused = true;
        self.refused += 1;
        self.node_connections += 1;
        self.outputs.push_back(Output::Linger { id });
        self.change_phase(id, Phase::Closing { rest: None });
        self.linger(id, Rest::unframed());
        let wall_ms = now.wall_ms;
        self.push_private(now, id, |out| {
            http::write_rejection(out, rejection, wall_ms, content);
        });
        self.arm(now, id);
        self.hear(now, id, b"");
    }
}
