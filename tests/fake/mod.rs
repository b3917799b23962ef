//! A node without sockets of viewers: the real control plane over threads that each run a real
//! engine, and an acceptor that hands plain HTTP over as a shard does.

#![expect(dead_code, reason = "each test file uses its own part")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;
use uproar::config::{Loaded, Sources};
use uproar::control::{ControlPlane, Ended, Host, Layout, LogLevel, Node};
use uproar::link::{HANDOVERS_MAX, Handover, ShardPort};
use uproar_engine::control::Request;
use uproar_engine::engine::{Engine, Setup};
use uproar_engine::limits::Limits;
use uproar_engine::time::Now;
use uproar_ring::Wake;

/// The host that layouts are made for: two CPUs, the descriptor limit of our machines.
pub(crate) fn host() -> Host {
    Host { cpus: vec![0, 1], name: "n1".into(), descriptors_max: 20_000 }
}

/// A configuration from flags alone.
pub(crate) fn load(flags: &[(&'static str, &str)]) -> Loaded {
    sources(flags).load().expect("the test's flags are good")
}

pub(crate) fn sources(flags: &[(&'static str, &str)]) -> Sources {
    let flags = flags.iter().map(|&(name, text)| (name, text.to_owned())).collect();
    Sources { flags, ..Sources::default() }
}

/// Starts a shard's engine; while `is_stuck`, it answers nothing.
pub(crate) fn shard(
    shard: u32,
    shards: u32,
    limits: Limits,
    is_stuck: Arc<AtomicBool>,
) -> ShardPort {
    let wake = Wake::new().expect("an eventfd is to be had");
    let (port, end) = ShardPort::new(wake.waker());
    let jobs = end.jobs;
    thread::spawn(move || {
        let start = Instant::now();
        let now = || Now {
            mono_us: start.elapsed().as_micros() as u64,
            wall_ms: SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_millis() as u64),
        };
        let conformance_echo = false;
        let node = "n1".to_owned();
        let setup = Setup { shard, shards, node, seed: 7, limits, conformance_echo };
        let mut engine = Engine::new(setup, now());
        loop {
            let job = (!is_stuck.load(Ordering::Relaxed)).then(|| jobs.pop()).flatten();
            match job {
                Some(job) => drop(job.reply.send(engine.control(now(), job.request))),
                None => thread::park_timeout(Duration::from_millis(1)),
            }
        }
    });
    port
}

/// A running node.
pub(crate) struct TestNode {
    /// Where viewers would connect.
    pub(crate) public: SocketAddr,
    /// The admin port.
    pub(crate) admin: SocketAddr,
    /// Stops shard 0 from answering.
    pub(crate) is_stuck: Arc<AtomicBool>,
    /// The links to both shards.
    pub(crate) ports: [ShardPort; 2],
    /// The control plane's thread.
    pub(crate) thread: thread::JoinHandle<Ended>,
}

impl TestNode {
    /// Starts a node of two shards.
    pub(crate) fn start(flags: &[(&'static str, &str)]) -> Self {
        Self::start_from(sources(flags))
    }

    /// Starts a node of two shards; SIGHUP reads `sources` again.
    pub(crate) fn start_from(sources: Sources) -> Self {
        let loaded = sources.load().expect("the test's sources are good");
        let layout = Layout::new(&loaded, &host()).expect("the test's layout fits");
        let is_stuck = Arc::new(AtomicBool::new(false));
        let never = Arc::new(AtomicBool::new(false));
        let limits = &loaded.config.limits;
        let ports = [(0, Arc::clone(&is_stuck)), (1, never)]
            .map(|(number, is_stuck)| shard(number, 2, limits.clone(), is_stuck));
        let (sender, handovers) = mpsc::channel(HANDOVERS_MAX);
        let public = listener();
        let admin = listener();
        let public_addr = public.local_addr().expect("a bound socket has an address");
        let admin_addr = admin.local_addr().expect("a bound socket has an address");
        thread::spawn(move || hand_over(&public, &sender));
        let node = Arc::new(Node::new(loaded, layout, ports.to_vec()));
        let log = LogLevel::fixed();
        let plane = ControlPlane { node, admin: Some(admin), handovers, sources, log };
        let thread = thread::spawn(|| plane.run().expect("the control plane starts"));
        let node = Self { public: public_addr, admin: admin_addr, is_stuck, ports, thread };
        until("the node is ready", || node.get_admin("/ready").status == 200);
        node
    }

    /// GET on the public port.
    pub(crate) fn get(&self, path: &str) -> Answer {
        request(self.public, "GET", path, "", "")
    }

    /// POST on the public port.
    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        request(self.public, "POST", path, "", body)
    }

    /// Fills the queue of shard 0, which is stuck, so that it misses whatever it is told.
    pub(crate) fn fill_queue(&self) {
        assert!(self.is_stuck.load(Ordering::Relaxed));
        while self.ports[0].ask(Request::Report).is_ok() {}
    }

    /// Whether the admin port shows a metric with this value.
    pub(crate) fn has_metric(&self, line: &str) -> bool {
        self.get_admin("/metrics").body.lines().any(|have| have == line)
    }

    /// GET on the admin port.
    pub(crate) fn get_admin(&self, path: &str) -> Answer {
        request(self.admin, "GET", path, "", "")
    }
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("loopback has a free port")
}

/// What a shard does with plain HTTP: reads once, then hands over.
fn hand_over(public: &TcpListener, sender: &mpsc::Sender<Handover>) {
    for stream in public.incoming() {
        let Ok(mut stream) = stream else { continue };
        let mut read = vec![0; 64];
        let Ok(n) = stream.read(&mut read) else { continue };
        read.truncate(n);
        let Ok(peer) = stream.peer_addr() else { continue };
        stream.set_nonblocking(true).expect("a socket can be non-blocking");
        let _ = sender.try_send(Handover { stream, read, peer });
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// Status line and headers, as sent.
    pub(crate) head: String,
    /// The body.
    pub(crate) body: String,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }

    /// The `code` of a refusal.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// One request, read to the end of the connection.
pub(crate) fn request(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> Answer {
    let length = body.len();
    exchange(
        to,
        &format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\
             content-length: {length}\r\n\r\n{body}"
        ),
    )
}

/// Sends bytes as they are and reads to the end of the connection.
pub(crate) fn exchange(to: SocketAddr, bytes: &str) -> Answer {
    let mut stream = TcpStream::connect(to).expect("the node listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out can be set");
    stream.write_all(bytes.as_bytes()).expect("the node reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the node answers and closes");
    let answer = String::from_utf8(answer).expect("answers are text");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Answer { status: status.unwrap_or(0), head: head.to_lowercase(), body: body.to_owned() }
}

/// Waits until a condition holds; a minute without it fails the test.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "waited a minute until {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}
