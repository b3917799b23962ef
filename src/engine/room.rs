//! A room: what a shard keeps for one event, as its home or as a replica of it.
//!
//! A room has one feed per codec in use. A feed is a log and the subscribers that read it; each
//! subscriber owns nothing there but a cursor. The canonical (binary) log of a home room lives as
//! long as the room; the JSON log is derived from it, in steps, once somebody reads it.
//!
//! Not here: when a feed is flushed (`fanout`), what a connection is (`connection`).

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;

use crate::codec::{self, Codec};
use crate::ids::{EventId, Position};
use crate::keys::Keys;
use crate::limits::Limits;
use crate::log::{Log, Trim};
use crate::mesh::Spread;
use crate::rate::Rate;
use crate::share::Budget;
use crate::table::{Id, Table};
use crate::traffic::Traffic;

/// Frames derived into a view in one step, so that a long log does not stall the shard.
const DERIVE_FRAMES_MAX: u64 = 256;

/// A subscriber of a feed: the connection and the offset it gets next.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Index of the connection on this shard.
    pub connection: u32,
    /// `HELD`, and the number of the chunk that last carried something for this member.
    mark: u32,
    /// The next offset to queue.
    pub cursor: u64,
}

/// The member's connection is blocked or has private bytes waiting: passes leave it out.
const HELD: u32 = 1 << 31;

impl Member {
    /// A member that no pass touches until [`Self::set_held`] says otherwise.
    #[must_use]
    pub fn held(connection: u32, cursor: u64) -> Self {
        Self { connection, mark: HELD, cursor }
    }

    /// Whether passes leave this member out.
    #[must_use]
    pub fn is_held(self) -> bool {
        self.mark & HELD != 0
    }

    /// Keeps passes away from this member, or lets them in again.
    pub fn set_held(&mut self, is_held: bool) {
        self.mark = self.mark & !HELD | if is_held { HELD } else { 0 };
    }

    /// Notes a delivery in chunk `number`. False if that chunk has one already: a second send in
    /// the same submission could overtake the rest of a short first one.
    #[must_use]
    pub fn mark(&mut self, number: u32) -> bool {
        let number = number & !HELD;
        if self.mark & !HELD == number {
            return false;
        }
        self.mark = self.mark & HELD | number;
        true
    }
}

/// Where a feed stands between two passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Every subscriber that can be served has been.
    Idle,
    /// Something is to be sent once the pause is over.
    Resting,
    /// A pass is under way or about to begin.
    Running,
}

/// A pass over the members of a feed, from the last to the first: a member that leaves is
/// replaced by the last one, which by then has been served.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pass {
    /// Members not visited yet are those below this index.
    pub remaining: usize,
    /// When it began, in monotonic microseconds.
    pub began_us: u64,
    /// When the oldest comment that it sends was appended, in monotonic microseconds.
    pub appended_us: u64,
    /// The log's end when it began: what came after may not have reached everybody.
    pub log_end: u64,
    /// Sends made.
    pub sends: u64,
    /// The worst lag seen, in frames.
    pub lag_frames_max: u64,
}

/// One codec's log and its subscribers.
#[derive(Debug)]
pub struct Feed {
    /// The frames.
    pub log: Log,
    /// The subscribers, in no order.
    pub members: Vec<Member>,
    /// Where it stands.
    pub phase: Phase,
    /// The pass under way, if any.
    pub pass: Option<Pass>,
    /// When the oldest comment was appended that no pass has taken up yet, in monotonic microseconds.
    pub appended_us: Option<u64>,
    /// No pass begins before this, in monotonic microseconds.
    pub rest_until_us: u64,
    /// Every member whose socket takes bytes has been sent all before this offset; it may be less than is true,
    /// until somebody asks ([`Self::count_sent`]).
    pub sent_to: u64,
}

impl Feed {
    fn new(log: Log) -> Self {
        Self {
            log,
            members: Vec::new(),
            phase: Phase::Idle,
            pass: None,
            appended_us: None,
            rest_until_us: 0,
            sent_to: u64::MAX,
        }
    }

