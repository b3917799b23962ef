//! The floors: the same bytes to as many sockets, with nothing else to do.
//!
//! Each is a thread on the sender's CPU with accepted sockets that have the server's options. A
//! burst is one send a socket, so a floor always coalesces perfectly.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender as Channel, channel};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, SockAddr, Socket, Type};
use uproar_engine::engine::CHUNK_SENDS_MAX;
use uproar_ring::{Outgoing, Ring, RingConfig, Slot, Wake};

use crate::options::Options;
use crate::sender::{Load, Sample, Sender};
use crate::viewers::Viewers;
use crate::{Failure, machine};

/// The server's default of `send_buffer_bytes`.
const SEND_BUFFER_BYTES: usize = 16 * 1_024;
/// Connections that may wait to be accepted; the kernel caps it at `somaxconn`.
const BACKLOG: i32 = 4_096;
/// How long a viewer may take to connect, in seconds.
const CONNECT_SECONDS_MAX: i64 = 10;

/// A listener whose accepted sockets are like the server's.
pub(crate) fn listen() -> Result<TcpListener, Failure> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SockAddr::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)))?;
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    // As the server does; where cubic is not built in, the default must do for all three.
    let _ = socket.set_tcp_congestion(b"cubic");
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// Where to connect to.
pub(crate) fn address(listener: &TcpListener) -> Result<SocketAddrV4, Failure> {
    match listener.local_addr()? {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(address) => Err(format!("{address} is not an IPv4 address").into()),
    }
}

/// A floor: the ends of the links to its thread, and its viewers.
#[derive(Debug)]
pub(crate) struct Floor {
    loads: Channel<Load>,
    samples: Receiver<Result<Sample, Failure>>,
    viewers: Viewers,
    frame_bytes: u64,
    bytes_sent: u64,
}

impl Floor {
    /// A bare loop of `send`.
    pub(crate) fn plain(options: &Options, frame: &[u8]) -> Result<Self, Failure> {
        Self::start(options, frame, Plain::new)
    }

    /// A bare loop of batched ring sends over direct descriptors.
    pub(crate) fn batched(options: &Options, frame: &[u8]) -> Result<Self, Failure> {
        Self::start(options, frame, Batched::new)
    }

    fn start<W: Way>(
        options: &Options,
        frame: &[u8],
        way: fn(Accepted<'_>) -> Result<W, Failure>,
    ) -> Result<Self, Failure> {
        let listener = listen()?;
        let mut viewers = Viewers::start(address(&listener)?, options.viewers, None)?;
        let (loads, to_do) = channel();
        let (done, samples) = channel();
        let (cpu, count, bytes) = (options.sender_cpu, options.viewers, frame.to_vec());
        std::thread::Builder::new().name("floor".to_owned()).spawn(move || {
            // A ring belongs to the thread that makes it.
            let mut accepted = (0..count).map(|_| accept(&listener));
            let ready = machine::pin(cpu).and_then(|()| way(&mut accepted));
            let _ = ready.and_then(|way| serve(way, &bytes, &to_do, &done)).map_err(|failure| {
                // The receiver is gone only when the run has failed already.
                done.send(Err(failure))
            });
        })?;
        viewers.ready()?;
        Ok(Self { loads, samples, viewers, frame_bytes: frame.len() as u64, bytes_sent: 0 })
    }
}

impl Sender for Floor {
    fn run(&mut self, load: &Load) -> Result<Sample, Failure> {
        self.loads.send(*load)?;
        let sample = self.samples.recv()??;
        self.bytes_sent += sample.deliveries * self.frame_bytes;
        self.viewers.await_bytes(self.bytes_sent)?;
        Ok(sample)
    }
}

/// The floor's sockets, accepted one after the other.
type Accepted<'a> = &'a mut dyn ExactSizeIterator<Item = Result<TcpStream, Failure>>;

/// How a floor sends the same bytes to all its sockets.
trait Way: 'static {
    /// Sends `bytes` to each socket once and returns how many that were.
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Failure>;
}

/// The floor's thread: runs loads until there are no more.
fn serve(
    mut way: impl Way,
    frame: &[u8],
    loads: &Receiver<Load>,
    samples: &Channel<Result<Sample, Failure>>,
) -> Result<(), Failure> {
    while let Ok(load) = loads.recv() {
        let bytes = frame.repeat(load.comments as usize);
        let mut sample = Sample::default();
        let began_ns = thread_cpu_ns();
        load.each(|| {
            sample.sends += way.send(&bytes)? as u64;
            Ok(())
        })?;
        sample.cpu_ns = thread_cpu_ns() - began_ns;
        sample.deliveries = sample.sends * u64::from(load.comments);
        samples.send(Ok(sample))?;
    }
    Ok(())
}

struct Plain {
    streams: Vec<TcpStream>,
}

impl Plain {
    fn new(accepted: Accepted<'_>) -> Result<Self, Failure> {
        Ok(Self { streams: accepted.collect::<Result<_, _>>()? })
    }
}

impl Way for Plain {
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Failure> {
        for stream in &self.streams {
            let taken = send(stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
            if taken < bytes.len() {
                return Err(format!("send took {taken} bytes of {}", bytes.len()).into());
            }
        }
        Ok(self.streams.len())
    }
}

struct Batched {
    ring: Ring,
    slots: Slot,
    failures: Vec<(u32, std::io::Result<usize>)>,
    /// The ring's eventfd must live as long as the ring.
    _wake: Wake,
}

impl Batched {
    fn new(accepted: Accepted<'_>) -> Result<Self, Failure> {
        let wake = Wake::new()?;
        let slots = accepted.len() as Slot;
        // Nothing is read here, so the smallest buffers do.
        let mut ring = Ring::new(RingConfig { slots, buffers: 1, buffer_bytes: 4_096 }, &wake)?;
        // One by one: an adopted socket has given its ordinary descriptor back.
        for (slot, stream) in (0..).zip(accepted) {
            ring.adopt(slot, stream?)?;
        }
        Ok(Self { ring, slots, failures: Vec::new(), _wake: wake })
    }
}

impl Way for Batched {
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Failure> {
        let mut first = 0;
        while first < self.slots {
            // As many to a submission as the shard's chunks have.
            let last = (first + CHUNK_SENDS_MAX as Slot).min(self.slots);
            let sends = (first..last).map(|slot| (slot, Outgoing::from_slice(bytes)));
            self.ring.send_all(sends, &mut self.failures);
            first = last;
        }
        match self.failures.pop() {
            None => Ok(self.slots as usize),
            Some((_, result)) => Err(format!("a ring send was not taken whole: {result:?}").into()),
        }
    }
}

fn accept(listener: &TcpListener) -> Result<TcpStream, Failure> {
    let deadline = Timespec { tv_sec: CONNECT_SECONDS_MAX, tv_nsec: 0 };
    match poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&deadline)) {
        Ok(0) => Err("a viewer does not connect".into()),
        Ok(_) | Err(Errno::INTR) => Ok(listener.accept()?.0),
        Err(error) => Err(error.into()),
    }
}

fn thread_cpu_ns() -> u64 {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    let used = Duration::new(used.tv_sec as u64, used.tv_nsec as u32);
    used.as_nanos() as u64
}
