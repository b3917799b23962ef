//! A completion queue that is full when sends are submitted.

#![expect(clippy::unwrap_used, reason = "a failed unwrap of a test is its failure")]

use uproar_ring::{Key, Outgoing, Ring, RingConfig, Wake};

/// More than a ring's completion queue holds.
const READS: u64 = 17_000;

#[test]
fn sends_that_fail_over_a_full_completion_queue_are_reported() {
    let wake = Wake::new().unwrap();
    let config = RingConfig { slots: 8, buffers: 1, buffer_bytes: 4_096 };
    let mut ring = Ring::new(config, &wake).unwrap();
    // Reads of an empty slot end at once, with an error.
    (0..READS).for_each(|number| ring.read_now(0, Key::new(number)));
    let mut failures = Vec::new();
    ring.send_all([(0, Outgoing::from_slice(b"x"))].into_iter(), &mut failures);
    assert_eq!(failures.len(), 1, "an empty slot takes nothing");
    let mut events = Vec::new();
    while events.len() < READS as usize {
        let before = events.len();
        ring.turn(&mut events, 512);
        assert!(events.len() > before, "{before} of {READS} completions came");
    }
}
