//! A double of the kernel behind a shard's rings, and whole shards run over it: every completion that the kernel may
//! give, with any error, in any order. Afterwards the books are exact, and at no time is a slot free that
//! something still refers to. A failure prints its seed.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::TcpListener;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use tokio::sync::mpsc;
use uproar_engine::limits::Limits;
use uproar_engine::random::Random;
use uproar_ring::{Event, Key, Operation, Outgoing, Slot, Wake};

use crate::link::Handover;
use crate::shard::driver::{Driver, Start};
use crate::shard::kernel::Kernel;
use crate::shard::mesh::{Door, Neighbour};

const BUFFER_BYTES: usize = 256;
const REQUEST: &[u8] =
    b"GET /v1/events/e/live HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// EMFILE and the like; ECONNRESET; ECANCELED; EALREADY; ENOENT; EAGAIN; ENOBUFS.
const ACCEPT_ERRORS: [i32; 5] = [23, 24, 103, 22, 105];
const RESET: i32 = 104;
const CANCELED: i32 = 125;
const ALREADY: i32 = 114;
const NOT_FOUND: i32 = 2;
const AGAIN: i32 = 11;
const NO_BUFFERS: i32 = 105;

fn error<T>(errno: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(errno))
}

/// Bytes that a read brought.
#[derive(Debug)]
pub(super) struct Taken {
    id: u32,
    len: usize,
}

#[derive(Debug)]
struct Pending {
    operation: Operation,
    key: Key,
    file: u32,
    len: u32,
}

/// A ring of the double.
#[derive(Debug)]
pub(super) struct Double {
    random: Random,
    /// What slots refer to.
    slots: BTreeMap<Slot, u32>,
    next_file: u32,
    /// How much each file's peer has said.
    said: BTreeMap<u32, u32>,
    /// Buffers that are out.
    buffers: BTreeMap<u32, Vec<u8>>,
    next_buffer: u32,
    pending: Vec<Pending>,
    lanes: Vec<u16>,
    /// Completions, each operation's in order; between them there is none.
    ended: BTreeMap<(u64, u8), VecDeque<Event<Taken>>>,
    /// Files whose accept the shard has seen.
    pub(super) seen: Vec<u32>,
    pub(super) is_calm: bool,
}

impl Double {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            slots: BTreeMap::new(),
            next_file: 0,
            said: BTreeMap::new(),
            buffers: BTreeMap::new(),
            next_buffer: 0,
            pending: Vec::new(),
            lanes: Vec::new(),
            ended: BTreeMap::new(),
            seen: Vec::new(),
            is_calm: false,
        }
    }

    /// Files that the shard has seen and that a slot or an operation still refers to.
    pub(super) fn alive(&self) -> usize {
        let is_alive = |file: &&u32| {
            self.slots.values().any(|other| other == *file)
                || self.pending.iter().any(|pending| pending.file == **file)
        };
        self.seen.iter().filter(is_alive).count()
    }

    pub(super) fn polls(&self) -> usize {
        self.pending.iter().filter(|pending| pending.operation == Operation::Readable).count()
    }

    fn strikes(&mut self, n: u32) -> bool {
        !self.is_calm && self.random.below(n) == 0
    }

    fn end(&mut self, lane: (u64, u8), event: Event<Taken>) {
        self.ended.entry(lane).or_default().push_back(event);
    }

    fn start(&mut self, operation: Operation, slot: Slot, key: Key, len: u32) {
        let file = self.slots[&slot];
        self.pending.push(Pending { operation, key, file, len });
    }

    fn end_pending(&mut self, at: usize, errno: Option<i32>) {
        let Pending { operation, key, file, len } = self.pending.swap_remove(at);
        let lane = (key.bits(), operation as u8);
        let event = match (operation, errno) {
            (Operation::Readable, errno) => {
                Event::Readable { key, armed: false, is_last: false, failed: errno.is_some() }
            }
            (Operation::Writable, _) => Event::Writable { key },
            (Operation::Discard, Some(errno)) => Event::Discarded { key, result: error(errno) },
            (Operation::Discard, None) => {
                let len = self.random.below(len.min(9_000) + 1) as usize;
                Event::Discarded { key, result: Ok(len) }
            }
            (_, Some(errno)) => Event::Read { key, result: error(errno) },
            (_, None) => Event::Read { key, result: self.read_from(file) },
        };
        self.end(lane, event);
    }

    /// What a read of this file brings.
    fn read_from(&mut self, file: u32) -> io::Result<Option<Taken>> {
        if self.is_calm {
            return error(RESET);
        }
        let said = self.said.entry(file).or_default();
        *said += 1;
        if *said == 1 && self.random.below(8) > 0 {
            return Ok(Some(self.taken(REQUEST.to_vec())));
        }
        let bytes = match self.random.below(14) {
            0 => return Ok(None),
            1 => return error(RESET),
            2 => return error(NO_BUFFERS),
            3 => vec![0x83, 0x80, 0, 0, 0, 0],
            4 => vec![0x88, 0x80, 0, 0, 0, 0],
            5 => b"GET /v1/events/e HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(),
            6 => vec![0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
            7 => vec![b'z'; BUFFER_BYTES],
            _ => [0x89, 0x80, 0, 0, 0, 0].repeat(4),
        };
        Ok(Some(self.taken(bytes)))
    }

    fn taken(&mut self, bytes: Vec<u8>) -> Taken {
        self.next_buffer += 1;
        let taken = Taken { id: self.next_buffer, len: bytes.len() };
        self.buffers.insert(taken.id, bytes);
        taken
    }

    /// The world goes on: peers come, send and take bytes.
    fn happen(&mut self) {
        for _ in 0..self.lanes.len() {
            let lane = self.lanes.swap_remove(0);
            if self.is_calm || self.random.below(40) > 0 {
                self.lanes.push(lane);
                continue;
            }
            let slot = if self.strikes(6) {
                error(ACCEPT_ERRORS[self.random.below(5) as usize])
            } else {
                let slot = (0..).find(|slot| !self.slots.contains_key(slot)).expect("one is free");
                self.slots.insert(slot, self.next_file);
                self.next_file += 1;
                Ok(slot)
            };
            self.end((lane.into(), 99), Event::Accepted { lane, slot, peer: None });
        }
        for at in (0..self.pending.len()).rev() {
            if self.random.below(3) > 0 {
                continue;
            }
            let Pending { operation, key, .. } = self.pending[at];
            if operation == Operation::Readable && self.random.below(8) > 0 {
                let is_last = self.is_calm || self.random.below(9) == 0;
                let event = Event::Readable { key, armed: true, is_last, failed: false };
                self.end((key.bits(), operation as u8), event);
            } else {
                let errno = (self.is_calm || self.strikes(20)).then_some(RESET);
                self.end_pending(at, errno);
            }
        }
    }
}

