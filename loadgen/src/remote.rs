//! Planes on other hosts: a worker there, a port to it here, JSON lines between them.
//!
//! Every host has its own monotonic clock. Before a run the coordinator reads each worker's
//! clock [`CLOCK_ROUNDS`] times; the round with the shortest way there and back places the
//! worker's reading in the middle of it, so the offset is wrong by at most half that way. The
//! worker's planes add the offset, and all due instants are the coordinator's. Clocks drift, so they are read
//! again every [`CLOCK_EVERY`] while the run goes on; how far off the last offset was by then is in the bound.
//!
//! A coordinator that is alive says something every second. A worker that hears nothing stops its planes:
//! the coordinator's host may be gone without the line having ended.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::clock::now_ns;
use crate::command::{Answer, Command};
use crate::crew::Crew;
use crate::plane::PlanePort;
use crate::say;
use crate::scenario::Parameters;

/// Readings of a worker's clock; the best counts.
const CLOCK_ROUNDS: u32 = 64;
/// While a run goes on a clock is read this often, in fewer rounds.
const CLOCK_EVERY: Duration = Duration::from_secs(5);
const CLOCK_ROUNDS_AGAIN: u32 = 16;
/// A reading this much worse than the best is passed over, but not for longer than [`CLOCK_STALE`].
const CLOCK_WORSE_MAX: u64 = 4;
const CLOCK_STALE: Duration = Duration::from_secs(30);
/// A coordinator says something this often.
const BEAT: Duration = Duration::from_secs(1);
/// A coordinator whose planes run here and that says nothing for this long is gone.
const BEAT_PATIENCE: Duration = Duration::from_secs(5);
/// A worker that says nothing for this long is gone.
const PATIENCE: Duration = Duration::from_secs(30);
/// A worker that is free greets at once; it is waited for this long.
const GREETING: Duration = Duration::from_secs(5);
/// A greeting is a short line; whoever sends more before its end is no worker, in bytes.
const GREETING_BYTES_MAX: u64 = 256;

const _: () = {
    assert!(GREETING.as_nanos() < PATIENCE.as_nanos());
    assert!(BEAT.as_nanos() * 3 < BEAT_PATIENCE.as_nanos());
};

/// What a worker must know to start its planes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) parameters: Parameters,
    pub(crate) target: SocketAddr,
    pub(crate) run: u16,
    /// The number of the worker's first plane, and of all planes on all hosts.
    pub(crate) first_share: u32,
    pub(crate) shares: u32,
    /// Coordinator's clock minus the worker's, in nanoseconds.
    pub(crate) clock_offset_ns: i64,
}

#[derive(Debug, Serialize, Deserialize)]
enum ToWorker {
    Clock,
    Setup(Box<Setup>),
    Command(Command),
    /// Nothing but that the coordinator is there.
    Beat,
}

#[derive(Debug, Serialize, Deserialize)]
enum FromWorker {
    Hello { planes: u32 },
    Clock { now_ns: u64 },
    Ready,
    Failed(String),
    Answer(Answer),
}

/// One end of the line.
#[derive(Debug)]
struct Wire {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl Wire {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { writer: stream.try_clone()?, reader: BufReader::new(stream) })
    }

    fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(message).map_err(io::Error::other)?;
        line.push(b'\n');
        self.writer.write_all(&line)
    }

    fn receive<T: for<'de> Deserialize<'de>>(&mut self) -> io::Result<T> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_str(&line).map_err(io::Error::other)
    }

    /// A worker's first line: how many planes it lends.
    fn greeting(&mut self) -> Result<u32, String> {
        let mut line = Vec::new();
        let read = (&mut self.reader).take(GREETING_BYTES_MAX).read_until(b'\n', &mut line);
        if read.is_err() || line.is_empty() {
            return Err(format!(
                "did not greet within {} s; check that it is not busy with another coordinator, \
                 and that a worker listens there",
                GREETING.as_secs()
            ));
        }
        match serde_json::from_slice(&line) {
            Ok(FromWorker::Hello { planes }) => Ok(planes),
            _ => {
                Err("is no worker of this version; check the address, and what runs there"
                    .to_owned())
            }
        }
    }
}

/// Serves one coordinator after another; `start` makes the planes of a setup.
pub(crate) fn work(
    listen: SocketAddr,
    planes: u32,
    start: impl Fn(&Setup) -> Result<Crew, String>,
) -> io::Result<()> {
    let listener = TcpListener::bind(listen)?;
    say::line(&listener.local_addr()?.to_string());
    loop {
        let (stream, peer) = listener.accept()?;
        say::note(&format!("coordinator {peer}\n"));
        if let Err(error) = Wire::new(stream).and_then(|wire| serve(wire, planes, &start)) {
            say::note(&format!("coordinator {peer}: {error}\n"));
        }
    }
}

