//! A comment that the kernel takes only the first byte of, with the smallest private queue.

use uproar_engine::control::{Reply, Request};
use uproar_engine::engine::{Chunk, Engine, Setup};
use uproar_engine::limits::Limits;
use uproar_engine::time::{Now, TICK_US};

#[test]
fn the_rest_of_a_cut_frame_does_not_end_its_viewer() {
    // What `config/check.rs` lets through.
    let limits =
        Limits { comment_bytes_max: 4_096, private_queue_bytes_max: 4_096, ..Limits::default() };
    let setup =
        Setup { shard: 0, shards: 1, node: "n".into(), seed: 5, limits, conformance_echo: false };
    let now = Now { mono_us: 10 * TICK_US, wall_ms: 0 };
    let mut engine = Engine::new(setup, now);
    let mut chunk = Chunk::default();
    let mut request = b"GET /v1/events/e/live HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n"
        .to_vec();
    let id = engine.accept(now, None);
    engine.received(now, id, &mut request);
    while engine.has_work() {
        engine.next_chunk(now, &mut chunk);
        engine.settle(now, &mut chunk, &mut Vec::new(), 1);
    }
    let text = "\"".repeat(4_096).into();
    let event = "e".parse().expect("a sound event");
    let request = Request::Post { event, user: None, name: None, text, key: None, address: 1 };
    let reply = engine.control(now, request);
    assert!(matches!(reply, Reply::Posted { .. }), "{reply:?}");
    engine.next_chunk(now, &mut chunk);
    assert_eq!(chunk.deliveries.len(), 1);
    engine.settle(now, &mut chunk, &mut vec![(0, Ok(1))], 1);
    assert_eq!(engine.live_connections(), 1, "it reads slowly; that is what stall_ms_max is for");
}