impl Kernel for Double {
    type Buffer = Taken;
    type Address = ();

    fn accept(&mut self, _: BorrowedFd<'_>, lane: u16) {
        self.lanes.push(lane);
    }

    fn read(&mut self, slot: Slot, key: Key) {
        self.start(Operation::Read, slot, key, 0);
    }

    fn read_now(&mut self, slot: Slot, key: Key) {
        let result = match self.random.below(4) {
            0 if !self.is_calm => error(AGAIN),
            _ => self.read_from(self.slots[&slot]),
        };
        self.end((key.bits(), Operation::Read as u8), Event::Read { key, result });
    }

    fn discard(&mut self, slot: Slot, key: Key, len: u32) {
        self.start(Operation::Discard, slot, key, len);
    }

    fn watch_readable(&mut self, slot: Slot, key: Key) {
        self.start(Operation::Readable, slot, key, 0);
    }

    fn await_writable(&mut self, slot: Slot, key: Key) {
        self.start(Operation::Writable, slot, key, 0);
    }

    fn cancel(&mut self, operation: Operation, key: Key) {
        let is_it = |pending: &Pending| pending.operation == operation && pending.key == key;
        let errno = match self.pending.iter().position(is_it) {
            // It is in the middle of an event, or somewhere that the search does not look, and lives on.
            Some(_) if self.strikes(3) => Some(ALREADY),
            Some(_) if self.strikes(6) => Some(NOT_FOUND),
            Some(at) => {
                self.end_pending(at, Some(CANCELED));
                None
            }
            None => Some(NOT_FOUND),
        };
        let times = 1 + u32::from(self.strikes(20));
        for _ in 0..times {
            let result = errno.map_or(Ok(()), error);
            let lane = (key.bits(), 100 + operation as u8);
            self.end(lane, Event::Cancelled { key, operation, result });
        }
    }

    fn close(&mut self, slot: Slot, key: Key) {
        let result = self.slots.remove(&slot).map(|_| ()).ok_or(io::Error::from_raw_os_error(9));
        assert!(result.is_ok(), "slot {slot} is closed once");
        self.end((key.bits(), 98), Event::Closed { key, result });
    }

    fn send_slot(&mut self, _: Slot, (): (), _: Key, _: Key) {
        unreachable!("one shard moves nobody")
    }

    fn install(&mut self, _: Slot, key: Key) {
        let fd = if self.strikes(2) {
            error(24)
        } else {
            std::os::unix::net::UnixStream::pair().map(|(end, _)| end.into())
        };
        self.end((key.bits(), 97), Event::Installed { key, fd });
    }

    fn send_all<'a>(
        &mut self,
        sends: impl Iterator<Item = (Slot, Outgoing<'a>)>,
        failures: &mut Vec<(u32, io::Result<usize>)>,
    ) {
        for (index, (slot, bytes)) in sends.enumerate() {
            assert!(self.slots.contains_key(&slot), "a send to a socket that is closed");
            let result = match self.random.below(12) {
                0 => Ok(self.random.below(bytes.len() as u32) as usize),
                1 => error(AGAIN),
                2 => error(RESET),
                3 if self.random.below(4) == 0 => error(NO_BUFFERS),
                _ => continue,
            };
            failures.push((index as u32, result));
        }
    }

