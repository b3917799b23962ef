//! A double of the kernel behind the rings of a node: every completion that it may give, with any error, in any
//! order. Each fault is counted where it is injected, so that a test can see that none is missing.
//!
//! The rings of a node share a [`Host`]: files have one number in all of them, and a socket that one ring sends to
//! another is in both tables at once, as it is in the kernel.
//!
//! Not here: the shards that run over it, and what must be true of them (`node`).

mod host;
mod node;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;

use uproar_engine::random::Random;
use uproar_ring::{Event, Key, Operation, Outgoing, Slot};

use self::host::{ACCEPT_ERRORS, Host, MOVE_ERRORS};
use crate::shard::kernel::Kernel;

const BUFFER_BYTES: usize = 256;
const REQUEST: &[u8] =
    b"GET /v1/events/e/live HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// A post, masked with zeros.
const POST: &[u8] = b"\x81\x9a\0\0\0\0{\"type\":\"post\",\"text\":\"x\"}";
const RESET: i32 = 104;
const CANCELED: i32 = 125;
const ALREADY: i32 = 114;
const NOT_FOUND: i32 = 2;
const BAD_FILE: i32 = 9;
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

/// A socket on its way to another ring.
#[derive(Debug)]
struct Sending {
    slot: Slot,
    to: usize,
    token: Key,
    key: Key,
}

/// A ring of the double.
#[derive(Debug)]
pub(super) struct Double {
    random: Random,
    /// Its place in the host's tables.
    number: usize,
    host: Rc<RefCell<Host>>,
    sending: Vec<Sending>,
    /// The tokens of sockets that were sent, until the shard knows.
    sent: BTreeMap<u64, u64>,
    /// How much each file's peer has said.
    said: BTreeMap<u32, u32>,
    /// Buffers that are out.
    buffers: BTreeMap<u32, Vec<u8>>,
    next_buffer: u32,
    pending: Vec<Pending>,
    lanes: Vec<u16>,
    /// Completions, each operation's in order; between them there is none.
    ended: BTreeMap<(u64, u8), VecDeque<Event<Taken>>>,
    /// Files whose accept or arrival the shard has seen.
    pub(super) seen: Vec<u32>,
    pub(super) is_calm: bool,
}

