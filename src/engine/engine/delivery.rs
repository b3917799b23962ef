//! What goes into a chunk, and what to do when the kernel did not take it whole.
//!
//! A chunk is built as if every send will succeed: cursors move ahead at once, and only the few
//! that did not go out whole are set right in `settle`. A connection has at most one send in a
//! chunk. A frame that was cut leaves its rest in the connection's private queue, so a cursor
//! always stands between two frames and old segments can be freed at any time.

use std::io;

use super::chunk::{Chunk, Delivery, Source};
use super::{Engine, Output};
use crate::codec::{self, Notice};
use crate::connection::Phase;
use crate::fanout::FeedKey;
use crate::limits::LagPolicy;
use crate::log::{Log, Run};
use crate::report::{CloseCause, GapCause};
use crate::room::{self, Feed, Member, Pass};
use crate::table::Id;
use crate::time::Now;

/// What a feed may put into a chunk at least, however many others wait.
const TURN_SENDS_MIN: usize = 16;
/// The most log bytes of one send: about what an empty send buffer takes.
const RUN_BYTES_MAX: u32 = 16 * 1024;
/// The most private bytes of one send.
const PRIVATE_BYTES_MAX: usize = 64 * 1024;
/// Private bytes of one chunk, beyond which the next connection waits for the next chunk: its memory is kept.
const SCRATCH_BYTES_MAX: usize = 256 * 1024;
/// Members a feed looks at in one turn, so that scanning a large idle feed stays short.
const VISITS_MAX: usize = 8_192;
/// The protocol's close code for a subscriber that was too slow.
const CLOSE_EVICTED: u16 = 4000;

/// What came of looking at a member.
enum Visit {
    /// Nothing for it.
    Current,
    /// A send, and whether more waits behind it.
    Sent { is_behind: bool },
    /// It has a send in this chunk already.
    Taken,
    /// Its cursor is older than the log.
    Lagged,
}

/// Puts the next run for `member` into the chunk.
fn visit(log: &Log, member: &mut Member, id: Id, number: u32, chunk: &mut Chunk) -> Visit {
    if member.cursor >= log.end() {
        return Visit::Current;
    }
    // First of all: a gap notice must not slip in before the rest of a send that may be cut.
    if !member.mark(number) {
        return Visit::Taken;
    }
    if member.cursor < log.tail() {
        return Visit::Lagged;
    }
    let run = log.run(member.cursor, RUN_BYTES_MAX).expect("the cursor is before the end");
    let segment = chunk.keep(run.segment);
    // A run that ends with its segment goes on in the next one, or every viewer would need a second
    // send each time a segment fills.
    let rest = log.run(run.next, RUN_BYTES_MAX.saturating_sub(run.len));
    let rest = rest.filter(|rest| rest.start == 0 && run.len < RUN_BYTES_MAX);
    let then = rest.as_ref().map(|rest| (chunk.keep(rest.segment), rest.len));
    let next = rest.map_or(run.next, |rest| rest.next);
    let Run { start, len, .. } = run;
    let source = Source::Log { own: None, segment, start, len, then, from: member.cursor, next };
    chunk.deliveries.push(Delivery { id, source });
    member.cursor = next;
    Visit::Sent { is_behind: next < log.end() }
}

