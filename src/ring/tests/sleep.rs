//! A sleep inside a ring, and what ends it.

use std::thread;
use std::time::Duration;

use uproar_ring::{Event, Ring, RingConfig, Wake};

const CONFIG: RingConfig = RingConfig { slots: 8, buffers: 1, buffer_bytes: 4_096 };

/// Sleeps until the ring says something.
fn slept(ring: &mut Ring) -> Vec<Event> {
    let mut events = Vec::new();
    while events.is_empty() {
        ring.sleep();
        ring.turn(&mut events, 16);
    }
    events
}

#[test]
fn another_ring_and_another_thread_end_a_sleep_time_and_again() {
    let wake = Wake::new().unwrap();
    let (mut ring, mut other) =
        (Ring::new(CONFIG, &wake).unwrap(), Ring::new(CONFIG, &wake).unwrap());
    ring.mute();
    ring.watch_wake(&wake);
    for _ in 0..3 {
        // The other ring's completion writes to the eventfd, which ends the watch.
        other.set_timer(Duration::from_millis(5));
        other.submit();
        other.unmute();
        assert!(!other.has_work(), "the timer is not due yet");
        let events = slept(&mut ring);
        assert!(matches!(events[..], [Event::Woken { armed: false }]), "{events:?}");
        let mut theirs = Vec::new();
        other.turn(&mut theirs, 16);
        assert!(matches!(theirs[..], [Event::Timer { result: Ok(()) }]), "{theirs:?}");
        wake.drain();
        ring.watch_wake(&wake);
    }
    for _ in 0..3 {
        // A thread's write leaves the watch armed, and a drained eventfd is silent.
        wake.announce_sleep();
        let waker = wake.waker();
        let thread = thread::spawn(move || waker.wake());
        let events = slept(&mut ring);
        assert!(matches!(events[..], [Event::Woken { armed: true }]), "{events:?}");
        thread.join().unwrap();
        wake.drain();
        wake.drain();
    }
    // Its own completions end it as well, also unseen by the eventfd.
    ring.set_timer(Duration::from_millis(5));
    assert!(matches!(slept(&mut ring)[..], [Event::Timer { result: Ok(()) }]));
}
