//! After the last word a peer is heard to its end: not less, so that no reset destroys the word, and not for longer
//! than three limits say.

mod support;

use uproar_engine::engine::{Chunk, Engine, Output};
use uproar_engine::limits::Limits;
use uproar_engine::report::LingerCut;
use uproar_engine::table::Id;
use uproar_engine::time::{Now, TICK_US};

/// A binary message to a speaker of JSON: closed with 1003. The mask is zeros, here and below.
const FAULT: [u8; 7] = [0x82, 0x81, 0, 0, 0, 0, b'x'];
const CLOSE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xeb];
const PING: [u8; 6] = [0x89, 0x80, 0, 0, 0, 0];
/// A text frame of 1 MiB begins.
const GIANT: [u8; 14] = [0x81, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0];
const GIANT_BYTES: u32 = 1 << 20;

/// Tick `tick` of a test.
fn at(tick: u32) -> Now {
    support::at(TICK_US * u64::from(1_000 + tick))
}

fn start(limits: Limits) -> Engine {
    support::engine(limits, at(0).mono_us)
}

/// Sends what there is as if the kernel took it all; what the engine wants done, and the bytes it said last.
fn flush(engine: &mut Engine, now: Now) -> (Vec<Output>, Vec<u8>) {
    let (mut chunk, mut said) = (Chunk::default(), Vec::new());
    while engine.has_work() {
        engine.next_chunk(now, &mut chunk);
        for delivery in &chunk.deliveries {
            if let uproar_engine::engine::Source::Private { start, len } = delivery.source {
                said = chunk.private(start, len).to_vec();
            }
        }
        engine.settle(now, &mut chunk, &mut Vec::new(), 0);
    }
    engine.check();
    (std::iter::from_fn(|| engine.poll_output()).collect(), said)
}

/// The connections that end.
fn closed(outputs: &[Output]) -> Vec<Id> {
    let close = |output: &Output| match output {
        Output::Close { id, was_counted, .. } => {
            assert!(was_counted, "who is heard counts as a connection");
            Some(*id)
        }
        _ => None,
    };
    outputs.iter().filter_map(close).collect()
}

fn discard(outputs: &[Output]) -> Option<u32> {
    outputs.iter().find_map(|output| match output {
        Output::Discard { len, .. } => Some(*len),
        _ => None,
    })
}

fn says(engine: &mut Engine, now: Now, id: Id, bytes: &[u8]) -> Vec<Output> {
    engine.received(now, id, &mut bytes.to_vec());
    flush(engine, now).0
}

/// A viewer that was closed for a fault, and has been told so.
fn faulty(engine: &mut Engine, now: Now) -> Id {
    let id = support::join(engine, now, "e");
    flush(engine, now);
    engine.received(now, id, &mut FAULT.to_vec());
    let (outputs, said) = flush(engine, now);
    assert_eq!(closed(&outputs), [], "it is heard");
    assert_eq!(said[..4], [0x88, said[1], 0x03, 0xeb], "1003 is said at once");
    id
}

/// A request that was refused.
fn refused(engine: &mut Engine, now: Now) -> Id {
    let id = engine.accept(now, None);
    engine.received(now, id, &mut b"\x01\r\n\r\n".to_vec());
    let (outputs, said) = flush(engine, now);
    assert!(said.starts_with(b"HTTP/1.1 400 "));
    assert!(!closed(&outputs).contains(&id), "it is heard");
    assert!(outputs.iter().any(|output| matches!(output, Output::Linger { .. })), "and counts");
    assert!(discard(&outputs).is_some(), "what it says is thrown away unseen");
    id
}

fn cuts(engine: &Engine) -> [u64; 3] {
    [LingerCut::Time, LingerCut::Bytes, LingerCut::Count]
        .map(|cut| engine.report().counters.lingers_cut[cut as usize])
}

#[test]
fn a_viewer_is_heard_until_its_close_frame() {
    let mut engine = start(Limits::default());
    let id = faulty(&mut engine, at(0));
    for _ in 0..100 {
        assert_eq!(closed(&says(&mut engine, at(1), id, &PING)), []);
    }
    support::post(&mut engine, at(1), "e", "not for it");
    flush(&mut engine, at(1));
    assert_eq!(engine.report().counters.deliveries, 0, "nothing follows the close frame");
    assert_eq!((engine.report().lingering, engine.report().places), (1, 1));
    assert_eq!(closed(&says(&mut engine, at(1), id, &CLOSE)), [id]);
    assert_eq!((engine.report().lingering, engine.report().places), (0, 0));
    assert_eq!(cuts(&engine), [0; 3]);
}

#[test]
fn whoever_ends_its_stream_is_let_go_at_once() {
    let mut engine = start(Limits::default());
    for id in [faulty(&mut engine, at(0)), refused(&mut engine, at(0))] {
        engine.ended(at(0), id);
        assert_eq!(closed(&flush(&mut engine, at(0)).0), [id]);
    }
    assert_eq!(cuts(&engine), [0; 3]);
}

#[test]
fn a_word_that_is_not_out_yet_goes_before_the_end() {
    let mut engine = start(Limits::default());
    let id = support::join(&mut engine, at(0), "e");
    flush(&mut engine, at(0));
    engine.received(at(0), id, &mut FAULT.to_vec());
    engine.received(at(0), id, &mut CLOSE.to_vec());
    let before: Vec<Output> = std::iter::from_fn(|| engine.poll_output()).collect();
    assert_eq!(closed(&before), [], "the close frame is still here");
    let (outputs, said) = flush(&mut engine, at(0));
    assert_eq!((said[0], closed(&outputs)), (0x88, vec![id]));
}

