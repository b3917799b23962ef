//! Viewers: sockets in a child process that reads whatever comes and counts the bytes.
//!
//! A child of its own has its own descriptor limit, and its reading is on nobody's account here.
//! The two talk over the child's standard input and output: `ready` once every socket is
//! connected, then the bytes read so far for every byte that is written to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::epoll;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::options::Hold;
use crate::{Failure, machine};

/// Sockets of one source address: few of the 28,000 ephemeral ports, which the kernel searches
/// one after the other.
const PER_SOURCE: usize = 4_000;
/// How long viewers may take to read what is on its way.
const ARRIVAL_MAX: Duration = Duration::from_secs(20);
/// The mark of standard input among the sockets.
const PARENT: u64 = u64::MAX;

/// The parent's end of a child. Dropped, it ends the child.
#[derive(Debug)]
pub(crate) struct Viewers {
    child: Child,
    ask: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Viewers {
    /// Starts a child whose `viewers` sockets connect to `server` and ask for `path`, if any.
    /// It runs on this thread's CPU.
    pub(crate) fn start(
        server: SocketAddrV4,
        viewers: usize,
        path: Option<&str>,
    ) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--hold").arg(server.to_string()).arg("--viewers").arg(viewers.to_string());
        if let Some(path) = path {
            command.arg("--path").arg(path);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let ask = child.stdin.take();
        let answers = child.stdout.take().ok_or("a child without standard output")?;
        Ok(Self { child, ask, answers: BufReader::new(answers) })
    }

    /// Waits until every socket is connected.
    pub(crate) fn ready(&mut self) -> Result<(), Failure> {
        match self.answer()?.as_str() {
            "ready" => Ok(()),
            other => Err(format!("the viewers said {other:?}").into()),
        }
    }

    /// Bytes read so far.
    pub(crate) fn bytes(&mut self) -> Result<u64, Failure> {
        self.ask.as_mut().ok_or("the viewers are gone")?.write_all(b"?")?;
        Ok(self.answer()?.parse()?)
    }

    /// Waits until `bytes` in all were read.
    pub(crate) fn await_bytes(&mut self, bytes: u64) -> Result<(), Failure> {
        let deadline = Instant::now() + ARRIVAL_MAX;
        loop {
            let read = self.bytes()?;
            if read == bytes {
                return Ok(());
            }
            if read > bytes || Instant::now() > deadline {
                return Err(format!("the viewers read {read} bytes of {bytes}").into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn answer(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err("the viewers ended early".into());
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Viewers {
    fn drop(&mut self) {
        self.ask = None;
        // One that still connects would not notice. An exit code adds nothing: what went wrong
        // there was told on standard error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child: connects, then reads until the parent goes.
pub(crate) fn hold(hold: &Hold) -> Result<(), Failure> {
    machine::allow_descriptors()?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut streams = Vec::with_capacity(hold.viewers);
    for number in 0..hold.viewers {
        let stream = connect(hold, number)?;
        let mark = epoll::EventData::new_u64(number as u64);
        epoll::add(&epoll, &stream, mark, epoll::EventFlags::IN)?;
        streams.push(stream);
    }
    let mut parent = std::io::stdin();
    epoll::add(&epoll, &parent, epoll::EventData::new_u64(PARENT), epoll::EventFlags::IN)?;
    println!("ready");
    let mut events = Vec::with_capacity(512);
    let mut buffer = vec![0; 64 * 1_024];
    let mut total = 0;
    loop {
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in events.drain(..) {
            let mark = event.data.u64();
            if mark != PARENT {
                let read = (&streams[mark as usize]).read(&mut buffer)?;
                if read == 0 {
                    return Err(format!("viewer {mark} was closed").into());
                }
                total += read as u64;
            } else if parent.read(&mut buffer[..1])? == 0 {
                return Ok(());
            } else {
                println!("{total}");
            }
        }
    }
}

fn connect(hold: &Hold, number: usize) -> Result<TcpStream, Failure> {
    // Ports of an earlier run may still wait in TIME_WAIT, so a process has addresses of its own.
    let salt = (std::process::id() % 250) as u8;
    let group = u8::try_from(number / PER_SOURCE).map_err(|_| "too many viewers")?;
    let source = SocketAddrV4::new(Ipv4Addr::new(127, 1, 1 + salt, 1 + group), 0);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SockAddr::from(source))?;
    socket.connect(&SockAddr::from(hold.server))?;
    let mut stream = TcpStream::from(socket);
    if let Some(path) = &hold.path {
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            hold.server
        )?;
    }
    Ok(stream)
}
