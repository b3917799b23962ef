//! A restart under load while a supervisor holds the listening socket: nobody is refused, and who
//! resumes gets everything that the node still holds, or is told that it is gone.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod server;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use server::{Server, inherit, until};
use tungstenite::{Error, HandshakeError, Message};

const VIEWERS: usize = 24;
/// Comments that each phase goes on for.
const PHASE: u64 = 40;

/// What everybody who uses the node shares.
struct World {
    listen: SocketAddr,
    /// Nobody posts any more.
    is_over: AtomicBool,
    /// Connection attempts that the kernel refused.
    refused: AtomicU64,
    /// Connections that ended without an answer.
    broken: AtomicU64,
    /// Offsets that the node acknowledged, by epoch.
    acked: Mutex<BTreeMap<String, Vec<u64>>>,
}

impl World {
    fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.listen).inspect_err(|why| {
            if why.kind() == io::ErrorKind::ConnectionRefused {
                self.refused.fetch_add(1, Relaxed);
            }
        })?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(stream)
    }

    fn acked_count(&self) -> u64 {
        self.acked.lock().unwrap().values().map(|offsets| offsets.len() as u64).sum()
    }

    /// Posts one comment; whether the node took it.
    fn post(&self, text: &str) -> io::Result<bool> {
        let mut stream = self.connect()?;
        let body = format!("{{\"text\":\"{text}\"}}");
        let head = "POST /v1/events/e/comments HTTP/1.1\r\nhost: x\r\nconnection: close";
        write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        if !head.starts_with("HTTP/1.1 201") {
            return Ok(false);
        }
        let posted: Value = serde_json::from_str(body)?;
        let (epoch, _) = posted["position"].as_str().unwrap().split_once('-').unwrap();
        let offset = posted["offset"].as_u64().unwrap();
        self.acked.lock().unwrap().entry(epoch.to_owned()).or_default().push(offset);
        Ok(true)
    }
}

/// What a viewer that always comes back has seen.
#[derive(Default)]
struct Seen {
    /// Offsets by epoch, in the order they came.
    offsets: BTreeMap<String, Vec<u64>>,
    /// Epoch and the last offset seen in it.
    position: Option<(String, u64)>,
    resumed: u64,
    restarted: u64,
    /// It has seen the very last comment.
    is_done: bool,
}

impl Seen {
    /// One connection, until it ends or the last comment has come.
    fn watch(&mut self, world: &World) -> io::Result<()> {
        let since =
            self.position.as_ref().map(|(epoch, offset)| format!("&since={epoch}-{offset}"));
        let query = format!("?history=500{}", since.unwrap_or_default());
        let url = format!("ws://{}/v1/events/e/live{query}", world.listen);
        let mut socket = match tungstenite::client(url, world.connect()?) {
            Ok((socket, _)) => socket,
            // A draining node answers 503, and says when to come back.
            Err(HandshakeError::Failure(Error::Http(_))) => return Ok(()),
            Err(why) => return Err(io::Error::other(why.to_string())),
        };
        while !self.is_done {
            match socket.read() {
                Ok(Message::Text(text)) => self.frame(&serde_json::from_str(&text).unwrap()),
                Ok(Message::Close(close)) => {
                    assert_eq!(close.map(|close| u16::from(close.code)), Some(1012));
                    let _ = socket.flush();
                    return Ok(());
                }
                Ok(_) => {}
                Err(why) => return Err(io::Error::other(why.to_string())),
            }
        }
        Ok(())
    }

