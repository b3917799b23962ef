//! Posting what the schedule wants.

use super::Plane;
use super::viewer::Phase;
use crate::marker::Marker;
use crate::wire::{Dialect, frame};

impl Plane {
    /// Posts what the schedule wants by now.
    pub(super) fn post_due(&mut self, now: u64) {
        while let Some(due) = self.schedule.pop(now) {
            let at = due.publisher as usize;
            let viewer = self.publishers[at].viewer;
            if self.crowd.viewers[viewer as usize].phase != Phase::Live {
                self.crowd.tally.counters.posts_skipped += 1;
                continue;
            }
            self.crowd.tally.posted(due.due_ns, now);
            self.post(at, due.due_ns);
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
            *self.crowd.unanswered.entry(viewer).or_default() += 1;
        } else {
            let head = &mut self.crowd.heads[event];
            *head = (*head).max(u64::from(marker.sequence) + 1);
        }
    }
}