fn serve(
    mut wire: Wire,
    planes: u32,
    start: &impl Fn(&Setup) -> Result<Crew, String>,
) -> io::Result<()> {
    wire.send(&FromWorker::Hello { planes })?;
    let mut crew: Option<Crew> = None;
    loop {
        match wire.receive().map_err(|error| explain_silence(error, crew.is_some()))? {
            ToWorker::Beat => {}
            ToWorker::Clock => wire.send(&FromWorker::Clock { now_ns: now_ns() })?,
            ToWorker::Setup(setup) => match start(&setup) {
                Ok(started) => {
                    crew = Some(started);
                    wire.send(&FromWorker::Ready)?;
                    wire.writer.set_read_timeout(Some(BEAT_PATIENCE))?;
                }
                Err(text) => wire.send(&FromWorker::Failed(text))?,
            },
            ToWorker::Command(Command::Quit) => return Ok(()),
            ToWorker::Command(command) => {
                let crew = crew.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
                if command.is_answered() {
                    let answer = crew.ask(&command).map_err(io::Error::other)?;
                    wire.send(&FromWorker::Answer(answer))?;
                } else {
                    crew.tell(&command);
                }
            }
        }
    }
}

/// A line that ended, or on which nothing came for too long.
fn explain_silence(error: io::Error, has_planes: bool) -> io::Error {
    let stopped = if has_planes { "; its planes are stopped" } else { "" };
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => io::Error::other(format!(
            "it has said nothing for {} s{stopped}",
            BEAT_PATIENCE.as_secs()
        )),
        io::ErrorKind::UnexpectedEof => io::Error::other(format!("it went away{stopped}")),
        _ => error,
    }
}

/// How well the clocks of all workers are known, over the whole run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clocks(Arc<ClockBound>);

#[derive(Debug, Default)]
struct ClockBound {
    /// The most that any offset in use has been wrong by, in nanoseconds.
    error_ns: AtomicU64,
    readings: AtomicU64,
}

impl Clocks {
    fn note(&self, error_ns: u64) {
        self.0.error_ns.fetch_max(error_ns, Ordering::Relaxed);
        self.0.readings.fetch_add(1, Ordering::Relaxed);
    }

    /// A sentence for the report.
    pub(crate) fn describe(&self, planes: u32, workers: usize) -> String {
        format!(
            "the coordinator's CLOCK_MONOTONIC; {planes} planes on {workers} workers, whose clocks were placed in the \
             middle of the shortest of {CLOCK_ROUNDS} round trips, and of {CLOCK_ROUNDS_AGAIN} every {} s of the run ({} readings in \
             all): wrong by at most {:.1} us at any time, drift included",
            CLOCK_EVERY.as_secs(),
            self.0.readings.load(Ordering::Relaxed),
            self.0.error_ns.load(Ordering::Relaxed) as f64 / 1e3
        )
    }
}

/// One worker's clock.
#[derive(Debug)]
struct WorkerClock {
    offset_ns: i64,
    /// The best reading's error.
    best_ns: u64,
    read: Instant,
    tried: Instant,
}

impl WorkerClock {
    fn new((offset_ns, error_ns): (i64, u64)) -> Self {
        Self { offset_ns, best_ns: error_ns, read: Instant::now(), tried: Instant::now() }
    }

    /// Takes another reading in. The new offset, and how far off the old one may have been; none for a bad reading.
    fn adjust(&mut self, (offset_ns, error_ns): (i64, u64)) -> Option<(i64, u64)> {
        self.tried = Instant::now();
        let is_bad = error_ns > self.best_ns.max(1_000) * CLOCK_WORSE_MAX;
        if is_bad && self.read.elapsed() < CLOCK_STALE {
            return None;
        }
        let off_ns = offset_ns.abs_diff(self.offset_ns) + error_ns;
        self.read = self.tried;
        self.best_ns = self.best_ns.min(error_ns);
        self.offset_ns = offset_ns;
        Some((offset_ns, off_ns))
    }

    fn is_due(&self) -> bool {
        self.tried.elapsed() >= CLOCK_EVERY
    }
}

/// Connected workers.
#[derive(Debug)]
pub(crate) struct Workers {
    pub(crate) ports: Vec<PlanePort>,
    pub(crate) clocks: Clocks,
    /// Whether all workers run on this host.
    pub(crate) are_local: bool,
    pub(crate) planes: u32,
}

/// Workers that have greeted and wait for their setup.
#[derive(Debug)]
pub(crate) struct Called(Vec<(String, Wire, u32)>);

