//! What viewers hear: from bytes to counts, without a socket in sight.
//!
//! The receive path of the whole tool, so it is lean: whole frames are read where the kernel
//! put them, one clock reading serves a read, and only the cut end of a read is copied.

use std::collections::{BTreeSet, HashMap};

use super::viewer::{Phase, Role, Viewer};
use crate::marker::Marker;
use crate::tally::{Tally, Underway, record};
use crate::verify::{Arrival, Holes, Posts, Recent, Sight};
use tungstenite::protocol::frame::coding::OpCode;

use crate::wire::frame::{self, FrameView, WireError};
use crate::wire::upgrade::{self, Answer};
use crate::wire::{Dialect, Heard, Reader, generic};

/// The first troubles are kept as text; the rest are only counted.
const TROUBLES_MAX: usize = 8;

/// The identity of comments that this run did not post.
const FOREIGN: u64 = u64::MAX;

/// What a viewer's bytes call for.
#[derive(Debug, PartialEq)]
pub(super) enum Call {
    /// Answer a ping with these bytes.
    Pong(Vec<u8>),
    /// The 101 came: send the dialect's hello, if it has one.
    Upgraded,
    /// The connection is live.
    Live,
    /// End the connection: the server closed it, or broke the protocol.
    End,
    /// End the connection and try again later: the upgrade was refused.
    Refused(u16),
}

/// The sequences of posts that a publisher waits for, on its present connection.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    answers: BTreeSet<u32>,
    /// Those that it has not received as a comment: it watches its event like everyone.
    deliveries: BTreeSet<u32>,
}

impl Awaited {
    pub(super) fn posted(&mut self, sequence: u32) {
        self.answers.insert(sequence);
        self.deliveries.insert(sequence);
    }

    /// Posts that are acknowledged and stand in no log that their publisher knows.
    fn unseen(&self) -> u64 {
        self.deliveries.difference(&self.answers).count() as u64
    }
}

/// The viewers of a plane and all they are judged by.
#[derive(Debug)]
pub(super) struct Crowd {
    pub(super) viewers: Vec<Viewer>,
    pub(super) tally: Tally,
    pub(super) dialect: Dialect,
    pub(super) reader: Reader,
    /// The newest offset known of each event, by ack or by sight.
    pub(super) heads: Vec<u64>,
    /// The epoch of each event.
    pub(super) epochs: Vec<u64>,
    pub(super) recents: Vec<Recent>,
    pub(super) holes: Holes,
    /// Which posts stand in the logs that this plane's viewers see.
    pub(super) posts: Posts,
    /// The publishers of each event, on all planes, as the first one's number and the first after them.
    pub(super) publishers_of: Vec<(u32, u32)>,
    /// Markers of a generic message; empty between messages.
    pub(super) found: Vec<Marker>,
    /// Messages that came in fragments so far.
    pub(super) fragments: HashMap<u32, Vec<u8>>,
    /// What each publisher waits for; not of a generic server, which answers nothing.
    pub(super) awaited: HashMap<u32, Awaited>,
    /// The publisher number of viewers that post.
    pub(super) publisher_numbers: HashMap<u32, u32>,
    pub(super) run: u16,
    pub(super) started_ns: u64,
}

impl Crowd {
    /// Takes what a read brought, and says what it calls for.
    pub(super) fn hear(&mut self, index: u32, bytes: &[u8], now_ns: u64, calls: &mut Vec<Call>) {
        let carried = self.viewers[index as usize].carry.take();
        let Some(mut whole) = carried else {
            let used = self.hear_whole(index, bytes, now_ns, calls);
            if used < bytes.len() && calls.last() != Some(&Call::End) {
                self.viewers[index as usize].carry = Some(Box::new(bytes[used..].to_vec()));
            }
            return;
        };
        whole.extend_from_slice(bytes);
        let used = self.hear_whole(index, &whole, now_ns, calls);
        if used < whole.len() && calls.last() != Some(&Call::End) {
            whole.drain(..used);
            self.viewers[index as usize].carry = Some(whole);
        }
    }

    /// Reads all whole frames at the front of `bytes`; returns how many bytes they were.
    fn hear_whole(
        &mut self,
        index: u32,
        bytes: &[u8],
        now_ns: u64,
        calls: &mut Vec<Call>,
    ) -> usize {
        let mut used = 0;
        if self.viewers[index as usize].phase == Phase::Upgrading {
            match self.upgraded(index, bytes, calls) {
                Some(head_bytes) => used = head_bytes,
                None => return 0,
            }
        }
        self.tally.counters.bytes_received += (bytes.len() - used) as u64;
        loop {
            let frame = match frame::next_frame(&bytes[used..]) {
                Ok(Some(frame)) => frame,
                Ok(None) => return used,
                Err(error) => {
                    self.protocol_error(error, calls);
                    return used;
                }
            };
            used += frame.frame_bytes;
            if let Err(error) = self.frame(index, &frame, now_ns, calls) {
                self.protocol_error(error, calls);
                return used;
            }
            if calls.last() == Some(&Call::End) {
                return used;
            }
        }
    }