impl Double {
    fn new(seed: u64, number: usize, host: &Rc<RefCell<Host>>) -> Self {
        Self {
            random: Random::new(seed),
            number,
            host: Rc::clone(host),
            sending: Vec::new(),
            sent: BTreeMap::new(),
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

    /// Files that the shard knows of and that a slot or an operation still refers to.
    pub(super) fn alive(&self) -> usize {
        let host = self.host.borrow();
        let is_known = |slot: &Slot| !host.unseen.contains(&(self.number, *slot));
        let table = host.tables[self.number].iter();
        let files = table.filter(|(slot, _)| is_known(slot)).map(|(_, file)| *file);
        files.chain(self.pending.iter().map(|pending| pending.file)).collect::<BTreeSet<_>>().len()
    }

    pub(super) fn polls(&self) -> usize {
        self.pending.iter().filter(|pending| pending.operation == Operation::Readable).count()
    }

    /// Whether the shard does not know yet what is there, or on its way to it.
    pub(super) fn has_unseen(&self) -> bool {
        !self.sending.is_empty() || !self.host.borrow().arriving[self.number].is_empty()
    }

    fn strikes(&mut self, n: u32) -> bool {
        !self.is_calm && self.random.below(n) == 0
    }

    fn count(&self, fault: &'static str) {
        self.host.borrow_mut().count(fault);
    }

    /// A fault happened, with this error.
    fn fault<T>(&self, fault: &'static str, errno: i32) -> io::Result<T> {
        self.count(fault);
        error(errno)
    }

    fn file_in(&self, slot: Slot) -> u32 {
        self.host.borrow().tables[self.number][&slot]
    }

    /// Whether an operation of `key` has not ended, or its end is not known.
    fn goes_on(&self, key: Key) -> bool {
        let reads = [Operation::Read, Operation::Discard, Operation::Readable, Operation::Writable];
        self.pending.iter().any(|pending| pending.key == key)
            || reads.iter().any(|read| self.ended.contains_key(&(key.bits(), *read as u8)))
    }

    fn end(&mut self, lane: (u64, u8), event: Event<Taken>) {
        self.ended.entry(lane).or_default().push_back(event);
    }

    fn start(&mut self, operation: Operation, slot: Slot, key: Key, len: u32) {
        let file = self.file_in(slot);
        self.pending.push(Pending { operation, key, file, len });
    }

    fn end_pending(&mut self, at: usize, errno: Option<i32>) {
        let Pending { operation, key, file, len } = self.pending.swap_remove(at);
        let lane = (key.bits(), operation as u8);
        let event = match (operation, errno) {
            (Operation::Readable, errno) => {
                if errno == Some(RESET) {
                    self.count("poll: fails");
                } else if errno.is_none() {
                    self.count("poll: ends by itself");
                }
                Event::Readable { key, armed: false, is_last: false, failed: errno.is_some() }
            }
            (Operation::Writable, _) => Event::Writable { key },
            (Operation::Discard, Some(errno)) => {
                if errno == RESET {
                    self.count("discard: ECONNRESET");
                }
                Event::Discarded { key, result: error(errno) }
            }
            (Operation::Discard, None) => {
                let len = self.random.below(len.min(9_000) + 1) as usize;
                Event::Discarded { key, result: Ok(len) }
            }
            (_, Some(errno)) => {
                if errno == RESET {
                    self.count("request: ECONNRESET");
                }
                Event::Read { key, result: error(errno) }
            }
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
            1 => return self.fault("read: ECONNRESET", RESET),
            2 => return self.fault("read: ENOBUFS", NO_BUFFERS),
            3 => vec![0x83, 0x80, 0, 0, 0, 0],
            4 => vec![0x88, 0x80, 0, 0, 0, 0],
            5 => b"GET /v1/events/e HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(),
            6 => vec![0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
            7 => vec![b'z'; BUFFER_BYTES],
            8 | 9 => POST.to_vec(),
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
                let (errno, fault) = ACCEPT_ERRORS[self.random.below(5) as usize];
                self.fault(fault, errno)
            } else {
                let mut host = self.host.borrow_mut();
                host.next_file += 1;
                let file = host.next_file;
                host.fill(self.number, file)
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
        self.move_sockets();
    }

    /// Sockets get into the tables of other rings, and those that came into this one's are told of.
    fn move_sockets(&mut self) {
        for at in (0..self.sending.len()).rev() {
            if self.strikes(3) {
                continue;
            }
            let Sending { slot, to, token, key } = self.sending.swap_remove(at);
            let file = self.file_in(slot);
            let result = if self.strikes(5) {
                let (errno, fault) = MOVE_ERRORS[self.random.below(4) as usize];
                self.fault(fault, errno)
            } else {
                self.sent.insert(key.bits(), token.bits());
                let mut host = self.host.borrow_mut();
                host.fill(to, file).map(|slot| host.arriving[to].push((token, slot)))
            };
            self.end((key.bits(), 96), Event::SlotSent { key, result });
        }
        let arriving = std::mem::take(&mut self.host.borrow_mut().arriving[self.number]);
        for (token, slot) in arriving {
            if self.strikes(2) {
                self.host.borrow_mut().arriving[self.number].push((token, slot));
            } else {
                self.end((token.bits(), 95), Event::Arrived { token, slot });
            }
        }
    }

    /// Notes in which order the completions of one connection are seen.
    fn note_order(&mut self, event: &Event<Taken>) {
        match event {
            Event::Cancelled { key, operation, result: Ok(()) } => {
                let lane = (key.bits(), *operation as u8);
                self.count(if self.ended.contains_key(&lane) {
                    "cancel: answered before the end of what it was for"
                } else {
                    "cancel: answered after the end of what it was for"
                });
            }
            Event::Closed { key, .. } if self.goes_on(*key) => {
                self.count("close: answered before the end of an operation");
            }
            Event::SlotSent { key, result } => {
                let token = self.sent.remove(&key.bits());
                if result.is_ok() {
                    self.host.borrow_mut().told.extend(token);
                }
            }
            Event::Arrived { token, .. } => {
                let is_told = self.host.borrow_mut().told.remove(&token.bits());
                self.count(if is_told {
                    "move: arrives after its sender knows"
                } else {
                    "move: arrives before its sender knows"
                });
            }
            _ => {}
        }
    }
}

impl Kernel for Double {
    type Buffer = Taken;
    type Address = usize;

    fn accept(&mut self, _: BorrowedFd<'_>, lane: u16) {
        self.lanes.push(lane);
    }

    fn read(&mut self, slot: Slot, key: Key) {
        self.start(Operation::Read, slot, key, 0);
    }

    fn read_now(&mut self, slot: Slot, key: Key) {
        let result = match self.random.below(4) {
            0 if !self.is_calm => self.fault("read: EAGAIN", AGAIN),
            _ => self.read_from(self.file_in(slot)),
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
            Some(_) if self.strikes(3) => {
                self.count("cancel: EALREADY, and it goes on");
                Some(ALREADY)
            }
            Some(_) if self.strikes(6) => {
                self.count("cancel: ENOENT, and it goes on");
                Some(NOT_FOUND)
            }
            Some(at) => {
                self.end_pending(at, Some(CANCELED));
                None
            }
            None => {
                self.count("cancel: ENOENT, as it has ended");
                Some(NOT_FOUND)
            }
        };
        let is_twice = self.strikes(20);
        if is_twice {
            self.count("cancel: answered twice");
        }
        for _ in 0..1 + u32::from(is_twice) {
            let result = errno.map_or(Ok(()), error);
            let lane = (key.bits(), 100 + operation as u8);
            self.end(lane, Event::Cancelled { key, operation, result });
        }
    }

    fn close(&mut self, slot: Slot, key: Key) {
        let file = self.host.borrow_mut().tables[self.number].remove(&slot);
        assert!(file.is_some(), "slot {slot} is closed once");
        self.end((key.bits(), 98), Event::Closed { key, result: Ok(()) });
    }

    fn reset(&mut self, slot: Slot, key: Key) {
        if self.strikes(6) {
            self.count("reset: EBADF");
            let error = io::Error::from_raw_os_error(BAD_FILE);
            self.end((key.bits(), 93), Event::NotReset { key, error });
        }
        self.close(slot, key);
    }

    fn ask_unsent(&mut self, slot: Slot, key: Key) {
        assert!(self.host.borrow().tables[self.number].contains_key(&slot), "it is not closed");
        let result = if self.strikes(2) {
            self.count("unsent: the peer has not taken everything");
            Ok(1 + self.random.below(9_000))
        } else if self.strikes(20) {
            self.fault("unsent: EBADF", BAD_FILE)
        } else {
            Ok(0)
        };
        self.end((key.bits(), 94), Event::Unsent { key, result });
    }

    fn send_slot(&mut self, slot: Slot, to: usize, token: Key, key: Key) {
        assert_ne!(to, self.number, "nobody moves to where it is");
        self.sending.push(Sending { slot, to, token, key });
    }

    fn install(&mut self, _: Slot, key: Key) {
        let fd = if self.strikes(2) {
            self.fault("install: EMFILE", 24)
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
            let is_open = self.host.borrow().tables[self.number].contains_key(&slot);
            assert!(is_open, "a send to a socket that is closed");
            let (fault, result) = match self.random.below(12) {
                0 => ("send: short", Ok(self.random.below(bytes.len() as u32) as usize)),
                1 => ("send: EAGAIN", error(AGAIN)),
                2 => ("send: ECONNRESET", error(RESET)),
                3 if self.random.below(4) == 0 => ("send: ENOBUFS", error(NO_BUFFERS)),
                _ => continue,
            };
            self.count(fault);
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
            if let Event::Accepted { slot: Ok(slot), .. } | Event::Arrived { slot, .. } = &event {
                self.host.borrow_mut().unseen.remove(&(self.number, *slot));
                self.seen.push(self.file_in(*slot));
            }
            self.note_order(&event);
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
