//! A node under test: the built binary on free ports, killed when the test lets go of it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

static LOGS: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Node {
    child: Child,
    log: PathBuf,
    public: SocketAddrV4,
    admin: SocketAddrV4,
}

/// A status line, the head and the body of an HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The `code` of an error's body.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().expect("an error has a code").to_owned()
    }
}

/// Polls `condition` until it holds; a test that waits in vain says for what.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A loopback address that no other node of this process was given: listeners with SO_REUSEPORT
/// would share a port without a word.
fn free_address() -> SocketAddrV4 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        if GIVEN.lock().unwrap().insert(port) {
            return SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        }
    }
}

impl Node {
    /// Starts a node of one shard with these flags added, and waits until it is ready.
    pub(crate) fn start(flags: &[&str]) -> Self {
        // Between finding a free port and binding it somebody else may take it.
        (0..5).find_map(|_| Self::try_start(flags)).expect("five nodes in a row did not start")
    }

    fn try_start(flags: &[&str]) -> Option<Self> {
        let (public, admin) = (free_address(), free_address());
        let number = LOGS.fetch_add(1, Ordering::Relaxed);
        let name = format!("process-{}-{number}.log", std::process::id());
        let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let shape: &[&str] =
            if flags.contains(&"--shards") { &[] } else { &["--shards", "1", "--cpus", "0"] };
        let child = Command::new(env!("CARGO_BIN_EXE_uproar"))
            .arg("serve")
            .args(["--listen", &public.to_string(), "--admin", &admin.to_string()])
            .args(shape)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut node = Self { child, log, public, admin };
        let mut has_ended = false;
        wait_until("a node gets ready", || {
            has_ended = node.child.try_wait().unwrap().is_some();
            has_ended || node.try_http(public, "GET", "/ready", "").is_some_and(|a| a.status == 200)
        });
        if has_ended {
            eprintln!("{}", node.log());
        }
        (!has_ended).then_some(node)
    }

    pub(crate) fn public(&self) -> SocketAddrV4 {
        self.public
    }

    pub(crate) fn admin(&self) -> SocketAddrV4 {
        self.admin
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// A bare connection to the public port.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.public).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends `request` as it is and reads the HTTP answer.
    pub(crate) fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect();
        // The node may answer and close before it has read a request that is too long.
        let _ = stream.write_all(request);
        read_answer(&mut stream).expect("no HTTP answer")
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.try_http(self.public, "GET", path, "").expect("no answer")
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        self.try_http(self.public, "POST", path, body).expect("no answer")
    }

    /// Posts a comment over HTTP that is taken.
    pub(crate) fn comment(&self, event: &str, text: &str) -> Value {
        let body = serde_json::json!({ "user": "rest", "text": text }).to_string();
        let answer = self.post(&format!("/v1/events/{event}/comments"), &body);
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()
    }

    fn try_http(&self, to: SocketAddrV4, method: &str, path: &str, body: &str) -> Option<Answer> {
        let mut stream = TcpStream::connect(to).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).ok()?;
        read_answer(&mut stream)
    }

    /// The whole text of `/metrics`.
    pub(crate) fn metrics(&self) -> String {
        self.try_http(self.admin, "GET", "/metrics", "").expect("no metrics").body
    }

    /// The sum of a metric over the lines whose labels contain `label`.
    pub(crate) fn metric(&self, name: &str, label: &str) -> f64 {
        let is_it = |line: &&str| {
            let (key, _) = line.rsplit_once(' ').unwrap_or_default();
            key.split('{').next() == Some(name) && key.contains(label)
        };
        let mut values = Vec::<f64>::new();
        // A shard that is too busy to answer in time is left out of one scrape.
        wait_until(&format!("there is a metric {name} with {label}"), || {
            let text = self.metrics();
            let lines = text.lines().filter(is_it);
            values = lines.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
            !values.is_empty()
        });
        values.iter().sum()
    }

    /// Waits until a metric has grown to `least`.
    pub(crate) fn wait_metric(&self, name: &str, label: &str, least: f64) {
        let deadline = Instant::now() + PATIENCE;
        while self.metric(name, label) < least {
            let metrics = self.metrics();
            let moved = metrics.lines().filter(|l| l.starts_with("uproar_") && !l.ends_with(" 0"));
            let moved: Vec<_> = moved.filter(|line| !line.contains("_bucket")).collect();
            assert!(Instant::now() < deadline, "{name} {label} stays under {least}: {moved:#?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the process to end by itself.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the node ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.expect("it has just ended")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let has_crashed = self.child.try_wait().unwrap().is_some_and(|status| !status.success());
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() || has_crashed {
            eprintln!("the node said:\n{}", self.log());
        }
        let _ = std::fs::remove_file(&self.log);
    }
}

/// Reads one HTTP answer: its head, and its body up to the length it names or the end.
pub(crate) fn read_answer(stream: &mut TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let status = head.get(9..12)?.parse().ok()?;
            let lower = head.to_ascii_lowercase();
            let length = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
            let is_whole = length.is_some_and(|l| l.trim().parse().is_ok_and(|l| body.len() >= l));
            if is_whole || status == 101 {
                return Some(Answer { status, head: lower, body: body.to_owned() });
            }
        }
        match stream.read(&mut chunk) {
            Ok(read) if read > 0 => bytes.extend_from_slice(&chunk[..read]),
            _ => {
                let (head, body) = text.split_once("\r\n\r\n")?;
                let status = head.get(9..12)?.parse().ok()?;
                return Some(Answer {
                    status,
                    head: head.to_ascii_lowercase(),
                    body: body.to_owned(),
                });
            }
        }
    }
}
