//! The units and the protocols of systemd, driven for real: its own checkers on the files, its
//! own socket activation, and a socket that plays the service manager.
//!
//! `systemd-analyze` and `systemd-socket-activate` work without systemd as process 1.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take that is sure to happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory of its own for each test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir =
            std::env::temp_dir().join(format!("uproar-systemd-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    /// Copies the units, with this build in place of the installed one.
    fn units(&self) -> [PathBuf; 2] {
        ["uproar.service", "uproar.socket"].map(|name| {
            let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning/systemd").join(name);
            let text = fs::read_to_string(from).unwrap();
            let text = text.replace("=/usr/bin/uproar", concat!("=", env!("CARGO_BIN_EXE_uproar")));
            let to = self.0.join(name);
            fs::write(&to, text).unwrap();
            to
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn systemd(tool: &str, args: &[&str], files: &[PathBuf]) -> Output {
    Command::new(tool)
        .args(args)
        .args(files)
        .output()
        .unwrap_or_else(|why| panic!("{tool}: {why}; apt install systemd"))
}

#[test]
fn the_units_are_valid() {
    let scratch = Scratch::new("verify");
    let args = ["verify", "--recursive-errors=yes", "--man=no"];
    let output = systemd("systemd-analyze", &args, &scratch.units());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
}

#[test]
fn the_service_is_exposed_to_less_than_three() {
    let scratch = Scratch::new("security");
    let [service, _] = scratch.units();
    let args = ["security", "--offline=true", "--threshold=30", "--no-pager"];
    let output = systemd("systemd-analyze", &args, &[service]);
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{table}");
    // A table without an answer would pass as well.
    assert!(table.contains("Overall exposure level for uproar.service: "), "{table}");
}

#[test]
fn the_service_may_use_io_uring_and_what_pins_and_raises() {
    let scratch = Scratch::new("filter");
    let [service, _] = scratch.units();
    let text = fs::read_to_string(service).unwrap();
    let filters: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")).collect();
    let last = |call: &str| filters.iter().rposition(|filter| filter.split(' ').any(|c| c == call));
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        assert!(last(call).is_some(), "{call}");
    }
    let denied = filters.iter().position(|filter| filter.starts_with('~')).unwrap();
    for call in ["prlimit64", "sched_setaffinity", "setpriority"] {
        assert!(last(call).is_some_and(|allowed| allowed > denied), "{call}");
    }
}

/// A bound socket that plays systemd.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    seen: Vec<String>,
}

impl Manager {
    fn new(scratch: &Scratch) -> Self {
        let path = scratch.0.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { socket, path, seen: Vec::new() }
    }

    /// The next message, or `None` after this much silence.
    fn next(&mut self, silence: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(silence)).unwrap();
        let mut buffer = [0; 4_096];
        let n = self.socket.recv(&mut buffer).ok()?;
        let message = String::from_utf8_lossy(&buffer[..n]).into_owned();
        self.seen.push(message.clone());
        Some(message)
    }

    /// Waits for a message with a line that begins so.
    fn until(&mut self, begin: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(message) = self.next(PATIENCE)
                && message.lines().any(|line| line.starts_with(begin))
            {
                return message;
            }
        }
        panic!("no {begin}: {:#?}", self.seen);
    }
}

/// A server that is killed when the test ends.
struct Server(Child);

impl Server {
    fn start(mut command: Command, args: &[&str]) -> Self {
        let common = ["serve", "--connections-max", "500", "--log-level", "error"];
        Self(command.args(common).args(args).spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn uproar() -> Command {
    Command::new(env!("CARGO_BIN_EXE_uproar"))
}

fn any_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The status of a request, or why there is none.
fn get(to: SocketAddr, path: &str) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| std::io::Error::other("no answer"))
}

#[test]
fn a_whole_life_is_told_to_the_service_manager() {
    let scratch = Scratch::new("life");
    let mut manager = Manager::new(&scratch);
    let listen = any_port();
    let mut command = uproar();
    command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "900000");
    let address = listen.to_string();
    let drain =
        ["--drain-delay-ms", "1200", "--drain-spread-ms", "100", "--drain-deadline-ms", "4000"];
    let mut server =
        Server::start(command, &[&["--listen", &address, "--admin", "off"][..], &drain].concat());
    let first = manager.next(PATIENCE).expect("READY is the first message");
    assert!(first.contains("READY=1") && first.contains("STATUS=ready"), "{first}");
    assert_eq!(get(listen, "/ready").unwrap(), 200, "READY is sent when viewers are served");
    manager.until("WATCHDOG=1");
    manager.until("STATUS=ready, 0 connections, 0 rooms");

    // A viewer that does not answer the close frame holds the drain up to its deadline.
    let mut mute = TcpStream::connect(listen).unwrap();
    mute.write_all(
        b"GET /v1/events/e/live HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )
    .unwrap();
    manager.until("STATUS=ready, 1 connections, 1 rooms");
    server.signal(Signal::TERM);
    let stopping = manager.until("STOPPING=1");
    let extension = |message: &str| -> u64 {
        let line = message.lines().find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC="));
        line.expect("every message of a drain asks for time").parse().unwrap()
    };
    assert!(extension(&stopping) >= 2_000_000, "{stopping}");
    let told_before = manager.seen.len();
    // Load balancers first: the node says so, and goes on serving.
    let waiting = manager.until("STATUS=waiting ");
    assert!(extension(&waiting) >= 2_000_000, "{waiting}");
    assert_eq!(get(listen, "/ready").unwrap(), 503);
    let progress = manager.until("STATUS=draining, 1 of 1 connections left");
    assert!(extension(&progress) >= 2_000_000, "{progress}");
    let meanwhile = &manager.seen[told_before..];
    assert!(meanwhile.iter().any(|message| message == "WATCHDOG=1\n"), "{meanwhile:?}");
    // Messages wait for whoever reads them, and the node for its messages.
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        manager.next(Duration::from_millis(100));
        if let Some(status) = server.0.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "the drain ends by its deadline");
    };
    assert!(status.success());
}

