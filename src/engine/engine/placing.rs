//! Which shard serves a connection, and how it gets there: its room's home, or a replica once the
//! room is hot enough to spread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::timers::spread;
use super::unfinished::is_unfinished;
use super::{Engine, Half, Output, Parting};
use crate::address::Address;
use crate::codec::{self, Codec, Notice};
use crate::connection::{Author, Connection, Leaving, Phase};
use crate::http::{self, Rejection, Upgrade};
use crate::ids::{EventId, Position};
use crate::mesh::{Join, MeshMessage, Spread, Taken};
use crate::placement::home_shard;
use crate::report::{Budget, CloseCause};
use crate::room::{Follower, Member, Role, Room};
use crate::table::Id;
use crate::time::{Now, ticks};

/// From one half of a move to the other, in milliseconds; then the half that came is given up.
const MOVE_MS_MAX: u32 = 2_000;
/// A replica keeps a connection that its own listener accepted unless its shard has this many
/// more live connections than the home shard, in percent.
const REPLICA_OVERLOAD_PERCENT: u64 = 110;

impl Engine {
    /// Asks for a place of its address for a whole request, if places of addresses are limited.
    pub(super) fn ask_place(&mut self, now: Now, id: Id, join: Join) {
        let places_max = self.limits.connections_per_address_max;
        if places_max == 0 || join.peer.is_none() {
            return self.place(now, id, join);
        }
        // Who is not let in anyway takes no place.
        match self.may_admit() {
            Ok(()) => {
                let join = Box::new(join);
                self.outputs.push_back(Output::AskPlace { id, join, places_max });
            }
            Err(rejection) => self.refuse(now, id, rejection),
        }
    }

    /// Answers [`Output::AskPlace`]: whether the connection has a place of its address now. It keeps it, on
    /// whichever shard, until its socket is closed.
    pub fn place_answered(&mut self, now: Now, id: Id, mut join: Join, has_place: bool) {
        join.has_place = has_place;
        // A budget may have given it up meanwhile; its place is given back with its socket.
        if is_unfinished(&self.connections, id) {
            match has_place {
                true => self.place(now, id, join),
                false => self.refuse(now, id, &Rejection::ADDRESS_FULL),
            }
            self.keep_budgets(now);
        }
    }

    /// Decides about a request that this shard has read.
    pub(super) fn place(&mut self, now: Now, id: Id, join: Join) {
        if let Err(rejection) = self.may_admit() {
            return self.refuse(now, id, rejection);
        }
        if self.setup.conformance_echo {
            return self.echo(now, id, join);
        }
        let home = home_shard(join.upgrade.event.as_str(), self.setup.shards);
        if home == self.setup.shard {
            return self.place_at_home(now, id, join);
        }
        match self.replica_for(home, &join) {
            Some(room) => self.admit(now, id, room, join),
            None => self.start_move(now, id, home, join, None),
        }
    }

