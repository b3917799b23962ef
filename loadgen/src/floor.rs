//! What receiving costs: this tool's way beside a good epoll client's, in one run.
//!
//! Receivers read the same frames from the same number of sockets, sent by the same plain
//! writer, and do the same reading of frames and markers. One waits with epoll and calls
//! `recv` into one large buffer; the other goes a plane's way: multishot receives into provided
//! buffers, on direct descriptors, asleep in the ring while little comes and napping when busy.
//! Rounds alternate, so that a change in the machine's mood meets all. Reported is the receivers' CPU time
//! for each frame, under three loads, as what a wake costs and what reading costs are two things.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use glommio::{LocalExecutorBuilder, Placement};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use uproar_ring::{Event, Key, Ring, RingConfig, Wake};

use crate::clock::thread_cpu_us;
use crate::crew::PREEMPT;
use crate::marker::Marker;
use crate::pinning::pin;
use crate::plane::{BUFFER_BYTES, BUFFERS, EVENTS_PER_TURN, NAP_EVENTS_MIN};
use crate::scenario::Parameters;
use crate::wire::frame::{TEXT, next_frame};
use crate::wire::{Dialect, Reader};

/// Sockets of each receiver: several thousand, as caches matter, within 20,000 descriptors.
const SOCKETS: usize = 3_000;
/// Rounds of one frame a socket, each receiver and load.
const ROUNDS: usize = 15;
const COMMENT_BYTES: usize = 200;
/// What one `epoll_wait` may return; more would not help it.
const EPOLL_EVENTS: usize = 256;
/// Between two frames that come alone: a receiver has read one and sleeps before the next.
const SPACE: Duration = Duration::from_micros(60);

/// How the frames of a round come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// One by one: each wakes the receiver.
    Alone,
    /// As fast as one thread can write: the receiver is as busy as the writer.
    Stream,
    /// All have come before the receiver looks.
    Standing,
}

impl Load {
    pub(crate) const ALL: [Self; 3] = [Self::Alone, Self::Stream, Self::Standing];

    /// As the report calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Stream => "stream",
            Self::Standing => "standing",
        }
    }
}

/// CPU time for each received frame under one load, in microseconds: medians of the rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floor {
    pub(crate) load: Load,
    pub(crate) epoll_us: f64,
    pub(crate) loadgen_us: f64,
}

impl Floor {
    /// This tool's cost as a share of epoll's.
    pub(crate) fn ratio(&self) -> f64 {
        self.loadgen_us / self.epoll_us
    }
}

/// Measures both under every load: receivers on `cpu`, the writer on the calling thread.
pub(crate) fn measure(cpu: usize) -> io::Result<Vec<Floor>> {
    let mut epoll = Side::start(move |sockets, rounds| {
        pin(&[cpu]).map_err(io::Error::other)?;
        receive_by_epoll(sockets, &rounds)
    })?;
    let mut loadgen = Side::start(move |sockets, rounds| {
        let executor = LocalExecutorBuilder::new(Placement::Fixed(cpu)).preempt_timer(PREEMPT);
        let done = executor.spawn(move || receive_by_ring(sockets, rounds));
        let done = done.and_then(glommio::ExecutorJoinHandle::join);
        done.map_err(|error| io::Error::other(error.to_string()))?
    })?;
    let floors = Load::ALL.map(|load| -> io::Result<Floor> {
        let (mut by_epoll, mut by_loadgen) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            by_epoll.push(epoll.round(load)?);
            by_loadgen.push(loadgen.round(load)?);
        }
        Ok(Floor { load, epoll_us: median(by_epoll), loadgen_us: median(by_loadgen) })
    });
    epoll.finish()?;
    loadgen.finish()?;
    floors.into_iter().collect()
}

/// The median of rounds, a frame.
fn median(mut rounds_us: Vec<u64>) -> f64 {
    rounds_us.sort_unstable();
    rounds_us[rounds_us.len() / 2] as f64 / SOCKETS as f64
}

/// How a receiver learns of rounds and answers with the CPU time of each.
#[derive(Debug)]
struct Rounds {
    begun: Receiver<Load>,
    cpu_us: Sender<u64>,
}

/// A receiver's thread and the writer's ends of its sockets.
#[derive(Debug)]
struct Side {
    writers: Vec<TcpStream>,
    begin: Sender<Load>,
    cpu_us: Receiver<u64>,
    thread: thread::JoinHandle<io::Result<()>>,
    frame: Vec<u8>,
}

impl Side {
    fn start(
        receive: impl FnOnce(Vec<TcpStream>, Rounds) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let target = listener.local_addr()?;
        let mut writers = Vec::with_capacity(SOCKETS);
        let mut readers = Vec::with_capacity(SOCKETS);
        for _ in 0..SOCKETS {
            let reader = TcpStream::connect(target)?;
            reader.set_nonblocking(true)?;
            readers.push(reader);
            let (writer, _) = listener.accept()?;
            writer.set_nodelay(true)?;
            writers.push(writer);
        }
        let (begin, begun) = channel();
        let (cpu_sent, cpu_us) = channel();
        let rounds = Rounds { begun, cpu_us: cpu_sent };
        let thread = thread::spawn(move || receive(readers, rounds));
        Ok(Self { writers, begin, cpu_us, thread, frame: comment_frame() })
    }