/// Connects to `addresses`; quick to say what is wrong with one.
pub(crate) fn call(addresses: &[String]) -> Result<Called, String> {
    let resolved = resolve(addresses)?;
    let called = addresses.iter().zip(resolved).map(|(address, socket)| {
        let (wire, planes) = hello(socket).map_err(|text| format!("worker {address} {text}"))?;
        Ok((address.clone(), wire, planes))
    });
    called.collect::<Result<_, String>>().map(Called)
}

/// Sets every worker up; `setup` holds what is the same for all.
pub(crate) fn enlist(Called(called): Called, setup: &Setup) -> Result<Workers, String> {
    let shares: u32 = called.iter().map(|(_, _, planes)| planes).sum();
    let clocks = Clocks::default();
    let mut workers = Workers { ports: Vec::new(), clocks, are_local: true, planes: shares };
    let mut first_share = 0;
    for (address, mut wire, planes) in called {
        let failed = |error: io::Error| format!("worker {address}: {error}");
        let reading = clock_offset(&mut wire, CLOCK_ROUNDS).map_err(failed)?;
        let clock_offset_ns = reading.0;
        workers.clocks.note(reading.1);
        workers.are_local &= wire.writer.peer_addr().is_ok_and(|peer| peer.ip().is_loopback());
        let setup = Setup { first_share, shares, clock_offset_ns, ..setup.clone() };
        wire.send(&ToWorker::Setup(Box::new(setup))).map_err(failed)?;
        match wire.receive().map_err(failed)? {
            FromWorker::Ready => {}
            FromWorker::Failed(text) => return Err(format!("worker {address}: {text}")),
            other => return Err(format!("worker {address} answered {other:?}")),
        }
        first_share += planes;
        let clocks = workers.clocks.clone();
        workers.ports.push(port(&address, wire, WorkerClock::new(reading), clocks));
    }
    Ok(workers)
}

/// The workers' addresses, each once: a worker serves one coordinator, so its second line would wait for the first.
fn resolve(addresses: &[String]) -> Result<Vec<SocketAddr>, String> {
    let mut resolved = Vec::new();
    for address in addresses {
        let sockets = address.to_socket_addrs();
        let socket = sockets.map(|mut sockets| sockets.next()).unwrap_or_default();
        let socket = socket.ok_or_else(|| {
            format!("worker {address:?} is not a host and port that can be found; check --workers")
        })?;
        if resolved.contains(&socket) {
            return Err(format!("worker {address} is named twice; check --workers"));
        }
        resolved.push(socket);
    }
    Ok(resolved)
}

/// Connects to a worker and hears how many planes it lends; errors follow the worker's name.
fn hello(address: SocketAddr) -> Result<(Wire, u32), String> {
    let stream = TcpStream::connect_timeout(&address, GREETING).map_err(|error| {
        format!("cannot be reached; check that it runs and listens there: {error}")
    })?;
    let broken = |error: io::Error| format!("greeted, but the line to it broke: {error}");
    stream.set_read_timeout(Some(GREETING)).map_err(broken)?;
    let mut wire = Wire::new(stream).map_err(broken)?;
    let planes = wire.greeting()?;
    wire.writer.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
    Ok((wire, planes))
}

/// Our clock minus the worker's, and by how much that may be wrong.
fn clock_offset(wire: &mut Wire, rounds: u32) -> io::Result<(i64, u64)> {
    let mut best = (0, u64::MAX);
    for _ in 0..rounds {
        let before = now_ns();
        wire.send(&ToWorker::Clock)?;
        let FromWorker::Clock { now_ns: theirs } = wire.receive()? else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let way_ns = now_ns() - before;
        if way_ns / 2 < best.1 {
            best = ((before + way_ns / 2) as i64 - theirs as i64, way_ns / 2);
        }
    }
    Ok(best)
}

/// A port whose commands go over the wire; a thread carries them, and beats while there are none.
fn port(address: &str, mut wire: Wire, mut clock: WorkerClock, clocks: Clocks) -> PlanePort {
    let (commands, inbox) = channel::<Command>();
    let (outbox, answers) = channel();
    std::thread::spawn(move || {
        // However the line breaks, the conductor learns of a lost worker by the missing answer.
        let _ = carry(&mut wire, &inbox, &outbox, &mut clock, &clocks);
    });
    PlanePort { name: format!("worker {address}"), commands, answers, waker: None }
}

