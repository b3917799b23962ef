//! Comments on their way into a room's log.

use super::Engine;
use crate::codec::{self, Codec, Comment, Notice, Post, Reference};
use crate::connection::{Author, Phase};
use crate::control::PostRefusal;
use crate::fanout::FeedKey;
use crate::ids::CommentId;
use crate::keys::{self, Known};
use crate::mesh::{MeshMessage, RemotePost};
use crate::room::Role;
use crate::table::Id;
use crate::time::{Now, ticks};

/// Frames that are derived while one chunk is built, of all rooms together, until the next room is put off: someone
/// who joins many rooms at once, whose views nobody has read before, must not keep the others' sends waiting.
const DERIVED_FRAMES_MAX: u64 = 256;

/// A checked comment before it has an id and an offset.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) user: &'a str,
    pub(super) name: Option<&'a str>,
    pub(super) text: &'a str,
    pub(super) key: Option<&'a str>,
    /// From where, as [`crate::address::Address::digest`] has it.
    pub(super) address: u32,
}

impl Engine {
    /// A post over a connection of this shard.
    pub(super) fn post(&mut self, now: Now, id: Id, post: Post) {
        let Post { reference, key, text } = post;
        let text = match codec::clean_text(text, self.limits.comment_bytes_max) {
            Ok(text) => text,
            Err(refusal) => return self.refuse_post(now, id, reference.as_ref(), refusal),
        };
        if self.drain.is_some() {
            return self.refuse_post(now, id, reference.as_ref(), PostRefusal::Draining);
        }
        self.name_guest(now, id);
        // Telling a guest the own id may have been one answer too many.
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Phase::Live { room: room_id, .. } = connection.phase else { return };
        let author = connection.author.as_ref().expect("who posts has an id");
        let (user, name) = (author.user.clone(), author.name.clone());
        let address = connection.address;
        let room = self.rooms.table.get(room_id).expect("a member's room exists");
        if let Role::Replica(replica) = &room.role {
            let (to, room) = (replica.home as usize, replica.room);
            if !self.outboxes[to].has_room_for_post(connection.posts_away) {
                return self.refuse_post(now, id, reference.as_ref(), PostRefusal::Overloaded);
            }
            connection.posts_away += 1;
            self.outboxes[to].posts_away += 1;
            let post = Post { reference, key, text };
            let remote = RemotePost { room, connection: id, user, name, post, address };
            self.outboxes[to].push(MeshMessage::Post(Box::new(remote)));
            return;
        }
        let draft =
            Draft { user: &user, name: name.as_deref(), text: &text, key: key.as_deref(), address };
        let result = self.append(now, room_id, &draft);
        self.answer_post(now, id, reference.as_ref(), result);
    }