    /// Brings [`Self::sent_to`] up to date. `is_blocked` is asked about members that are held.
    pub fn count_sent(&mut self, is_blocked: impl Fn(u32) -> bool) {
        let live = self.members.iter().filter(|m| !(m.is_held() && is_blocked(m.connection)));
        self.sent_to = live.map(|member| member.cursor).min().unwrap_or(u64::MAX);
    }
}

/// What a replica tells its home shard of [`Feed::sent_to`], by codec index.
pub type SentTo = Arc<[AtomicU64; Codec::ALL.len()]>;

/// What the home shard knows of a replica.
#[derive(Clone, Debug, Default)]
pub struct Follower {
    /// Grants sent that have neither failed nor been released; 0: there is no replica.
    pub grants: u32,
    /// Subscribers it reported.
    pub members: u32,
    /// An "appended" for it waits in the outbox.
    pub is_hinted: bool,
    /// How far it has sent; made by the first grant.
    pub sent_to: Option<SentTo>,
    /// When the oldest comment was appended that this one is about, in monotonic microseconds.
    pub appended_us: u64,
}

/// The home shard's part of a room.
#[derive(Debug, Default)]
pub struct Home {
    /// By shard; empty until the room first spreads.
    pub followers: Vec<Follower>,
    /// Keys of recent posts; made when the first post names one.
    pub keys: Option<Box<Keys>>,
    /// Bytes of the keys in the shard's sum.
    pub key_bytes: u64,
    /// Posts a second.
    pub posts: Budget,
    /// Comments lately.
    pub comments: Rate,
    /// Time of the newest comment, Unix ms; it runs backwards only when the clock was wrong.
    pub time_ms: u64,
    /// Bytes of its logs in the shard's sum.
    pub counted_bytes: u64,
    /// The last tick with a subscriber or a comment.
    pub active_tick: u32,
    /// Which of all comings, goings and posts of the shard touched it last.
    pub touched: u64,
    /// Its place among the vacant rooms, while it is one.
    pub vacancy: Option<Vacancy>,
    /// The room stands in the list of rooms that may be freed.
    pub is_idle_listed: bool,
}

/// A replica's part of a room.
#[derive(Debug)]
pub struct Replica {
    /// The home shard.
    pub home: u32,
    /// The room there.
    pub room: Id,
    /// Grants received.
    pub grants: u32,
    /// All viewers on this node, as the home shard last said.
    pub viewers: u32,
    /// A change of members waits in the outbox.
    pub is_listed: bool,
    /// What the home shard reads.
    pub sent_to: SentTo,
    /// It stands in the list of replicas that will tell how far they have sent.
    pub is_telling: bool,
}

impl Replica {
    /// Tells the home shard that nobody waits for anything here: the replica is about to go.
    pub fn owes_nothing(&self) {
        self.sent_to.iter().for_each(|told| told.store(u64::MAX, Ordering::Release));
    }
}

/// Whose room it is.
#[derive(Debug)]
pub enum Role {
    /// This shard orders the comments.
    Home(Box<Home>),
    /// Another shard does; the logs here are its segments.
    Replica(Box<Replica>),
}

/// A room on this shard.
#[derive(Debug)]
pub struct Room {
    /// The event.
    pub event: EventId,
    /// The incarnation of its logs.
    pub epoch: u64,
    /// Home or replica.
    pub role: Role,
    /// When members were last sent something, for keepalive.
    pub traffic: Traffic,
    feeds: [Option<Box<Feed>>; Codec::ALL.len()],
}

impl Room {
    /// A home room with an empty log.
    #[must_use]
    pub fn home(event: EventId, epoch: u64, limits: &Limits) -> Self {
        let log = Log::new(1, limits.room_log_bytes_max, limits.room_log_frames_max);
        let mut room = Self {
            event,
            epoch,
            role: Role::Home(Box::default()),
            traffic: Traffic::default(),
            feeds: [None, None],
        };
        room.feeds[Codec::Binary.index()] = Some(Box::new(Feed::new(log)));
        room
    }

