//! Posting what the schedule wants.
//!
//! A publisher that is away when a comment is due, as all are in a storm, posts it when it is back. Its
//! latency runs from when it was due, so the time until the server had let people in again is in it.

use super::Plane;
use super::viewer::Phase;
use crate::marker::Marker;
use crate::wire::{Dialect, frame};

/// Comments that a publisher who is away may have due; more are skipped, which the summary says.
const DEFERRED_MAX: usize = 4_096;

impl Plane {
    /// Posts what the schedule wants by now.
    pub(super) fn post_due(&mut self, now: u64) {
        while let Some(due) = self.schedule.pop(now) {
            let at = due.publisher as usize;
            let viewer = self.publishers[at].viewer;
            let v = &self.crowd.viewers[viewer as usize];
            if v.phase != Phase::Live {
                let deferred = &mut self.publishers[at].deferred;
                if v.is_coming_back() && deferred.len() < DEFERRED_MAX {
                    deferred.push(due.due_ns);
                } else {
                    self.crowd.tally.counters.posts_skipped += 1;
                }
                continue;
            }
            self.crowd.tally.posted(due.due_ns, now);
            self.post(at, due.due_ns);
        }
    }

    /// Posts what became due while `viewer` was away, if it is a publisher.
    pub(super) fn post_deferred(&mut self, viewer: u32) {
        // Publishers are a plane's first viewers, in the same order.
        let at = viewer as usize;
        let Some(publisher) = self.publishers.get_mut(at) else { return };
        for due_ns in std::mem::take(&mut publisher.deferred) {
            self.crowd.tally.posted_on_return(due_ns);
            self.post(at, due_ns);
        }
    }

    fn post(&mut self, at: usize, due_ns: u64) {
        let publisher = &mut self.publishers[at];
        let marker = Marker {
            run: self.plan.run,
            publisher: publisher.number,
            sequence: publisher.sequence,
            due_ns,
        };
        publisher.sequence += 1;
        let viewer = publisher.viewer;
        let event = self.crowd.viewers[viewer as usize].event as usize;
        let text_bytes = self.plan.parameters.comment_bytes as usize;
        let mut payload = Vec::with_capacity(text_bytes + 64);
        let opcode = self.crowd.dialect.post(marker, text_bytes, &self.events[event], &mut payload);
        let mask = (self.chance.next() as u32).to_ne_bytes();
        let (lane, slot) = self.place(viewer);
        self.lanes[lane].outbox.put(viewer, slot, |out| {
            frame::write_frame(opcode, &payload, mask, out);
        });
        self.crowd.tally.counters.posts += 1;
        if !matches!(self.crowd.dialect, Dialect::Generic(_)) {
            self.crowd.awaited.entry(viewer).or_default().posted(marker.sequence);
        } else {
            let head = &mut self.crowd.heads[event];
            *head = (*head).max(u64::from(marker.sequence) + 1);
        }
    }
}