    /// Whether the node takes another connection now.
    fn may_admit(&self) -> Result<(), &'static Rejection> {
        match () {
            () if self.drain.is_some() => Err(&Rejection::DRAINING),
            () if self.node_connections >= self.limits.connections_max => Err(&Rejection::FULL),
            () => Ok(()),
        }
    }

    /// The replica that may keep a connection without asking the home shard.
    fn replica_for(&self, home: u32, join: &Join) -> Option<Id> {
        let room_id = self.rooms.find(&join.upgrade.event)?;
        self.rooms.table.get(room_id)?.feed(join.upgrade.codec)?;
        let home_load = u64::from(self.loads[home as usize]);
        let may_keep = u64::from(self.counted) * 100 <= home_load * REPLICA_OVERLOAD_PERCENT;
        may_keep.then_some(room_id)
    }

    fn place_at_home(&mut self, now: Now, id: Id, join: Join) {
        let Some(room_id) = self.open_room(now, &join) else {
            return self.refuse(now, id, &Rejection::ROOMS_FULL);
        };
        let to = self.spread_target(room_id, join.upgrade.codec);
        if to == self.setup.shard {
            return self.admit(now, id, room_id, join);
        }
        self.start_move(now, id, to, join, Some(room_id));
    }

    /// The home room of the request's event; made if there is none. `None`: too many rooms.
    fn open_room(&mut self, now: Now, join: &Join) -> Option<Id> {
        let id = self.home_room(now, &join.upgrade.event)?;
        let room = self.rooms.table.get_mut(id).expect("the room was just found");
        room.open_feed(join.upgrade.codec, &self.limits);
        // A pass derives it; without this a join would start one over all subscribers.
        if !room.is_derived(join.upgrade.codec) {
            self.wake_feeds(now, id, now.mono_us);
        }
        Some(id)
    }

    /// The shard for one more subscriber of a home room: this one until the room is hot, then the
    /// one with the fewest live connections.
    fn spread_target(&self, room_id: Id, codec: Codec) -> u32 {
        let here = self.setup.shard;
        let room = self.rooms.table.get(room_id).expect("the room was just found");
        if room.members() < self.limits.spread_subscribers_min || room.feed(codec).is_none() {
            return here;
        }
        let load = |shard: u32| {
            // Connections on their way count, or a burst would all go to one shard.
            let mine = if shard == here { self.counted } else { self.loads[shard as usize] };
            (mine, shard != here)
        };
        (0..self.setup.shards).min_by_key(|&shard| load(shard)).unwrap_or(here)
    }

    /// Lets shard `to` serve the room.
    fn grant(&mut self, now: Now, room_id: Id, to: u32) -> Spread {
        self.loads[to as usize] += 1;
        let room = self.rooms.table.get_mut(room_id).expect("the room was just found");
        let logs = Codec::ALL.map(|codec| room.feed_mut(codec).map(|feed| feed.log.grant()));
        let (viewers, epoch) = (room.viewers(), room.epoch);
        let Role::Home(home) = &mut room.role else { unreachable!("only the home shard grants") };
        if home.followers.is_empty() {
            home.followers = vec![Follower::default(); self.setup.shards as usize];
        }
        let follower = &mut home.followers[to as usize];
        follower.grants += 1;
        let nobody_waits = || Arc::new(Codec::ALL.map(|_| AtomicU64::new(u64::MAX)));
        let sent_to = Arc::clone(follower.sent_to.get_or_insert_with(nobody_waits));
        let spread =
            Spread { home: self.setup.shard, room: room_id, epoch, viewers, logs, sent_to };
        // A grant may have opened a log's first segment, and a room that is followed is not vacant.
        self.limit_logs(room_id);
        self.list_if_idle(now, room_id);
        spread
    }

    /// Begins to move a connection to shard `to`, with a grant of `room` if the home shard places it there.
    fn start_move(&mut self, now: Now, id: Id, to: u32, mut join: Join, room: Option<Id>) {
        if !self.reserve_join(now, id, to, &join) {
            return;
        }
        // Only now: a grant that could not leave would keep the room for ever.
        join.spread = room.map(|room| self.grant(now, room, to));
        let token = self.next_token;
        // 40 bits of counter below the shard's number.
        self.next_token = token & !0xff_ffff_ffff | (token + 1) & 0xff_ffff_ffff;
        join.token = token;
        let leaving = Phase::Leaving(Box::new(Leaving { to, join }));
        if let Some(Phase::Arriving { token }) = self.change_phase(id, leaving) {
            self.halves.remove(&token);
        }
        self.wheel.cancel(id.index);
        self.outputs.push_back(Output::Move { id, to, token });
    }

    /// Counts a request against the budget of request heads until shard `to` has taken it. False: it was refused,
    /// because too many are under way, or the budget is used up by what cannot be given up.
    fn reserve_join(&mut self, now: Now, id: Id, to: u32, join: &Join) -> bool {
        let (bytes, share) = (join.bytes_held(), self.share(Budget::Heads));
        let excess = (self.head_bytes + bytes).saturating_sub(share);
        if excess > 0 {
            self.relieve(now, Budget::Heads, excess);
        }
        let is_shaking = |connection: &Connection| {
            matches!(connection.phase, Phase::Handshake(_) | Phase::Arriving { .. })
        };
        if !self.connections.get(id).is_some_and(is_shaking) {
            return false;
        }
        let outbox = &mut self.outboxes[to as usize];
        if !outbox.has_room_for_join() || self.head_bytes + bytes > share {
            self.refuse(now, id, &Rejection::OVERLOADED);
            return false;
        }
        outbox.joins_away.joins += 1;
        outbox.joins_away.bytes += bytes;
        self.head_bytes += bytes;
        true
    }

    /// Requests on their way to shard `to` have been taken there, or stay here.
    pub(super) fn joins_taken(&mut self, to: u32, Taken { joins, bytes }: Taken) {
        let away = &mut self.outboxes[to as usize].joins_away;
        away.joins -= joins;
        away.bytes -= bytes;
        self.head_bytes -= bytes;
    }

    /// The socket of a moving connection is in the target shard's hands.
    pub fn moved(&mut self, id: Id) {
        let closing = Phase::Closing { rest: None };
        let Some(before) = self.change_phase(id, closing) else { return };
        let Phase::Leaving(leaving) = before else {
            unreachable!("a connection moved that was not leaving")
        };
        self.handshakes -= 1;
        self.counters.moves += 1;
        let Leaving { to, join } = *leaving;
        self.outboxes[to as usize].push(MeshMessage::Join(Box::new(join)));
        self.remove(id, Parting::Moved);
    }

    /// The target shard could not take the socket.
    pub fn move_failed(&mut self, now: Now, id: Id) {
        let Some(connection) = self.connections.get(id) else { return };
        if let Phase::Leaving(leaving) = &connection.phase {
            let (to, bytes) = (leaving.to, leaving.join.bytes_held());
            let granted = leaving.join.spread.as_ref().map(|spread| spread.room);
            self.joins_taken(to, Taken { joins: 1, bytes });
            if let Some(room) = granted {
                self.take_grant_back(now, room, to);
            }
        }
        self.refuse(now, id, &Rejection::OVERLOADED);
    }

    /// A socket came from another shard. The request follows, or is there already.
    pub fn arrived(&mut self, now: Now, token: u64) -> Id {
        self.handshakes += 1;
        let tick = now.tick();
        let id = self.connections.insert(Connection::new(Phase::Arriving { token }, tick));
        match self.halves.remove(&token) {
            Some(Half::Request { join, from, .. }) => {
                self.take_join(from, &join);
                self.complete_move(now, id, *join);
            }
            _ => {
                self.halves.insert(token, Half::Socket(id));
                self.wheel.schedule(id.index, tick + ticks(MOVE_MS_MAX));
            }
        }
        self.keep_budgets(now);
        id
    }

    /// The request half came over the mesh.
    pub(super) fn request_arrived(&mut self, now: Now, from: u32, join: Box<Join>) {
        match self.halves.remove(&join.token) {
            Some(Half::Socket(id)) => {
                self.take_join(from, &join);
                self.complete_move(now, id, *join);
            }
            _ => {
                let token = join.token;
                self.halves.insert(token, Half::Request { join, from, since_tick: now.tick() });
            }
        }
    }

    /// Notes that a request of shard `from` waits no more, to tell it so.
    fn take_join(&mut self, from: u32, join: &Join) {
        let taken = &mut self.outboxes[from as usize].taken;
        taken.joins += 1;
        taken.bytes += join.bytes_held();
    }

    /// Gives up request halves whose socket did not come.
    pub(super) fn expire_halves(&mut self, now: Now) {
        let oldest = now.tick().saturating_sub(ticks(MOVE_MS_MAX));
        let late =
            |half: &Half| matches!(half, Half::Request { since_tick, .. } if *since_tick < oldest);
        let mut tokens: Vec<u64> =
            self.halves.iter().filter(|(_, half)| late(half)).map(|(token, _)| *token).collect();
        // The map's order differs between processes; a seed must not.
        tokens.sort_unstable();
        for token in tokens {
            let Some(Half::Request { mut join, from, .. }) = self.halves.remove(&token) else {
                continue;
            };
            self.take_join(from, &join);
            if let Some(spread) = join.spread.take() {
                // The home shard counts on a replica; make it, and release it in order.
                self.follow(now, &join.upgrade.event, &spread);
            }
            if let Some(peer) = join.peer.filter(|_| join.has_place) {
                self.outputs.push_back(Output::FreePlace { peer });
            }
        }
    }

    fn complete_move(&mut self, now: Now, id: Id, mut join: Join) {
        if let Some(peer) = join.peer.filter(|_| join.has_place) {
            self.outputs.push_back(Output::HoldPlace { id, peer });
        }
        match join.spread.take() {
            Some(spread) => {
                let room = self.follow(now, &join.upgrade.event, &spread);
                match self.may_admit() {
                    Ok(()) => self.admit(now, id, room, join),
                    Err(rejection) => self.refuse(now, id, rejection),
                }
            }
            None => self.place(now, id, join),
        }
    }

    /// The replica behind `spread`, made or brought up to date.
    fn follow(&mut self, now: Now, event: &EventId, spread: &Spread) -> Id {
        let known = self.rooms.find_replica(spread.home, spread.room);
        let id = known.unwrap_or_else(|| self.rooms.insert(Room::replica(event.clone(), spread)));
        let room = self.rooms.table.get_mut(id).expect("the replica was just found");
        room.follow(spread);
        self.members_changed(now, id);
        id
    }

    /// Makes a subscriber of the connection: answers 101 and `welcome`, and places its cursor.
    fn admit(&mut self, now: Now, id: Id, room_id: Id, join: Join) {
        let Join { upgrade, mut early, peer, .. } = join;
        // A resumed position may be newer than what this shard has heard of.
        self.catch_up(now, room_id, now.mono_us);
        let room = self.rooms.table.get_mut(room_id).expect("the room was just found");
        let (head, viewers) = (room.head(), room.viewers() + 1);
        let feed = room.feed_mut(upgrade.codec).expect("the feed was opened before");
        let tail = feed.log.tail();
        let resumed = upgrade.since.filter(|since| {
            let is_kept = since.offset <= head.offset && since.offset + 1 >= tail;
            since.epoch == head.epoch && is_kept
        });
        let cursor = match (resumed, upgrade.since) {
            (Some(since), _) => since.offset + 1,
            // The same log, but older than what is kept: all that is left.
            (None, Some(since)) if since.epoch == head.epoch && since.offset < tail => tail,
            _ => {
                let history = upgrade.history.unwrap_or(self.limits.history_frames);
                let history = u64::from(history.min(self.limits.history_frames_max));
                (head.offset + 1).saturating_sub(history).max(tail)
            }
        };
        let member = feed.members.len() as u32;
        feed.members.push(Member::held(id.index, cursor));
        let welcome = Notice::Welcome {
            event: upgrade.event.as_str(),
            node: &self.setup.node,
            start: Position { epoch: head.epoch, offset: cursor - 1 },
            // The home shard may have trimmed more since than this one had heard of.
            head: head.offset.max(cursor - 1),
            recovered: resumed.is_some(),
            viewers,
        };
        self.frame.clear();
        http::write_switching(&mut self.frame, &upgrade);
        codec::write_notice(upgrade.codec, &welcome, &mut self.frame);
        self.counters.upgrades += 1;
        self.owe_member(room_id, upgrade.codec, member);
        self.go_live(now, id, Phase::Live { room: room_id, member }, upgrade.codec, peer);
        let Upgrade { user, name, .. } = *upgrade;
        if user.is_some() || name.is_some() {
            let author = Author { user: user.unwrap_or_default(), name };
            self.connections.at(id.index).author = Some(Box::new(author));
        }
        let frame = std::mem::take(&mut self.frame);
        self.push_private(now, id, |out| out.extend_from_slice(&frame));
        self.frame = frame;
        self.members_changed(now, room_id);
        if !early.is_empty() {
            self.received(now, id, &mut early);
        }
    }

    /// The conformance suite's path: no room, every message comes back.
    fn echo(&mut self, now: Now, id: Id, join: Join) {
        let Join { upgrade, mut early, peer, .. } = join;
        self.counters.upgrades += 1;
        self.go_live(now, id, Phase::Echo, upgrade.codec, peer);
        self.push_private(now, id, |out| http::write_switching(out, &upgrade));
        if !early.is_empty() {
            self.received(now, id, &mut early);
        }
    }

    fn go_live(&mut self, now: Now, id: Id, phase: Phase, codec: Codec, peer: Option<SocketAddr>) {
        // Connections that came together would be pinged together for good: the first silence
        // is taken to have begun up to half an interval ago.
        let earlier = spread(id.index, ticks(self.limits.keepalive_ms) / 2);
        if let Some(Phase::Arriving { token }) = self.change_phase(id, phase) {
            self.halves.remove(&token);
        }
        self.handshakes -= 1;
        self.counted += 1;
        self.node_connections += 1;
        let connection = self.connections.at(id.index);
        connection.codec = codec;
        connection.address = peer.map_or(0, |peer| Address::from(peer.ip()).digest());
        connection.is_counted = true;
        connection.cause = CloseCause::Peer;
        connection.phase_tick = now.tick();
        connection.heard_tick = now.tick().saturating_sub(earlier).max(1);
        self.outputs.push_back(Output::Live { id });
        self.wheel.cancel(id.index);
        self.arm(now, id);
    }
}
