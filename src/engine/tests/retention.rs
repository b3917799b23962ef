//! What a node keeps when more is written than it may keep: every room its fair share, in whatever rhythm its
//! comments come, and nothing that a viewer who keeps up is still to get goes.

mod support;

use uproar_engine::control::{Reply, Request};
use uproar_engine::engine::{Chunk, Engine};
use uproar_engine::limits::Limits;
use uproar_engine::random::Random;
use uproar_engine::report::Report;

const TEXT: &str = "two hundred bytes are what a comment has; this one makes up its length by going on for a while, and \
                    then for a while longer, until it has as many as the load generator's comments have";
/// Comments written, as a multiple of what the node may keep.
const TURNOVERS: u64 = 4;
/// How often in a run the rooms are looked at.
const LOOKS: u64 = 12;

/// Who writes next.
#[derive(Clone, Copy, Debug)]
enum Rhythm {
    /// Everybody in turn, always the same.
    Periodic,
    /// Anybody, each as likely.
    Poisson,
    /// Room `i` in proportion to `1 / (i + 1)`.
    Zipf,
    /// A twentieth of the rooms alone, and then only the others.
    Late,
}

impl Rhythm {
    fn next(self, round: u64, rounds: u64, rooms: u64, random: &mut Random) -> u64 {
        let any = |random: &mut Random, bound: u64| u64::from(random.below(bound as u32));
        match self {
            Self::Periodic => round % rooms,
            Self::Poisson => any(random, rooms),
            Self::Zipf => {
                // The inverse of the sum of 1 / (i + 1), which is about ln(i + 1).
                let uniform = f64::from(random.below(u32::MAX)) / f64::from(u32::MAX);
                let place = ((rooms as f64 + 1.0).ln() * uniform).exp() - 1.0;
                (place as u64).min(rooms - 1)
            }
            Self::Late => {
                let early = rooms.div_ceil(20);
                if round < rounds / 3 {
                    any(random, early)
                } else {
                    early + any(random, (rooms - early).max(1)) % rooms
                }
            }
        }
    }
}

/// A node's rooms, each with its viewers.
struct Node {
    engine: Engine,
    chunk: Chunk,
    us: u64,
}

impl Node {
    fn new(rooms: u64, codecs: usize, log_bytes_max: u64) -> Self {
        let limits = Limits {
            log_bytes_max,
            room_log_bytes_max: log_bytes_max,
            room_log_frames_max: 1 << 20,
            posts_per_sec_event: 0,
            ..Limits::default()
        };
        let mut node = Self { engine: support::engine(limits, 1), chunk: Chunk::default(), us: 1 };
        for room in 0..rooms {
            join_binary(&mut node.engine, &event(room));
            if codecs == 2 {
                support::join(&mut node.engine, support::at(1), &event(room));
            }
        }
        node.flush();
        node
    }

    /// Every viewer takes everything.
    fn flush(&mut self) {
        let now = support::at(self.us);
        while self.engine.has_work() {
            self.engine.next_chunk(now, &mut self.chunk);
            self.engine.settle(now, &mut self.chunk, &mut Vec::new(), 0);
        }
        while self.engine.poll_output().is_some() {}
    }

    fn post(&mut self, room: u64) {
        self.us += 500;
        support::post(&mut self.engine, support::at(self.us), &event(room), TEXT);
    }

    /// Comments kept of an event.
    fn kept(&mut self, room: u64) -> u64 {
        let request = Request::Event { event: event(room).parse().expect("a sound event") };
        match self.engine.control(support::at(self.us), request) {
            Reply::Event { position, tail, .. } => position.offset + 1 - tail,
            reply => panic!("{reply:?}"),
        }
    }

    fn report(&self) -> Report {
        self.engine.report()
    }
}

