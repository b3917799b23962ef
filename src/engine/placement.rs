//! Which shard is an event's home: rendezvous hashing (Thaler and Ravishankar 1998).
//!
//! Every shard scores the event and the highest score wins, so adding a shard moves only the
//! events that the new one wins. The function and its seed are fixed: other nodes and tools
//! compute the same answer, and the test vectors below hold for good.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The seed of shard 0; shard `n` adds `n` times an odd constant.
const SEED: u64 = 0x7570_726f_6172_2131;
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The home of `event_id` among `shards` shards (at least 1).
#[must_use]
pub fn home_shard(event_id: &str, shards: u32) -> u32 {
    assert!(shards > 0, "a node has at least one shard");
    let score = |shard: u32| {
        let seed = SEED.wrapping_add(STEP.wrapping_mul(u64::from(shard)));
        xxh3_64_with_seed(event_id.as_bytes(), seed)
    };
    (0..shards).max_by_key(|&shard| (score(shard), shard)).expect("the range is not empty")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_that_must_never_change() {
        let homes = |event: &str| [2, 3, 8, 64].map(|shards| home_shard(event, shards));
        let found = ["final", "a", "event-0001", "Grand.Prix:2026"].map(homes);
        assert_eq!(found, [[0, 0, 6, 18], [1, 2, 4, 24], [0, 0, 5, 60], [0, 2, 2, 41]]);
    }

    #[test]
    fn events_spread_evenly_and_few_move_when_a_shard_is_added() {
        let names: Vec<String> = (0..20_000).map(|i| format!("event-{i}")).collect();
        let mut counts = [0u32; 7];
        let mut moved = 0;
        for name in &names {
            let home = home_shard(name, 7);
            counts[home as usize] += 1;
            let after = home_shard(name, 8);
            assert!(after == home || after == 7, "an event only ever moves to the new shard");
            moved += u32::from(after != home);
        }
        assert!(counts.iter().all(|&n| (2_600..3_120).contains(&n)), "{counts:?}");
        assert!((2_300..2_700).contains(&moved), "{moved}");
    }
}