#[test]
fn a_manager_that_hangs_does_not_hold_up_the_drain() {
    let scratch = Scratch::new("hangs");
    let mut manager = Manager::new(&scratch);
    let listen = any_port();
    let mut command = uproar();
    // Messages every 20 ms fill the queue of a socket that nobody reads, which holds ten or so.
    command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "60000");
    let address = listen.to_string();
    let drain =
        ["--drain-delay-ms", "300", "--drain-spread-ms", "100", "--drain-deadline-ms", "2000"];
    let mut server =
        Server::start(command, &[&["--listen", &address, "--admin", "off"][..], &drain].concat());
    manager.until("READY=1");
    for _ in 0..40 {
        assert_eq!(get(listen, "/ready").unwrap(), 200);
        thread::park_timeout(Duration::from_millis(20));
    }
    server.signal(Signal::TERM);
    let deadline = Instant::now() + PATIENCE;
    while server.0.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the drain ends by its deadline");
        thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn a_shard_that_stops_turning_stops_the_watchdog() {
    let scratch = Scratch::new("stall");
    let mut manager = Manager::new(&scratch);
    let interval = Duration::from_millis(900);
    let mut command = uproar();
    command
        .env("NOTIFY_SOCKET", &manager.path)
        .env("WATCHDOG_USEC", interval.as_micros().to_string());
    let admin = any_port().to_string();
    let _server = Server::start(
        command,
        &[
            "--listen",
            "127.0.0.1:0",
            "--admin",
            &admin,
            "--shards",
            "2",
            "--stall-after-ms",
            "2000",
        ],
    );
    manager.until("READY=1");
    manager.until("WATCHDOG=1");
    let deadline = Instant::now() + PATIENCE;
    while manager.next(interval * 2).is_some() {
        assert!(
            Instant::now() < deadline,
            "the watchdog hears of a stuck shard: {:?}",
            manager.seen
        );
    }
    // One shard is stuck, and the process is not: its metrics say which.
    let admin: SocketAddr = admin.parse().unwrap();
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics).unwrap();
    assert!(metrics.contains("uproar_shard_up{shard=\"0\"} 0\n"), "{metrics}");
    assert!(metrics.contains("uproar_shard_up{shard=\"1\"} 1\n"), "{metrics}");
    // And no later message takes it back: the one that may come says what is wrong.
    while let Some(message) = manager.next(interval * 2) {
        assert_eq!(message, "STATUS=stuck: shard 0 does not answer\n");
    }
}