    fn protocol_error(&mut self, error: WireError, calls: &mut Vec<Call>) {
        self.tally.counters.protocol_errors += 1;
        self.trouble(|| error.to_string());
        calls.push(Call::End);
    }

    fn upgraded(&mut self, index: u32, bytes: &[u8], calls: &mut Vec<Call>) -> Option<usize> {
        let viewer = &mut self.viewers[index as usize];
        let key = upgrade::key(nonce(viewer));
        match upgrade::read_answer(bytes, &key, self.dialect.subprotocol()) {
            Answer::Partial => None,
            Answer::Switched(head_bytes) => {
                calls.push(Call::Upgraded);
                if matches!(self.dialect, Dialect::Generic(_)) {
                    viewer.phase = Phase::Live;
                    viewer.expected = 0;
                    viewer.joined_at = self.heads[viewer.event as usize];
                    calls.push(Call::Live);
                } else {
                    viewer.phase = Phase::Welcoming;
                }
                Some(head_bytes)
            }
            Answer::Refused(status) => {
                self.tally.counters.upgrades_refused += 1;
                self.trouble(|| {
                    format!("an upgrade was answered with {}", upgrade::explain(status))
                });
                calls.push(Call::Refused(status));
                None
            }
            Answer::Broken => {
                self.tally.counters.protocol_errors += 1;
                self.trouble(|| "the answer to an upgrade is not RFC 6455's".to_owned());
                calls.push(Call::End);
                None
            }
        }
    }

    fn frame(
        &mut self,
        index: u32,
        frame: &FrameView<'_>,
        now_ns: u64,
        calls: &mut Vec<Call>,
    ) -> Result<(), WireError> {
        match frame.opcode {
            frame::TEXT | frame::BINARY if frame.is_final => {
                self.message(index, frame.opcode, frame.payload, now_ns, calls)
            }
            frame::TEXT | frame::BINARY => {
                self.fragments.insert(index, frame.payload.to_vec());
                Ok(())
            }
            frame::CONTINUATION => {
                let mut message = self.fragments.remove(&index).ok_or(WireError::Header)?;
                message.extend_from_slice(frame.payload);
                if !frame.is_final {
                    self.fragments.insert(index, message);
                    return Ok(());
                }
                let opcode =
                    if matches!(self.dialect, Dialect::Rkyv) { frame::BINARY } else { frame::TEXT };
                self.message(index, opcode, &message, now_ns, calls)
            }
            frame::PING => {
                self.tally.counters.pings += 1;
                calls.push(Call::Pong(frame.payload.to_vec()));
                Ok(())
            }
            frame::PONG => Ok(()),
            _ => {
                if let [high, low, reason @ ..] = frame.payload {
                    let code = u16::from_be_bytes([*high, *low]);
                    let reason = String::from_utf8_lossy(reason).into_owned();
                    self.trouble(|| format!("the server closed with {code} {reason}"));
                }
                calls.push(Call::End);
                Ok(())
            }
        }
    }

    fn message(
        &mut self,
        index: u32,
        opcode: OpCode,
        payload: &[u8],
        now_ns: u64,
        calls: &mut Vec<Call>,
    ) -> Result<(), WireError> {
        if !matches!(self.dialect, Dialect::Generic(_)) {
            let heard = self.dialect.read(&mut self.reader, opcode, payload)?;
            return self.heard(index, heard, now_ns, calls);
        }
        // Nothing says that such a server sends one publication a message.
        let mut found = std::mem::take(&mut self.found);
        let read = generic::read(&mut self.reader, payload, &mut found);
        for marker in found.drain(..) {
            let offset = u64::from(marker.sequence) + 1;
            self.heard(index, Heard::Comment { offset, marker: Some(marker) }, now_ns, calls)?;
        }
        self.found = found;
        read
    }