    fn bytes(&mut self, buffer: &Taken) -> &mut [u8] {
        self.buffers.get_mut(&buffer.id).expect("a buffer is read before it is given back")
    }

    fn len(buffer: &Taken) -> usize {
        buffer.len
    }

    fn recycle(&mut self, buffer: Taken) {
        assert!(self.buffers.remove(&buffer.id).is_some(), "a buffer is given back once");
    }

    fn buffer_bytes(&self) -> usize {
        BUFFER_BYTES
    }

    fn turn(&mut self, events: &mut Vec<Event<Taken>>, max: usize) {
        self.happen();
        for _ in 0..max {
            let lanes: Vec<(u64, u8)> = self.ended.keys().copied().collect();
            // Some stay for a later turn.
            if lanes.is_empty() || self.strikes(9) {
                return;
            }
            let lane = lanes[self.random.below(lanes.len() as u32) as usize];
            let queue = self.ended.get_mut(&lane).expect("just listed");
            let event = queue.pop_front().expect("no queue is empty");
            if queue.is_empty() {
                self.ended.remove(&lane);
            }
            if let Event::Accepted { slot: Ok(slot), .. } = &event {
                self.seen.push(self.slots[slot]);
            }
            events.push(event);
        }
    }

    fn submit(&mut self) {}

    fn set_timer(&mut self, _: Duration) {}

    fn has_work(&mut self) -> bool {
        true
    }

    fn mute(&mut self) {}

    fn unmute(&mut self) {}

    fn submits(&self) -> u64 {
        0
    }

    fn overflows(&self) -> u64 {
        0
    }
}

/// A shard over the double, and who takes its plain HTTP.
fn shard_over(double: Double) -> (Driver<Double>, mpsc::Receiver<Handover>) {
    let (handovers, taker) = mpsc::channel(4);
    let wake = Wake::new().expect("an eventfd");
    let link = || Arc::clone(&crate::shard::queue::mesh_of(1, 16)[0][0]);
    let limits = Limits {
        close_ms_max: 1_000,
        handshake_ms_max: 2_000,
        keepalive_ms: 3_000,
        ..Limits::default()
    };
    let start = Start {
        shard: 0,
        cpu: 0,
        node_name: "double".to_owned(),
        limits,
        stalls_after: None,
        panics_after: None,
        conformance_echo: false,
        slots_per_ring: 60,
        listeners: vec![TcpListener::bind("127.0.0.1:0").expect("a port")],
        has_ended_accepting: Arc::default(),
        jobs: Arc::new(ArrayQueue::new(1)),
        handovers,
        node: Arc::default(),
        inbox: vec![link()],
        outbox: vec![link()],
        started: Instant::now(),
    };
    let door = Door { address: (), free: 0.into() };
    let neighbour = Neighbour { doors: vec![door], waker: wake.waker() };
    (Driver::new(start, vec![double], wake, Arc::new(vec![neighbour])), taker)
}

/// A turn, this much later than the last.
fn turn_after(driver: &mut Driver<Double>, time: Duration) {
    driver.started = driver.started.checked_sub(time).expect("the host is up for that long");
    driver.turn();
}

#[test]
fn whatever_the_kernel_answers_no_slot_is_lost_and_none_is_freed_early() {
    let (mut closed, mut refused) = (0, 0);
    for seed in 0..40 {
        let (mut driver, _handovers) = shard_over(Double::new(seed));
        for step in 0..400 {
            turn_after(&mut driver, Duration::from_millis(30));
            // What has been taken out of the ring and not been handled yet is in neither book.
            if driver.input.has_taken() {
                continue;
            }
            let (_, used) = driver.sockets.slots();
            let alive = driver.sockets.rings[0].alive();
            assert!(used >= alive as u64, "seed {seed} step {step}: {alive} live in {used} slots");
        }
        driver.sockets.rings[0].is_calm = true;
        let mut turns = 0;
        while driver.sockets.slots().1 > 0 || driver.sockets.closing() > 0 {
            turn_after(&mut driver, Duration::from_millis(100));
            turns += 1;
            assert!(turns < 2_000, "seed {seed}: never free: {:?}", driver.sockets.closing);
        }
        let ring = &driver.sockets.rings[0];
        assert_eq!((ring.alive(), ring.polls(), driver.sockets.polls), (0, 0, 0), "seed {seed}");
        assert!(ring.buffers.is_empty(), "seed {seed}: a buffer is never given back");
        assert_eq!(driver.node.connections.load(Relaxed), 0, "seed {seed}");
        driver.engine.check();
        closed += ring.seen.len();
        refused += driver.sockets.books.counts()[1];
    }
    assert!(closed > 800 && refused > 30, "the seeds reach too little: {closed}, {refused}");
}
