//! When a connection is not read from, and how long its messages may take.

use uproar_engine::engine::Chunk;
use uproar_engine::limits::Limits;
use uproar_engine::report::{Budget, CloseCause};

use crate::shard::{Shard, ping, small, text};
use crate::support;

#[test]
fn answers_that_wait_stop_the_reading_until_they_are_out() {
    let mut shard = Shard::new(small());
    let deaf = shard.join_deaf();
    assert!(shard.says(deaf, &ping(10)));
    assert!(!shard.says(deaf, &ping(10)), "its pong waits, and its socket is full");
    assert_eq!(shard.report().paused, 1);
    shard.engine.writable(shard.now, deaf);
    shard.flush();
    assert!(!shard.says(deaf, &ping(10)), "it takes nothing yet");
    shard.full.clear();
    shard.engine.writable(shard.now, deaf);
    shard.flush();
    assert_eq!(shard.read_on, [deaf]);
    assert!(shard.says(deaf, &ping(10)));
    let report = shard.report();
    assert_eq!((report.paused, report.counters.reads_paused), (0, 1));
}

#[test]
fn the_rest_of_a_cut_frame_is_no_answer() {
    let mut shard = Shard::new(small());
    let slow = shard.join();
    support::post(&mut shard.engine, shard.now, "e", "hello");
    let mut chunk = Chunk::default();
    shard.engine.next_chunk(shard.now, &mut chunk);
    shard.engine.settle(shard.now, &mut chunk, &mut vec![(0, Ok(3))], 1);
    assert_eq!(shard.report().blocked, 1);
    assert_eq!(shard.report().budgets[Budget::Answers as usize], 0);
    assert!(shard.says(slow, &ping(1)), "a viewer that reads slowly is heard");
    assert!(!shard.says(slow, &ping(1)), "until it does not take its answers either");
}

#[test]
fn many_answers_that_wait_for_their_turn_stop_the_reading_too() {
    let mut shard = Shard::new(small());
    let id = shard.join();
    let mut commands = text("{}").repeat(500);
    shard.engine.received(shard.now, id, &mut commands);
    assert!(!shard.engine.may_read(id), "tens of kilobytes of errors wait to be sent");
    shard.flush();
    assert_eq!(shard.read_on, [id]);
}

#[test]
fn a_peer_that_takes_bytes_is_not_silent_and_its_message_not_late() {
    let limits =
        Limits { keepalive_ms: 2_000, stall_ms_max: 60_000, message_ms_max: 3_000, ..small() };
    let mut shard = Shard::new(limits);
    let id = shard.join_deaf();
    // An answer, and the beginning of a message behind it.
    shard.says(id, &[ping(9), text("{}")[..7].to_vec()].concat());
    assert!(!shard.says(id, b"}"), "the end of its message waits in the kernel");
    shard.pass_ms(20_000);
    assert_eq!(shard.closed, [], "it cannot say that it lives, nor end its message");
    shard.full.clear();
    shard.engine.writable(shard.now, id);
    shard.flush();
    assert_eq!(shard.read_on, [id]);
    shard.pass_ms(2_000);
    assert_eq!(shard.closed, [], "from now on it counts again");
    shard.pass_ms(1_400);
    assert_eq!(shard.closed, [id]);
    assert_eq!(shard.report().counters.closes[CloseCause::SlowMessage as usize], 1);
}

#[test]
fn a_message_has_a_deadline_however_it_drips() {
    let mut shard = Shard::new(Limits { message_ms_max: 3_000, ..small() });
    let (slow, quick) = (shard.join(), shard.join());
    let message = text(r#"{"type":"post","text":"one byte after another"}"#);
    shard.says(quick, &message[..20]);
    for byte in &message[..28] {
        shard.says(slow, &[*byte]);
        // Whole messages, and the beginnings of the next.
        shard.says(quick, &[&message[20..], &message[..20]].concat()[..]);
        shard.pass_ms(100);
    }
    assert_eq!(shard.closed, []);
    shard.pass_ms(600);
    assert_eq!(shard.closed, [slow], "no byte of the other's was older than 100 ms");
}
