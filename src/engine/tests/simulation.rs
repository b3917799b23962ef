//! Hundreds of seeded runs of whole nodes in virtual time; see `sim`.
//!
//! A failure prints its seed and step and the command that replays it.

mod sim;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use sim::{Story, run};

/// Seeds of the ordinary run.
const SEEDS: u64 = 200;

/// Seeds that failed once, and what was mended.
const MENDED: [(u64, &str); 2] = [
    (
        320,
        "a ping that stood in line behind a backlog of sends was taken for one without an answer",
    ),
    (1191, "the time to hear the last word ran out while it stood in that line"),
];

/// Runs a seed; a failure says how to see it again.
fn run_loudly(seed: u64) -> Story {
    let mut step = 0;
    let result = catch_unwind(AssertUnwindSafe(|| run(seed, &mut step)));
    result.unwrap_or_else(|panic| {
        eprintln!(
            "seed {seed} failed at step {step}; replay:\n  \
             UPROAR_SEED={seed} cargo test -p uproar-engine --test simulation -- replay --nocapture"
        );
        resume_unwind(panic)
    })
}

#[test]
fn every_seed_keeps_every_promise() {
    let mut total = Story::default();
    for seed in 0..SEEDS {
        total.add(&run_loudly(seed));
    }
    println!("{total:#?}");
    let reached = [
        total.gaps,
        total.recovered,
        total.short_writes,
        total.moves,
        total.replicas_seen,
        total.log_evictions,
        total.deduplicated,
        total.overloaded,
        total.lingers,
        total.lingers_cut,
        total.reads_paused,
        total.places_refused,
        total.unfinished_shed,
        total.given_up[0],
        total.given_up[1],
        total.given_up[2],
    ];
    assert!(reached.iter().all(|&count| count > 100), "the seeds reach too little: {total:#?}");
}

#[test]
fn what_failed_once_stays_mended() {
    for (seed, what) in MENDED {
        println!("{seed}: {what}");
        run_loudly(seed);
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [3, 17] {
        assert_eq!(run_loudly(seed), run_loudly(seed), "seed {seed}");
    }
}

/// `UPROAR_SEED=7` replays that seed, `UPROAR_SEED=1000..5000` a range of them.
#[test]
fn replay() {
    let Ok(seeds) = std::env::var("UPROAR_SEED") else { return };
    let (first, end) = seeds.split_once("..").unwrap_or((&seeds, ""));
    let first: u64 = first.parse().expect("UPROAR_SEED is a number or a range");
    let end = end.parse().unwrap_or(first + 1);
    for seed in first..end {
        println!("seed {seed}: {:?}", run_loudly(seed));
    }
}
