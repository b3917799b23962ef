//! A server under test: the built binary on free ports with one shard, killed when the test lets go.

#![expect(dead_code, reason = "each test file uses its own part")]

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tungstenite::{Message, WebSocket};

/// A running server; its log is read line by line.
pub(crate) struct Server {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Server {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_as(Command::new(env!("CARGO_BIN_EXE_uproar")), args)
    }

    /// Starts a prepared command on free ports with one shard.
    pub(crate) fn start_as(mut command: Command, args: &[&str]) -> Self {
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
    pub(crate) fn log_until(&mut self, message: &str) -> Value {
        wait_for(&mut self.log, message)
    }

    /// Reads the log to its end.
    pub(crate) fn log_rest(&mut self) -> Vec<String> {
        self.log.by_ref().map(|line| line.expect("log lines are text")).collect()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the server lives");
    }

    pub(crate) fn end(&mut self) -> ExitStatus {
        self.child.wait().expect("a child can be waited for")
    }

    pub(crate) fn watch(&self, event: &str) -> WebSocket<TcpStream> {
        self.watch_from(event, "").0
    }

    /// Joins with a query that begins with `?`; the connection and its welcome.
    pub(crate) fn watch_from(&self, event: &str, query: &str) -> (WebSocket<TcpStream>, Value) {
        let stream = TcpStream::connect(self.listen).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out can be set");
        let url = format!("ws://{}/v1/events/{event}/live{query}", self.listen);
        let (mut socket, _) = tungstenite::client(url, stream).expect("the server upgrades");
        let welcome = next_frame(&mut socket);
        assert_eq!(welcome["type"], "welcome");
        (socket, welcome)
    }

    /// Runs a command of the same binary against the admin port.
    pub(crate) fn ask(&self, command: &[&str]) -> Said {
        let url = format!("http://{}", self.admin);
        run(&[command, &["--url", &url]].concat())
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

pub(crate) fn next_frame(socket: &mut WebSocket<TcpStream>) -> Value {
    match socket.read().expect("the server sends") {
        Message::Text(text) => serde_json::from_str(&text).expect("frames are JSON"),
        other => panic!("not a text frame: {other:?}"),
    }
}

/// Status and body of one request.
pub(crate) fn http(to: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
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

pub(crate) fn post(server: &Server, text: &str) -> u16 {
    let body = format!("{{\"text\":\"{text}\"}}");
    http(server.listen, "POST", "/v1/events/e/comments", &body).0
}

pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

pub(crate) fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("uproar-{}-{name}", std::process::id()))
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the binary to its end.
pub(crate) fn run(args: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_uproar")).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// Copies of listeners for a server to inherit: neighbouring descriptors without close-on-exec, from
/// `first` on, which is far from what the harness itself opens.
pub(crate) fn inherit(
    command: &mut Command,
    first: i32,
    sockets: &[(&TcpListener, &str)],
) -> Vec<OwnedFd> {
    let copy = |(i, (listener, _)): (usize, &(&TcpListener, &str))| {
        let fd = rustix::io::fcntl_dupfd_cloexec(listener.as_fd(), first + i as i32).unwrap();
        assert_eq!(fd.as_raw_fd(), first + i as i32);
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).unwrap();
        fd
    };
    let copies = sockets.iter().enumerate().map(copy).collect();
    let names: Vec<&str> = sockets.iter().map(|&(_, name)| name).collect();
    command
        .env("LISTEN_FDS", sockets.len().to_string())
        .env("LISTEN_FDS_FIRST_FD", first.to_string())
        .env("LISTEN_FDNAMES", names.join(":"));
    copies
}
