//! The room log: the last few thousand frames of a room in one codec, ready to send.
//!
//! A frame is encoded once, when it is appended, and never changes; fan-out only hands out
//! references. Offsets are dense within an epoch, so "how far behind" is a subtraction and
//! every hole a viewer sees is one we chose to make. The home shard's log appends; a replica on
//! another shard follows the same segments through their links.
//!
//! Not here: who is subscribed (`room`), when to send (`fanout`), what to do about a slow
//! reader (`engine::delivery`).

mod segment;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

pub use segment::Segment;

/// The first segment of a log, in bytes: most rooms are small.
const SEGMENT_BYTES_MIN: usize = 1_024;
/// The largest segment, in bytes.
const SEGMENT_BYTES_MAX: usize = 64 * 1_024;
/// Each segment of a log is this many times the one before: a send that crosses into the next
/// segment costs more than one that does not.
const GROWTH: usize = 4;
/// A frame is rarely smaller than this, so a segment's index rarely fills before its bytes do.
const FRAME_BYTES_USUAL: usize = 96;
/// A trim mostly drops a whole segment; with segments of at most this part of what a log may have, little
/// more than asked for goes, and a room whose turn it is to give keeps most of what it has.
const SEGMENTS_MIN: usize = 8;
/// A log whose oldest segment, or the unused end of its newest, is more than this part of it is from a time when it
/// held more: its segments are made anew.
const COARSE_PART: u64 = 4;
/// Below this many bytes nothing is made anew: segments are as small as they get.
const COARSE_BYTES_MIN: u64 = 4 * SEGMENT_BYTES_MIN as u64;

const _: () = assert!(SEGMENT_BYTES_MIN >= FRAME_BYTES_USUAL);

/// A stretch of published frames in one segment.
#[derive(Debug)]
pub struct Run<'a> {
    /// Where the bytes are.
    pub segment: &'a Arc<Segment>,
    /// First byte.
    pub start: u32,
    /// Bytes.
    pub len: u32,
    /// The offset after the last frame of the run.
    pub next: u64,
}

/// What a trim does to a log.
#[derive(Clone, Copy, Debug)]
pub struct Trim {
    /// The offset that becomes the oldest.
    pub tail: u64,
    /// The frames from there on go into new segments.
    is_made_anew: bool,
}

/// What a replica needs to follow a log.
#[derive(Clone, Debug)]
pub struct Grant {
    oldest: Arc<Segment>,
    tail: Arc<AtomicU64>,
}

/// A grant that keeps nothing: for whoever reads a log from outside the shards and comes back later.
/// Between two reads the home shard lets go of segments as if nobody followed.
#[derive(Clone, Debug)]
pub struct WeakGrant {
    oldest: Weak<Segment>,
    tail: Arc<AtomicU64>,
}

impl WeakGrant {
    /// What a follower needs, while the log still has what was its oldest segment. Afterwards, and once the
    /// log is gone, there is none: ask the home shard again.
    #[must_use]
    pub fn upgrade(&self) -> Option<Grant> {
        Some(Grant { oldest: self.oldest.upgrade()?, tail: Arc::clone(&self.tail) })
    }
}

/// One codec's frames of one room.
#[derive(Debug)]
pub struct Log {
    /// Oldest first; at home never empty while a replica follows.
    segments: VecDeque<Arc<Segment>>,
    /// The offset the next frame gets.
    end: u64,
    /// The oldest offset kept; shared with replicas, which drop what is older.
    tail: Arc<AtomicU64>,
    bytes: u64,
    bytes_max: usize,
    frames_max: usize,
    /// The last segment was sized by other limits: the next frame opens a new one.
    is_resized: bool,
}

impl Log {
    /// An empty log whose first frame gets offset `first`. The limits only size segments;
    /// whoever appends trims.
    #[must_use]
    pub fn new(first: u64, bytes_max: u64, frames_max: u32) -> Self {
        Self {
            segments: VecDeque::new(),
            end: first,
            tail: Arc::new(AtomicU64::new(first)),
            bytes: 0,
            bytes_max: bytes_max as usize,
            frames_max: frames_max as usize,
            is_resized: false,
        }
    }

