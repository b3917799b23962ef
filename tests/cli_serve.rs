//! `uproar serve` as a process: signals, reload, the service manager's protocols, and the end.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tungstenite::{Message, WebSocket};

/// A running server; its log is read line by line.
struct Server {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        Self::start_as(Command::new(env!("CARGO_BIN_EXE_uproar")), args)
    }

    /// Starts a prepared command on free ports with one shard.
    fn start_as(mut command: Command, args: &[&str]) -> Self {
        let ports = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "1"];
        command.arg("serve").args(ports).args(["--connections-max", "500"]);
        command.args(["--log-format", "json"]).args(args).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        let mut log = BufReader::new(child.stderr.take().expect("piped")).lines();
        let starting = wait_for(&mut log, "starting");
        wait_for(&mut log, "ready");
        let addr = |key: &str| {
            let text = starting[key].as_str().expect("the plan has addresses");
            text.parse().expect("an address is an address")
        };
        Self { child, listen: addr("listen"), admin: addr("admin"), log }
    }

    /// Reads the log up to the line whose message begins so.
    fn log_until(&mut self, message: &str) -> Value {
        wait_for(&mut self.log, message)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the server lives");
    }

    fn end(&mut self) -> ExitStatus {
        self.child.wait().expect("a child can be waited for")
    }

    fn watch(&self, event: &str) -> WebSocket<TcpStream> {
        let stream = TcpStream::connect(self.listen).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out can be set");
        let url = format!("ws://{}/v1/events/{event}/live", self.listen);
        let (mut socket, _) = tungstenite::client(url, stream).expect("the server upgrades");
        assert_eq!(next_frame(&mut socket)["type"], "welcome");
        socket
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for(log: &mut Lines<BufReader<ChildStderr>>, message: &str) -> Value {
    let mut seen = Vec::new();
    for line in log {
        let line = line.expect("log lines are text");
        if let Ok(value) = serde_json::from_str::<Value>(&line)
            && value["message"].as_str().is_some_and(|text| text.starts_with(message))
        {
            return value;
        }
        seen.push(line);
    }
    panic!("no line \"{message}\" in the log: {seen:#?}");
}

fn next_frame(socket: &mut WebSocket<TcpStream>) -> Value {
    match socket.read().expect("the server sends") {
        Message::Text(text) => serde_json::from_str(&text).expect("frames are JSON"),
        other => panic!("not a text frame: {other:?}"),
    }
}

/// Status and body of one request.
fn http(to: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(to).expect("the server listens");
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    let request = format!("{head}content-length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).expect("the server reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server answers and closes");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("an answer has a status"), body.to_owned())
}

fn post(server: &Server, text: &str) -> u16 {
    let body = format!("{{\"text\":\"{text}\"}}");
    http(server.listen, "POST", "/v1/events/e/comments", &body).0
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("uproar-{}-{name}", std::process::id()))
}

#[test]
fn a_comment_reaches_a_viewer_and_sigterm_says_goodbye() {
    let mut server = Server::start(&["--drain-spread-ms", "200", "--drain-deadline-ms", "20000"]);
    let mut viewer = server.watch("e");
    assert_eq!(post(&server, "hi"), 201);
    assert_eq!(next_frame(&mut viewer)["text"], "hi");

    server.signal(Signal::TERM);
    server.log_until("draining; a second signal ends the process at once");
    let notice = next_frame(&mut viewer);
    assert_eq!((&notice["type"], &notice["kind"]), (&"notice".into(), &"drain".into()));
    let close = loop {
        match viewer.read() {
            Ok(Message::Close(close)) => break close.expect("a close has a code"),
            Ok(_) => {}
            Err(why) => panic!("no close frame: {why}"),
        }
    };
    assert_eq!(u16::from(close.code), 1012);
    let _ = viewer.flush();
    drop(viewer);
    server.log_until("drained, ending");
    assert_eq!(server.end().code(), Some(0));
}

#[test]
fn the_deadline_ends_a_drain_that_someone_holds_up() {
    let mut server = Server::start(&["--drain-spread-ms", "0", "--drain-deadline-ms", "300"]);
    // Half a request is a handshake, and handshakes are waited for.
    let mut half = TcpStream::connect(server.listen).unwrap();
    half.write_all(b"GET /v1/events/e/live HTTP/1.1\r\n").unwrap();
    until("the handshake is counted", || {
        http(server.admin, "GET", "/metrics", "").1.contains("uproar_handshakes{shard=\"0\"} 1\n")
    });
    server.signal(Signal::INT);
    let line = server.log_until("the drain deadline is over, ending");
    assert_eq!(line["connections"], 1);
    assert_eq!(server.end().code(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut server = Server::start(&["--drain-deadline-ms", "600000"]);
    let mut half = TcpStream::connect(server.listen).unwrap();
    half.write_all(b"GET /v1/events/e/live HTTP/1.1\r\n").unwrap();
    until("the handshake is counted", || {
        http(server.admin, "GET", "/metrics", "").1.contains("uproar_handshakes{shard=\"0\"} 1\n")
    });
    server.signal(Signal::TERM);
    server.log_until("draining;");
    assert_eq!(http(server.admin, "GET", "/ready", "").0, 503);
    assert_eq!(http(server.admin, "DELETE", "/drain", "").0, 409);
    server.signal(Signal::TERM);
    server.log_until("a second signal, ending at once");
    assert_eq!(server.end().code(), Some(1));
}

#[test]
fn sighup_changes_what_can_change_and_refuses_a_bad_file_whole() {
    let path = temporary("reload.toml");
    fs::write(&path, "comment_bytes_max = 100\n").unwrap();
    let mut server = Server::start(&["--config", path.to_str().unwrap()]);
    assert_eq!(post(&server, "twelve bytes"), 201);

    fs::write(&path, "comment_bytes_max = 5\nhttp_connections_max = 7\n").unwrap();
    server.signal(Signal::HUP);
    server.log_until("reloaded: comment_bytes_max is now 5, was 100");
    assert_eq!(post(&server, "twelve bytes"), 400);
    fs::write(&path, "comment_bytes_max = 5\nhttp_connections_max = 7\n").unwrap();
    server.signal(Signal::HUP);
    server.log_until("http_connections_max = 7 needs a restart; 256 stays in effect");

    fs::write(&path, "comment_bytes_max = 50\nrooms_max = 0\n").unwrap();
    server.signal(Signal::HUP);
    let line = server.log_until("not reloaded");
    assert!(line["problem"].as_str().unwrap().contains(":2: rooms_max is 0"), "{line}");
    assert_eq!(post(&server, "twelve bytes"), 400);

    // The flag on the command line wins over the file, so this says nothing about the rings.
    fs::write(&path, "connections_max = 9000000\ncomment_bytes_max = 50\n").unwrap();
    server.signal(Signal::HUP);
    server.log_until("reloaded: comment_bytes_max is now 50, was 5");
    assert_eq!(post(&server, "twelve bytes"), 201);
    fs::remove_file(&path).unwrap();
}

#[test]
fn a_full_node_is_not_ready_until_someone_leaves() {
    let server = Server::start(&["--connections-max", "500"]);
    let viewers: Vec<_> = (0..500).map(|_| server.watch("e")).collect();
    until("the node is full", || {
        let (status, body) = http(server.admin, "GET", "/ready", "");
        status == 503 && body.contains("\"full\"")
    });
    drop(viewers);
    until("the node is ready again", || http(server.admin, "GET", "/ready", "").0 == 200);
}

#[test]
fn a_second_server_cannot_join_the_port() {
    let server = Server::start(&[]);
    let listen = server.listen.to_string();
    let second = Command::new(env!("CARGO_BIN_EXE_uproar"))
        .args(["serve", "--listen", &listen, "--admin", "off"])
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("the port is in use"));
}

#[test]
fn the_service_manager_is_told_what_happens() {
    let path = temporary("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut seen = Vec::new();
    let mut await_state = |state: &str| {
        let mut buffer = [0; 4_096];
        loop {
            let n =
                socket.recv(&mut buffer).unwrap_or_else(|why| panic!("{state}: {why}: {seen:?}"));
            let message = String::from_utf8_lossy(&buffer[..n]).into_owned();
            if message.lines().any(|line| line.starts_with(state)) {
                return message;
            }
            seen.push(message);
        }
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_uproar"));
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "600000");
    let mut server = Server::start_as(command, &["--drain-spread-ms", "1500"]);
    await_state("READY=1");
    await_state("WATCHDOG=1");
    await_state("STATUS=ready, 0 connections, 0 rooms");
    let viewer = server.watch("e");
    await_state("STATUS=ready, 1 connections, 1 rooms");

    server.signal(Signal::HUP);
    assert!(await_state("RELOADING=1").contains("MONOTONIC_USEC="));
    await_state("READY=1");

    server.signal(Signal::TERM);
    assert!(await_state("STOPPING=1").contains("EXTEND_TIMEOUT_USEC="));
    drop(viewer);
    assert_eq!(server.end().code(), Some(0));
    fs::remove_file(&path).unwrap();
}

#[test]
fn inherited_listeners_are_served_and_told_apart_by_name() {
    let public = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").unwrap();
    let addrs = [&public, &admin].map(|listener| listener.local_addr().unwrap());
    // Neighbouring descriptors without close-on-exec, far from what the harness itself opens.
    let inherit = |listener: &TcpListener, at| {
        let fd = rustix::io::fcntl_dupfd_cloexec(listener.as_fd(), at).unwrap();
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).unwrap();
        fd
    };
    let first = 800;
    let fds = [inherit(&public, first), inherit(&admin, first + 1)];
    let mut command = Command::new(env!("CARGO_BIN_EXE_uproar"));
    command
        .env("LISTEN_FDS", "2")
        .env("LISTEN_FDS_FIRST_FD", first.to_string())
        .env("LISTEN_FDNAMES", "uproar:uproar-admin");
    let server = Server::start_as(command, &[]);
    drop(fds);
    assert_eq!([server.listen, server.admin], addrs);
    assert_eq!(http(server.listen, "GET", "/ready", "").0, 200);
    assert_eq!(http(server.admin, "GET", "/metrics", "").0, 200);
    drop(server.watch("e"));
}
