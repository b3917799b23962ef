//! A node under test: the built binary on free ports, killed when the test lets go of it or dies.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::series::sum;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) type Viewer = tungstenite::WebSocket<tungstenite::stream::MaybeTlsStream<TcpStream>>;

/// A running node with two shards.
pub(crate) struct Node {
    child: Child,
    listen: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// Lets this process have as many descriptors as its hard limit gives.
pub(crate) fn raise_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

/// A command that the kernel kills when the thread that starts it ends.
pub(crate) fn bound(command: &[&str]) -> Command {
    let mut bound = Command::new("setpriv");
    bound.args(["--pdeathsig", "KILL"]).args(command);
    bound
}

/// Polls `condition` until it holds; a test that waits in vain says for what.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

impl Node {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_under(&[], args)
    }

    /// A node that the command `wrapper` executes.
    pub(crate) fn start_under(wrapper: &[&str], args: &[&str]) -> Self {
        let mut child = bound(wrapper)
            .arg(env!("CARGO_BIN_EXE_uproar"))
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "2"])
            .args(["--connections-max", "500", "--log-format", "json"])
            .args(args)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut addresses = None;
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        for line in &mut lines {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let address = |key: &str| line[key].as_str().unwrap().parse().unwrap();
            if line["message"] == "starting" {
                addresses = Some((address("listen"), address("admin")));
            } else if line["message"] == "ready" {
                break;
            }
        }
        // A log that nobody takes is a condition of its own.
        std::thread::spawn(move || lines.for_each(drop));
        let (listen, admin) = addresses.expect("a node says where it listens");
        Self { child, listen, admin }
    }

    pub(crate) fn metrics(&self) -> String {
        http(self.admin, "GET", "/metrics")
    }

    /// The metrics once this is true of them.
    pub(crate) fn metrics_when(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let mut metrics = String::new();
        wait_until(what, || {
            metrics = self.metrics();
            is_so(&metrics)
        });
        metrics
    }

    /// The metrics once they hold this line.
    pub(crate) fn metrics_with(&self, line: &str) -> String {
        self.metrics_when(line, |metrics| metrics.lines().any(|have| have == line))
    }

    /// The metrics once the samples that contain all of this add up to more than nothing.
    pub(crate) fn metrics_with_some(&self, parts: &[&str]) -> String {
        self.metrics_when(&parts.join(" "), |metrics| sum(metrics, parts) > 0.0)
    }

    /// A bare connection to the public port, whose own buffer is small.
    pub(crate) fn connect(&self) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        socket.connect(&self.listen.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub(crate) fn get(&self, path: &str) -> String {
        http(self.listen, "GET", path)
    }

    /// The same from another loopback address.
    pub(crate) fn get_from(&self, from: [u8; 4], path: &str) -> String {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
        socket.connect(&self.listen.into()).unwrap();
        ask(socket.into(), "GET", path)
    }

    /// A viewer of the event "e", or why there is none.
    pub(crate) fn watch(&self) -> tungstenite::Result<Viewer> {
        tungstenite::connect(format!("ws://{}/v1/events/e/live", self.listen))
            .map(|(viewer, _)| viewer)
    }

    /// A viewer of an event as a bare connection, whose upgrade was answered.
    pub(crate) fn upgraded(&self, event: &str) -> TcpStream {
        let mut stream = self.connect();
        let head = format!(
            "GET /v1/events/{event}/live HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 101");
        stream
    }

    pub(crate) fn post(&self, event: &str, text: &str) {
        let mut stream = self.connect();
        let body = format!("{{\"text\":\"{text}\"}}");
        let head = format!("POST /v1/events/{event}/comments HTTP/1.1\r\nhost: x");
        write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn http(to: SocketAddr, method: &str, path: &str) -> String {
    ask(TcpStream::connect(to).unwrap(), method, path)
}

fn ask(mut stream: TcpStream, method: &str, path: &str) -> String {
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}