    /// Home: sizes segments by these limits from now on.
    pub fn resize(&mut self, bytes_max: u64, frames_max: u32) {
        let (bytes_max, frames_max) = (bytes_max as usize, frames_max as usize);
        self.is_resized |= (self.bytes_max, self.frames_max) != (bytes_max, frames_max);
        (self.bytes_max, self.frames_max) = (bytes_max, frames_max);
    }

    /// A replica of the log behind `grant`.
    #[must_use]
    pub fn follow(grant: &Grant) -> Self {
        let mut log = Self {
            segments: VecDeque::from([Arc::clone(&grant.oldest)]),
            end: grant.oldest.first(),
            tail: Arc::clone(&grant.tail),
            bytes: 0,
            bytes_max: 0,
            frames_max: 0,
            is_resized: false,
        };
        log.sync();
        log
    }

    /// Lets another shard follow this log.
    pub fn grant(&mut self) -> Grant {
        if self.segments.is_empty() {
            self.open_segment(0, u64::MAX);
        }
        Grant { oldest: Arc::clone(&self.segments[0]), tail: Arc::clone(&self.tail) }
    }

    /// Lets somebody read this log from outside now and then. `None` while it has no segment.
    #[must_use]
    pub fn weak_grant(&self) -> Option<WeakGrant> {
        let oldest = Arc::downgrade(self.segments.front()?);
        Some(WeakGrant { oldest, tail: Arc::clone(&self.tail) })
    }

    /// Replica: sees what the home shard has published and drops what it has trimmed.
    pub fn sync(&mut self) {
        while let Some(next) = self.segments.back().and_then(|segment| segment.next()).cloned() {
            self.segments.push_back(next);
        }
        self.end = self.segments.back().map_or(self.end, |segment| segment.end());
        let tail = self.tail();
        while self.segments.len() > 1 && self.segments[1].first() <= tail {
            self.segments.pop_front();
        }
    }

    /// Home: appends a frame as offset [`Self::end`]. `fair_bytes`: what this log could have if all were alike;
    /// it only sizes segments.
    pub fn append(&mut self, frame: &[u8], fair_bytes: u64) {
        let last = self.segments.back().filter(|_| !self.is_resized);
        if !last.is_some_and(|segment| segment.append(frame)) {
            self.open_segment(frame.len(), fair_bytes);
            let appended = self.segments.back().is_some_and(|segment| segment.append(frame));
            assert!(appended, "a new segment has room for the frame it was made for");
        }
        self.end += 1;
    }

    fn open_segment(&mut self, frame_bytes: usize, fair_bytes: u64) {
        // Who holds more than its share goes on in long segments: short ones would cost its viewers extra sends.
        let bytes_max = self.bytes_max.min(fair_bytes.max(self.bytes) as usize);
        let ceiling = (bytes_max / SEGMENTS_MIN).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let grown = self.segments.back().map_or(SEGMENT_BYTES_MIN, |last| {
            (last.words().len() * size_of::<u64>() * GROWTH)
                .clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
        });
        // Frames of a room are often alike: a whole number of them leaves nothing unused.
        let bytes = grown.min(ceiling).max(frame_bytes);
        let bytes = bytes - bytes % frame_bytes.max(1);
        let frames = (bytes / FRAME_BYTES_USUAL).min(self.frames_max / SEGMENTS_MIN).max(1);
        self.is_resized = false;
        self.push(Segment::new(self.end, bytes, frames));
    }