    /// A replica without feeds; [`Self::follow`] adds them.
    #[must_use]
    pub fn replica(event: EventId, spread: &Spread) -> Self {
        let replica = Replica {
            home: spread.home,
            room: spread.room,
            grants: 0,
            viewers: 0,
            is_listed: false,
            sent_to: Arc::clone(&spread.sent_to),
            is_telling: false,
        };
        let role = Role::Replica(Box::new(replica));
        let traffic = Traffic::default();
        Self { event, epoch: spread.epoch, role, traffic, feeds: [None, None] }
    }

    /// Replica: takes a grant, adding feeds that it did not have.
    pub fn follow(&mut self, spread: &Spread) {
        for (feed, grant) in self.feeds.iter_mut().zip(&spread.logs) {
            if let (None, Some(grant)) = (&feed, grant) {
                *feed = Some(Box::new(Feed::new(Log::follow(grant))));
            }
        }
        let Role::Replica(replica) = &mut self.role else {
            unreachable!("{} follows itself", self.event)
        };
        replica.grants += 1;
        replica.viewers = spread.viewers;
    }

    /// The feed of `codec`, if there is one.
    #[must_use]
    pub fn feed(&self, codec: Codec) -> Option<&Feed> {
        self.feeds[codec.index()].as_deref()
    }

    /// The feed of `codec`, if there is one.
    pub fn feed_mut(&mut self, codec: Codec) -> Option<&mut Feed> {
        self.feeds[codec.index()].as_deref_mut()
    }

    /// Makes sure that a home room has a feed of `codec`. The frames of a new view come by
    /// [`Self::derive`].
    pub fn open_feed(&mut self, codec: Codec, limits: &Limits) {
        let tail = self.canonical().tail();
        self.feeds[codec.index()].get_or_insert_with(|| {
            let log = Log::new(tail, limits.room_log_bytes_max, limits.room_log_frames_max);
            Box::new(Feed::new(log))
        });
    }

    /// Home: the log that every view is derived from.
    #[must_use]
    pub fn canonical(&self) -> &Log {
        let feed = self.feeds[Codec::Binary.index()].as_deref();
        &feed.expect("a home room keeps its canonical log").log
    }

    /// Home: appends a comment's archive to the canonical log and, if it is up to date, the view.
    /// Returns the offset. `fair_bytes`: what a log could have if all were alike.
    pub fn append(&mut self, archive: &[u8], fair_bytes: u64, scratch: &mut Vec<u8>) -> u64 {
        let [canonical, view] = &mut self.feeds;
        let canonical = canonical.as_deref_mut().expect("a home room keeps its canonical log");
        let offset = canonical.log.end();
        scratch.clear();
        codec::write_binary_frame(archive, offset, scratch);
        canonical.log.append(scratch, fair_bytes);
        match view.as_deref_mut() {
            Some(view) if view.log.end() == offset => {
                scratch.clear();
                codec::write_json_frame(archive, offset, scratch);
                view.log.append(scratch, fair_bytes);
            }
            Some(_) => {
                self.derive(fair_bytes, scratch);
            }
            None => {}
        }
        offset
    }

    /// Home: brings the view closer to the canonical log, by a step. True when it is there.
    /// `fair_bytes` as for [`Self::append`].
    pub fn derive(&mut self, fair_bytes: u64, scratch: &mut Vec<u8>) -> bool {
        if matches!(self.role, Role::Replica(_)) {
            return true;
        }
        let [Some(canonical), Some(view)] = &mut self.feeds else { return true };
        let from = view.log.end();
        let stop = canonical.log.end().min(from + DERIVE_FRAMES_MAX);
        let mut frame = Vec::new();
        for offset in from..stop {
            frame.clear();
            canonical.log.read(offset, &mut frame);
            scratch.clear();
            codec::write_json_frame(codec::archive_of_frame(&frame), offset, scratch);
            view.log.append(scratch, fair_bytes);
        }
        stop == canonical.log.end()
    }

