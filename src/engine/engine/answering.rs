//! Answers to the control plane.

use super::Engine;
use super::posting::{Draft, guest_id};
use crate::codec;
use crate::control::{PostRefusal, Reply, Request};
use crate::hot::{self, HotRoom, HotRooms, Largest};
use crate::ids::EventId;
use crate::limits::Limits;
use crate::report::{Budget, Report};
use crate::room::{Member, Role};
use crate::table::Id;
use crate::time::Now;

impl Engine {
    /// Does what the control plane asks and answers at once.
    pub fn control(&mut self, now: Now, request: Request) -> Reply {
        let reply = self.reply(now, request);
        self.keep_budgets(now);
        reply
    }

    fn reply(&mut self, now: Now, request: Request) -> Reply {
        match request {
            Request::Post { event, user, name, text, key, address } => {
                let author = (user, name, address);
                self.post_over_http(now, &event, author, text, key.as_deref()).unwrap_or_else(
                    |refusal| {
                        self.counters.posts_refused[refusal as usize] += 1;
                        Reply::Refused(refusal)
                    },
                )
            }
            Request::Follow { event } => self.follow_outside(&event),
            Request::Event { event } => self.event(&event),
            Request::Report => Reply::Report(Box::new(self.report())),
            Request::HotRooms { from, limit } => Reply::HotRooms(self.hot_rooms(now, from, limit)),
            Request::Drain { number, spread_ms } => {
                self.start_drain(now, number, spread_ms);
                Reply::Done
            }
            Request::Undrain => {
                self.stop_drain();
                Reply::Done
            }
            Request::Reload { generation, limits } => {
                self.limits_generation = generation;
                self.reload(now, *limits);
                Reply::Done
            }
        }
    }

    /// New limits hold for logs and deadlines that are there as well, as soon as a few steps have walked through them.
    fn reload(&mut self, now: Now, limits: Limits) {
        self.limits = limits;
        self.limit_keys();
        self.rearm_rooms();
        self.walk_all();
        self.step(now);
    }

    fn post_over_http(
        &mut self,
        now: Now,
        event: &EventId,
        (user, name, address): (Option<Box<str>>, Option<Box<str>>, u32),
        text: Box<str>,
        key: Option<&str>,
    ) -> Result<Reply, PostRefusal> {
        let text = codec::clean_text(text, self.limits.comment_bytes_max)?;
        let label = |label: Option<Box<str>>| label.map_or(Ok(None), codec::clean_label);
        let (user, name) = (label(user)?, label(name)?);
        if let Some(key) = key {
            codec::check_key(key)?;
            // The next request of a guest would be another guest's.
            user.as_ref().ok_or(PostRefusal::KeyNeedsUser)?;
        }
        if self.drain.is_some() {
            return Err(PostRefusal::Draining);
        }
        let room_id = self.home_room(now, event).ok_or(PostRefusal::RoomsFull)?;
        let user = user.unwrap_or_else(|| guest_id(self.random.bits()));
        let draft = Draft { user: &user, name: name.as_deref(), text: &text, key, address };
        let (id, offset) = self.append(now, room_id, &draft)?;
        let mut position = self.rooms.table.at(room_id.index).head();
        position.offset = offset;
        Ok(Reply::Posted { id, position })
    }

    /// The home room of an event that is known here.
    fn known_home(&self, event: &EventId) -> Option<Id> {
        let id = self.rooms.find(event)?;
        let is_home = matches!(self.rooms.table.get(id)?.role, Role::Home(_));
        is_home.then_some(id)
    }

    /// The same cost whatever is retained: whoever asked reads and encodes.
    fn follow_outside(&self, event: &EventId) -> Reply {
        let Some(room_id) = self.known_home(event) else { return Reply::NoSuchEvent };
        let room = self.rooms.table.peek(room_id.index);
        Reply::Followed { log: room.canonical().weak_grant(), position: room.head() }
    }

    fn event(&self, event: &EventId) -> Reply {
        let Some(room_id) = self.known_home(event) else { return Reply::NoSuchEvent };
        let room = self.rooms.table.peek(room_id.index);
        let tail = room.canonical().tail();
        Reply::Event { viewers: room.viewers(), position: room.head(), tail }
    }

    /// One step of a look for hot rooms, from this place of the table on.
    fn hot_rooms(&self, now: Now, from: u32, limit: usize) -> HotRooms {
        let bound = self.rooms.table.index_bound();
        let stop = bound.min(from.saturating_add(hot::LOOKED_AT_MAX));
        let (mut by_viewers, mut by_comments) = (Largest::new(limit), Largest::new(limit));
        for index in (from..stop).filter(|&index| self.rooms.table.id_at(index).is_some()) {
            let room = self.rooms.table.peek(index);
            if let Role::Home(home) = &room.role {
                by_viewers.offer(room.viewers().into(), index);
                by_comments.offer(home.comments.per_1000_s(now), index);
            }
        }
        let listed = |largest: Largest| {
            largest.list.into_iter().map(|(_, index)| self.hot_room(now, index)).collect()
        };
        HotRooms {
            by_viewers: listed(by_viewers),
            by_comments: listed(by_comments),
            next: (stop < bound).then_some(stop),
        }
    }

    fn hot_room(&self, now: Now, index: u32) -> HotRoom {
        let room = self.rooms.table.peek(index);
        let Role::Home(home) = &room.role else { unreachable!("{} is a replica", room.event) };
        HotRoom {
            event: room.event.clone(),
            viewers: room.viewers(),
            comments_per_1000_s: home.comments.per_1000_s(now),
        }
    }

    /// Counters and gauges; the shell adds its own.
    #[must_use]
    pub fn report(&self) -> Report {
        let replicas = self.rooms.replicas() as u64;
        let members = u64::from(self.counted) * size_of::<Member>() as u64;
        Report {
            shard: self.setup.shard,
            counters: self.counters.clone(),
            connections: self.counted.into(),
            places: u64::from(self.counted) + u64::from(self.refused),
            lingering: self.lingering.len().into(),
            handshakes: self.handshakes.into(),
            rooms: self.rooms.table.len() as u64 - replicas,
            replicas,
            rooms_vacant: self.rooms.vacant.len() as u64,
            key_bytes: self.retries.bytes,
            log_bytes: self.keeping.bytes,
            private_bytes: self.private_bytes,
            budgets: Budget::ALL.map(|budget| self.held(budget)),
            budget_shares: Budget::ALL.map(|budget| self.share(budget)),
            blocked: self.blocked.into(),
            paused: self.paused.into(),
            pause_permille: self.governor.factor_permille(),
            connection_bytes: self.connections.bytes() as u64 + members + self.walks.held_bytes,
            drain: self.drain.map(|drain| drain.number),
            limits_generation: self.limits_generation,
            shell: crate::report::Shell::default(),
        }
    }
}
