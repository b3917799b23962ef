//! The mesh: what other shards say, what this one has to say, and how replicas come and go.

use super::Engine;
use super::posting::Draft;
use crate::control::PostRefusal;
use crate::mesh::{Answer, MeshMessage, RemotePost};
use crate::room::Role;
use crate::table::Id;
use crate::time::{Now, ticks};

impl Engine {
    /// A message from shard `from`.
    pub fn receive_mesh(&mut self, now: Now, from: u32, message: MeshMessage) {
        match message {
            MeshMessage::Join(join) => self.request_arrived(now, from, join),
            MeshMessage::Post(post) => self.remote_post(now, from, *post),
            MeshMessage::Answer(answer) => {
                let Answer { connection: id, reference, result } = *answer;
                self.outboxes[from as usize].posts_away -= 1;
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.posts_away -= 1;
                }
                self.answer_post(now, id, reference.as_ref(), result);
                self.read_on(now, id);
            }
            MeshMessage::Appended { room, viewers, appended_us } => {
                if let Some(id) = self.rooms.find_replica(from, room) {
                    let replica = self.rooms.table.get_mut(id).expect("a listed replica exists");
                    if let Role::Replica(role) = &mut replica.role {
                        role.viewers = viewers;
                    }
                    self.catch_up(now, id, appended_us);
                }
            }
            MeshMessage::Members { room, members } => {
                self.change_follower(now, room, from, |follower| follower.members = members);
            }
            MeshMessage::Released { room, grants } => {
                self.change_follower(now, room, from, |follower| {
                    follower.grants -= grants;
                    follower.members = 0;
                });
            }
            MeshMessage::Load { connections } => self.loads[from as usize] = connections,
            MeshMessage::Taken(taken) => self.joins_taken(from, taken),
        }
        self.keep_budgets(now);
    }

    /// Replica: sees what the home shard has published, hint or no hint; the oldest of it at `appended_us`, or later.
    pub(super) fn catch_up(&mut self, now: Now, room_id: Id, appended_us: u64) {
        let Some(room) = self.rooms.table.get_mut(room_id) else { return };
        if matches!(room.role, Role::Replica(_)) {
            let (before, end) = (room.ends(), room.head().offset + 1);
            room.sync();
            if room.ends() != before {
                room.traffic.grows(now.tick(), end, ticks(self.limits.keepalive_ms));
                self.tell_sent(room_id);
                self.wake_feeds(now, room_id, appended_us);
            }
        }
    }

    fn remote_post(&mut self, now: Now, from: u32, remote: RemotePost) {
        let RemotePost { room, connection, user, name, post, address } = remote;
        let draft = Draft {
            user: &user,
            name: name.as_deref(),
            text: &post.text,
            key: post.key.as_deref(),
            address,
        };
        let result = if self.drain.is_some() {
            Err(PostRefusal::Draining)
        } else {
            self.append(now, room, &draft)
        };
        let answer = Answer { connection, reference: post.reference, result };
        self.outboxes[from as usize].push(MeshMessage::Answer(Box::new(answer)));
    }

    fn change_follower(
        &mut self,
        now: Now,
        room: Id,
        shard: u32,
        change: impl FnOnce(&mut crate::room::Follower),
    ) {
        let Some(entry) = self.rooms.table.get_mut(room) else { return };
        let Role::Home(home) = &mut entry.role else { return };
        if let Some(follower) = home.followers.get_mut(shard as usize) {
            change(follower);
        }
        self.list_if_idle(now, room);
        // A log that nobody follows any more may go whole.
        self.limit_logs(room);
    }

    /// A grant to `shard` did not reach it.
    pub(super) fn take_grant_back(&mut self, now: Now, room: Id, shard: u32) {
        self.change_follower(now, room, shard, |follower| follower.grants -= 1);
        let load = &mut self.loads[shard as usize];
        *load = load.saturating_sub(1);
    }

    /// The next message for shard `to`; ask only when the link has room.
    pub fn poll_mesh(&mut self, to: u32) -> Option<MeshMessage> {
        let outbox = &mut self.outboxes[to as usize];
        let taken = std::mem::take(&mut outbox.taken);
        if taken.joins > 0 {
            return Some(MeshMessage::Taken(taken));
        }
        if let Some(command) = outbox.pop() {
            return Some(command);
        }
        while let Some(room_id) = outbox.appended.pop_front() {
            let Some(room) = self.rooms.table.get_mut(room_id) else { continue };
            let viewers = room.viewers();
            let Role::Home(home) = &mut room.role else { continue };
            let follower = &mut home.followers[to as usize];
            follower.is_hinted = false;
            let appended_us = follower.appended_us;
            return Some(MeshMessage::Appended { room: room_id, viewers, appended_us });
        }
        while let Some(room_id) = outbox.members.pop_front() {
            let Some(room) = self.rooms.table.get_mut(room_id) else { continue };
            let members = room.members();
            let Role::Replica(replica) = &mut room.role else { continue };
            replica.is_listed = false;
            return Some(MeshMessage::Members { room: replica.room, members });
        }
        outbox.load.take().map(|connections| MeshMessage::Load { connections })
    }

    /// Whether something waits for shard `to`.
    #[must_use]
    pub fn has_mail(&self, to: u32) -> bool {
        !self.outboxes[to as usize].is_empty()
    }

    /// After a subscriber came or went.
    pub(super) fn members_changed(&mut self, now: Now, room_id: Id) {
        let Some(room) = self.rooms.table.get_mut(room_id) else { return };
        let members = room.members();
        match &mut room.role {
            Role::Home(_) => self.list_if_idle(now, room_id),
            Role::Replica(replica) => {
                if !replica.is_listed {
                    replica.is_listed = true;
                    self.outboxes[replica.home as usize].members.push_back(room_id);
                }
                if members == 0 {
                    self.rooms.emptied.push(room_id);
                }
            }
        }
    }

    /// Lets go of replicas that are still empty.
    pub(super) fn release_replicas(&mut self) {
        for room_id in std::mem::take(&mut self.rooms.emptied) {
            let Some(room) = self.rooms.table.get(room_id) else { continue };
            let Role::Replica(replica) = &room.role else { continue };
            if room.members() > 0 {
                continue;
            }
            let released = MeshMessage::Released { room: replica.room, grants: replica.grants };
            replica.owes_nothing();
            self.outboxes[replica.home as usize].push(released);
            self.rooms.remove(room_id);
        }
    }

    /// Tells the others how many connections this shard has, if that changed.
    pub(super) fn tell_load(&mut self) {
        if self.told_load == self.counted {
            return;
        }
        self.told_load = self.counted;
        for (shard, outbox) in self.outboxes.iter_mut().enumerate() {
            if shard != self.setup.shard as usize {
                outbox.load = Some(self.counted);
            }
        }
        self.loads[self.setup.shard as usize] = self.counted;
    }
}