    fn heard(
        &mut self,
        index: u32,
        heard: Heard,
        now_ns: u64,
        calls: &mut Vec<Call>,
    ) -> Result<(), WireError> {
        match heard {
            Heard::Comment { offset, marker } => {
                if self.viewers[index as usize].phase != Phase::Live {
                    return Err(WireError::Payload);
                }
                self.comment(index, offset, marker, now_ns);
            }
            Heard::Welcome { epoch, start, head, recovered } => {
                self.welcome(index, epoch, start, head, recovered)?;
                calls.push(Call::Live);
            }
            Heard::Ack { sequence, offset } => {
                let awaited = self.awaited.get_mut(&index);
                let is_ours = awaited.zip(sequence).is_some_and(|(a, s)| a.answers.remove(&s));
                if !is_ours {
                    self.tally.counters.acks_stray += 1;
                    self.trouble(|| {
                        let of = sequence.map_or("no post".to_owned(), |s| format!("post {s}"));
                        format!("an ack of {of}, for which its publisher does not wait")
                    });
                    return Ok(());
                }
                self.tally.counters.acks += 1;
                let event = self.viewers[index as usize].event as usize;
                self.heads[event] = self.heads[event].max(offset);
                let publisher = self.publisher_numbers.get(&index);
                if let (Some(&publisher), Some(sequence)) = (publisher, sequence) {
                    let identity = u64::from(publisher) << 32 | u64::from(sequence);
                    self.agree(event, offset, identity);
                }
            }
            Heard::Refused { sequence, code } => {
                self.tally.counters.posts_refused += 1;
                if let (Some(awaited), Some(sequence)) = (self.awaited.get_mut(&index), sequence) {
                    awaited.answers.remove(&sequence);
                    awaited.deliveries.remove(&sequence);
                }
                self.trouble(|| crate::words::refused_post(&code));
            }
            Heard::Gap { from, to } => self.gap(index, from, to),
            Heard::Drain { .. } => self.tally.counters.drains += 1,
            Heard::Unknown => {}
        }
        Ok(())
    }

    fn comment(&mut self, index: u32, offset: u64, marker: Option<Marker>, now_ns: u64) {
        let viewer = &mut self.viewers[index as usize];
        let counters = &mut self.tally.counters;
        let is_slow = viewer.role == Role::Slow;
        let is_replayed = offset <= viewer.joined_at;
        counters.deliveries_replayed += u64::from(is_replayed);
        if viewer.expected == 0 {
            viewer.expected = offset;
        }
        match self.holes.arrive(index, &mut viewer.expected, offset) {
            Arrival::InOrder => {}
            Arrival::Hole(missing) => counters.lost += missing,
            Arrival::Late => {
                counters.reordered += 1;
                counters.lost = counters.lost.saturating_sub(1);
            }
            Arrival::Duplicate => counters.duplicates += 1,
        }
        let event = viewer.event as usize;
        self.heads[event] = self.heads[event].max(offset);
        if is_slow {
            counters.deliveries_slow += 1;
        } else {
            counters.deliveries += 1;
        }
        let Some(marker) = marker.filter(|marker| marker.run == self.run) else {
            counters.deliveries_foreign += 1;
            // Not ours to anyone, or its marker is damaged.
            return self.agree(event, offset, FOREIGN);
        };
        if viewer.role == Role::Publisher
            && self.publisher_numbers.get(&index) == Some(&marker.publisher)
            && let Some(awaited) = self.awaited.get_mut(&index)
        {
            awaited.deliveries.remove(&marker.sequence);
        }
        if !is_slow && !is_replayed {
            self.tally.delivered(marker.due_ns, now_ns);
        }
        self.agree(event, offset, marker.identity());
    }

    /// Posts without an answer, and posts that were acknowledged and never delivered to who posted them.
    pub(super) fn awaited(&self) -> (u64, u64) {
        let awaited = self.awaited.values();
        awaited.fold((0, 0), |(answers, unseen), awaited| {
            (answers + awaited.answers.len() as u64, unseen + awaited.unseen())
        })
    }

    /// Gives up the answers that a viewer waits for, as its connection ends.
    pub(super) fn abandon(&mut self, index: u32) {
        let awaited = self.awaited.remove(&index).unwrap_or_default();
        self.tally.counters.posts_abandoned += awaited.answers.len() as u64;
    }

    fn agree(&mut self, event: usize, offset: u64, identity: u64) {
        match self.recents[event].see(offset, identity) {
            Sight::First if self.posts.is_second(identity) => {
                self.tally.counters.appended_twice += 1;
                self.trouble(|| {
                    format!("event {event}, offset {offset}: a post that stands in the log already")
                });
            }
            Sight::First | Sight::Agrees => {}
            Sight::Differs => {
                self.tally.counters.disagreements += 1;
                self.trouble(|| {
                    format!("event {event}, offset {offset}: not the same for everyone")
                });
            }
        }
    }

