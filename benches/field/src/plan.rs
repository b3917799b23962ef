//! Who connects where: the viewers of all groups, dealt out to worker processes.

use serde::{Deserialize, Serialize};

use crate::options::{Group, Target};

/// What a worker process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Holds viewers.
    Viewers,
    /// Holds one more connection for each room that has a rate, and posts over it.
    Publishers,
    /// Misbehaves.
    Offenders { per_second: u32 },
}

/// Everything one worker needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) role: Role,
    pub(crate) target: Target,
    /// Tells the source addresses of this run from those of others.
    pub(crate) salt: u32,
    /// The worker's own share: numbers of connections, counted over the fleet.
    pub(crate) first: usize,
    pub(crate) count: usize,
    pub(crate) seconds: f64,
    pub(crate) linger: f64,
    pub(crate) stalled: f64,
}

/// One connection of the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) group: usize,
    /// Within its group.
    pub(crate) room: usize,
    pub(crate) is_stalled: bool,
}

/// Viewers of all groups together.
pub(crate) fn viewers(groups: &[Group]) -> usize {
    groups.iter().map(|group| group.rooms * group.viewers_per_room).sum()
}

/// Publishers of all groups together.
pub(crate) fn publishers(groups: &[Group]) -> usize {
    groups.iter().filter(|group| group.rate > 0.0).map(|group| group.rooms).sum()
}

/// The name of a room of this run.
pub(crate) fn room_name(target: &Target, group: usize, room: usize) -> String {
    format!("{}-{}-{room}", target.prefix, target.groups[group].name)
}

impl Plan {
    /// Comments that each room of a group gets.
    pub(crate) fn comments_per_room(&self, group: usize) -> u32 {
        (self.target.groups[group].rate * self.seconds).floor() as u32
    }

    /// The seats of this worker, in the order they connect.
    pub(crate) fn seats(&self) -> Vec<Seat> {
        let groups = self.target.groups.iter().enumerate();
        let all: Vec<Seat> = match self.role {
            Role::Viewers => groups.flat_map(|(at, group)| viewer_seats(at, group)).collect(),
            Role::Publishers => groups
                .filter(|(_, group)| group.rate > 0.0)
                .flat_map(|(at, group)| (0..group.rooms).map(move |room| seat(at, room)))
                .collect(),
            Role::Offenders { .. } => Vec::new(),
        };
        let mine = all.into_iter().enumerate().skip(self.first).take(self.count);
        mine.map(|(number, seat)| Seat { is_stalled: self.is_stalled(number), ..seat }).collect()
    }

    /// Spreads the stalled viewers evenly: the count below `number` steps where one of them is.
    fn is_stalled(&self, number: usize) -> bool {
        let below = |number: usize| (number as f64 * self.stalled).floor();
        self.role == Role::Viewers && below(number + 1) > below(number)
    }
}

fn seat(group: usize, room: usize) -> Seat {
    Seat { group, room, is_stalled: false }
}

fn viewer_seats(at: usize, group: &Group) -> impl Iterator<Item = Seat> + use<> {
    let (rooms, viewers) = (group.rooms, group.rooms * group.viewers_per_room);
    (0..viewers).map(move |viewer| seat(at, viewer % rooms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(role: Role, first: usize, count: usize) -> Plan {
        let target = Target {
            server: "127.0.0.1:1".parse().unwrap(),
            path: String::new(),
            post: String::new(),
            groups: vec!["a:2:5:1".parse().unwrap(), "b:1:10:0".parse().unwrap()],
            pid: None,
            server_cpu: None,
            cpu: None,
            window: 1,
            per_worker: 1,
            prefix: "p".into(),
            plain: false,
        };
        Plan { role, target, salt: 1, first, count, seconds: 2.5, linger: 1.0, stalled: 0.1 }
    }

    #[test]
    fn shares_of_the_fleet_add_up_and_stalled_viewers_are_spread() {
        let whole = plan(Role::Viewers, 0, 20).seats();
        let mut parts = plan(Role::Viewers, 0, 12).seats();
        parts.extend(plan(Role::Viewers, 12, 8).seats());
        assert_eq!(whole, parts);
        assert_eq!(whole.len(), viewers(&plan(Role::Viewers, 0, 0).target.groups));
        assert_eq!(whole.iter().filter(|seat| seat.is_stalled).count(), 2);
        assert_eq!(whole.iter().filter(|seat| (seat.group, seat.room) == (0, 1)).count(), 5);
    }

    #[test]
    fn only_rooms_with_a_rate_have_a_publisher() {
        let seats = plan(Role::Publishers, 0, 9).seats();
        assert_eq!(seats.len(), 2);
        assert_eq!(publishers(&plan(Role::Viewers, 0, 0).target.groups), 2);
        assert_eq!(plan(Role::Publishers, 0, 9).comments_per_room(0), 2);
    }
}
