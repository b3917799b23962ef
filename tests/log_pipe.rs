//! A node whose log nobody takes, and commands whose output nobody takes.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(30);

fn uproar() -> Command {
    Command::new(env!("CARGO_BIN_EXE_uproar"))
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Writes into a pipe until it takes nothing more.
fn fill(pipe: &File) {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let is_writable = || {
        let mut fds = [PollFd::new(pipe, PollFlags::OUT)];
        poll(&mut fds, Some(&at_once)).unwrap() > 0
    };
    while is_writable() {
        // A page never waits in a pipe that poll says has room.
        (&*pipe).write_all(&[b'\n'; 4_096]).unwrap();
    }
}

fn http(to: SocketAddr, method: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(to).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let body = if method == "POST" { "{\"text\":\"x\"}" } else { "" };
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

struct Node {
    child: Child,
    public: SocketAddr,
    admin: SocketAddr,
}

impl Node {
    fn start(stderr: &File, flags: &[&str]) -> Self {
        let (public, admin) = (free_address(), free_address());
        let child = uproar()
            .args(["serve", "--shards", "1", "--connections-max", "500", "--drain-delay-ms", "0"])
            .args(["--listen", &public.to_string(), "--admin", &admin.to_string()])
            .args(flags)
            .stderr(Stdio::from(stderr.try_clone().unwrap()))
            .spawn()
            .unwrap();
        let node = Self { child, public, admin };
        until("the node is ready", || {
            http(public, "GET", "/ready").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
        });
        node
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn metric(&self, name: &str) -> f64 {
        let metrics = http(self.admin, "GET", "/metrics").expect("metrics are answered");
        let line = metrics.lines().find(|line| line.split(' ').next() == Some(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_log_that_nobody_takes_stops_nothing() {
    let (read, write) = rustix::pipe::pipe().unwrap();
    let (mut read, write) = (File::from(read), File::from(write));
    fill(&write);
    // It starts, reloads, serves and ends beside a pipe that takes nothing.
    let mut node = Node::start(&write, &[]);
    node.signal(Signal::HUP);
    until("it reloads", || {
        http(node.admin, "GET", "/metrics")
            .is_some_and(|text| text.contains("uproar_config_reloads_total{result=\"applied\"} 1"))
    });
    for (port, method, path, status) in [
        (node.public, "GET", "/health", "200"),
        (node.public, "POST", "/v1/events/e/comments", "201"),
        (node.public, "GET", "/v1/events/e/comments", "200"),
        (node.admin, "GET", "/report", "200"),
    ] {
        let answer = http(port, method, path).expect("an answer");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
    // More lines than may wait: each reload is one.
    until("lines are lost, and counted", || {
        for _ in 0..100 {
            node.signal(Signal::HUP);
            std::thread::park_timeout(Duration::from_millis(2));
        }
        node.metric("uproar_log_lines_lost_total") > 0.0
    });
    // The collector comes back and is told.
    let mut text = Vec::new();
    let mut chunk = [0; 65_536];
    let deadline = Instant::now() + PATIENCE;
    while !String::from_utf8_lossy(&text).contains("lines of this log were lost") {
        assert!(Instant::now() < deadline, "{}", String::from_utf8_lossy(&text));
        let count = read.read(&mut chunk).unwrap();
        text.extend_from_slice(&chunk[..count]);
    }
    fill(&write);
    node.signal(Signal::TERM);
    let begun = Instant::now();
    let mut status = None;
    until("SIGTERM ends it", || {
        status = node.child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[test]
fn a_second_signal_ends_at_once_beside_a_full_pipe() {
    let (_read, write) = rustix::pipe::pipe().unwrap();
    let write = File::from(write);
    let mut node =
        Node::start(&write, &["--drain-delay-ms", "60000", "--drain-deadline-ms", "600000"]);
    fill(&write);
    node.signal(Signal::HUP);
    node.signal(Signal::TERM);
    until("it drains", || {
        http(node.public, "GET", "/ready").is_some_and(|answer| answer.contains("draining"))
    });
    node.signal(Signal::TERM);
    until("it ends", || node.child.try_wait().unwrap().is_some());
    assert_eq!(node.child.wait().unwrap().code(), Some(1));
}

#[test]
fn a_crash_is_reported_to_nobody_who_does_not_read_and_ends_the_process() {
    let (_read, write) = rustix::pipe::pipe().unwrap();
    let write = File::from(write);
    let mut node = Node::start(&write, &["--panic-after-ms", "1500"]);
    fill(&write);
    let mut status = None;
    until("it ends", || {
        status = node.child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().signal(), Some(Signal::ABORT.as_raw()));

    // Whoever reads is told which thread it was, and why.
    let (read, write) = rustix::pipe::pipe().unwrap();
    let mut child = uproar()
        .args(["serve", "--shards", "1", "--connections-max", "500", "--panic-after-ms", "1"])
        .args(["--listen", "127.0.0.1:0", "--admin", "off"])
        .stderr(Stdio::from(write))
        .spawn()
        .unwrap();
    let mut said = String::new();
    File::from(read).read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::ABORT.as_raw()));
    assert!(said.contains("shard 0 was told to crash"), "{said}");
}

/// A file that nobody can read to its end, as on a disk that hangs.
#[test]
fn a_reload_that_waits_for_its_file_holds_up_nothing() {
    let config = std::env::temp_dir().join(format!("uproar-hung-{}.toml", std::process::id()));
    std::fs::write(&config, "").unwrap();
    let stderr = OpenOptions::new().write(true).open("/dev/null").unwrap();
    let mut node = Node::start(&stderr, &["--config", config.to_str().unwrap()]);
    std::fs::remove_file(&config).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &config, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    node.signal(Signal::HUP);
    // Somebody who opens the pipe for writing does so only beside a reader: then the node is reading it.
    let mut writer = None;
    until("it reads the pipe", || {
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
        writer = rustix::fs::open(&config, flags, rustix::fs::Mode::empty()).ok();
        writer.is_some()
    });
    for path in ["/health", "/ready"] {
        let answer = http(node.public, "GET", path).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    assert_eq!(node.metric("uproar_config_last_reload_successful"), 1.0);
    node.signal(Signal::TERM);
    until("SIGTERM ends it", || node.child.try_wait().unwrap().is_some());
    assert_eq!(node.child.wait().unwrap().code(), Some(0));
    drop(writer);
    std::fs::remove_file(&config).unwrap();
}

#[test]
fn a_start_that_fails_waits_for_nobody() {
    let (_read, write) = rustix::pipe::pipe().unwrap();
    let write = File::from(write);
    fill(&write);
    let mut child = uproar()
        .args(["serve", "--shards", "0"])
        .stderr(Stdio::from(write.try_clone().unwrap()))
        .spawn()
        .unwrap();
    until("it ends", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(78));
}

#[test]
fn commands_wait_for_a_slow_reader_end_silently_without_one_and_fail_on_a_full_disk() {
    for command in [&["config", "default"][..], &["--help"], &["serve", "--help"], &["--version"]] {
        let whole = uproar().args(command).output().unwrap();
        assert!(whole.status.success() && !whole.stdout.is_empty(), "{command:?}");

        // A pipe that is full, non-blocking as another program may have made it, and read late.
        let (read, write) = rustix::pipe::pipe().unwrap();
        let (mut read, write) = (File::from(read), File::from(write));
        fill(&write);
        rustix::fs::fcntl_setfl(&write, rustix::fs::OFlags::NONBLOCK).unwrap();
        let mut child = uproar().args(command).stdout(Stdio::from(write)).spawn().unwrap();
        let mut text = Vec::new();
        read.read_to_end(&mut text).unwrap();
        assert!(text.ends_with(&whole.stdout), "{command:?} lost something");
        assert_eq!(child.wait().unwrap().code(), Some(0), "{command:?}");

        let (read, write) = rustix::pipe::pipe().unwrap();
        drop(read);
        let closed = uproar().args(command).stdout(Stdio::from(write)).output().unwrap();
        assert_eq!(closed.status.signal(), Some(Signal::PIPE.as_raw()), "{command:?}: {closed:?}");
        assert!(closed.stderr.is_empty(), "{command:?}: {closed:?}");

        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let full = uproar().args(command).stdout(Stdio::from(full)).output().unwrap();
        let said = String::from_utf8_lossy(&full.stderr);
        assert_eq!(full.status.code(), Some(1), "{command:?}: {said}");
        assert!(said.starts_with("uproar: cannot write to stdout: "), "{command:?}: {said}");
    }
    // Nothing to write to at all is no crash.
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let silent = uproar().args(["tail", "e", "--url", "ws://127.0.0.1:1"]).stderr(full).status();
    assert_eq!(silent.unwrap().code(), Some(1));
}