    fn frame(&mut self, frame: &Value) {
        match frame["type"].as_str().unwrap() {
            "welcome" => {
                let (epoch, offset) = frame["position"].as_str().unwrap().split_once('-').unwrap();
                let start = (epoch.to_owned(), offset.parse().unwrap());
                if let Some(before) = self.position.replace(start.clone()) {
                    let is_same = before.0 == start.0;
                    assert_eq!(frame["recovered"], is_same, "{before:?} and {frame}");
                    assert!(!is_same || before == start, "{before:?} and {frame}");
                    *if is_same { &mut self.resumed } else { &mut self.restarted } += 1;
                }
            }
            "comment" => {
                let (epoch, last) = self.position.as_mut().expect("a welcome comes first");
                *last += 1;
                assert_eq!(frame["offset"], *last, "no hole, nothing twice");
                self.offsets.entry(epoch.clone()).or_default().push(*last);
                self.is_done = frame["text"] == "last";
            }
            _ => assert_eq!(frame["kind"], "drain", "{frame}"),
        }
    }
}

/// Starts a node on a socket that outlives it.
fn activated(listener: &TcpListener) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uproar"));
    let _copies = inherit(&mut command, 750, &[(listener, "uproar")]);
    let drain = ["--drain-delay-ms", "300", "--drain-spread-ms", "300"];
    Server::start_as(command, &drain)
}

#[test]
fn a_restart_under_load_refuses_nobody_and_loses_nothing_that_the_node_holds() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = listener.local_addr().unwrap();
    let mut server = activated(&listener);
    let world = Arc::new(World {
        listen,
        is_over: AtomicBool::new(false),
        refused: AtomicU64::new(0),
        broken: AtomicU64::new(0),
        acked: Mutex::default(),
    });
    let viewers: Vec<_> = (0..VIEWERS)
        .map(|_| {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let mut seen = Seen::default();
                while !seen.is_done {
                    if seen.watch(&world).is_err() {
                        world.broken.fetch_add(1, Relaxed);
                    }
                    thread::park_timeout(Duration::from_millis(20));
                }
                seen
            })
        })
        .collect();
    let poster = {
        let world = Arc::clone(&world);
        thread::spawn(move || {
            while !world.is_over.load(Relaxed) {
                if world.post("x").is_err() {
                    world.broken.fetch_add(1, Relaxed);
                }
                thread::park_timeout(Duration::from_millis(10));
            }
        })
    };
    let go_on = || {
        let before = world.acked_count();
        until("comments go on", || world.acked_count() >= before + PHASE);
    };

    go_on();
    // A drain that is undone: the same node, so everybody resumes.
    assert_eq!(server.ask(&["drain", "--wait"]).code, Some(0));
    assert_eq!(server.ask(&["drain", "--undo"]).code, Some(0));
    go_on();
    until("everybody is back", || {
        server::http(listen, "GET", "/v1/events/e", "")
            .1
            .contains(&format!("\"viewers\":{VIEWERS}"))
    });
    // A restart: another node on the same socket, which holds nothing of the first.
    server.signal(Signal::TERM);
    assert_eq!(server.end().code(), Some(0));
    let _second = activated(&listener);
    go_on();
    until("everybody is back", || {
        server::http(listen, "GET", "/v1/events/e", "")
            .1
            .contains(&format!("\"viewers\":{VIEWERS}"))
    });
    go_on();

    world.is_over.store(true, Relaxed);
    poster.join().unwrap();
    assert!(world.post("last").unwrap());
    let seen: Vec<Seen> = viewers.into_iter().map(|viewer| viewer.join().unwrap()).collect();
    let acked = world.acked.lock().unwrap();
    assert_eq!(acked.len(), 2, "a new process has a new epoch");
    for Seen { offsets, resumed, restarted, .. } in seen {
        assert_eq!((resumed, restarted), (1, 1));
        for (epoch, acked) in acked.iter() {
            let newest = acked.iter().max().unwrap();
            // A comment whose answer broke off with the old node may be there beyond the newest.
            let have = offsets[epoch].iter().filter(|offset| *offset <= newest);
            assert!(have.copied().eq(1..=*newest), "{:?} of {newest}", offsets[epoch]);
        }
    }
    assert_eq!(world.refused.load(Relaxed), 0);
    println!("{} connections broke off without an answer", world.broken.load(Relaxed));
}
