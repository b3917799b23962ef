//! What a live connection says: messages, pings, closes, and everything that is against the rules.

use super::{Engine, Parting};
use crate::codec::{self, Codec, CommandFault, Notice, Reference};
use crate::connection::Phase;
use crate::control::PostRefusal;
use crate::patience::COUNT_MAX;
use crate::report::CloseCause;
use crate::table::Id;
use crate::time::Now;
use crate::ws::reader::{Incoming, ReaderLimits};
use crate::ws::writer;

/// RFC 6455 §7.4.1: a kind of message this subprotocol does not use.
const CLOSE_UNSUPPORTED: u16 = 1003;
const CLOSE_NORMAL: u16 = 1000;
/// A policy was broken; the reason says which.
const CLOSE_POLICY: u16 = 1008;

impl Engine {
    /// Reads messages out of `input` until it is used up or the connection has ended, and keeps the sum of
    /// unfinished messages.
    pub(super) fn session_bytes(&mut self, now: Now, id: Id, input: &mut [u8]) {
        self.counters.bytes_received += input.len() as u64;
        let held = |engine: &Self| {
            let connection = engine.connections.get(id);
            connection.map_or(0, |connection| connection.reader.bytes_held() as u64)
        };
        let before = held(self);
        self.read_messages(now, id, input);
        self.unfinished_bytes = self.unfinished_bytes - before + held(self);
        let begins =
            |connection: &mut crate::connection::Connection| connection.reader.begin(now.tick());
        if self.connections.get_mut(id).is_some_and(begins) {
            self.arm(now, id);
        }
    }

    fn read_messages(&mut self, now: Now, id: Id, input: &mut [u8]) {
        let limits = ReaderLimits {
            frame_bytes_max: self.limits.frame_bytes_max,
            message_bytes_max: self.limits.message_bytes_max,
            empty_fragments_max: self.limits.empty_fragments_max,
        };
        let Some(connection) = self.connections.get_mut(id) else { return };
        // The reader steps out of the table, so that what it reads can change the table.
        let mut reader = std::mem::take(&mut connection.reader);
        // Where the input begins: after a fault it is stepped through again, frame by frame.
        let start = reader.rest();
        let mut unread = &mut *input;
        loop {
            match reader.read(&mut unread, &limits) {
                Ok(Some(incoming)) => self.message(now, id, &incoming),
                Ok(None) => break,
                Err(fault) => {
                    self.peer_fault(now, id, fault.code(), fault.reason());
                    return self.hear_from(now, id, start, input);
                }
            }
            // After a close nothing more is read; what there is is heard.
            match self.connections.get(id).map(|connection| &connection.phase) {
                None => return,
                Some(Phase::Closing { .. }) => {
                    return self.hear_from(now, id, reader.rest(), unread);
                }
                Some(_) => {}
            }
        }
        if let Some(connection) = self.connections.get_mut(id) {
            connection.reader = reader;
        }
    }

    fn message(&mut self, now: Now, id: Id, incoming: &Incoming<'_>) {
        let Some(connection) = self.connections.get(id) else { return };
        match (&connection.phase, incoming) {
            (_, Incoming::Ping(payload)) => {
                self.push_private(now, id, |out| writer::pong(out, payload));
                self.count_control(now, id);
            }
            // One that was asked for comes once in an interval of silence and makes no difference.
            (_, Incoming::Pong(_)) => self.count_control(now, id),
            (_, Incoming::Close { code, .. }) => {
                let code = code.unwrap_or(CLOSE_NORMAL);
                self.peer_closed(now, id, code);
            }
            (Phase::Echo, Incoming::Text(text)) => {
                self.push_private(now, id, |out| writer::text(out, text.as_bytes()));
            }
            (Phase::Echo, Incoming::Binary(bytes)) => {
                self.push_private(now, id, |out| writer::binary(out, bytes));
            }
            (_, Incoming::Text(text)) => self.command(now, id, Codec::Json, text.as_bytes()),
            (_, Incoming::Binary(bytes)) => self.command(now, id, Codec::Binary, bytes),
        }
    }