/// Carries commands and answers until the run is over.
fn carry(
    wire: &mut Wire,
    inbox: &Receiver<Command>,
    outbox: &Sender<Answer>,
    clock: &mut WorkerClock,
    clocks: &Clocks,
) -> io::Result<()> {
    loop {
        match inbox.recv_timeout(BEAT) {
            Ok(Command::Quit) => return wire.send(&ToWorker::Command(Command::Quit)),
            Ok(command) => {
                let is_answered = command.is_answered();
                wire.send(&ToWorker::Command(command))?;
                if is_answered {
                    let FromWorker::Answer(answer) = wire.receive()? else {
                        return Err(io::ErrorKind::InvalidData.into());
                    };
                    outbox.send(answer).map_err(io::Error::other)?;
                }
            }
            Err(RecvTimeoutError::Timeout) => wire.send(&ToWorker::Beat)?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        if clock.is_due()
            && let Some((ns, off_ns)) = clock.adjust(clock_offset(wire, CLOCK_ROUNDS_AGAIN)?)
        {
            clocks.note(off_ns);
            wire.send(&ToWorker::Command(Command::ClockOffset { ns }))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_drifts_is_followed_and_the_bound_says_how_far_it_was_off() {
        let clocks = Clocks::default();
        let mut clock = WorkerClock::new((1_000_000, 20_000));
        clocks.note(20_000);
        // 36 ms in an hour, of which a run's first reading knows nothing.
        for (reading, adopted) in [
            ((1_030_000, 25_000), Some((1_030_000, 55_000))),
            ((5_000_000, 900_000), None),
            ((37_000_000, 30_000), Some((37_000_000, 36_000_000))),
        ] {
            assert_eq!(clock.adjust(reading), adopted);
            adopted.into_iter().for_each(|(_, off_ns)| clocks.note(off_ns));
        }
        let text = clocks.describe(4, 2);
        assert!(
            text.contains("4 planes on 2 workers") && text.contains("(3 readings in all)"),
            "{text}"
        );
        assert!(text.contains("wrong by at most 36000.0 us at any time"), "{text}");
    }

    #[test]
    fn a_port_reads_the_clock_again_and_beats() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // A worker whose clock runs away, as seen from its line.
        let worker = std::thread::spawn(move || {
            let mut wire = Wire::new(listener.accept().unwrap().0).unwrap();
            let (mut beats, mut offsets, mut readings) = (0, Vec::new(), 0u64);
            while beats < 3 || offsets.is_empty() {
                match wire.receive().unwrap() {
                    ToWorker::Clock => {
                        readings += 1;
                        wire.send(&FromWorker::Clock { now_ns: now_ns() + 7_000_000 }).unwrap();
                    }
                    ToWorker::Command(Command::ClockOffset { ns }) => offsets.push(ns),
                    ToWorker::Beat => beats += 1,
                    other => panic!("{other:?}"),
                }
            }
            (beats, offsets, readings)
        });
        let wire = Wire::new(TcpStream::connect(address).unwrap()).unwrap();
        let clocks = Clocks::default();
        let port = port("w", wire, WorkerClock::new((0, 1_000_000)), clocks.clone());
        let (beats, offsets, readings) = worker.join().unwrap();
        assert!(beats >= 3 && readings == u64::from(CLOCK_ROUNDS_AGAIN), "{beats} {readings}");
        assert!((-7_100_000..-6_900_000).contains(&offsets[0]), "{offsets:?}");
        assert!(clocks.0.error_ns.load(Ordering::Relaxed) >= 6_900_000);
        drop(port);
    }

    #[test]
    fn a_worker_is_named_once() {
        let resolve =
            |names: &[&str]| resolve(&names.iter().map(|&n| n.into()).collect::<Vec<_>>());
        assert_eq!(resolve(&["127.0.0.1:1", "127.0.0.1:2"]).unwrap().len(), 2);
        let twice = resolve(&["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:1"]).unwrap_err();
        assert_eq!(twice, "worker 127.0.0.1:1 is named twice; check --workers");
        assert!(resolve(&["no port"]).unwrap_err().contains("check --workers"));
    }

    #[test]
    fn who_is_no_worker_is_told_apart_from_one_that_is_busy() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let greet = |line: &'static [u8]| {
            std::thread::scope(|scope| {
                // The line stays open while the other end reads.
                let peer = scope.spawn(|| {
                    let (mut stream, _) = listener.accept().unwrap();
                    stream.write_all(line).unwrap();
                    stream
                });
                let heard = hello(address).map(|(_, planes)| planes);
                drop(peer.join().unwrap());
                heard
            })
        };
        assert_eq!(greet(b"{\"Hello\":{\"planes\":3}}\n"), Ok(3));
        assert!(greet(b"HTTP/1.1 408 Request Timeout\r\n\r\n").unwrap_err().contains("no worker"));
        assert!(greet(&[b'x'; 1_000]).unwrap_err().contains("no worker"));
        let begun = Instant::now();
        assert!(greet(b"").unwrap_err().contains("not busy with another coordinator"));
        assert!(begun.elapsed() < GREETING * 2);
    }
}