    /// One frame to every socket; the receiver's CPU time.
    fn round(&mut self, load: Load) -> io::Result<u64> {
        const ENDED: &str = "the receiver has ended";
        if load != Load::Standing {
            self.begin.send(load).map_err(|_| io::Error::other(ENDED))?;
        }
        for writer in &mut self.writers {
            if load == Load::Alone {
                // Spinning, as a sleep of the writer would let the receiver's CPU rest longer.
                let begun = Instant::now();
                while begun.elapsed() < SPACE {
                    std::hint::spin_loop();
                }
            }
            writer.write_all(&self.frame)?;
        }
        if load == Load::Standing {
            self.begin.send(load).map_err(|_| io::Error::other(ENDED))?;
        }
        self.cpu_us.recv().map_err(|_| io::Error::other(ENDED))
    }

    fn finish(self) -> io::Result<()> {
        drop(self.begin);
        self.thread.join().map_err(|_| io::Error::other("the receiver panicked"))?
    }
}

/// What a server sends for one comment.
fn comment_frame() -> Vec<u8> {
    let marker = Marker { run: 1, publisher: 2, sequence: 3, due_ns: 4 };
    let mut payload = br#"{"type":"comment","offset":12,"id":"01976543-2100-7567-aaf3-7bc048c0d234","time":1764000000000,"user":"v1","text":""#.to_vec();
    marker.write(COMMENT_BYTES, &mut payload);
    payload.extend_from_slice(br#""}"#);
    let mut frame = vec![0x81, 126];
    frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    frame.extend_from_slice(&payload);
    frame
}

/// Reads all whole frames; both receivers spend the same here.
fn read_frames(dialect: &Dialect, reader: &mut Reader, mut bytes: &[u8]) -> io::Result<u64> {
    let mut frames = 0;
    while let Some(frame) = next_frame(bytes).map_err(io::Error::other)? {
        std::hint::black_box(dialect.read(reader, TEXT, frame.payload).map_err(io::Error::other)?);
        bytes = &bytes[frame.frame_bytes..];
        frames += 1;
    }
    if bytes.is_empty() { Ok(frames) } else { Err(io::Error::other("a frame came in two reads")) }
}

fn receive_by_epoll(mut sockets: Vec<TcpStream>, rounds: &Rounds) -> io::Result<()> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (socket, i) in sockets.iter().zip(0u64..) {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&poll, socket.as_fd(), epoll::EventData::new_u64(i), flags)?;
    }
    let (dialect, mut reader) = (Dialect::Json, Reader::new(COMMENT_BYTES));
    let mut events: Vec<epoll::Event> = Vec::with_capacity(EPOLL_EVENTS);
    let mut buffer = vec![0; 64 * 1_024];
    while rounds.begun.recv().is_ok() {
        let begun_us = thread_cpu_us();
        let mut received = 0;
        while received < SOCKETS as u64 {
            events.clear();
            epoll::wait(&poll, spare_capacity(&mut events), None)?;
            for event in &events {
                let socket = &mut sockets[event.data.u64() as usize];
                // A short read has emptied the socket; another call would only say so.
                let bytes = socket.read(&mut buffer)?;
                received += read_frames(&dialect, &mut reader, &buffer[..bytes])?;
            }
        }
        if rounds.cpu_us.send(thread_cpu_us() - begun_us).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn receive_by_ring(sockets: Vec<TcpStream>, rounds: Rounds) -> io::Result<()> {
    let wake = Wake::new()?;
    let config = RingConfig { slots: SOCKETS as u32, buffers: BUFFERS, buffer_bytes: BUFFER_BYTES };
    let mut ring = Ring::new(config, &wake)?;
    for (socket, slot) in sockets.into_iter().zip(0u32..) {
        ring.adopt(slot, socket)?;
        ring.read_many(slot, Key::new(slot.into()));
    }
    ring.mute();
    ring.submit();
    let nap = Duration::from_micros(Parameters::default().nap_us.into());
    let (dialect, mut reader) = (Dialect::Json, Reader::new(COMMENT_BYTES));
    let mut events = Vec::new();
    while let Ok(load) = rounds.begun.recv() {
        let begun_us = thread_cpu_us();
        let mut received = 0;
        while received < SOCKETS as u64 {
            ring.turn(&mut events, EVENTS_PER_TURN);
            match events.len() {
                count if load == Load::Stream && count < NAP_EVENTS_MIN => thread::sleep(nap),
                0 => ring.sleep(),
                _ => {}
            }
            for event in events.drain(..) {
                let Event::ReadMany { key, result, armed } = event else { continue };
                if let Ok(Some(buffer)) = result {
                    received += read_frames(&dialect, &mut reader, ring.bytes(&buffer))?;
                    ring.recycle(buffer);
                }
                if !armed {
                    ring.read_many(key.bits() as u32, key);
                }
            }
        }
        if rounds.cpu_us.send(thread_cpu_us() - begun_us).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