    fn command(&mut self, now: Now, id: Id, codec: Codec, payload: &[u8]) {
        let connection = self.connections.at(id.index);
        if connection.codec != codec {
            return self.peer_fault(
                now,
                id,
                CLOSE_UNSUPPORTED,
                "not a message of this subprotocol",
            );
        }
        // A bad command costs as much as a good one, or garbage would be free.
        let is_within_rate = connection.posts.take(now, self.limits.posts_per_sec_connection);
        let most = at_most(self.limits.over_rate_commands_max);
        let is_borne = is_within_rate || connection.patience.take_command(now, most);
        match codec::read_command(codec, payload) {
            Ok(post) if is_within_rate => self.post(now, id, post),
            Ok(post) => {
                self.refuse_post(now, id, post.reference.as_ref(), PostRefusal::RateLimited);
            }
            Err(CommandFault::Refused { reference, refusal }) => {
                let refusal = if is_within_rate { refusal } else { PostRefusal::RateLimited };
                self.refuse_post(now, id, reference.as_ref(), refusal);
            }
            Err(CommandFault::UnknownVersion) => {
                self.peer_fault(now, id, CLOSE_UNSUPPORTED, "unknown format version");
            }
        }
        if !is_borne {
            self.lose_patience(now, id, "too many commands over the rate");
        }
    }

    /// Counts a ping or pong; too many within a second end the connection.
    fn count_control(&mut self, now: Now, id: Id) {
        let most = at_most(self.limits.control_frames_per_sec_max);
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.patience.take_control(now, most)
        {
            self.lose_patience(now, id, "too many pings and pongs");
        }
    }

    /// The peer asks for more than its share: say so and stop listening.
    fn lose_patience(&mut self, now: Now, id: Id, reason: &str) {
        self.close(now, id, CLOSE_POLICY, reason, CloseCause::OverRate);
    }

    /// Refuses one command; the connection stays.
    pub(super) fn refuse_post(
        &mut self,
        now: Now,
        id: Id,
        reference: Option<&Reference>,
        refusal: PostRefusal,
    ) {
        self.counters.posts_refused[refusal as usize] += 1;
        let Some(codec) = self.codec_of_live(id) else { return };
        let error = Notice::Error { reference, refusal };
        self.push_private(now, id, |out| codec::write_notice(codec, &error, out));
    }

    /// The codec of a connection that may still be told something: an answer from another shard
    /// can come after the close frame, which nothing may follow (RFC 6455 §5.5.1).
    pub(super) fn codec_of_live(&self, id: Id) -> Option<Codec> {
        let connection = self.connections.get(id)?;
        matches!(connection.phase, Phase::Live { .. }).then_some(connection.codec)
    }

    /// The peer's close frame: answer it, and close when that is out. It waits for that (RFC 6455 §7.1.1) and has
    /// nothing more to say.
    fn peer_closed(&mut self, now: Now, id: Id, code: u16) {
        self.leave_room(now, id);
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.is_close_sent = true;
        self.push_private(now, id, |out| writer::close(out, code, ""));
        self.finish_closing(now, id);
    }

    /// The peer broke the protocol: say so and stop listening.
    fn peer_fault(&mut self, now: Now, id: Id, code: u16, reason: &str) {
        self.close(now, id, code, reason, CloseCause::PeerFault);
    }

    /// Closes a live connection from our side: a close frame, and then the peer is heard to its end.
    pub(super) fn close(&mut self, now: Now, id: Id, code: u16, reason: &str, cause: CloseCause) {
        self.leave_room(now, id);
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.is_close_sent {
            return;
        }
        connection.cause = cause;
        connection.is_close_sent = true;
        connection.phase_tick = now.tick();
        self.unfinished_bytes -= connection.reader.bytes_held() as u64;
        let rest = std::mem::take(&mut connection.reader).rest();
        self.linger(id, rest);
        self.push_private(now, id, |out| writer::close(out, code, reason));
        self.arm(now, id);
    }

    /// Ends a connection that has nothing more to send or to wait for.
    pub(super) fn finish_closing(&mut self, now: Now, id: Id) {
        let Some(connection) = self.connections.get(id) else { return };
        if !matches!(connection.phase, Phase::Closing { rest: None }) {
            return;
        }
        if connection.private_len() == 0 {
            self.remove(id, Parting::Whole { patience_ms: self.limits.close_ms_max });
        } else {
            self.arm(now, id);
        }
    }
}

/// A limit as the counts know it.
fn at_most(limit: u32) -> u8 {
    limit.min(COUNT_MAX.into()) as u8
}
