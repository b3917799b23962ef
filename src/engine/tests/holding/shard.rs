//! One engine whose sockets take bytes, or take none; and what its visitors say.

use std::io;

use uproar_engine::control::{Reply, Request};
use uproar_engine::engine::{Chunk, Delivery, Engine, Output};
use uproar_engine::limits::Limits;
use uproar_engine::report::Report;
use uproar_engine::table::Id;
use uproar_engine::time::{Now, TICK_US};

use crate::support;

/// No rate binds.
pub(crate) fn small() -> Limits {
    Limits {
        posts_per_sec_connection: 0,
        posts_per_sec_event: 0,
        control_frames_per_sec_max: 0,
        // Who is closed is heard for a tick.
        close_ms_max: 100,
        ..Limits::default()
    }
}

pub(crate) fn report(engine: &mut Engine, now: Now) -> Report {
    match engine.control(now, Request::Report) {
        Reply::Report(report) => *report,
        reply => panic!("{reply:?}"),
    }
}

/// A frame as a client sends it; a mask of zeros leaves the payload as it is.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match u8::try_from(payload.len()).ok().filter(|len| *len < 126) {
        Some(len) => frame.push(0x80 | len),
        None => {
            let len = u16::try_from(payload.len()).expect("short enough");
            frame.push(0x80 | 126);
            frame.extend(len.to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    frame(1, text.as_bytes())
}

pub(crate) fn ping(len: usize) -> Vec<u8> {
    frame(9, &vec![3; len])
}

/// One shard, and which sockets take no bytes.
pub(crate) struct Shard {
    pub(crate) engine: Engine,
    pub(crate) now: Now,
    pub(crate) full: Vec<Id>,
    pub(crate) closed: Vec<Id>,
    pub(crate) read_on: Vec<Id>,
    /// Of the one address that everybody comes from.
    pub(crate) places_taken: u32,
}

impl Shard {
    pub(crate) fn new(limits: Limits) -> Self {
        let now = support::at(1_000_000 * TICK_US);
        let engine = support::engine(limits, now.mono_us);
        Self {
            engine,
            now,
            full: Vec::new(),
            closed: Vec::new(),
            read_on: Vec::new(),
            places_taken: 0,
        }
    }

    pub(crate) fn join(&mut self) -> Id {
        let id = support::join(&mut self.engine, self.now, "e");
        self.flush();
        id
    }

    /// A viewer whose socket takes nothing from now on.
    pub(crate) fn join_deaf(&mut self) -> Id {
        let id = self.join();
        self.full.push(id);
        id
    }

    /// As the shell does: asks before it reads. False: it may not.
    pub(crate) fn says(&mut self, id: Id, bytes: &[u8]) -> bool {
        let may = self.engine.may_read(id);
        if may {
            self.engine.received(self.now, id, &mut bytes.to_vec());
            self.flush();
        }
        may
    }

    pub(crate) fn flush(&mut self) {
        let mut chunk = Chunk::default();
        while self.engine.has_work() {
            self.engine.next_chunk(self.now, &mut chunk);
            let is_full = |(index, delivery): (usize, &Delivery)| {
                let error = io::Error::from(io::ErrorKind::WouldBlock);
                self.full.contains(&delivery.id).then_some((index as u32, Err(error)))
            };
            let mut failures =
                chunk.deliveries.iter().enumerate().filter_map(is_full).collect::<Vec<_>>();
            self.engine.settle(self.now, &mut chunk, &mut failures, 1);
        }
        self.engine.check();
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Close { id, .. } => self.closed.push(id),
                Output::ReadOn { id } => self.read_on.push(id),
                Output::AskPlace { id, join, places_max } => {
                    let has_place = self.places_taken < places_max;
                    self.places_taken += u32::from(has_place);
                    self.engine.place_answered(self.now, id, *join, has_place);
                }
                _ => {}
            }
        }
    }

    pub(crate) fn pass_ms(&mut self, ms: u64) {
        for _ in 0..ms / 100 {
            self.now.mono_us += TICK_US;
            self.engine.tick(self.now, 0);
            while self.engine.step(self.now) {}
            self.flush();
        }
    }

    pub(crate) fn report(&mut self) -> Report {
        report(&mut self.engine, self.now)
    }
}