impl Engine {
    /// Whether [`Self::next_chunk`] has something to do right now.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.fanout.has_work()
    }

    /// Whether there is something to send, now or once a rest is over.
    #[must_use]
    pub fn has_sends(&self) -> bool {
        self.fanout.has_work() || self.fanout.next_rested_us().is_some()
    }

    /// Whether some of it is due by `now_us`, in monotonic microseconds.
    #[must_use]
    pub fn is_due(&self, now_us: u64) -> bool {
        self.fanout.has_work()
            || self.fanout.next_rested_us().is_some_and(|due_us| due_us <= now_us)
    }

    /// Builds the next sends. An empty chunk does not mean that there is no more work.
    pub fn next_chunk(&mut self, now: Now, chunk: &mut Chunk) {
        chunk.clear();
        self.chunk_number = self.chunk_number.wrapping_add(1);
        self.derived_frames = 0;
        self.wake_rested(now);
        // Single connections leave at least half of the chunk to feeds.
        let most = chunk.sends_max;
        let quota = if self.fanout.running() > 0 { most / 2 } else { most };
        for _ in 0..self.fanout.ready.len() {
            if chunk.deliveries.len() >= quota || chunk.scratch.len() >= SCRATCH_BYTES_MAX {
                break;
            }
            let Some(id) = self.fanout.ready.pop_front() else { break };
            self.serve(now, id, chunk);
        }
        // Feeds share the chunk: a small room does not wait for a hot one to fill it.
        let turns = self.fanout.running();
        let share = (chunk.sends_max / turns.max(1)).max(TURN_SENDS_MIN);
        for _ in 0..turns {
            if chunk.is_full() {
                break;
            }
            let Some(key) = self.fanout.next_running() else { break };
            self.advance_pass(now, key, chunk, share);
        }
    }

    /// Serves one connection from the ready queue: its own bytes first, then its feed.
    fn serve(&mut self, now: Now, id: Id, chunk: &mut Chunk) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.is_ready = false;
        if connection.is_blocked {
            return;
        }
        if let Some(private) = &connection.private {
            let waiting = private.waiting();
            let len = waiting.len().min(PRIVATE_BYTES_MAX);
            let is_whole = len == waiting.len();
            let start = chunk.scratch.len() as u32;
            chunk.scratch.extend_from_slice(&waiting[..len]);
            let own = (start, len as u32);
            self.counters.bytes_sent += u64::from(own.1);
            if !(is_whole && self.send_with_frames(id, own, chunk)) {
                let source = Source::Private { start, len: own.1 };
                chunk.deliveries.push(Delivery { id, source });
            }
            return;
        }
        let Phase::Live { room: room_id, member } = connection.phase else {
            return self.finish_closing(now, id);
        };
        let codec = connection.codec;
        let room = self.rooms.table.get_mut(room_id).expect("a member's room exists");
        let feed = room.feed_mut(codec).expect("a member's feed exists");
        let Feed { log, members, .. } = feed;
        let member = &mut members[member as usize];
        member.set_held(false);
        match visit(log, member, id, self.chunk_number, chunk) {
            Visit::Current => self.has_caught_up(id, room_id),
            Visit::Sent { is_behind } => {
                self.count_delivery(chunk);
                if is_behind {
                    self.make_ready(id);
                } else {
                    self.has_caught_up(id, room_id);
                }
            }
            Visit::Taken => self.make_ready(id),
            Visit::Lagged => self.lagged(now, id),
        }
    }

    /// A member that was served alone has been sent everything.
    fn has_caught_up(&mut self, id: Id, room_id: Id) {
        self.connections.at(id.index).is_slow = false;
        self.ask_again(room_id.index);
    }

    /// Sends a member the frames it is to get next in one go with all of its `own` bytes: an ack and the
    /// author's own comment, or a welcome and the history after it. False if there are none for it.
    fn send_with_frames(&mut self, id: Id, own: (u32, u32), chunk: &mut Chunk) -> bool {
        let connection = self.connections.at(id.index);
        let Phase::Live { room, member } = connection.phase else { return false };
        let room = self.rooms.table.get_mut(room).expect("a member's room exists");
        let feed = room.feed_mut(connection.codec).expect("a member's feed exists");
        let Feed { log, members, .. } = feed;
        let member = &mut members[member as usize];
        // A gap is told before what comes after it, once these bytes are out.
        if member.cursor < log.tail() {
            return false;
        }
        let Some(run) = log.run(member.cursor, RUN_BYTES_MAX) else { return false };
        let is_first = member.mark(self.chunk_number);
        assert!(
            is_first,
            "a member with bytes of its own is held, so no pass has sent it anything"
        );
        let segment = chunk.keep(run.segment);
        let Run { start, len, next, .. } = run;
        let from = std::mem::replace(&mut member.cursor, next);
        let source = Source::Log { own: Some(own), segment, start, len, then: None, from, next };
        let delivery = Delivery { id, source };
        count(&mut self.counters, &delivery);
        chunk.deliveries.push(delivery);
        true
    }

    /// Gives a running feed its turn: visits members until it has made `share` sends, the chunk is
    /// full or the pass is over.
    fn advance_pass(&mut self, now: Now, key: FeedKey, chunk: &mut Chunk, share: usize) {
        let is_derived = self.derive_step(now, key.room);
        let Some(room) = self.rooms.table.get_mut(key.room) else { return };
        let Some(feed) = room.feed_mut(key.codec()) else { return };
        let Feed { log, members, pass, appended_us, .. } = feed;
        let pass = pass.get_or_insert_with(|| Pass {
            remaining: members.len(),
            began_us: now.mono_us,
            appended_us: appended_us.take().unwrap_or(now.mono_us),
            log_end: log.end(),
            ..Pass::default()
        });
        pass.remaining = pass.remaining.min(members.len());
        let stop = pass.remaining.saturating_sub(VISITS_MAX);
        let (mut behind, mut lagged) = (Vec::new(), Vec::new());
        let first = chunk.deliveries.len();
        while pass.remaining > stop && !chunk.is_full() && chunk.deliveries.len() - first < share {
            pass.remaining -= 1;
            let member = &mut members[pass.remaining];
            if member.is_held() || member.cursor >= log.end() {
                continue;
            }
            let index = member.connection;
            let id = self.connections.id_at(index).expect("a member's connection exists");
            pass.lag_frames_max = pass.lag_frames_max.max(log.end() - member.cursor);
            match visit(log, member, id, self.chunk_number, chunk) {
                Visit::Current => {}
                Visit::Sent { is_behind: false } => {}
                Visit::Sent { is_behind: true } | Visit::Taken => behind.push(id),
                Visit::Lagged => lagged.push(id),
            }
        }
        let sends = chunk.deliveries.len() - first;
        pass.sends += sends as u64;
        let is_over = pass.remaining == 0;
        for delivery in &chunk.deliveries[first..] {
            count(&mut self.counters, delivery);
        }
        for id in behind {
            self.make_ready(id);
        }
        for id in lagged {
            self.lagged(now, id);
        }
        if is_over {
            self.end_pass(now, key, is_derived, sends > 0);
        } else {
            self.fanout.again(key);
        }
    }

    /// `has_sent`: its last sends are in the chunk that is being built; otherwise they went with an earlier one.
    fn end_pass(&mut self, now: Now, key: FeedKey, is_derived: bool, has_sent: bool) {
        self.ask_again(key.room.index);
        let Some(room) = self.rooms.table.get_mut(key.room) else { return };
        let Some(feed) = room.feed_mut(key.codec()) else { return };
        let pass = feed.pass.take().expect("the pass that ended was under way");
        let cost_us = self.fanout.cost_us(&pass);
        if pass.sends > 0 {
            if has_sent {
                self.finished.push(pass.appended_us);
            } else {
                observe_delivery(&mut self.counters, now, pass.appended_us);
            }
            self.counters.passes += 1;
            // A pass of one chunk ends within the turn that it began in.
            self.counters.pass_seconds.observe((now.mono_us - pass.began_us).max(cost_us));
            let worst = &mut self.counters.pass_lag_frames_max;
            *worst = (*worst).max(pass.lag_frames_max);
        }
        if !is_derived {
            return self.fanout.again(key);
        }
        let is_saturated = feed.log.end() > pass.log_end;
        let pause_max = self.limits.coalesce_ms_max;
        let pause_us = self.governor.pause_us(cost_us, is_saturated, pause_max);
        feed.rest_until_us = now.mono_us + pause_us;
        feed.phase = room::Phase::Idle;
        if is_saturated {
            self.fanout.notify(now.mono_us, key, feed);
        }
    }

    /// A subscriber has fallen out of the log.
    fn lagged(&mut self, now: Now, id: Id) {
        let Some(connection) = self.connections.get(id) else { return };
        let cause = if connection.is_slow { GapCause::Viewer } else { GapCause::Pass };
        // Nobody is closed as too slow for what the shard did not send in time.
        if self.limits.lag_policy == LagPolicy::Evict && cause == GapCause::Viewer {
            return self.close(now, id, CLOSE_EVICTED, "too slow", CloseCause::Lag);
        }
        let Phase::Live { room, member } = connection.phase else { return };
        let codec = connection.codec;
        // The home shard may have trimmed past the end that this one knows.
        self.catch_up(now, room, now.mono_us);
        let room = self.rooms.table.get_mut(room).expect("a member's room exists");
        let feed = room.feed_mut(codec).expect("a member's feed exists");
        let member = &mut feed.members[member as usize];
        let from = member.cursor;
        // Half of what is kept, or it would fall out again at once.
        member.cursor = feed.log.tail().max(feed.log.end() - feed.log.frames() / 2);
        let to = member.cursor - 1;
        self.counters.gaps[cause as usize] += 1;
        self.counters.gap_comments[cause as usize] += to + 1 - from;
        self.push_private(now, id, |out| {
            codec::write_notice(codec, &Notice::Gap { from, to }, out);
        });
    }

    /// Sets right what the kernel did not take whole. `failures` are `(index, result)` of sends
    /// of this chunk: `Ok(n)` took `n` bytes, `WouldBlock` none. `spent_us` is how long all took, `now` is after it.
    /// The chunk is empty afterwards: a segment that an idle shard went on keeping alive would keep
    /// all that follow it, however often its room is trimmed.
    pub fn settle(
        &mut self,
        now: Now,
        chunk: &mut Chunk,
        failures: &mut Vec<(u32, io::Result<usize>)>,
        spent_us: u64,
    ) {
        self.fanout.observe(chunk.deliveries.len(), spent_us);
        self.counters.short_writes += failures.len() as u64;
        failures.sort_unstable_by_key(|(index, _)| *index);
        let mut failed = failures.drain(..).peekable();
        for (index, delivery) in chunk.deliveries.iter().enumerate() {
            let failure = failed.next_if(|(at, _)| *at as usize == index).map(|(_, result)| result);
            let taken = match failure {
                None => None,
                Some(Ok(taken)) => Some(taken as u32),
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => Some(0),
                Some(Err(_)) => {
                    uncount(&mut self.counters, delivery);
                    self.failed(now, delivery.id);
                    continue;
                }
            };
            let own = delivery.source.own_len();
            if own > 0 {
                self.private_taken(now, delivery.id, own, taken.filter(|&taken| taken < own));
            }
            // Of frames behind own bytes that were cut nothing went out.
            if let Some(taken) = taken {
                self.cut(now, chunk, delivery, taken.saturating_sub(own));
            }
        }
        chunk.clear();
        self.observe_deliveries(now);
        self.keep_budgets(now);
    }

    /// The last sends of the passes that have ended are with the kernel.
    fn observe_deliveries(&mut self, now: Now) {
        for appended_us in self.finished.drain(..) {
            observe_delivery(&mut self.counters, now, appended_us);
        }
    }

    /// A run of log frames went out only up to its byte `taken`.
    fn cut(&mut self, now: Now, chunk: &Chunk, delivery: &Delivery, taken: u32) {
        let Source::Log { segment, start, len, then, from, next, .. } = delivery.source else {
            return;
        };
        let Some(connection) = self.connections.get(delivery.id) else { return };
        let Phase::Live { room, member } = connection.phase else { return };
        let codec = connection.codec;
        let unsent = delivery.source.len() - delivery.source.own_len() - taken;
        let (segment, stop) = match then {
            Some((second, _)) if taken > len => (chunk.segment(second), taken - len),
            _ => (chunk.segment(segment), start + taken),
        };
        let cut = segment.frame_at(stop).max(from);
        let is_between = segment.start_of(cut) == stop;
        let cursor = if is_between { cut } else { cut + 1 };
        let room = self.rooms.table.get_mut(room).expect("a member's room exists");
        let feed = room.feed_mut(codec).expect("a member's feed exists");
        feed.members[member as usize].cursor = cursor;
        self.counters.deliveries -= next - cursor;
        self.counters.bytes_sent -= u64::from(unsent);
        self.block(now, delivery.id);
        if !is_between {
            let rest = segment.start_of(cut + 1) - stop;
            // No limit holds for it: it is one frame at most, and its beginning has gone out.
            self.change_private(delivery.id, |private| {
                segment.read(stop, rest, private.buffer());
                private.is_rest();
            });
        }
    }

    /// Private bytes went out: all of `len`, or `taken` of them.
    fn private_taken(&mut self, now: Now, id: Id, len: u32, taken: Option<u32>) {
        let sent = taken.unwrap_or(len);
        let Some(connection) = self.connections.get_mut(id) else { return };
        if taken.is_none() {
            connection.socket_tick = now.tick();
            // A ping may have stood in line behind others' sends: only now can it be answered.
            if connection.pinged_tick > connection.heard_tick {
                connection.pinged_tick = now.tick();
            }
            // So may a last word, and its peer has all of `close_ms_max` to hear it.
            if matches!(connection.phase, Phase::Closing { .. }) {
                connection.phase_tick = now.tick();
            }
        }
        self.counters.bytes_sent -= u64::from(len - sent);
        self.change_private(id, |private| private.advance(sent as usize));
        match taken {
            None => self.make_ready(id),
            Some(_) => self.block(now, id),
        }
        self.read_on(now, id);
    }

    /// The kernel takes no more for this connection until it says so.
    fn block(&mut self, now: Now, id: Id) {
        self.hold(id, true);
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !connection.is_blocked {
            (connection.is_blocked, connection.is_slow) = (true, true);
            connection.socket_tick = now.tick();
            self.blocked += 1;
            self.outputs.push_back(Output::AwaitWritable { id });
            self.arm(now, id);
        }
    }

    /// The socket takes bytes again.
    pub fn writable(&mut self, now: Now, id: Id) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.is_blocked {
            // A peer that takes bytes is not silent, whether or not what it says can be read meanwhile.
            connection.heard_tick = now.tick();
            connection.is_blocked = false;
            self.blocked -= 1;
            if let Phase::Live { room, member } = connection.phase {
                let codec = connection.codec;
                self.owe_member(room, codec, member);
            }
            self.make_ready(id);
        }
    }

    fn count_delivery(&mut self, chunk: &Chunk) {
        if let Some(delivery) = chunk.deliveries.last() {
            count(&mut self.counters, delivery);
        }
    }
}

/// The last send of a pass is with the kernel, `now`.
fn observe_delivery(counters: &mut crate::report::Counters, now: Now, appended_us: u64) {
    // Another shard's turn may have begun a little later than this one's.
    counters.delivery_seconds.observe(now.mono_us.saturating_sub(appended_us));
}

/// Counts the log frames of a send as if it will succeed.
fn count(counters: &mut crate::report::Counters, delivery: &Delivery) {
    if let Source::Log { from, next, .. } = delivery.source {
        counters.deliveries += next - from;
        counters.log_writes += 1;
        counters.bytes_sent += u64::from(delivery.source.len() - delivery.source.own_len());
    }
}

/// Takes back the count of a send of which nothing went out.
fn uncount(counters: &mut crate::report::Counters, delivery: &Delivery) {
    if let Source::Log { from, next, .. } = delivery.source {
        counters.deliveries -= next - from;
    }
    counters.bytes_sent -= u64::from(delivery.source.len());
}