/// A viewer that wants rkyv, which is the encoding that is always kept.
fn join_binary(engine: &mut Engine, event: &str) {
    let request = format!(
        "GET /v1/events/{event}/live HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: uproar.rkyv.v1\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    let id = engine.accept(support::at(1), None);
    engine.received(support::at(1), id, &mut request.into_bytes());
}

fn event(room: u64) -> String {
    format!("e{room}")
}

/// Bytes of a comment's frames, in `codecs` codecs: what its viewers are sent.
fn comment_bytes(codecs: usize) -> u64 {
    let mut node = Node::new(1, codecs, 1 << 20);
    let before = node.report().counters.bytes_sent;
    node.post(0);
    node.flush();
    node.report().counters.bytes_sent - before
}

/// The level to which all may have what they want, so that all have `sum` together.
fn fair_level(mut wants: Vec<u64>, sum: u64) -> u64 {
    wants.sort_unstable();
    let (mut left, mut others) = (sum, wants.len() as u64);
    for want in wants {
        if want > left / others {
            return left / others;
        }
        left -= want;
        others -= 1;
    }
    u64::MAX
}

fn try_one(rhythm: Rhythm, rooms: u64, codecs: usize, share: u64) {
    let what = format!("{rhythm:?}, {rooms} rooms, {codecs} codecs, {share} bytes each");
    let comment = comment_bytes(codecs);
    let log_bytes_max = rooms * share;
    let mut node = Node::new(rooms, codecs, log_bytes_max);
    let mut random = Random::new(rooms);
    let mut written = vec![0; rooms as usize];
    let rounds = TURNOVERS * log_bytes_max / comment;
    for round in 0..rounds {
        let room = rhythm.next(round, rounds, rooms, &mut random);
        node.post(room);
        written[room as usize] += 1;
        // Sends take their time: now and then a few comments wait.
        if random.below(3) > 0 {
            node.flush();
        }
        if round % (rounds / LOOKS) != 0 {
            continue;
        }
        let wants: Vec<u64> = written.iter().map(|n| n * comment).collect();
        // Of what is held, some is not frames: heads, indices, the unused ends of segments.
        let level = fair_level(wants.clone(), log_bytes_max * 7 / 8);
        let surely = fair_level(wants, log_bytes_max / 2);
        for (room, &written) in written.iter().enumerate() {
            let kept = node.kept(room as u64);
            let fair = written.min(level / comment);
            assert!(kept * 2 >= fair, "{what}: room {room} has {kept} of {fair} after {round}");
            let keeps_all = written * comment <= surely;
            assert!(!keeps_all || kept == written, "{what}: room {room} writes little");
        }
    }
    let all: u64 = (0..rooms).map(|room| node.kept(room)).sum();
    assert!(all * comment * 4 >= log_bytes_max * 3, "{what}: {all} comments are kept in all");
    let counters = node.report().counters;
    assert!(counters.log_evictions > rounds / 2, "{what}: the budget was met");
    assert_eq!(counters.log_evictions_unsent, 0, "{what}");
    assert_eq!(counters.gaps.iter().sum::<u64>(), 0, "{what}: all keep up");
}

fn try_rhythm(rhythm: Rhythm) {
    for codecs in [1, 2] {
        for (rooms, share) in [(3, 16), (3, 512), (40, 64), (100, 16), (1_200, 16)] {
            try_one(rhythm, rooms, codecs, share * 1_024);
        }
    }
}

#[test]
fn periodic_writers_have_their_fair_share() {
    try_rhythm(Rhythm::Periodic);
}

#[test]
fn writers_at_random_have_their_fair_share() {
    try_rhythm(Rhythm::Poisson);
}

#[test]
fn who_writes_little_keeps_it_beside_who_writes_much() {
    try_rhythm(Rhythm::Zipf);
}

#[test]
fn who_held_much_gives_to_who_comes_late() {
    try_rhythm(Rhythm::Late);
}

/// A budget of a few comments a room, and passes that do not come: what goes is seen, and blames nobody.
#[test]
fn a_pass_that_cannot_keep_up_is_seen_as_that() {
    let mut node = Node::new(20, 2, 20 * 4_096);
    for round in 0..20 * 40 {
        node.post(round % 20);
    }
    node.flush();
    let counters = node.report().counters;
    let [of_viewers, of_passes] = counters.gaps;
    assert_eq!(
        (of_viewers, of_passes),
        (0, 40),
        "each viewer missed something, and took all it was sent"
    );
    assert!(counters.log_evictions_unsent > 0 && counters.gap_comments[1] > 40);
}

/// The same, but one room's members wait and the others' do not: who has been sent everything gives first.
#[test]
fn what_somebody_waits_for_goes_last() {
    let mut node = Node::new(10, 2, 10 * 16 * 1_024);
    for round in 0..1_000 {
        node.post(1 + round % 9);
        node.flush();
    }
    // Its pass does not come; the others', which hold less in the end, have been sent all.
    for _ in 0..90 {
        node.post(0);
    }
    assert_eq!((node.kept(0), node.report().counters.log_evictions_unsent), (90, 0));
    node.flush();
    assert_eq!(node.report().counters.gaps, [0, 0]);
}
