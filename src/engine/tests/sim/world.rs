//! The node and the network: engines, the mesh between them, sockets, time. It does what the
//! shell does with each output, no more, in an order and with faults that the seed chooses.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use uproar_engine::engine::{Chunk, Engine, Output, Parting, Setup, Source};
use uproar_engine::limits::{LagPolicy, Limits, READ_BYTES_MAX};
use uproar_engine::mesh::MeshMessage;
use uproar_engine::random::Random;
use uproar_engine::table::Id;
use uproar_engine::time::{Now, ticks};

use super::oracle::Oracle;
use super::plan::Plan;
use super::socket::{Read, Socket};
use super::viewer::Viewer;

/// Ticks, a shard that stands still, and turns that a shard is not given: how late a timer may be.
const SILENCE_SLACK_US: u64 = 2_000_000;

/// A socket as its shard knows it.
#[derive(Clone, Copy, Debug)]
struct Held {
    socket: usize,
    /// The engine wants bytes: once, during the handshake, or for good, once it is live.
    may_read: bool,
    is_live: bool,
    /// It counts as a connection of the node.
    is_counted: bool,
    /// The engine wants this many bytes thrown away.
    discard: Option<u32>,
    /// When bytes of any kind, and when frames of the log, last went out to it; it counts as then when it
    /// goes live, and when it takes bytes again.
    sent_us: u64,
    log_sent_us: u64,
    /// When the node last read from it.
    heard_us: u64,
    /// The engine did not want its bytes, and will say when it does.
    is_paused: bool,
    /// It has a place of its address.
    has_place: bool,
    /// Its request is not whole, as far as the engine has said.
    is_unfinished: bool,
}

impl Held {
    fn new(socket: usize, may_read: bool) -> Self {
        Self {
            socket,
            may_read,
            is_live: false,
            is_counted: false,
            discard: None,
            sent_us: 0,
            log_sent_us: 0,
            heard_us: 0,
            is_paused: false,
            has_place: false,
            is_unfinished: false,
        }
    }
}

/// One shard's shell.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) engine: Engine,
    held: BTreeMap<Id, Held>,
    /// Sockets that came by a move, with their tokens.
    arrivals: Vec<(u64, usize)>,
    ticked: u32,
    /// Does nothing before this, in monotonic microseconds.
    pub(crate) stalled_until_us: u64,
    /// When it last had nothing to send, and when it last had had something for over a second.
    idle_us: u64,
    behind_us: u64,
    chunk: Chunk,
}

/// A socket between two shards.
#[derive(Debug)]
struct Move {
    socket: usize,
    from: usize,
    id: Id,
    to: usize,
    token: u64,
}

