//! The three budgets: within their shares, whoever comes; and who gives way.

use uproar_engine::limits::Limits;
use uproar_engine::report::{Budget, CloseCause};
use uproar_engine::table::Id;

use crate::shard::{Shard, ping, small, text};

/// A sound request.
pub(crate) const REQUEST: &str = "GET /v1/events/e/live HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

#[test]
fn who_holds_most_answers_for_longest_gives_way() {
    let limits = Limits { answers_bytes_max: 200_000, ..small() };
    let mut shard = Shard::new(limits);
    let innocents: Vec<Id> = (0..20).map(|_| shard.join_deaf()).collect();
    for id in &innocents {
        shard.says(*id, &ping(100));
    }
    let hogs: Vec<Id> = (0..30).map(|_| shard.join_deaf()).collect();
    for id in &hogs {
        // Some 30 KB of errors each; the sum of them all is 900 KB.
        shard.says(*id, &text("{}").repeat(300));
    }
    let report = shard.report();
    let hits = report.counters.budget_hits[Budget::Answers as usize];
    assert!(hits >= 20, "{hits}");
    assert_eq!(report.counters.closes[CloseCause::Budget as usize], hits);
    assert!(report.budgets[Budget::Answers as usize] <= 200_000);
    assert!(!innocents.iter().any(|id| shard.closed.contains(id)), "nobody who holds little");
}

#[test]
fn who_holds_most_of_unfinished_messages_for_longest_gives_way() {
    let limits = Limits { unfinished_bytes_max: 100_000, ..small() };
    let mut shard = Shard::new(limits);
    let hogs: Vec<Id> = (0..200).map(|_| shard.join()).collect();
    let post = text(&format!(r#"{{"type":"post","text":"{}"}}"#, "x".repeat(1_500)));
    // Each hog holds less than the post of somebody whose network cut it in two.
    for (index, id) in hogs.iter().enumerate() {
        shard.says(*id, &post[..700]);
        if index % 10 == 9 {
            shard.pass_ms(100);
            let innocent = shard.join();
            shard.says(innocent, &post[..1_400]);
            shard.says(innocent, &post[1_400..]);
            assert!(!shard.closed.contains(&innocent), "after {index}");
        }
    }
    let report = shard.report();
    assert!(report.counters.budget_hits[Budget::Unfinished as usize] > 20);
    assert_eq!(report.counters.comments, 20, "every post that went on arrived");
}

#[test]
fn who_holds_most_of_request_heads_for_longest_gives_way() {
    let limits = Limits { heads_bytes_max: 64 * 1024, ..small() };
    let mut shard = Shard::new(limits);
    let half = format!("GET /v1/events/e/live HTTP/1.1\r\nX: {}", "x".repeat(4_000));
    for _ in 0..100 {
        let id = shard.engine.accept(shard.now, None);
        shard.engine.received(shard.now, id, &mut half.clone().into_bytes());
        shard.flush();
    }
    // A request that comes in two pieces meanwhile.
    let (first, second) = REQUEST.as_bytes().split_at(100);
    let id = shard.engine.accept(shard.now, None);
    shard.engine.received(shard.now, id, &mut first.to_vec());
    for _ in 0..100 {
        let id = shard.engine.accept(shard.now, None);
        shard.engine.received(shard.now, id, &mut half.clone().into_bytes());
        shard.flush();
    }
    shard.engine.received(shard.now, id, &mut second.to_vec());
    shard.flush();
    let report = shard.report();
    assert_eq!(report.connections, 1);
    assert!(report.counters.budget_hits[Budget::Heads as usize] >= 180);
    assert!(report.budgets[Budget::Heads as usize] <= 64 * 1024);
}

#[test]
fn a_share_is_never_less_than_what_one_may_hold() {
    let limits = Limits::default();
    for shards in [1, 2, 16, 256] {
        let share = |budget| limits.budget_share(budget, shards);
        assert!(share(Budget::Answers) >= 2 * u64::from(limits.private_queue_bytes_max));
        assert!(share(Budget::Unfinished) >= limits.message_bytes_max.into());
        assert!(share(Budget::Heads) >= limits.handshake_bytes_max.into());
    }
    assert_eq!(limits.budget_share(Budget::Answers, 2), limits.answers_bytes_max / 2);
}
