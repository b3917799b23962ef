//! Hostile talkers: what one connection sends costs the others no more than its share.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::node::{Node, PATIENCE};

/// Is over when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn viewers_that_flood_do_not_keep_others_from_being_read() {
    let lifted = ["posts-per-sec-connection", "posts-per-sec-event", "control-frames-per-sec-max"];
    let flags: Vec<String> =
        lifted.iter().flat_map(|flag| [format!("--{flag}"), "0".into()]).collect();
    let node = Node::start(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    let mut good = node.join("good", "");
    // Pongs that nobody asked for cost the flooder nothing: they are not answered.
    let pongs = [0x8a, 0x80, 0, 0, 0, 0].repeat(20_000);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // The flooders end with the test, however it ends.
        let _over = Over(&is_over);
        for _ in 0..60 {
            let mut viewer = node.join("flood", "");
            let (pongs, is_over) = (&pongs, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    viewer.socket.get_mut().write_all(pongs).expect("it is not closed");
                }
            });
        }
        let began = Instant::now();
        (0..50).for_each(|_| _ = good.post_acked("x"));
        assert!(began.elapsed() < PATIENCE);
    });
}