/// Everything.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) random: Random,
    pub(crate) now: Now,
    pub(crate) shards: Vec<Shard>,
    /// `links[from][to]`.
    links: Vec<Vec<VecDeque<MeshMessage>>>,
    moves: Vec<Move>,
    pub(crate) sockets: Vec<Socket>,
    /// Viewer `i` has socket `i`.
    pub(crate) viewers: Vec<Viewer>,
    pub(crate) oracle: Oracle,
    pub(crate) live: u32,
    /// Drains that were begun.
    pub(crate) drains: u64,
    /// Places taken, by address.
    pub(crate) places: BTreeMap<IpAddr, u32>,
    /// Upgrades refused because their address had no place left.
    pub(crate) refused_places: u64,
    /// Texts made so far; each says its number, so that none is said twice.
    pub(crate) texts: u64,
    /// Faults are over: everything moves and arrives.
    pub(crate) is_calm: bool,
    /// No silence counts as begun before this: the machine slept, or the interval changed.
    pub(crate) quiet_since_us: u64,
    /// Ends seen, for the statistics that show what a set of seeds covers.
    pub(crate) short_writes: u64,
    pub(crate) moved: u64,
    /// Messages and request heads that were begun and will not end.
    pub(crate) dangling: u64,
    pub(crate) half_heads: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let plan = Plan::draw(&mut random);
        let now =
            Now { mono_us: 1_000_000 + random.bits() % 1_000_000, wall_ms: 1_764_000_000_000 };
        let shards = (0..plan.shards).map(|shard| Shard {
            engine: Engine::new(
                Setup {
                    shard,
                    shards: plan.shards,
                    node: super::NODE.into(),
                    seed: random.bits(),
                    limits: plan.limits.clone(),
                    conformance_echo: false,
                },
                now,
            ),
            held: BTreeMap::new(),
            arrivals: Vec::new(),
            ticked: now.tick(),
            stalled_until_us: 0,
            idle_us: now.mono_us,
            behind_us: 0,
            chunk: Chunk::new(plan.chunk_sends_max),
        });
        let shards: Vec<Shard> = shards.collect();
        let links = || (0..plan.shards).map(|_| VecDeque::new()).collect();
        Self {
            links: (0..plan.shards).map(|_| links()).collect(),
            random,
            now,
            shards,
            moves: Vec::new(),
            sockets: Vec::new(),
            viewers: Vec::new(),
            oracle: Oracle::new(plan.limits.clock_lead_ms_max, plan.is_forgetful),
            live: 0,
            drains: 0,
            places: BTreeMap::new(),
            refused_places: 0,
            texts: 0,
            is_calm: false,
            quiet_since_us: 0,
            short_writes: 0,
            moved: 0,
            dangling: 0,
            half_heads: 0,
            plan,
        }
    }

    pub(crate) fn one_in(&mut self, n: u32) -> bool {
        self.random.below(n) == 0
    }

    /// A fault that happens once in `n` times until the world is calm.
    fn strikes(&mut self, n: u32) -> bool {
        !self.is_calm && self.one_in(n)
    }

    /// A socket is accepted by `shard`.
    pub(crate) fn accept(&mut self, shard: usize, socket: usize) {
        let peer = self.peer(socket);
        let id = self.shards[shard].engine.accept(self.now, peer);
        self.hold(shard, id, Held { is_unfinished: true, ..Held::new(socket, true) });
        self.obey(shard);
    }

    /// Where a viewer comes from.
    fn peer(&self, socket: usize) -> Option<SocketAddr> {
        let addresses = self.plan.addresses;
        let last = |addresses: u8| (socket % usize::from(addresses)) as u8;
        (addresses > 0).then(|| ([192, 0, 2, last(addresses)], socket as u16).into())
    }

    /// Places taken of an address: by connections, and by requests on their way.
    fn places_of(&self, ip: IpAddr) -> usize {
        let held = self.shards.iter().flat_map(|shard| shard.held.values());
        held.filter(|held| held.has_place && self.peer(held.socket).map(|p| p.ip()) == Some(ip))
            .count()
    }

    /// Nobody has more places than there are, nor more unfinished requests.
    fn check_places(&self) {
        let most = self.plan.limits.connections_per_address_max;
        for (&ip, &taken) in &self.places {
            assert!(taken <= most, "{ip} has {taken} places of {most}");
            assert!(self.places_of(ip) <= taken as usize, "{ip}: who has a place is counted");
            let is_of = |held: &&Held| self.peer(held.socket).map(|peer| peer.ip()) == Some(ip);
            for shard in &self.shards {
                let unfinished = shard.held.values().filter(is_of).filter(|h| h.is_unfinished);
                let unfinished = unfinished.count();
                assert!(unfinished <= most as usize, "{ip} has {unfinished} unfinished requests");
            }
        }
    }

    /// When requests whose sockets were lost have been given up: no place is taken by nobody.
    pub(crate) fn check_no_place_is_lost(&self) {
        for (&ip, &taken) in &self.places {
            assert_eq!(self.places_of(ip), taken as usize, "{ip} lost a place");
        }
    }

    fn hold(&mut self, shard: usize, id: Id, held: Held) {
        let before = self.shards[shard].held.insert(id, held);
        assert!(before.is_none(), "an id is given to one connection at a time");
    }

    fn held(&mut self, shard: usize, id: Id) -> &mut Held {
        self.shards[shard].held.get_mut(&id).expect("a dead id is not mentioned again")
    }

    /// Does what the engine of `shard` wants.
    pub(crate) fn obey(&mut self, shard: usize) {
        while let Some(output) = self.shards[shard].engine.poll_output() {
            match output {
                Output::Read { id } => {
                    let held = self.held(shard, id);
                    assert!(!held.is_live, "a live connection is read without asking");
                    held.may_read = true;
                }
                Output::AskPlace { id, join, places_max } => {
                    let ip = join.peer.expect("it is counted by its address").ip();
                    let taken = self.places.entry(ip).or_default();
                    let has_place = *taken < places_max;
                    *taken += u32::from(has_place);
                    self.refused_places += u64::from(!has_place);
                    let held = self.held(shard, id);
                    (held.has_place, held.is_unfinished) = (has_place, false);
                    self.shards[shard].engine.place_answered(self.now, id, *join, has_place);
                }
                Output::HoldPlace { id, .. } => self.held(shard, id).has_place = true,
                Output::FreePlace { peer } => self.free_place(peer.ip()),
                Output::Live { id } => {
                    self.live += 1;
                    let now_us = self.now.mono_us;
                    let held = self.held(shard, id);
                    assert!(!held.is_live, "a connection goes live once");
                    (held.is_live, held.may_read, held.is_counted) = (true, true, true);
                    (held.sent_us, held.log_sent_us, held.heard_us) = (now_us, 0, now_us);
                }
                Output::Move { id, to, token } => {
                    let socket = self.held(shard, id).socket;
                    self.viewers[socket].has_moved = true;
                    self.moves.push(Move { socket, from: shard, id, to: to as usize, token });
                }
                Output::Handover { id, read, .. } => {
                    assert!(read.starts_with(b"GET /health"), "a plain request");
                    self.held(shard, id).is_unfinished = false;
                    let socket = self.held(shard, id).socket;
                    if self.strikes(4) {
                        self.shards[shard].engine.handover_failed(self.now, id, &read);
                    } else {
                        let _ =
                            self.sockets[socket].node_sends(b"HTTP/1.1 200 OK\r\n\r\n", usize::MAX);
                        self.sockets[socket].is_closed = true;
                        self.shards[shard].engine.handed_over(id);
                    }
                }
                Output::Linger { id } => {
                    self.live += 1;
                    let held = self.held(shard, id);
                    assert!(!held.is_counted, "a connection counts once");
                    (held.is_counted, held.is_unfinished) = (true, false);
                }
                Output::Discard { id, len } => {
                    assert!(len > 0, "something to throw away");
                    let held = self.held(shard, id);
                    // A read that is in flight leads here again.
                    if held.is_live || !held.may_read {
                        held.discard = Some(len);
                    }
                }
                Output::ReadOn { id } => {
                    let now_us = self.now.mono_us;
                    let held = self.held(shard, id);
                    (held.is_paused, held.heard_us) = (false, now_us);
                }
                Output::AwaitWritable { id } => {
                    let socket = self.held(shard, id).socket;
                    self.sockets[socket].awaits_writable = true;
                }
                Output::Close { id, was_counted, parting } => {
                    let held = self.shards[shard].held.remove(&id);
                    let held = held.expect("a connection is closed once");
                    assert_eq!(was_counted, held.is_counted, "what is counted is counted back");
                    self.live -= u32::from(was_counted);
                    let has_moved = parting == Parting::Moved;
                    if let Some(peer) =
                        self.peer(held.socket).filter(|_| held.has_place && !has_moved)
                    {
                        self.free_place(peer.ip());
                    }
                    if !has_moved {
                        let socket = &mut self.sockets[held.socket];
                        assert!(!socket.is_closed, "a socket is closed once");
                        socket.node_closes();
                    }
                }
            }
        }
        let live = self.live;
        for shard in &mut self.shards {
            shard.engine.set_node_connections(live);
        }
    }

    fn free_place(&mut self, ip: IpAddr) {
        let taken = self.places.get_mut(&ip).expect("it was taken");
        *taken -= 1;
    }

    /// One turn of a shard's loop.
    pub(crate) fn turn(&mut self, shard: usize) {
        if self.shards[shard].stalled_until_us > self.now.mono_us {
            return;
        }
        if self.shards[shard].ticked < self.now.tick() {
            self.shards[shard].ticked = self.now.tick();
            let busy = self.random.below(1_001);
            self.shards[shard].engine.tick(self.now, busy);
            self.obey(shard);
        }
        self.shards[shard].engine.step(self.now);
        self.obey(shard);
        self.take_arrivals(shard);
        self.take_mail(shard);
        self.read_sockets(shard);
        self.report_writable(shard);
        self.flush(shard);
        self.note_backlog(shard);
        self.give_mail(shard);
    }

    /// A ping may stand in line for as long as the others' sends do.
    fn note_backlog(&mut self, shard: usize) {
        let now_us = self.now.mono_us;
        let shard = &mut self.shards[shard];
        if !shard.engine.has_work() {
            shard.idle_us = now_us;
        } else if now_us - shard.idle_us > 1_000_000 {
            shard.behind_us = now_us;
        }
    }

    /// Passes of the rings: moves that are under way succeed, fail or lose their socket.
    pub(crate) fn move_sockets(&mut self) {
        for index in (0..self.moves.len()).rev() {
            if self.strikes(3) {
                continue;
            }
            let Move { socket, from, id, to, token } = self.moves.swap_remove(index);
            if self.strikes(12) {
                self.shards[from].engine.move_failed(self.now, id);
            } else {
                self.moved += 1;
                if self.strikes(12) {
                    self.sockets[socket].is_closed = true;
                } else {
                    self.shards[to].arrivals.push((token, socket));
                }
                self.shards[from].engine.moved(id);
            }
            self.obey(from);
        }
    }

    fn take_arrivals(&mut self, shard: usize) {
        for index in (0..self.shards[shard].arrivals.len()).rev() {
            if self.strikes(3) {
                continue;
            }
            let (token, socket) = self.shards[shard].arrivals.swap_remove(index);
            let id = self.shards[shard].engine.arrived(self.now, token);
            self.hold(shard, id, Held::new(socket, false));
            self.obey(shard);
        }
    }

    fn take_mail(&mut self, shard: usize) {
        for from in 0..self.shards.len() {
            while !self.strikes(4) {
                let Some(message) = self.links[from][shard].pop_front() else { break };
                self.shards[shard].engine.receive_mesh(self.now, from as u32, message);
                self.obey(shard);
            }
        }
    }

    fn give_mail(&mut self, shard: usize) {
        // Thousands of posts may wait behind a link of one message; calm is for getting them over.
        let most = if self.is_calm { usize::MAX } else { self.plan.link_messages_max };
        for to in 0..self.shards.len() {
            while self.links[shard][to].len() < most && !self.strikes(6) {
                let Some(message) = self.shards[shard].engine.poll_mesh(to as u32) else { break };
                assert_ne!(shard, to, "a shard does not write to itself: {message:?}");
                self.links[shard][to].push_back(message);
            }
        }
    }

    fn read_sockets(&mut self, shard: usize) {
        let ids: Vec<Id> = self.shards[shard].held.keys().copied().collect();
        for id in ids {
            let Some(&held) = self.shards[shard].held.get(&id) else { continue };
            if !(held.may_read || held.discard.is_some())
                || !self.sockets[held.socket].is_readable()
                || self.strikes(4)
            {
                continue;
            }
            if held.is_paused {
                continue;
            }
            if held.is_live && !self.shards[shard].engine.may_read(id) {
                self.held(shard, id).is_paused = true;
                continue;
            }
            let whole = READ_BYTES_MAX as usize;
            let most = match self.random.below(4) {
                _ if self.is_calm => whole,
                0 => 1 + self.random.below(20) as usize,
                1 => 1 + self.random.below(300) as usize,
                _ => whole,
            };
            if let Some(len) = held.discard {
                self.shards[shard].held.get_mut(&id).expect("held").discard = None;
                let engine = &mut self.shards[shard].engine;
                match self.sockets[held.socket].node_reads(most.min(len as usize)) {
                    Read::Nothing => unreachable!("it is readable"),
                    Read::Bytes(bytes) => engine.discarded(self.now, id, bytes.len() as u32),
                    Read::End => engine.ended(self.now, id),
                    Read::Reset => engine.failed(self.now, id),
                }
                self.obey(shard);
                continue;
            }
            let engine = &mut self.shards[shard].engine;
            match self.sockets[held.socket].node_reads(most) {
                Read::Nothing => {}
                Read::Bytes(mut bytes) => {
                    let entry = self.shards[shard].held.get_mut(&id).expect("held");
                    entry.heard_us = self.now.mono_us;
                    entry.may_read &= held.is_live;
                    self.shards[shard].engine.received(self.now, id, &mut bytes);
                }
                Read::End => engine.ended(self.now, id),
                Read::Reset => engine.failed(self.now, id),
            }
            self.obey(shard);
        }
    }

    fn report_writable(&mut self, shard: usize) {
        let held: Vec<(Id, usize)> =
            self.shards[shard].held.iter().map(|(id, held)| (*id, held.socket)).collect();
        for (id, socket) in held {
            let socket = &mut self.sockets[socket];
            if socket.awaits_writable && socket.is_writable() {
                socket.awaits_writable = false;
                let now_us = self.now.mono_us;
                let held = self.held(shard, id);
                (held.sent_us, held.heard_us) = (now_us, now_us);
                self.shards[shard].engine.writable(self.now, id);
                self.obey(shard);
            }
        }
    }

    fn flush(&mut self, shard: usize) {
        while !self.strikes(5) {
            let engine = &self.shards[shard].engine;
            if !engine.has_work() && engine.due_us(self.now) > self.now.mono_us {
                break;
            }
            let had_work = engine.has_work();
            self.send_chunk(shard);
            if !had_work && !self.shards[shard].engine.has_work() {
                break;
            }
        }
    }

    /// One chunk, sent and settled.
    fn send_chunk(&mut self, shard: usize) {
        let mut chunk = std::mem::take(&mut self.shards[shard].chunk);
        self.shards[shard].engine.next_chunk(self.now, &mut chunk);
        let mut failures = Vec::new();
        let mut served = Vec::new();
        for (index, delivery) in chunk.deliveries.iter().enumerate() {
            assert!(!served.contains(&delivery.id), "one send a connection in a chunk");
            served.push(delivery.id);
            let mut bytes = Vec::new();
            match delivery.source {
                Source::Log { own, segment, start, len, then, .. } => {
                    bytes.extend(own.map_or(&[][..], |(start, len)| chunk.private(start, len)));
                    chunk.segment(segment).read(start, len, &mut bytes);
                    if let Some((next, len)) = then {
                        chunk.segment(next).read(0, len, &mut bytes);
                    }
                }
                Source::Private { start, len } => bytes.extend(chunk.private(start, len)),
            }
            assert!(!bytes.is_empty() && bytes.len() == delivery.source.len() as usize);
            let held = *self.held(shard, delivery.id);
            let most = if self.strikes(12) {
                self.random.below(bytes.len() as u32) as usize
            } else {
                usize::MAX
            };
            let socket = &mut self.sockets[held.socket];
            assert!(!socket.awaits_writable, "a blocked connection is left alone");
            let result = socket.node_sends(&bytes, most);
            if !matches!(result, Some(Err(_))) {
                let now_us = self.now.mono_us;
                let held = self.held(shard, delivery.id);
                held.sent_us = now_us;
                let own = delivery.source.own_len() as usize;
                let taken = result.as_ref().map_or(usize::MAX, |r| *r.as_ref().unwrap_or(&0));
                if matches!(delivery.source, Source::Log { .. }) && taken > own {
                    held.log_sent_us = now_us;
                }
            }
            if let Some(result) = result {
                self.short_writes += 1;
                failures.push((index as u32, result));
            }
        }
        failures.reverse();
        let spent_us = u64::from(self.random.below(200));
        let engine = &mut self.shards[shard].engine;
        engine.settle(self.now, &mut chunk, &mut failures, spent_us);
        self.shards[shard].chunk = chunk;
        self.obey(shard);
    }

    /// Lets a viewer read up to `most` bytes and answer.
    pub(crate) fn view(&mut self, index: usize, most: usize) {
        let (viewer, socket) = (&mut self.viewers[index], &mut self.sockets[index]);
        if viewer.is_over() {
            return;
        }
        let bytes = socket.viewer_reads(most);
        let back = viewer.take(&bytes, self.now.mono_us, &mut self.oracle);
        socket.viewer_sends(&back);
        if viewer.last_word_tick == 0 && viewer.has_heard_last_word() {
            viewer.last_word_tick = self.now.tick();
            // Some close at once when they have their answer, as HTTP clients do, and some never.
            if viewer.has_answer() && self.random.below(3) > 0 {
                socket.viewer_ends();
            }
        }
        if socket.viewer_sees_end() {
            // Who is evicted is slow, and may not get the close frame whole in time either.
            viewer.is_excused |= self.plan.limits.lag_policy == LagPolicy::Evict;
            // So may a last word be that others' or its own bytes have cut off.
            let Limits { linger_bytes_max, lingering_max, .. } = self.plan.limits;
            viewer.is_excused |= linger_bytes_max < 1 << 20 || lingering_max < 4_000;
            viewer.ended();
        }
    }

    /// Nobody is forgotten: who was sent nothing for an interval and a half has been pinged, and who is dead is
    /// gone after two.
    fn check_silences(&self) {
        let interval_us = u64::from(self.plan.limits.keepalive_ms) * 1_000;
        if interval_us == 0 {
            return;
        }
        // A ping that stands in line behind other sends is not forgotten.
        for shard in self.shards.iter().filter(|shard| !shard.engine.has_work()) {
            for held in shard.held.values().filter(|held| held.is_live) {
                let silence = |since_us: u64| {
                    let began_us = since_us.max(self.quiet_since_us).max(shard.behind_us);
                    self.now.mono_us.saturating_sub(began_us)
                };
                let socket = &self.sockets[held.socket];
                assert!(
                    socket.awaits_writable
                        || silence(held.sent_us) <= interval_us * 3 / 2 + SILENCE_SLACK_US,
                    "viewer {} was sent nothing for {} µs and is not pinged",
                    held.socket,
                    silence(held.sent_us)
                );
                // Whoever is not listened to cannot be silent; `stall_ms_max` is for it.
                let traffic_us = held.heard_us.max(held.log_sent_us);
                assert!(
                    held.is_paused || silence(traffic_us) <= interval_us * 2 + SILENCE_SLACK_US,
                    "viewer {} is dead for {} µs and still here",
                    held.socket,
                    silence(traffic_us)
                );
            }
        }
    }

    /// Asserts the engines' own invariants.
    pub(crate) fn check(&self) {
        self.check_silences();
        self.check_places();
        let close_ticks = ticks(self.plan.limits.close_ms_max);
        for shard in &self.shards {
            shard.engine.check();
            for held in shard.held.values() {
                // Whoever has read the last word by this tick is gone by that one, however it behaves.
                let heard_tick = self.viewers[held.socket].last_word_tick;
                assert!(
                    heard_tick == 0 || shard.ticked <= heard_tick + close_ticks + 1,
                    "it lingers beyond its deadline"
                );
            }
            assert_eq!(shard.engine.live_connections() as usize, {
                shard.held.values().filter(|held| held.is_live).count()
            });
        }
    }

    /// A viewer that has said something which its shard has not read.
    pub(crate) fn unheard(&self) -> Option<&Viewer> {
        let mut held = self.shards.iter().flat_map(|shard| shard.held.values());
        let is_unread = |held: &&Held| held.is_paused || self.sockets[held.socket].is_readable();
        held.find(|held| held.is_live && is_unread(held)).map(|held| &self.viewers[held.socket])
    }

    /// Whether nothing is on its way between shards.
    pub(crate) fn is_mesh_empty(&self) -> bool {
        self.moves.is_empty()
            && self.links.iter().flatten().all(VecDeque::is_empty)
            && self.shards.iter().all(|shard| {
                shard.arrivals.is_empty()
                    && (0..self.shards.len()).all(|to| !shard.engine.has_mail(to as u32))
            })
    }

    pub(crate) fn pass_us(&mut self, us: u64) {
        self.now.mono_us += us;
        self.now.wall_ms += us / 1_000;
    }
}