#[test]
fn what_is_long_is_thrown_away_unseen_and_what_comes_behind_it_is_seen() {
    let mut engine = start(Limits::default());
    let id = faulty(&mut engine, at(0));
    let mut left = GIANT_BYTES;
    let mut asked = discard(&says(&mut engine, at(0), id, &GIANT));
    while left > 4_096 {
        assert_eq!(asked, Some(left), "to its end and not beyond");
        let some = left.min(100_000);
        engine.discarded(at(0), id, some);
        left -= some;
        asked = discard(&flush(&mut engine, at(0)).0);
    }
    let behind = [vec![0; left as usize], CLOSE.to_vec()].concat();
    assert_eq!(closed(&says(&mut engine, at(0), id, &behind)), [id]);
}

#[test]
fn linger_bytes_max() {
    let mut engine = start(Limits { linger_bytes_max: 1_000_000, ..Limits::default() });
    // Seen, unseen, and both: every byte counts.
    let id = faulty(&mut engine, at(0));
    let noise = PING.repeat(500);
    for _ in 0..333 {
        assert_eq!(closed(&says(&mut engine, at(0), id, &noise)), []);
    }
    assert_eq!(closed(&says(&mut engine, at(0), id, &noise)), [id]);
    assert_eq!(cuts(&engine), [0, 1, 0]);
    let id = faulty(&mut engine, at(0));
    let asked = discard(&says(&mut engine, at(0), id, &GIANT)).expect("a long frame");
    assert_eq!(asked, 1_000_000 - GIANT.len() as u32, "no more than may be heard");
    engine.discarded(at(0), id, asked - 1);
    assert_eq!(closed(&flush(&mut engine, at(0)).0), []);
    engine.discarded(at(0), id, 1);
    assert_eq!(closed(&flush(&mut engine, at(0)).0), [id]);
    let id = refused(&mut engine, at(0));
    engine.discarded(at(0), id, 999_999);
    assert_eq!(closed(&flush(&mut engine, at(0)).0), []);
    engine.discarded(at(0), id, 1);
    assert_eq!(closed(&flush(&mut engine, at(0)).0), [id]);
    assert_eq!((cuts(&engine), engine.report().places), ([0, 3, 0], 0));
}

#[test]
fn four_mebibytes_are_heard_by_default() {
    assert_eq!(Limits::default().linger_bytes_max, 4 << 20);
}

#[test]
fn close_ms_max() {
    let mut engine = start(Limits { close_ms_max: 3_000, ..Limits::default() });
    let mut ids = [faulty(&mut engine, at(0)), refused(&mut engine, at(0))];
    let mut gone = Vec::new();
    for tick in 1..=31 {
        // Talking does not prolong it.
        says(&mut engine, at(tick), ids[0], &PING);
        engine.tick(at(tick), 0);
        gone.extend(closed(&flush(&mut engine, at(tick)).0));
        assert!(tick >= 30 || gone.is_empty(), "too early, at tick {tick}");
    }
    gone.sort_unstable();
    ids.sort_unstable();
    assert_eq!((gone.as_slice(), cuts(&engine)), (&ids[..], [2, 0, 0]));
}

#[test]
fn lingering_max() {
    let mut engine = start(Limits { lingering_max: 3, ..Limits::default() });
    let first =
        [faulty(&mut engine, at(0)), refused(&mut engine, at(0)), faulty(&mut engine, at(0))];
    assert_eq!(engine.report().lingering, 3);
    // The second has ended since, so the third and fourth are not too many.
    engine.ended(at(0), first[1]);
    flush(&mut engine, at(0));
    let last = [faulty(&mut engine, at(1)), support::join(&mut engine, at(1), "e")];
    flush(&mut engine, at(1));
    assert_eq!(cuts(&engine), [0; 3]);
    for gone in [first[0], first[2], last[0]] {
        let id = engine.accept(at(2), None);
        engine.received(at(2), id, &mut b"\x01\r\n\r\n".to_vec());
        assert_eq!(closed(&flush(&mut engine, at(2)).0), [gone], "the oldest gives way");
        assert_eq!(engine.report().lingering, 3);
    }
    assert_eq!(cuts(&engine), [0, 0, 3]);
}

#[test]
fn a_sixteenth_of_the_connections_lingers_by_default() {
    let mut engine = start(Limits { connections_max: 320, ..Limits::default() });
    for _ in 0..50 {
        refused(&mut engine, at(0));
    }
    assert_eq!((engine.report().lingering, cuts(&engine)), (20, [0, 0, 30]));
}

#[test]
fn those_that_linger_take_places_and_give_them_back_first() {
    let mut engine = start(Limits { connections_max: 2, lingering_max: 2, ..Limits::default() });
    let heard = [refused(&mut engine, at(0)), faulty(&mut engine, at(0))];
    assert_eq!(engine.report().places, 2);
    engine.set_node_connections(2);
    support::join(&mut engine, at(0), "e");
    let (_, said) = flush(&mut engine, at(0));
    assert!(said.starts_with(b"HTTP/1.1 503 "), "the node is full");
    // That one lingers too, and the oldest gave way to it; the shell runs out of slots.
    engine.shed_handshakes(at(0));
    let gone = closed(&flush(&mut engine, at(0)).0);
    assert!(gone.contains(&heard[1]) && gone.len() == 2, "{gone:?}");
    assert_eq!((engine.report().lingering, engine.report().places), (0, 0));
}
