//! What receiving costs: this tool's way beside a good epoll client's, in one run.
//!
//! Receivers read the same frames from the same number of sockets, sent by the same plain
//! writer, and do the same reading of frames and markers. One waits with epoll and calls
//! `recv` into one large buffer; the others go a plane's way: multishot receives into
//! provided buffers, on direct descriptors, once waking for every arrival and once with the naps that
//! a plane takes when it is busy. Rounds alternate, so that a change in the machine's mood meets all.
//! Reported is the receivers' CPU time for each frame.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use glommio::{LocalExecutorBuilder, Placement};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use uproar_ring::{Event, Key, Ring, RingConfig, Wake};

use crate::clock::thread_cpu_us;
use crate::crew::PREEMPT;
use crate::marker::Marker;
use crate::plane::{BUFFER_BYTES, BUFFERS, EVENTS_PER_TURN, NAP, NAP_EVENTS_MIN};
use crate::run::pin;
use crate::wire::frame::{TEXT, next_frame};
use crate::wire::{Dialect, Reader};

/// Sockets of each receiver: several thousand, as caches matter, within 20,000 descriptors.
const SOCKETS: usize = 3_000;
/// Rounds of one frame a socket, each receiver.
const ROUNDS: usize = 40;
const COMMENT_BYTES: usize = 200;

/// CPU time for each received frame, in microseconds: median of the rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floor {
    pub(crate) epoll_us: f64,
    /// This tool's way, woken by every arrival.
    pub(crate) woken_us: f64,
    /// This tool's way when it is busy.
    pub(crate) busy_us: f64,
}

/// Measures all: receivers on `cpu`, the writer on the calling thread.
pub(crate) fn measure(cpu: usize) -> io::Result<Floor> {
    let mut epoll_side = Side::start(move |sockets, rounds| {
        pin(&[cpu])?;
        receive_by_epoll(sockets, &rounds)
    })?;
    let mut woken_side = ring_side(cpu, false)?;
    let mut busy_side = ring_side(cpu, true)?;
    for _ in 0..ROUNDS {
        epoll_side.round()?;
        woken_side.round()?;
        busy_side.round()?;
    }
    Ok(Floor {
        epoll_us: epoll_side.finish()?,
        woken_us: woken_side.finish()?,
        busy_us: busy_side.finish()?,
    })
}

fn ring_side(cpu: usize, naps: bool) -> io::Result<Side> {
    Side::start(move |sockets, rounds| {
        let executor = LocalExecutorBuilder::new(Placement::Fixed(cpu)).preempt_timer(PREEMPT);
        let done = executor.spawn(move || receive_by_ring(sockets, rounds, naps));
        let done = done.and_then(glommio::ExecutorJoinHandle::join);
        done.map_err(|error| io::Error::other(error.to_string()))?
    })
}

/// How a receiver learns of rounds and answers with the CPU time of each.
#[derive(Debug)]
struct Rounds {
    begun: Receiver<()>,
    cpu_us: Sender<u64>,
}

/// A receiver's thread and the writer's ends of its sockets.
#[derive(Debug)]
struct Side {
    writers: Vec<TcpStream>,
    begin: Sender<()>,
    cpu_us: Receiver<u64>,
    rounds_us: Vec<u64>,
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
        Ok(Self { writers, begin, cpu_us, rounds_us: Vec::new(), thread, frame: comment_frame() })
    }

    /// One frame to every socket, while the receiver reads.
    fn round(&mut self) -> io::Result<()> {
        const ENDED: &str = "the receiver has ended";
        self.begin.send(()).map_err(|_| io::Error::other(ENDED))?;
        for writer in &mut self.writers {
            writer.write_all(&self.frame)?;
        }
        self.rounds_us.push(self.cpu_us.recv().map_err(|_| io::Error::other(ENDED))?);
        Ok(())
    }

    /// The median round, a frame.
    fn finish(mut self) -> io::Result<f64> {
        drop(self.begin);
        self.thread.join().map_err(|_| io::Error::other("the receiver panicked"))??;
        self.rounds_us.sort_unstable();
        Ok(self.rounds_us[self.rounds_us.len() / 2] as f64 / SOCKETS as f64)
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
    let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_PER_TURN);
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

async fn receive_by_ring(sockets: Vec<TcpStream>, rounds: Rounds, naps: bool) -> io::Result<()> {
    let wake = Wake::new()?;
    let config = RingConfig { slots: SOCKETS as u32, buffers: BUFFERS, buffer_bytes: BUFFER_BYTES };
    let mut ring = Ring::new(config, &wake)?;
    for (socket, slot) in sockets.into_iter().zip(0u32..) {
        ring.adopt(slot, socket)?;
        ring.read_many(slot, Key::new(slot.into()));
    }
    ring.submit();
    let (dialect, mut reader) = (Dialect::Json, Reader::new(COMMENT_BYTES));
    let mut events = Vec::new();
    while rounds.begun.recv().is_ok() {
        let begun_us = thread_cpu_us();
        let mut received = 0;
        while received < SOCKETS as u64 {
            ring.mute();
            ring.turn(&mut events, EVENTS_PER_TURN);
            if naps && (1..NAP_EVENTS_MIN).contains(&events.len()) {
                thread::sleep(NAP);
            }
            if events.is_empty() {
                ring.unmute();
                if !ring.has_work() {
                    wake.sleep_thread()?;
                }
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