    /// Whether the feed of `codec` has all frames; a replica has what its home shard derived.
    #[must_use]
    pub fn is_derived(&self, codec: Codec) -> bool {
        let Role::Home(_) = self.role else { return true };
        self.feed(codec).is_none_or(|feed| feed.log.end() == self.canonical().end())
    }

    /// Home: sizes the logs by these limits from now on.
    pub fn resize_logs(&mut self, limits: &Limits) {
        if matches!(self.role, Role::Home(_)) {
            for feed in self.feeds.iter_mut().flatten() {
                feed.log.resize(limits.room_log_bytes_max, limits.room_log_frames_max);
            }
        }
    }

    /// Home: drops old frames until the room is within its own limits. Returns how many went. The newest
    /// segment stays: what was just appended has not been sent to anybody.
    pub fn trim_to_limits(&mut self, limits: &Limits) -> u64 {
        let mut gone = 0;
        loop {
            let over_bytes = self.log_bytes() > limits.room_log_bytes_max;
            let frames_max = u64::from(limits.room_log_frames_max);
            let over_frames = self.logs().any(|log| log.frames() > frames_max);
            if !over_bytes && !over_frames {
                return gone;
            }
            let Some(frames) = self.trim(false) else { return gone };
            gone += frames;
        }
    }

    /// Home: drops the oldest frames of whichever log reaches back furthest; the canonical log keeps
    /// what the view has not derived yet. `may_empty`: the last may go too. `None`: none may go.
    pub fn trim(&mut self, may_empty: bool) -> Option<u64> {
        let (codec, trim) = self.next_trim(may_empty)?;
        Some(self.drop_oldest(codec, trim))
    }

    /// Home: does what [`Self::next_trim`] said, and returns how many frames went.
    pub fn drop_oldest(&mut self, codec: Codec, trim: Trim) -> u64 {
        let feed = self.feed_mut(codec).expect("what is to be trimmed is there");
        feed.log.drop_oldest(trim)
    }

    /// Home: the log that [`Self::trim`] would take from, and what it would do to it.
    #[must_use]
    pub fn next_trim(&self, may_empty: bool) -> Option<(Codec, Trim)> {
        let may_empty = may_empty && !self.is_followed();
        let canonical = &self.feed(Codec::Binary)?.log;
        let view = self.feed(Codec::Json).map(|feed| &feed.log);
        let derived_end = view.map_or(u64::MAX, Log::end);
        let of_canonical = canonical.next_trim(may_empty).filter(|trim| trim.tail <= derived_end);
        let of_canonical = of_canonical.map(|trim| (Codec::Binary, trim));
        let Some(view) = view else { return of_canonical };
        let of_view = view.next_trim(may_empty).map(|trim| (Codec::Json, trim));
        if canonical.tail() <= view.tail() {
            of_canonical.or(of_view)
        } else {
            of_view.or(of_canonical)
        }
    }

    /// Home: another shard has, or is about to have, a replica.
    fn is_followed(&self) -> bool {
        let Role::Home(home) = &self.role else { return false };
        home.followers.iter().any(|follower| follower.grants > 0)
    }

    /// Memory of the logs, in bytes; 0 for a replica.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.logs().map(Log::bytes).sum()
    }

    fn logs(&self) -> impl Iterator<Item = &Log> {
        self.feeds.iter().flatten().map(|feed| &feed.log)
    }

    /// The end of each feed's log.
    #[must_use]
    pub fn ends(&self) -> [Option<u64>; Codec::ALL.len()] {
        Codec::ALL.map(|codec| self.feed(codec).map(|feed| feed.log.end()))
    }

    /// Replica: sees what the home shard has appended.
    pub fn sync(&mut self) {
        for feed in self.feeds.iter_mut().flatten() {
            feed.log.sync();
        }
    }

    /// Subscribers on this shard.
    #[must_use]
    pub fn members(&self) -> u32 {
        self.feeds.iter().flatten().map(|feed| feed.members.len() as u32).sum()
    }

    /// Subscribers on this node, as far as this shard knows.
    #[must_use]
    pub fn viewers(&self) -> u32 {
        match &self.role {
            Role::Home(home) => {
                self.members() + home.followers.iter().map(|f| f.members).sum::<u32>()
            }
            Role::Replica(replica) => replica.viewers.max(self.members()),
        }
    }

    /// The newest position of the room.
    #[must_use]
    pub fn head(&self) -> Position {
        let newest = self.logs().map(Log::head).max().unwrap_or(0);
        Position { epoch: self.epoch, offset: newest }
    }

    /// Home: nobody here and nobody elsewhere.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self.role, Role::Home(_)) && self.members() == 0 && !self.is_followed()
    }
}