    /// Home: drops the oldest frames and returns how many; `None` when nothing may go. Mostly it is the oldest
    /// segment that goes. A log that held more once, and has few segments for what it holds, is made anew without
    /// its oldest eighth, so that it gives in steps as small as any other's:
    ///
    /// ```text
    ///  ┌───────────────────────────────┐┌──────────┬──── unused ────┐
    ///  │ goes │                        ││          │      goes      │
    ///  └──────┴────────────────────────┘└──────────┴────────────────┘
    ///         ┌────┐┌────┐┌────┐┌────┐┌────┐┌────┐┌─┐
    /// ```
    ///
    /// What others follow stays as it is; a reader from outside that comes just then reads on in what was. The last
    /// segment goes only if the log `may_empty`, which a log that replicas follow may not: they would wait at its
    /// end for a link that nobody makes.
    pub fn trim(&mut self, may_empty: bool) -> Option<u64> {
        self.next_trim(may_empty).map(|trim| self.drop_oldest(trim))
    }

    /// Home: does what [`Self::next_trim`] said, and returns how many frames went.
    pub fn drop_oldest(&mut self, Trim { tail, is_made_anew }: Trim) -> u64 {
        let gone = tail - self.tail();
        if is_made_anew {
            self.make_anew(tail);
        } else if let Some(oldest) = self.segments.pop_front() {
            self.bytes -= oldest.bytes();
        }
        self.tail.store(tail, Ordering::Release);
        gone
    }

    /// Home: what [`Self::trim`] would do. It may be something else the next time somebody asks: readers outside
    /// the shards come and go.
    #[must_use]
    pub fn next_trim(&self, may_empty: bool) -> Option<Trim> {
        let (oldest, newest) = (self.segments.front()?, self.segments.back()?);
        let is_sole = self.segments.len() == 1;
        if is_sole && !(may_empty && oldest.frames() > 0) {
            return None;
        }
        let unused = newest.unused();
        let is_coarse = oldest.bytes().max(unused) * COARSE_PART > self.bytes;
        if is_coarse && self.bytes > COARSE_BYTES_MIN && self.is_unfollowed() {
            let goes = (self.bytes / SEGMENTS_MIN as u64).saturating_sub(unused) as u32;
            let tail = if goes == 0 { self.tail() } else { oldest.frame_at(goes) + 1 };
            let tail = tail.min(oldest.end());
            if tail < self.end {
                return Some(Trim { tail, is_made_anew: true });
            }
        }
        Some(Trim { tail: oldest.end(), is_made_anew: false })
    }

    /// Whether no replica or reader holds a segment of this log: each is known to its predecessor and the log only.
    fn is_unfollowed(&self) -> bool {
        let mut links = 0;
        self.segments.iter().all(|segment| {
            let is_ours = Arc::strong_count(segment) == 1 + links;
            links = 1;
            is_ours
        })
    }

    /// Puts the frames from `tail` on into full segments of an eighth of what they take.
    fn make_anew(&mut self, tail: u64) {
        let old = std::mem::take(&mut self.segments);
        let target =
            (self.bytes as usize / SEGMENTS_MIN).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        self.bytes = 0;
        let (mut frames, mut lens) = (Vec::new(), Vec::new());
        for segment in &old {
            for offset in segment.first().max(tail)..segment.end() {
                let start = segment.start_of(offset);
                let len = segment.start_of(offset + 1) - start;
                segment.read(start, len, &mut frames);
                lens.push(len as usize);
                if frames.len() >= target {
                    self.push_full(offset + 1, &mut frames, &mut lens);
                }
            }
        }
        self.push_full(self.end, &mut frames, &mut lens);
    }

    /// Adds a full segment of these frames, the last of which is the one before `end`.
    fn push_full(&mut self, end: u64, frames: &mut Vec<u8>, lens: &mut Vec<usize>) {
        if lens.is_empty() {
            return;
        }
        let segment = Segment::new(end - lens.len() as u64, frames.len(), lens.len());
        let mut rest = frames.as_slice();
        for len in lens.drain(..) {
            let (frame, behind) = rest.split_at(len);
            let is_appended = segment.append(frame);
            assert!(is_appended, "a segment has room for the frames it was made for");
            rest = behind;
        }
        frames.clear();
        self.push(segment);
    }

