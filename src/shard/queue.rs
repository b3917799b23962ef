//! The queues between shards: one for each ordered pair, bounded, and with memory for no more than what waits.
//!
//! Not here: what waits in them (`uproar_engine::mesh`), what happens when one is full (`driver`).

use std::sync::Arc;

use crossbeam::queue::SegQueue;
use uproar_engine::mesh::MeshMessage;

/// What may wait on all links of a node together, in bytes: there are as many as pairs of shards.
const MESH_BYTES_MAX: usize = 256 * 1024 * 1024;
/// The least that a link takes, in messages, however many links there are.
const LINK_MESSAGES_MIN: usize = 16;

const _: () = assert!(256 * 256 * LINK_MESSAGES_MIN * size_of::<MeshMessage>() <= MESH_BYTES_MAX);

/// A bounded queue from one shard to another.
pub(super) type Link = Arc<Queue>;

/// The queue of a link. It takes memory for what waits in it, in blocks of a few dozen messages, not for its bound:
/// most pairs of shards hardly ever have anything to say.
#[derive(Debug)]
pub(super) struct Queue {
    messages: SegQueue<MeshMessage>,
    messages_max: usize,
}

impl Queue {
    /// Adds a message; gives it back when the link is full. One shard pushes: a place that was free stays free.
    pub(super) fn push(&self, message: MeshMessage) -> Result<(), MeshMessage> {
        if self.is_full() {
            return Err(message);
        }
        self.messages.push(message);
        Ok(())
    }

    /// The oldest message.
    pub(super) fn pop(&self) -> Option<MeshMessage> {
        self.messages.pop()
    }

    pub(super) fn is_full(&self) -> bool {
        self.messages.len() >= self.messages_max
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

/// One bounded queue for each ordered pair of shards: `links[from][to]`. The diagonal is never used.
pub(super) fn mesh_of(count: usize, messages_max: usize) -> Vec<Vec<Link>> {
    let fair = MESH_BYTES_MAX / (count * count * size_of::<MeshMessage>());
    let messages_max = messages_max.min(fair.max(LINK_MESSAGES_MIN));
    let link = || Arc::new(Queue { messages: SegQueue::new(), messages_max });
    (0..count).map(|_| (0..count).map(|_| link()).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// Resident memory of this process, in bytes.
    fn resident_bytes() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux has /proc");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a VmRSS line");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("KiB");
        kib * 1_024
    }

    fn message(number: u32) -> MeshMessage {
        MeshMessage::Load { connections: number }
    }

    #[test]
    fn links_between_256_shards_take_what_waits_on_them() {
        let before = resident_bytes();
        let links = mesh_of(256, 4_096);
        let idle = resident_bytes() - before;
        assert!(idle < 64 * MIB, "{} MiB for links that nobody has used", idle / MIB);
        links.iter().flatten().for_each(|link| assert!(link.push(message(1)).is_ok()));
        let used = resident_bytes() - before;
        assert!(used < 192 * MIB, "{} MiB with a message on each", used / MIB);
        // One direction of the mesh backs up: its part of the bound, and no more.
        for link in &links[0] {
            while link.push(message(2)).is_ok() {}
            assert!(link.is_full());
        }
        let full = resident_bytes() - before;
        assert!(full < used + 8 * MIB, "{} MiB with 256 of 65,536 links full", full / MIB);
        let per_link = links[0][1].messages_max;
        assert!(per_link * size_of::<MeshMessage>() * 256 * 256 <= MESH_BYTES_MAX);
        assert!(per_link >= 100, "{per_link} messages a link");
    }

    #[test]
    fn a_link_is_in_order_and_bounded_and_few_shards_have_all_that_is_configured() {
        let links = mesh_of(2, 4_096);
        let link = &links[0][1];
        for round in 0..3 {
            (0..4_096).for_each(|number| assert!(link.push(message(number)).is_ok()));
            assert!(link.is_full() && link.push(message(0)).is_err(), "round {round}");
            for number in 0..4_096 {
                let popped = link.pop();
                assert!(
                    matches!(popped, Some(MeshMessage::Load { connections }) if connections == number)
                );
            }
            assert!(link.is_empty() && link.pop().is_none());
        }
    }
}
