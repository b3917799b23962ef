//! Hot rooms of the whole node, from steps of looks at each shard.
//!
//! A look is made when somebody asks for the report, and only then. Between two steps a shard
//! turns as usual; what is held here are two lists of the length asked for.

use std::cmp::Reverse;

use serde_json::{Value, json};
use uproar_engine::control::{Reply, Request};
use uproar_engine::hot::{HotRoom, HotRooms};

use super::node::{Node, ask};
use crate::link::ShardPort;

/// The lists as the report has them. Shards that do not answer are missing from them.
pub(super) async fn json(node: &Node, limit: usize) -> Value {
    let looks: Vec<_> =
        node.ports().iter().map(|port| tokio::spawn(look(port.clone(), limit))).collect();
    let mut all = HotRooms::default();
    for looked in looks {
        merge(&mut all, looked.await.expect("looking neither panics nor is aborted"), limit);
    }
    let list = |rooms: &[HotRoom]| rooms.iter().map(entry).collect::<Vec<_>>();
    json!({ "by_viewers": list(&all.by_viewers), "by_comments": list(&all.by_comments) })
}

/// Looks at all rooms of a shard, step by step.
async fn look(port: ShardPort, limit: usize) -> HotRooms {
    let mut all = HotRooms { next: Some(0), ..HotRooms::default() };
    while let Some(from) = all.next.take() {
        if let Ok(Reply::HotRooms(step)) = ask(&port, Request::HotRooms { from, limit }).await {
            merge(&mut all, step, limit);
        }
    }
    all
}

/// Keeps the largest of both.
fn merge(all: &mut HotRooms, step: HotRooms, limit: usize) {
    let largest = |list: &mut Vec<HotRoom>, more, size: fn(&HotRoom) -> u64| {
        list.extend(more);
        list.sort_by(|a, b| (Reverse(size(a)), &a.event).cmp(&(Reverse(size(b)), &b.event)));
        list.truncate(limit);
    };
    largest(&mut all.by_viewers, step.by_viewers, |room| room.viewers.into());
    largest(&mut all.by_comments, step.by_comments, |room| room.comments_per_1000_s);
    all.next = step.next;
}

fn entry(room: &HotRoom) -> Value {
    let comments_per_second = room.comments_per_1000_s as f64 / 1_000.0;
    json!({
        "event": room.event.as_str(),
        "viewers": room.viewers,
        "comments_per_second": comments_per_second,
        "deliveries_per_second": comments_per_second * f64::from(room.viewers),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(event: &str, viewers: u32) -> HotRoom {
        let event = event.parse().expect("the test's events are good");
        HotRoom { event, viewers, comments_per_1000_s: 10 - u64::from(viewers) }
    }

    #[test]
    fn steps_add_up_to_the_largest_of_all_in_lists_of_bounded_length() {
        let mut all = HotRooms::default();
        for (rooms, next) in
            [([room("a", 3), room("b", 1)], Some(9)), ([room("c", 5), room("d", 2)], None)]
        {
            let by_viewers = rooms.to_vec();
            merge(&mut all, HotRooms { by_comments: by_viewers.clone(), by_viewers, next }, 3);
            assert_eq!(all.next, next);
        }
        let names = |list: &[HotRoom]| {
            list.iter().map(|room| room.event.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&all.by_viewers), ["c", "a", "d"]);
        assert_eq!(names(&all.by_comments), ["b", "d", "a"]);
    }
}