    /// Makes an id for whoever posts for the first time and gave none, and tells it before any
    /// ack: a retry over another connection is known by it.
    fn name_guest(&mut self, now: Now, id: Id) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let author = connection
            .author
            .get_or_insert_with(|| Box::new(Author { user: Box::default(), name: None }));
        if !author.user.is_empty() {
            return;
        }
        author.user = guest_id(self.random.bits());
        let user = author.user.clone();
        let codec = connection.codec;
        let you = Notice::You { user: &user };
        self.push_private(now, id, |out| codec::write_notice(codec, &you, out));
    }

    /// Tells the author what became of a post.
    pub(super) fn answer_post(
        &mut self,
        now: Now,
        id: Id,
        reference: Option<&Reference>,
        result: Result<(CommentId, u64), PostRefusal>,
    ) {
        let (comment_id, offset) = match result {
            Ok(appended) => appended,
            Err(refusal) => return self.refuse_post(now, id, reference, refusal),
        };
        let Some(codec) = self.codec_of_live(id) else { return };
        let ack = Notice::Ack { reference, id: comment_id, offset };
        self.push_private(now, id, |out| codec::write_notice(codec, &ack, out));
    }

    /// Appends a checked comment to a home room: this is where an event gets its one order.
    pub(super) fn append(
        &mut self,
        now: Now,
        room_id: Id,
        draft: &Draft<'_>,
    ) -> Result<(CommentId, u64), PostRefusal> {
        let fair_bytes = self.fair_log_bytes();
        let room = self.rooms.table.get(room_id).ok_or(PostRefusal::Overloaded)?;
        let digest = draft.key.map(|key| keys::digest(room.event.as_str(), draft.user, key));
        if let Some(known) = digest.and_then(|digest| self.find_key(now, room_id, &digest)) {
            self.counters.posts_deduplicated += 1;
            return Ok((known.id, known.offset));
        }
        let room = self.rooms.table.get_mut(room_id).ok_or(PostRefusal::Overloaded)?;
        let Role::Home(home) = &mut room.role else { return Err(PostRefusal::Overloaded) };
        if !home.posts.take(now, self.limits.posts_per_sec_event, draft.address) {
            return Err(PostRefusal::RateLimited);
        }
        let lead_ms = home.time_ms.saturating_sub(now.wall_ms);
        if lead_ms == 0 || lead_ms > self.limits.clock_lead_ms_max.into() {
            // Either the clock goes on, or it was set right after it had been wrong: nothing but following it
            // would end before it has gone through all the time by which it was wrong.
            self.counters.times_set_back += u64::from(lead_ms > 0);
            home.time_ms = now.wall_ms;
        } else {
            self.counters.times_held += 1;
        }
        home.comments.count(now);
        let shard = self.setup.shard as u8;
        let id = CommentId::new(home.time_ms, self.node_hash, shard, self.next_comment);
        self.next_comment = self.next_comment.wrapping_add(1);
        let comment = Comment {
            id,
            origin: &self.setup.node,
            time_ms: home.time_ms,
            user: draft.user,
            name: draft.name,
            text: draft.text,
        };
        self.frame.clear();
        codec::write_archive(&comment, &mut self.frame);
        room.traffic.grows(now.tick(), room.canonical().end(), ticks(self.limits.keepalive_ms));
        let offset = room.append(&self.frame, fair_bytes, &mut self.scratch);
        if let Some(digest) = digest {
            self.remember_key(now, room_id, digest, Known { id, offset });
        }
        self.counters.comments += 1;
        self.log_grew(now, room_id);
        self.touch(now, room_id);
        Ok((id, offset))
    }

    /// After an append: wakes feeds here, tells followers, keeps the logs within their limits.
    fn log_grew(&mut self, now: Now, room_id: Id) {
        self.wake_feeds(now, room_id, now.mono_us);
        self.hint_followers(now, room_id);
        self.limit_logs(room_id);
    }

    /// Tells the replicas of a room that its logs have grown.
    fn hint_followers(&mut self, now: Now, room_id: Id) {
        let Some(room) = self.rooms.table.get_mut(room_id) else { return };
        let Role::Home(home) = &mut room.role else { return };
        for (follower, outbox) in home.followers.iter_mut().zip(&mut self.outboxes) {
            if follower.grants > 0 && !follower.is_hinted {
                follower.is_hinted = true;
                follower.appended_us = now.mono_us;
                outbox.appended.push_back(room_id);
            }
        }
    }

    /// Brings the view of a room closer to its canonical log. True when it is there.
    pub(super) fn derive_step(&mut self, now: Now, room_id: Id) -> bool {
        let fair_bytes = self.fair_log_bytes();
        let Some(room) = self.rooms.table.get_mut(room_id) else { return true };
        if Codec::ALL.into_iter().all(|codec| room.is_derived(codec)) {
            return true;
        }
        if self.derived_frames >= DERIVED_FRAMES_MAX {
            return false;
        }
        let before = room.ends();
        let is_derived = room.derive(fair_bytes, &mut self.scratch);
        let ends = room.ends().into_iter().zip(before);
        self.derived_frames +=
            ends.map(|(end, before)| end.unwrap_or(0) - before.unwrap_or(0)).sum::<u64>();
        // Nobody here may read the view: its subscribers can all be on other shards.
        self.hint_followers(now, room_id);
        self.limit_logs(room_id);
        is_derived
    }

    /// Lets the feeds of a room know that there may be frames to send, the oldest of them appended at `appended_us`.
    pub(super) fn wake_feeds(&mut self, now: Now, room_id: Id, appended_us: u64) {
        let Some(room) = self.rooms.table.get_mut(room_id) else { return };
        for codec in Codec::ALL {
            let is_derived = room.is_derived(codec);
            if let Some(feed) = room.feed_mut(codec)
                && !(feed.members.is_empty() && is_derived)
            {
                feed.appended_us.get_or_insert(appended_us);
                self.fanout.notify(now.mono_us, FeedKey::new(room_id, codec), feed);
            }
        }
    }
}

/// A user id for somebody who gave none.
pub(super) fn guest_id(bits: u64) -> Box<str> {
    format!("guest-{:012x}", bits >> 16).into()
}