/// A room without viewers, in the order in which such rooms make place for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vacancy {
    /// Comments it keeps.
    kept: u64,
    /// When it was touched last, as [`Home::touched`].
    touched: u64,
    /// The room.
    pub room: Id,
}

/// All rooms of a shard, by id, by event and, for replicas, by the room they follow.
#[derive(Debug, Default)]
pub struct Rooms {
    /// The rooms.
    pub table: Table<Room>,
    by_event: HashMap<EventId, Id>,
    by_home: HashMap<(u32, Id), Id>,
    /// Home rooms that may have to be freed, with the tick to look again.
    pub idle: VecDeque<(u32, Id)>,
    /// The same of those that never had a comment.
    pub bare: VecDeque<(u32, Id)>,
    /// Home rooms without viewers; the first goes when another needs its place.
    pub vacant: BTreeSet<Vacancy>,
    /// Replicas that have lost their last member.
    pub emptied: Vec<Id>,
    /// Replicas whose members may have been sent more than the home shard knows.
    pub telling: Vec<Id>,
}

impl Rooms {
    /// The room of `event` on this shard, home or replica.
    #[must_use]
    pub fn find(&self, event: &EventId) -> Option<Id> {
        self.by_event.get(event).copied()
    }

    /// The replica of `room` on shard `home`.
    #[must_use]
    pub fn find_replica(&self, home: u32, room: Id) -> Option<Id> {
        self.by_home.get(&(home, room)).copied()
    }

    /// Adds a room.
    pub fn insert(&mut self, room: Room) -> Id {
        let event = room.event.clone();
        let follows = match &room.role {
            Role::Replica(replica) => Some((replica.home, replica.room)),
            Role::Home(_) => None,
        };
        let id = self.table.insert(room);
        assert!(self.by_event.insert(event, id).is_none(), "an event has one room on a shard");
        if let Some(follows) = follows {
            self.by_home.insert(follows, id);
        }
        id
    }

    /// Takes a room out.
    pub fn remove(&mut self, id: Id) -> Option<Room> {
        let room = self.table.remove(id)?;
        self.by_event.remove(&room.event);
        if let Role::Home(home) = &room.role
            && let Some(vacancy) = &home.vacancy
        {
            self.vacant.remove(vacancy);
        }
        if let Role::Replica(replica) = &room.role {
            self.by_home.remove(&(replica.home, replica.room));
        }
        Some(room)
    }

    /// Brings a home room's place among the vacant up to date, or takes it out. `touched`: somebody touched it.
    pub fn place_vacant(&mut self, id: Id, touched: Option<u64>) {
        let Some(room) = self.table.get_mut(id) else { return };
        let is_vacant = room.is_empty();
        let kept = if is_vacant { room.canonical().frames() } else { 0 };
        let Role::Home(home) = &mut room.role else { return };
        home.touched = touched.unwrap_or(home.touched);
        let place = is_vacant.then_some(Vacancy { kept, touched: home.touched, room: id });
        let before = std::mem::replace(&mut home.vacancy, place);
        if before != place {
            before.map(|vacancy| self.vacant.remove(&vacancy));
            self.vacant.extend(place);
        }
    }

    /// Replicas among the rooms.
    #[must_use]
    pub fn replicas(&self) -> usize {
        self.by_home.len()
    }
}
