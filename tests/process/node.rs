//! A node under test: the built binary on free ports, killed when the test lets go of it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, Signal, getrlimit, kill_process,
    pidfd_getfd, pidfd_open, prlimit,
};
use serde_json::Value;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

static LOGS: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Node {
    child: Child,
    log: PathBuf,
    public: SocketAddrV4,
    admin: SocketAddrV4,
    /// It was told to end, so nobody will be there to ask.
    is_ending: AtomicBool,
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
        let mut node = Self { child, log, public, admin, is_ending: AtomicBool::new(false) };
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
        self.is_ending.fetch_or(signal != Signal::HUP, Ordering::Relaxed);
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

/// What there is of connections, by the kernel's books and by the node's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Books {
    /// TCP sockets of the public port, but for those that only wait for time to pass.
    pub(crate) sockets: usize,
    /// Polls that the node's rings hold; each keeps a socket alive, whoever else has forgotten it.
    pub(crate) polls: usize,
    pub(crate) polls_counted: u64,
    pub(crate) slots: u64,
    pub(crate) connections: u64,
    pub(crate) places: u64,
}

impl Node {
    /// The books as they stand.
    pub(crate) fn books(&self) -> Books {
        let counted = |name| self.metric(name, "") as u64;
        Books {
            sockets: self.sockets(),
            polls: self.polls(),
            polls_counted: counted("uproar_ring_polls"),
            slots: counted("uproar_ring_slots_used"),
            connections: counted("uproar_connections"),
            places: counted("uproar_places_used"),
        }
    }

    /// Waits until kernel and node are back at `before`: nothing hostile leaves anything behind.
    pub(crate) fn settles(&self, before: Books) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let books = self.books();
            if books == before {
                break;
            }
            assert!(Instant::now() < deadline, "left behind: {books:?}, and before: {before:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        for kind in ["unknown", "cancel_refused", "overdue", "no_file"] {
            let count = self.metric("uproar_ring_contradictions_total", kind);
            assert_eq!(count, 0.0, "a completion contradicted the books: {kind}");
        }
    }

    /// As `ss -Htan src ADDRESS` lists them, without listeners and TIME_WAIT.
    fn sockets(&self) -> usize {
        let address = u32::from_le_bytes(self.public.ip().octets());
        let ours = format!("{address:08X}:{:04X}", self.public.port());
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let is_ours = |line: &&str| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            fields[1] == ours && !["0A", "06"].contains(&fields[3])
        };
        table.lines().skip(1).filter(is_ours).count()
    }

    /// `POLL_ADD` requests that `/proc/PID/fdinfo` lists for the process's rings.
    fn polls(&self) -> usize {
        let proc = PathBuf::from(format!("/proc/{}", self.child.id()));
        let fds = std::fs::read_dir(proc.join("fd")).unwrap().flatten();
        let is_ring = |fd: &std::fs::DirEntry| {
            std::fs::read_link(fd.path()).is_ok_and(|to| to.ends_with("anon_inode:[io_uring]"))
        };
        let polls_of = |fd: std::fs::DirEntry| {
            let info = std::fs::read_to_string(proc.join("fdinfo").join(fd.file_name()));
            let info = info.unwrap_or_default();
            let list = info.split_once("PollList:").map_or("", |(_, list)| list);
            list.lines().filter(|line| line.trim().starts_with("op=6,")).count()
        };
        fds.filter(is_ring).map(polls_of).sum()
    }
}

impl Node {
    /// The node's own listening socket.
    pub(crate) fn listener(&self) -> OwnedFd {
        let address = u32::from_le_bytes(self.public.ip().octets());
        let ours = format!("{address:08X}:{:04X}", self.public.port());
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let inode = table.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            (fields[1] == ours && fields[3] == "0A").then(|| format!("socket:[{}]", fields[9]))
        });
        let inode = inode.expect("it listens");
        let fds = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().flatten();
        let is_it = |fd: &std::fs::DirEntry| {
            std::fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == inode.as_str())
        };
        let name = fds.filter(is_it).map(|fd| fd.file_name()).next().expect("it has the socket");
        let process = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).unwrap();
        let number = name.to_str().unwrap().parse().unwrap();
        pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).unwrap()
    }

    /// The lowest number that no descriptor of it has.
    pub(crate) fn free_descriptor(&self) -> u64 {
        let fds = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().flatten();
        let taken: BTreeSet<u64> =
            fds.filter_map(|fd| fd.file_name().to_str()?.parse().ok()).collect();
        (0..).find(|number| !taken.contains(number)).unwrap()
    }

    /// Sets the soft limit of its descriptors; the limits before.
    pub(crate) fn limit_descriptors(&self, most: Option<u64>) -> Rlimit {
        let pid = Some(Pid::from_child(&self.child));
        let maximum = getrlimit(Resource::Nofile).maximum;
        prlimit(pid, Resource::Nofile, Rlimit { current: most.or(maximum), maximum }).unwrap()
    }

    /// CPU time spent so far, in all threads.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let jiffies = |at: usize| fields[at].parse::<f64>().unwrap();
        (jiffies(11) + jiffies(12)) / 100.0
    }
}

/// A node without connections.
pub(crate) const NOBODY: Books =
    Books { sockets: 0, polls: 0, polls_counted: 0, slots: 0, connections: 0, places: 0 };

impl Drop for Node {
    fn drop(&mut self) {
        // Whatever a test did, its viewers are gone by now, and nothing of them may be left.
        let is_running = matches!(self.child.try_wait(), Ok(None));
        if is_running && !std::thread::panicking() && !self.is_ending.load(Ordering::Relaxed) {
            self.settles(NOBODY);
        }
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
