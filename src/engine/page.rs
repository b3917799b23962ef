//! A page of an event's history, read outside the shards: which comments, and their JSON.
//!
//! A page is a stretch of a log that somebody follows from outside; its comments are the JSON
//! objects that viewers get, byte for byte. Frames never change, so a stretch of one epoch is the
//! same bytes whenever it is read.
//!
//! Not here: who may ask and how often, and what is kept of answers (the control plane).

use std::ops::Range;

use crate::codec;
use crate::log::Log;

/// The offsets of a page: the newest `limit` comments, of those before offset `before` if given.
#[must_use]
pub fn offsets(log: &Log, limit: u32, before: Option<u64>) -> Range<u64> {
    let end = before.unwrap_or(u64::MAX).clamp(log.tail().min(log.end()), log.end());
    end.saturating_sub(limit.into()).max(log.tail()).min(end)..end
}

/// Bytes of these frames in the log; about what their JSON takes, up to several times as much where
/// texts are full of characters that JSON escapes.
#[must_use]
pub fn frame_bytes(log: &Log, offsets: Range<u64>) -> u64 {
    let mut bytes = 0;
    let mut at = offsets.start;
    while at < offsets.end
        && let Some(run) = log.run(at, u32::MAX)
    {
        let next = run.next.min(offsets.end);
        bytes += u64::from(run.segment.start_of(next) - run.start);
        at = next;
    }
    bytes
}

/// Appends the JSON objects of these comments, which must be kept, with commas between them. The log is a
/// canonical one.
///
/// # Panics
/// If the log holds what is no sound comment: those from outside are checked where they come in.
pub fn write(log: &Log, offsets: Range<u64>, out: &mut Vec<u8>) {
    let mut frame = Vec::new();
    for offset in offsets.clone() {
        if offset > offsets.start {
            out.push(b',');
        }
        frame.clear();
        log.read(offset, &mut frame);
        codec::write_json_comment(codec::archive_of_frame(&frame), offset, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_the_newest_that_are_kept_and_asked_for() {
        let mut log = Log::new(1, 8 * 1_024, 1_000);
        assert_eq!(offsets(&log, 50, None), 1..1);
        (0..40).for_each(|_| log.append(&[7; 500], u64::MAX));
        log.trim(true);
        log.trim(true);
        let tail = log.tail();
        assert!(tail > 1);
        assert_eq!(offsets(&log, 5, None), 36..41);
        assert_eq!(offsets(&log, 500, None), tail..41);
        assert_eq!(offsets(&log, 5, Some(tail + 2)), tail..tail + 2);
        assert_eq!(offsets(&log, 5, Some(0)), tail..tail, "all of that is gone");
        assert_eq!(offsets(&log, 5, Some(u64::MAX)), 36..41);
        assert_eq!(offsets(&log, 0, None), 41..41);
        assert_eq!(frame_bytes(&log, 36..41), 5 * 500);
        assert_eq!(frame_bytes(&log, tail..41), (41 - tail) * 500, "across segments");
        assert_eq!(frame_bytes(&log, 41..41), 0);
    }
}
