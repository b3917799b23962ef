//! The invariants of an engine, swept whole. Too dear for every call in production; the simulator
//! runs it after every step.

use hashbrown::HashMap;

use super::Engine;
use crate::address::Address;
use crate::codec::Codec;
use crate::connection::{Phase, Private};
use crate::limits::LAST_BYTES_MAX;
use crate::report::Budget;
use crate::room::{self, Role};
use crate::time::ticks;
use crate::ws::rest::Rest;

impl Engine {
    /// Asserts what must hold between any two calls.
    pub fn check(&self) {
        self.check_connections();
        self.check_budgets();
        self.check_rooms();
    }

    /// Asserts that nothing is left: no connection, no member, no byte that waits.
    pub fn check_empty(&self) {
        assert_eq!((self.connections.len(), self.counted, self.handshakes), (0, 0, 0));
        assert_eq!((self.lingering.len(), self.refused), (0, 0));
        assert_eq!((self.unfinished.all.len(), self.unfinished.counted_by_address()), (0, 0));
        assert_eq!((self.private_bytes, self.blocked, self.wheel.len()), (0, 0, 0));
        assert_eq!(Budget::ALL.map(|budget| self.held(budget)), [0; 3], "budgets are given back");
        assert!(self.outboxes.iter().all(|outbox| outbox.posts_away == 0), "posts are answered");
        assert!(self.rooms.table.iter().all(|(_, room)| room.members() == 0));
    }

    fn check_connections(&self) {
        let (mut lingering, mut refused) = (0, 0);
        let mut unfinished: HashMap<Option<Address>, u32> = HashMap::new();
        let (mut counted, mut blocked, mut private_bytes, mut handshakes) = (0, 0, 0, 0);
        for (id, connection) in self.connections.iter() {
            counted += u32::from(connection.is_counted);
            blocked += u32::from(connection.is_blocked);
            private_bytes += connection.private_len() as u64;
            let is_empty_box = connection
                .private
                .as_deref()
                .is_some_and(|private: &Private| private.waiting().is_empty());
            assert!(!is_empty_box, "an empty private queue is given back");
            match connection.phase {
                Phase::Handshake(ref handshake) => {
                    handshakes += 1;
                    *unfinished.entry(handshake.counted_by).or_default() += 1;
                }
                Phase::Leaving(_) | Phase::Handing | Phase::Arriving { .. } => handshakes += 1,
                Phase::Live { room, member } => {
                    let room = self.rooms.table.get(room).expect("a member's room exists");
                    let feed = room.feed(connection.codec).expect("a member's feed exists");
                    let member = feed.members[member as usize];
                    assert_eq!(member.connection, id.index, "places agree in {}", room.event);
                    let has_private = connection.private.is_some();
                    assert!(
                        member.is_held() || !(connection.is_blocked || has_private),
                        "a pass would overtake private bytes in {}",
                        room.event
                    );
                    let waits = member.is_held() && !connection.is_blocked;
                    assert!(!waits || connection.is_ready, "a held member is served by somebody");
                }
                Phase::Closing { ref rest } => {
                    lingering += u32::from(rest.is_some());
                    let heard = rest.as_deref().map_or(0, Rest::heard_bytes);
                    assert!(
                        heard < self.limits.linger_bytes_max,
                        "{heard} bytes after the last word"
                    );
                    let last = connection.phase_tick + ticks(self.limits.close_ms_max);
                    let due = self.wheel.due(id.index);
                    assert!(due.is_some_and(|due| due <= last + 1), "{due:?} is after {last}");
                }
                Phase::Echo => {}
            }
            refused += u32::from(connection.is_refused);
            assert!(
                connection.answers()
                    <= (self.limits.private_queue_bytes_max + LAST_BYTES_MAX) as usize,
                "a private queue of {} bytes",
                connection.answers()
            );
            assert!(
                connection.private.is_none() || connection.is_ready || connection.is_blocked,
                "private bytes leave by the ready queue"
            );
            assert!(
                matches!(connection.phase, Phase::Leaving(_) | Phase::Handing)
                    || self.wheel.due(id.index).is_some()
                    || self.limits.keepalive_ms == 0,
                "every connection has a deadline"
            );
        }
        assert_eq!((lingering, refused), (self.lingering.len(), self.refused));
        self.unfinished.check(&unfinished);
        assert!(lingering <= self.lingering_share(), "{lingering} linger");
        assert_eq!(
            (counted, blocked, private_bytes, handshakes),
            (self.counted, self.blocked, self.private_bytes, self.handshakes)
        );
    }

    /// The sums of the budgets are those of their parts, and within their shares.
    fn check_budgets(&self) {
        let (mut held, mut paused) = ([0; Budget::ALL.len()], 0);
        for (_, connection) in self.connections.iter() {
            held[Budget::Answers as usize] += connection.answer_bytes_held() as u64;
            held[Budget::Unfinished as usize] += connection.reader.bytes_held() as u64;
            held[Budget::Heads as usize] += connection.phase.head_bytes_held();
            paused += u32::from(connection.is_paused);
        }
        let away = self.outboxes.iter().map(|outbox| outbox.joins_away.bytes);
        held[Budget::Heads as usize] += away.sum::<u64>();
        assert_eq!(paused, self.paused);
        for budget in Budget::ALL {
            let (held, share) = (held[budget as usize], self.share(budget));
            assert_eq!(held, self.held(budget), "the sum of {budget:?} is kept");
            assert!(held <= share, "{budget:?}: {held} bytes, over the {share} of this shard");
        }
    }

    fn check_rooms(&self) {
        let (mut log_bytes, mut key_bytes, mut vacant) = (0, 0, 0);
        for (_, room) in self.rooms.table.iter() {
            log_bytes += room.log_bytes();
            vacant += usize::from(room.is_empty());
            if let Role::Home(home) = &room.role {
                key_bytes += home.keys.as_ref().map_or(0, |keys| keys.bytes());
                assert_eq!(room.is_empty(), home.vacancy.is_some(), "{} is listed", room.event);
            }
            for feed in Codec::ALL.into_iter().filter_map(|codec| room.feed(codec)) {
                // A pass serves it, or the ready queue does.
                let waits = feed.members.iter().any(|member| {
                    let is_behind = !member.is_held() && member.cursor < feed.log.end();
                    is_behind && !self.connections.peek(member.connection).is_ready
                });
                assert!(
                    !waits || feed.phase != room::Phase::Idle,
                    "somebody serves the members of {}",
                    room.event
                );
                assert!(feed.members.iter().all(|member| member.cursor <= room.head().offset + 1));
            }
        }
        assert_eq!(log_bytes, self.keeping.bytes, "the sum of log bytes is kept");
        assert_eq!(key_bytes, self.retries.bytes, "the sum of key bytes is kept");
        assert!(key_bytes <= self.keys_share_bytes(), "keys stay within the shard's share");
        assert_eq!(vacant, self.rooms.vacant.len(), "rooms without viewers are listed");
        assert!(
            log_bytes <= self.log_share_bytes()
                || !self.keeping.can_give()
                || self.walks.is_over_logs,
            "logs stay within the shard's share"
        );
    }
}