    fn welcome(
        &mut self,
        index: u32,
        epoch: u64,
        start: u64,
        head: u64,
        recovered: bool,
    ) -> Result<(), WireError> {
        let viewer = &mut self.viewers[index as usize];
        if viewer.phase != Phase::Welcoming {
            return Err(WireError::Payload);
        }
        viewer.phase = Phase::Live;
        let event = viewer.event as usize;
        let is_same_epoch = self.epochs[event] == epoch;
        if !is_same_epoch {
            if self.epochs[event] != 0 {
                self.trouble(|| format!("event {event} has begun a new epoch"));
            }
            self.epochs[event] = epoch;
            self.heads[event] = 0;
            self.recents[event].clear();
            let (first, end) = self.publishers_of[event];
            (first..end).for_each(|publisher| self.posts.forget(publisher));
        }
        self.heads[event] = self.heads[event].max(head);
        let viewer = &mut self.viewers[index as usize];
        viewer.joined_at = head;
        if viewer.is_resuming {
            let counters = &mut self.tally.counters;
            if recovered && is_same_epoch && start + 1 == viewer.expected {
                counters.resumes_recovered += 1;
                return Ok(());
            }
            counters.resumes_incomplete += 1;
            if is_same_epoch {
                counters.lost += (start + 1).saturating_sub(viewer.expected);
            }
        }
        viewer.expected = start + 1;
        self.holes.forget(index);
        Ok(())
    }

    fn gap(&mut self, index: u32, from: u64, to: u64) {
        if let Some(awaited) = self.awaited.get_mut(&index) {
            // What was skipped counts as lost, and which posts those were is not known.
            awaited.deliveries.retain(|sequence| awaited.answers.contains(sequence));
        }
        let viewer = &mut self.viewers[index as usize];
        let counters = &mut self.tally.counters;
        let skipped = (to + 1).saturating_sub(viewer.expected);
        let announced = (to + 1).saturating_sub(from.max(viewer.expected));
        if viewer.role == Role::Slow {
            counters.gap_comments_slow += announced;
            counters.lost += skipped - announced;
        } else {
            counters.gaps += 1;
            counters.gap_comments += announced;
            counters.lost += skipped;
        }
        viewer.expected = viewer.expected.max(to + 1);
    }

    /// Notes that a viewer's connection is live.
    pub(super) fn went_live(&mut self, index: u32, now_ns: u64) {
        let viewer = &mut self.viewers[index as usize];
        viewer.attempts = 0;
        let begun_ns = self.started_ns + u64::from(viewer.begun_100us) * 100_000;
        record(&mut self.tally.connect, now_ns.saturating_sub(begun_ns) / 1_000);
        self.tally.counters.connects_done += 1;
        self.tally.live += 1;
        self.tally.last_live_ns = now_ns;
    }

    /// Keeps the text of an early trouble.
    pub(super) fn trouble(&mut self, text: impl FnOnce() -> String) {
        if self.tally.troubles.len() < TROUBLES_MAX {
            let text = text();
            if !self.tally.troubles.contains(&text) {
                self.tally.troubles.push(text);
            }
        }
    }

    /// Connections that are being made.
    pub(super) fn underway(&self) -> Underway {
        let mut underway = Underway::default();
        for viewer in &self.viewers {
            match viewer.phase {
                Phase::Connecting => underway.connecting += 1,
                Phase::Upgrading => underway.upgrading += 1,
                Phase::Welcoming => underway.welcoming += 1,
                Phase::Away | Phase::Live | Phase::Closing => {}
            }
        }
        underway
    }

    /// Viewers that have not reached `heads` (all events' newest offsets over all planes), and
    /// how many comments they miss. Deliberately slow viewers and those away by plan do not count.
    pub(super) fn behind(&self, heads: &[u64]) -> (u64, u64) {
        let mut behind = (0, 0);
        for viewer in &self.viewers {
            let should_watch = match viewer.phase {
                Phase::Live => true,
                Phase::Away | Phase::Closing => viewer.next == super::viewer::Next::Fail,
                Phase::Connecting | Phase::Upgrading | Phase::Welcoming => false,
            };
            // Who has heard nothing yet may only miss what came after it.
            let next = if viewer.expected == 0 { viewer.joined_at + 1 } else { viewer.expected };
            let missing = (heads[viewer.event as usize] + 1).saturating_sub(next);
            if should_watch && viewer.role != Role::Slow && missing > 0 {
                behind.0 += 1;
                behind.1 += missing;
            }
        }
        behind
    }
}

/// What a viewer's connection key is made from.
pub(super) fn nonce(viewer: &Viewer) -> u64 {
    u64::from(viewer.number) << 16 | u64::from(viewer.generation)
}