    fn push(&mut self, segment: Arc<Segment>) {
        self.bytes += segment.bytes();
        if let Some(last) = self.segments.back() {
            last.link(Arc::clone(&segment));
        }
        self.segments.push_back(segment);
    }

    /// The offset the next frame gets.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The newest offset; one before the first when nothing was ever appended.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.end - 1
    }

    /// The oldest offset kept, [`Self::end`] when none is.
    #[must_use]
    pub fn tail(&self) -> u64 {
        self.tail.load(Ordering::Acquire)
    }

    /// Frames kept.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.end - self.tail().min(self.end)
    }

    /// Memory of the segments, in bytes. 0 for a replica, whose segments the home shard counts.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Published frames from `from` on, as far as they lie in one segment and in `bytes_max`,
    /// but at least one. `None` when `from` is the end. `from` must not be older than the tail.
    #[must_use]
    pub fn run(&self, from: u64, bytes_max: u32) -> Option<Run<'_>> {
        if from >= self.end {
            return None;
        }
        let segment = self.segment_of(from);
        let end = segment.end().min(self.end);
        let start = segment.start_of(from);
        let mut next = end;
        if segment.start_of(end) - start > bytes_max {
            next = segment.frame_at(start + bytes_max).clamp(from + 1, end);
        }
        Some(Run { segment, start, len: segment.start_of(next) - start, next })
    }

    /// Copies the frame at `offset`, which must be kept, into `out`.
    pub fn read(&self, offset: u64, out: &mut Vec<u8>) {
        let segment = self.segment_of(offset);
        let start = segment.start_of(offset);
        segment.read(start, segment.start_of(offset + 1) - start, out);
    }

    fn segment_of(&self, offset: u64) -> &Arc<Segment> {
        let last = self.segments.back().expect("a kept offset has a segment");
        if last.first() <= offset {
            return last;
        }
        let index = self.segments.partition_point(|segment| segment.first() <= offset);
        assert!(index > 0, "offset {offset} is older than the log's tail {}", self.tail());
        &self.segments[index - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn frame(offset: u64, random: &mut Random) -> Vec<u8> {
        let len = 1 + random.below(400) as usize;
        (0..len).map(|i| (offset as usize * 31 + i) as u8).collect()
    }

    /// The log against a plain Vec, home and replica, for many sizes and trims.
    #[test]
    fn agrees_with_a_vec_of_frames() {
        for seed in 0..60 {
            let mut random = Random::new(seed);
            let mut log = Log::new(1, 1 << (10 + random.below(8)), 8 + random.below(3_000));
            let mut model: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
            let mut replica = None;
            for _ in 0..600 {
                match random.below(12) {
                    0 => {
                        let gone = log.trim(replica.is_none()).unwrap_or(0);
                        model.drain(..gone as usize);
                    }
                    1 if replica.is_none() => replica = Some(Log::follow(&log.grant())),
                    _ => {
                        let bytes = frame(log.end(), &mut random);
                        model.push_back((log.end(), bytes.clone()));
                        log.append(&bytes, u64::MAX);
                    }
                }
                assert_eq!(log.frames() as usize, model.len(), "seed {seed}");
                if let Some(replica) = &mut replica {
                    replica.sync();
                    assert_eq!((replica.end(), replica.tail()), (log.end(), log.tail()));
                }
            }
            for log in [Some(&log), replica.as_ref()].into_iter().flatten() {
                let limit = 1 + random.below(5_000);
                let mut at = log.tail();
                let mut all = Vec::new();
                while let Some(run) = log.run(at, limit) {
                    assert!(run.next > at && (run.len <= limit || run.next == at + 1));
                    run.segment.read(run.start, run.len, &mut all);
                    at = run.next;
                }
                let expected: Vec<u8> = model.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
                assert!(all == expected && at == log.end(), "seed {seed}");
                for (offset, bytes) in &model {
                    let mut one = Vec::new();
                    log.read(*offset, &mut one);
                    assert_eq!(&one, bytes);
                }
            }
        }
    }

    #[test]
    fn a_weak_grant_sees_what_is_kept_and_keeps_nothing() {
        let mut log = Log::new(1, 1 << 14, 1_000);
        assert!(log.weak_grant().is_none(), "reading an empty log makes no segment");
        (0..30).for_each(|_| log.append(&[7; 100], u64::MAX));
        let weak = log.weak_grant().expect("there are segments");
        (0..30).for_each(|_| log.append(&[8; 100], u64::MAX));
        let follower = weak.upgrade().map(|grant| Log::follow(&grant)).expect("nothing is trimmed");
        assert_eq!((follower.tail(), follower.end()), (1, 61));
        // Somebody who is just reading does not hold up a trim, and reads on.
        while log.trim(true).is_some() {}
        assert_eq!((log.frames(), log.bytes()), (0, 0));
        let mut frame = Vec::new();
        follower.read(1, &mut frame);
        assert_eq!(frame, [7; 100]);
        drop(follower);
        assert!(weak.upgrade().is_none(), "what was trimmed is gone once nobody reads it");
    }

    #[test]
    fn a_cut_names_the_frame_that_was_cut() {
        let mut log = Log::new(1, 1 << 20, 1_000);
        for len in [10, 20, 30] {
            log.append(&vec![7; len], u64::MAX);
        }
        let run = log.run(1, u32::MAX).expect("three frames are kept");
        assert_eq!((run.start, run.len, run.next), (0, 60, 4));
        assert_eq!([0, 9, 10, 29, 30, 59].map(|at| run.segment.frame_at(at)), [1, 1, 2, 2, 3, 3]);
    }

    #[test]
    fn a_log_that_holds_much_has_long_segments_among_ever_so_many_rooms() {
        let mut log = Log::new(1, 4 << 20, 100_000);
        let fair_bytes = 1_024;
        (0..3_000).for_each(|_| log.append(&[7; 350], fair_bytes));
        let newest_run = |log: &Log| {
            let full = log.end() - 200;
            log.run(full, u32::MAX).expect("it is kept").segment.bytes()
        };
        assert!(log.segments[0].bytes() <= 2_048, "the first is small");
        assert!(newest_run(&log) >= SEGMENT_BYTES_MAX as u64, "{} bytes", newest_run(&log));
    }

    #[test]
    fn a_log_that_held_much_gives_in_small_steps_and_its_unused_end_first() {
        for others in [0, 1] {
            let mut log = Log::new(1, 4 << 20, 100_000);
            (0..3_000).for_each(|_| log.append(&[7; 350], u64::MAX));
            let _reader = (others > 0).then(|| log.grant());
            let mut frames = log.frames();
            while log.bytes() > 20_000 {
                let before = log.bytes();
                let gone = log.trim(true).expect("there is something to give");
                assert_eq!(log.frames() + gone, frames);
                assert!(log.bytes() < before, "each step gives something");
                if others == 0 && before < 200_000 {
                    assert!(gone * 350 <= before / 4, "{gone} frames of {before} bytes");
                }
                frames = log.frames();
            }
            assert!(others > 0 || log.frames() * 350 > 14_000, "{} frames", log.frames());
        }
    }

    #[test]
    fn readers_on_other_threads_see_whole_frames_only() {
        let mut log = Log::new(1, 1 << 16, 10_000);
        let mut replica = Log::follow(&log.grant());
        let reader = std::thread::spawn(move || {
            let mut next = 1;
            while next < 5_000 {
                replica.sync();
                while let Some(run) = replica.run(next, u32::MAX) {
                    for offset in next..run.next {
                        let mut bytes = Vec::new();
                        replica.read(offset, &mut bytes);
                        assert_eq!(bytes, offset.to_le_bytes().repeat(1 + offset as usize % 9));
                    }
                    next = run.next;
                }
            }
        });
        for offset in 1..5_000u64 {
            log.append(&offset.to_le_bytes().repeat(1 + offset as usize % 9), u64::MAX);
        }
        reader.join().expect("the reader found no torn frame");
    }
}