#[test]
fn systemd_socket_activate_starts_a_node_that_serves_its_socket() {
    let listen = any_port().to_string();
    let mut command = Command::new("systemd-socket-activate");
    command.args(["-l", &listen, "--fdname=uproar", env!("CARGO_BIN_EXE_uproar")]);
    // Another address in the configuration, so that only the inherited socket can answer.
    command.stderr(Stdio::null());
    let _server = Server::start(command, &["--listen", "127.0.0.1:0", "--admin", "off"]);
    let listen: SocketAddr = listen.parse().unwrap();
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        // The first connection starts the node and waits in the backlog for it.
        match get(listen, "/ready") {
            Ok(status) => break status,
            Err(why) => assert!(Instant::now() < deadline, "{why}"),
        }
        thread::park_timeout(Duration::from_millis(20));
    };
    assert_eq!(status, 200);
}

/// Plays systemd with a socket unit: the listener stays here while nodes come and go.
fn activated(listener: &TcpListener, manager: &Manager) -> Server {
    let fd = rustix::io::fcntl_dupfd_cloexec(listener.as_fd(), 700).unwrap();
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).unwrap();
    let mut command = uproar();
    let number = std::os::fd::AsRawFd::as_raw_fd(&fd).to_string();
    command.env("LISTEN_FDS", "1").env("LISTEN_FDS_FIRST_FD", number);
    command.env("LISTEN_FDNAMES", "uproar").env("NOTIFY_SOCKET", &manager.path);
    let drain = ["--drain-delay-ms", "200", "--drain-spread-ms", "100"];
    Server::start(command, &[&["--admin", "off"], &drain[..]].concat())
}

#[test]
fn no_connection_is_refused_while_the_node_restarts() {
    let scratch = Scratch::new("restart");
    let mut manager = Manager::new(&scratch);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = listener.local_addr().unwrap();
    let mut server = activated(&listener, &manager);
    manager.until("READY=1");

    let is_over = Arc::new(AtomicBool::new(false));
    let (answered, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (is_over, answered, refused) =
                (Arc::clone(&is_over), Arc::clone(&answered), Arc::clone(&refused));
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let outcome = get(listen, "/health");
                    match outcome.map_err(|why| why.kind()) {
                        Ok(200) => answered.fetch_add(1, Ordering::Relaxed),
                        Err(std::io::ErrorKind::ConnectionRefused) => {
                            refused.fetch_add(1, Ordering::Relaxed)
                        }
                        _ => 0,
                    };
                }
            })
        })
        .collect();
    for _ in 0..3 {
        let before = answered.load(Ordering::Relaxed);
        server.signal(Signal::TERM);
        assert!(server.0.wait().unwrap().success());
        server = activated(&listener, &manager);
        manager.until("READY=1");
        let deadline = Instant::now() + PATIENCE;
        while answered.load(Ordering::Relaxed) < before + 20 {
            assert!(Instant::now() < deadline, "the new node answers");
            thread::park_timeout(Duration::from_millis(10));
        }
    }
    is_over.store(true, Ordering::Relaxed);
    load.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(refused.load(Ordering::Relaxed), 0);
}
