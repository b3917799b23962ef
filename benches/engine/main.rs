//! The engine alone, without a kernel: appends and fan-out pairs a second, bytes a subscriber.
//!
//! `cargo run --release -p uproar-engine --example bench_engine [SUBSCRIBERS]`
//!
//! A pair is one subscriber and one send that is built by `next_chunk` and settled as taken
//! whole: what the engine adds to the kernel's cost of that send. One thread, real time only on
//! the outside; each figure is the best of several rounds, as what disturbs only slows.

use std::time::Instant;

use uproar_engine::control::{Reply, Request};
use uproar_engine::engine::{Chunk, Engine, Output, Setup};
use uproar_engine::limits::Limits;
use uproar_engine::table::Id;
use uproar_engine::time::Now;

/// Subscribers of the large room unless the command line says otherwise.
const SUBSCRIBERS: u32 = 15_000;
/// Bytes of a comment's text.
const TEXT_BYTES: usize = 200;
/// Appends that are timed together.
const APPENDS: u32 = 100_000;
const ROUNDS: u32 = 20;

fn main() {
    let subscribers = std::env::args()
        .nth(1)
        .map_or(SUBSCRIBERS, |count| count.parse().expect("the number of subscribers is a number"));
    // Memory first: what the others free would be used again and not seen to grow.
    large_room(subscribers);
    appends("no subscriber, canonical log only", false);
    appends("a JSON view beside it", true);
    small_rooms(1_000, 20);
}

/// One shard without caps.
struct Bench {
    engine: Engine,
    chunk: Chunk,
    start: Instant,
    ids: Vec<Id>,
}

impl Bench {
    fn new() -> Self {
        let limits = Limits {
            posts_per_sec_event: 0,
            posts_per_sec_connection: 0,
            connections_max: u32::MAX,
            spread_subscribers_min: u32::MAX,
            ..Limits::default()
        };
        let setup = Setup {
            shard: 0,
            shards: 1,
            node: "bench".into(),
            seed: 1,
            limits,
            conformance_echo: false,
        };
        let engine = Engine::new(setup, Now { mono_us: 1_000_000, wall_ms: 0 });
        Self { engine, chunk: Chunk::default(), start: Instant::now(), ids: Vec::new() }
    }

    fn now(&self) -> Now {
        let mono_us = 1_000_000 + self.start.elapsed().as_micros() as u64;
        Now { mono_us, wall_ms: 1_764_000_000_000 + mono_us / 1_000 }
    }

    fn join(&mut self, event: &str) {
        let now = self.now();
        let request = format!(
            "GET /v1/events/{event}/live?history=0 HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: 13\r\n\r\n"
        );
        let id = self.engine.accept(now, None);
        self.engine.received(now, id, &mut request.into_bytes());
        self.ids.push(id);
    }

    fn post(&mut self, event: &str) {
        let request = Request::Post {
            event: event.parse().expect("a sound event"),
            user: Some("somebody".into()),
            name: None,
            text: "x".repeat(TEXT_BYTES).into(),
            key: None,
            address: 1,
        };
        let reply = self.engine.control(self.now(), request);
        assert!(matches!(reply, Reply::Posted { .. }), "{reply:?}");
    }

    /// Sends everything there is, as if the kernel took it all; says how many sends.
    fn flush(&mut self, failing_in: usize) -> u64 {
        let mut sends = 0;
        while self.engine.has_work() {
            let now = self.now();
            self.engine.next_chunk(now, &mut self.chunk);
            sends += self.chunk.deliveries.len() as u64;
            let mut failures = Vec::new();
            if failing_in > 0 {
                let some = (0..self.chunk.deliveries.len()).step_by(failing_in);
                failures.extend(some.map(|index| (index as u32, Ok(1))));
            }
            self.engine.settle(now, &mut self.chunk, &mut failures, 0);
            while let Some(output) = self.engine.poll_output() {
                if let Output::AwaitWritable { id } = output {
                    self.engine.writable(now, id);
                }
            }
        }
        sends
    }
}

fn appends(what: &str, with_view: bool) {
    let mut bench = Bench::new();
    if with_view {
        bench.join("e");
        bench.flush(0);
        let now = bench.now();
        let id = bench.ids[0];
        bench.engine.ended(now, id);
    }
    let mut best = f64::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        (0..APPENDS).for_each(|_| bench.post("e"));
        best = best.min(begun.elapsed().as_secs_f64() / f64::from(APPENDS));
    }
    println!("append, {what}: {:.0} /s, {:.0} ns each", 1.0 / best, best * 1e9);
}

fn large_room(subscribers: u32) {
    let before = resident_bytes();
    let mut bench = Bench::new();
    let begun = Instant::now();
    for _ in 0..subscribers {
        bench.join("e");
        // The welcome leaves at once, as on a shard that is not overloaded.
        if bench.ids.len().is_multiple_of(64) {
            bench.flush(0);
        }
    }
    bench.flush(0);
    let join_us = begun.elapsed().as_secs_f64() * 1e6 / f64::from(subscribers);
    println!("join, {subscribers} in one room: {join_us:.2} µs each");
    let resident = resident_bytes() - before;
    let report = match bench.engine.control(bench.now(), Request::Report) {
        Reply::Report(report) => report,
        reply => panic!("{reply:?}"),
    };
    println!(
        "memory: {} B a subscriber by the engine's own count, {} B by resident memory",
        report.connection_bytes / u64::from(subscribers),
        resident / u64::from(subscribers),
    );
    fan_out(&mut bench, &["e"], 1, 0);
    fan_out(&mut bench, &["e"], 8, 0);
    fan_out(&mut bench, &["e"], 1, 20);
}

fn small_rooms(rooms: u32, subscribers: u32) {
    let mut bench = Bench::new();
    let events: Vec<String> = (0..rooms).map(|room| format!("room-{room}")).collect();
    for event in &events {
        (0..subscribers).for_each(|_| bench.join(event));
        bench.flush(0);
    }
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    print!("{rooms} rooms of {subscribers}: ");
    fan_out(&mut bench, &events, 1, 0);
}

/// `coalesced` comments into each event, then one send to each subscriber; of every
/// `failing_in` sends one is cut after a byte (0: none).
fn fan_out(bench: &mut Bench, events: &[&str], coalesced: u32, failing_in: usize) {
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        for event in events {
            (0..coalesced).for_each(|_| bench.post(event));
        }
        let begun = Instant::now();
        let sends = bench.flush(failing_in);
        best = best.min(begun.elapsed().as_secs_f64() / sends as f64);
    }
    let cut = match failing_in {
        0 => String::new(),
        n => format!(", 1 in {n} cut short"),
    };
    println!(
        "fan-out, {coalesced} comment(s) a send{cut}: {:.2} million pairs/s, {:.0} ns each",
        1e-6 / best,
        best * 1e9
    );
}

/// Resident memory of this process, in bytes.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has /proc");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a VmRSS line");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("KiB");
    kib * 1_024
}
