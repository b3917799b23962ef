//! Planes on other hosts: a worker there, a port to it here, JSON lines between them.
//!
//! Every host has its own monotonic clock. Before a run the coordinator reads each worker's
//! clock [`CLOCK_ROUNDS`] times; the round with the shortest way there and back places the
//! worker's reading in the middle of it, so the offset is wrong by at most half that way. The
//! worker's planes add the offset, and all due instants are the coordinator's.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::mpsc::channel;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::now_ns;
use crate::command::{Answer, Command};
use crate::crew::Crew;
use crate::plane::PlanePort;
use crate::scenario::Parameters;

/// Readings of a worker's clock; the best counts.
const CLOCK_ROUNDS: u32 = 64;
/// A worker that says nothing for this long is gone.
const PATIENCE: Duration = Duration::from_secs(30);
/// A worker that is free greets at once; it is waited for this long.
const GREETING: Duration = Duration::from_secs(5);
/// A greeting is a short line; whoever sends more before its end is no worker, in bytes.
const GREETING_BYTES_MAX: u64 = 256;

const _: () = assert!(GREETING.as_nanos() < PATIENCE.as_nanos());

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
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, peer) = listener.accept()?;
        eprintln!("coordinator {peer}");
        if let Err(error) = Wire::new(stream).and_then(|wire| serve(wire, planes, &start)) {
            eprintln!("coordinator {peer}: {error}");
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
        match wire.receive()? {
            ToWorker::Clock => wire.send(&FromWorker::Clock { now_ns: now_ns() })?,
            ToWorker::Setup(setup) => match start(&setup) {
                Ok(started) => {
                    crew = Some(started);
                    wire.send(&FromWorker::Ready)?;
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

/// Connected workers.
#[derive(Debug)]
pub(crate) struct Workers {
    pub(crate) ports: Vec<PlanePort>,
    /// The largest error of a clock offset, in nanoseconds.
    pub(crate) clock_error_ns: u64,
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
    let mut workers =
        Workers { ports: Vec::new(), clock_error_ns: 0, are_local: true, planes: shares };
    let mut first_share = 0;
    for (address, mut wire, planes) in called {
        let failed = |error: io::Error| format!("worker {address}: {error}");
        let (clock_offset_ns, error_ns) = clock_offset(&mut wire).map_err(failed)?;
        workers.clock_error_ns = workers.clock_error_ns.max(error_ns);
        workers.are_local &= wire.writer.peer_addr().is_ok_and(|peer| peer.ip().is_loopback());
        let setup = Setup { first_share, shares, clock_offset_ns, ..setup.clone() };
        wire.send(&ToWorker::Setup(Box::new(setup))).map_err(failed)?;
        match wire.receive().map_err(failed)? {
            FromWorker::Ready => {}
            FromWorker::Failed(text) => return Err(format!("worker {address}: {text}")),
            other => return Err(format!("worker {address} answered {other:?}")),
        }
        first_share += planes;
        workers.ports.push(port(&address, wire));
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
fn clock_offset(wire: &mut Wire) -> io::Result<(i64, u64)> {
    let mut best = (0, u64::MAX);
    for _ in 0..CLOCK_ROUNDS {
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

/// A port whose commands go over the wire; a thread carries them.
fn port(address: &str, mut wire: Wire) -> PlanePort {
    let (commands, inbox) = channel::<Command>();
    let (outbox, answers) = channel();
    std::thread::spawn(move || {
        for command in inbox {
            let is_answered = command.is_answered();
            let is_last = matches!(command, Command::Quit);
            if wire.send(&ToWorker::Command(command)).is_err() || is_last {
                return;
            }
            if is_answered {
                // Either way the conductor learns of a lost worker by the missing answer.
                let Ok(FromWorker::Answer(answer)) = wire.receive() else { return };
                if outbox.send(answer).is_err() {
                    return;
                }
            }
        }
    });
    PlanePort { name: format!("worker {address}"), commands, answers, waker: None }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let begun = std::time::Instant::now();
        assert!(greet(b"").unwrap_err().contains("not busy with another coordinator"));
        assert!(begun.elapsed() < GREETING * 2);
    }
}
