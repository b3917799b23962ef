//! One engine that stands alone, and what its visitors do.

use uproar_engine::control::{Reply, Request};
use uproar_engine::engine::{Engine, Setup};
use uproar_engine::limits::Limits;
use uproar_engine::table::Id;
use uproar_engine::time::Now;

/// The only shard of a node, made at `mono_us`.
pub(crate) fn engine(limits: Limits, mono_us: u64) -> Engine {
    let node = "alone".into();
    let setup = Setup { shard: 0, shards: 1, node, seed: 5, limits, conformance_echo: false };
    Engine::new(setup, at(mono_us))
}

/// An instant; the wall clock began with the other one.
pub(crate) fn at(mono_us: u64) -> Now {
    Now { mono_us, wall_ms: mono_us / 1_000 }
}

/// A viewer asks for the event; what the engine answers is not sent yet.
pub(crate) fn join(engine: &mut Engine, now: Now, event: &str) -> Id {
    let request = format!(
        "GET /v1/events/{event}/live HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n\r\n"
    );
    let id = engine.accept(now, None);
    engine.received(now, id, &mut request.into_bytes());
    id
}

/// A comment comes over HTTP.
pub(crate) fn post(engine: &mut Engine, now: Now, event: &str, text: &str) {
    let event = event.parse().expect("a sound event");
    let text = text.into();
    let request = Request::Post { event, user: None, name: None, text, key: None, address: 1 };
    let reply = engine.control(now, request);
    assert!(matches!(reply, Reply::Posted { .. }), "{reply:?}");
}
