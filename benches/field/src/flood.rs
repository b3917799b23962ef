//! A flood of one kind: a few connections that ask for all a node lets them, for a bounded time.
//!
//! Blocking sockets, a thread each. A connection that the node closes comes back at once. What became of it is
//! counted, and judged elsewhere (`scripts/neighbours`).

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::{self, AddressFamily, SocketType};
use serde_json::json;

use crate::options::{Flood, FloodKind};
use crate::{probe, wire};

type Failure = Box<dyn std::error::Error>;

/// Bytes of frames that are written at once.
const BURST_BYTES: usize = 16 * 1_024;
/// No read or write waits longer than this.
const WAIT: Duration = Duration::from_secs(1);
/// Between two attempts after one that failed.
const RETRY: Duration = Duration::from_millis(5);
/// From one source address: its ports in TIME_WAIT must not run out.
const CONNECTS_PER_SOURCE: u64 = 10_000;

/// What a thread has counted, by outcome.
type Counts = BTreeMap<&'static str, u64>;

pub(crate) fn run(flood: &Flood) -> Result<(), Failure> {
    if let Some(cpu) = flood.cpu {
        probe::pin(cpu)?;
    }
    let end = Instant::now() + Duration::from_secs_f64(flood.seconds);
    let counts: Vec<Counts> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..flood.connections)
            .map(|number| {
                scope.spawn(move || {
                    Flooder { flood, number, made: 0, counts: Counts::new() }.run(end)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a flooder does not panic")).collect()
    });
    let mut all = Counts::new();
    for (key, count) in counts.into_iter().flatten() {
        *all.entry(key).or_default() += count;
    }
    println!(
        "{}",
        json!({ "kind": flood.kind.to_string(), "seconds": flood.seconds, "counts": all })
    );
    Ok(())
}

struct Flooder<'a> {
    flood: &'a Flood,
    number: usize,
    /// Connections made so far.
    made: u64,
    counts: Counts,
}

impl Flooder<'_> {
    fn count(&mut self, key: &'static str, count: u64) {
        *self.counts.entry(key).or_default() += count;
    }

    fn run(mut self, end: Instant) -> Counts {
        let burst = self.burst();
        while Instant::now() < end {
            let done = match self.flood.kind {
                FloodKind::Connects => self.connect_and_leave(),
                FloodKind::Pages => {
                    let path = format!("GET /v1/events/{}/comments?limit=500", self.flood.event);
                    self.request(&format!(
                        "{path} HTTP/1.1\r\nHost: f\r\nConnection: close\r\n\r\n"
                    ))
                }
                FloodKind::RestPosts => {
                    let path = format!("POST /v1/events/{}/comments", self.flood.event);
                    let body = r#"{"user":"flood","text":"of posts"}"#;
                    let head = format!("{path} HTTP/1.1\r\nHost: f\r\nConnection: close\r\n");
                    self.request(&format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()))
                }
                _ => self.talk(&burst, end),
            };
            if done.is_err() {
                self.count("failed", 1);
                std::thread::sleep(RETRY);
            }
        }
        self.counts
    }

    /// As many frames of the flood as fit one write.
    fn burst(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        match self.flood.kind {
            FloodKind::Pings => wire::put_frame(&mut frame, wire::PING, b""),
            FloodKind::Pongs => wire::put_frame(&mut frame, wire::PONG, b""),
            FloodKind::Posts => {
                wire::put_frame(&mut frame, 1, br#"{"type":"post","ref":"1","text":"x"}"#);
            }
            _ => wire::put_frame(&mut frame, 1, b"{}"),
        }
        frame.repeat((BURST_BYTES / frame.len()).max(1))
    }

    fn connect(&mut self) -> Result<TcpStream, Failure> {
        let round = self.made / CONNECTS_PER_SOURCE;
        // Beyond the addresses of the fleet, which it may flood beside.
        let net = if self.flood.server.ip().is_loopback() { 127 } else { 10 };
        let source = Ipv4Addr::new(net, 251, self.number as u8, 1 + (round % 250) as u8);
        self.made += 1;
        let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        net::bind(&socket, &SocketAddrV4::new(source, 0))?;
        net::connect(&socket, &self.flood.server)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(WAIT))?;
        stream.set_write_timeout(Some(WAIT))?;
        self.count("connects", 1);
        Ok(stream)
    }

    /// Joins an event of its own, so that nobody else has a comment from it.
    fn join(&mut self) -> Result<TcpStream, Failure> {
        let mut stream = self.connect()?;
        let path = format!("/v1/events/{}-{}/live?history=0", self.flood.event, self.number);
        stream.write_all(&wire::upgrade_request("f", &path))?;
        let mut bytes = [0; 4_096];
        let read = stream.read(&mut bytes)?;
        if !bytes[..read].starts_with(b"HTTP/1.1 101") {
            self.count("refused", 1);
            return Err("not upgraded".into());
        }
        self.count("upgrades", 1);
        Ok(stream)
    }

    fn connect_and_leave(&mut self) -> Result<(), Failure> {
        self.join().map(drop)
    }

    /// One plain HTTP request, its answer read to the end.
    fn request(&mut self, request: &str) -> Result<(), Failure> {
        let mut stream = self.connect()?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let is_good = answer.starts_with(b"HTTP/1.1 20");
        self.count(if is_good { "answers" } else { "refused" }, 1);
        self.count("bytes_read", answer.len() as u64);
        Ok(())
    }

    /// Writes bursts, reading what comes back, until the node ends the connection.
    fn talk(&mut self, burst: &[u8], end: Instant) -> Result<(), Failure> {
        let mut stream = self.join()?;
        let mut answers = vec![0; 64 * 1_024];
        while Instant::now() < end {
            stream.set_nonblocking(false)?;
            match stream.write(burst) {
                Ok(written) => self.count("bytes_written", written as u64),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => {
                    self.count("ended", 1);
                    return Ok(());
                }
            }
            stream.set_nonblocking(true)?;
            loop {
                match stream.read(&mut answers) {
                    Ok(read) if read > 0 => self.count("bytes_read", read as u64),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    _ => {
                        self.count("ended", 1);
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}
