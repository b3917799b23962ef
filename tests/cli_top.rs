//! `uproar top` on a terminal and without one, before a node that goes away and comes back.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// An admin port that reports a node of this uptime; silent while it is down.
struct Admin {
    addr: SocketAddr,
    uptime: Arc<AtomicU64>,
    is_down: Arc<AtomicBool>,
}

impl Admin {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (uptime, is_down) = (Arc::new(AtomicU64::new(1_000)), Arc::<AtomicBool>::default());
        let (seconds, down) = (Arc::clone(&uptime), Arc::clone(&is_down));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                if down.load(Ordering::Relaxed) {
                    continue;
                }
                let mut request = [0; 1_024];
                let _ = stream.read(&mut request);
                let body = format!(
                    "{{\"node\":\"n1\",\"version\":\"0.1.0\",\"state\":\"ready\",\"uptime_seconds\":{},\"metrics\":[]}}",
                    seconds.load(Ordering::Relaxed)
                );
                let _ = write!(
                    stream,
                    "HTTP/1.0 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        Self { addr, uptime, is_down }
    }

    fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

/// A running command whose output is waited for.
struct Running {
    child: Child,
    output: mpsc::Receiver<Vec<u8>>,
    seen: String,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let (sender, output) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(len @ 1..) = stdout.read(&mut bytes) {
                let _ = sender.send(bytes[..len].to_vec());
            }
        });
        Self { child, output, seen: String::new() }
    }

    /// Waits until this was printed, after all that was waited for before.
    fn until(&mut self, part: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen.find(part) {
                self.seen.drain(..at + part.len());
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.seen += &String::from_utf8_lossy(&bytes),
                Err(_) => panic!("no \"{part}\" in {}", self.seen),
            }
        }
    }

    fn end(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it ends: {}", self.seen);
            thread::park_timeout(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_node_that_restarts_is_waited_for_and_said_to_have_restarted() {
    let admin = Admin::start();
    let mut command = Command::new(env!("CARGO_BIN_EXE_uproar"));
    let mut top = Running::start(command.args(["top", "--interval", "1", "--url", &admin.url()]));
    top.until("n1 0.1.0  up 16m40s\n");
    admin.is_down.store(true, Ordering::Relaxed);
    top.until("n1 was last seen ");
    admin.uptime.store(3, Ordering::Relaxed);
    admin.is_down.store(false, Ordering::Relaxed);
    top.until("up 0m03s  RESTARTED since the last look");
    top.until("n1 0.1.0  up 0m03s\n");
}

#[test]
fn a_node_that_never_answered_is_an_error() {
    let admin = Admin::start();
    admin.is_down.store(true, Ordering::Relaxed);
    let args = ["top", "--url", &admin.url()];
    let output = Command::new(env!("CARGO_BIN_EXE_uproar")).args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn keys_work_on_a_terminal_and_it_is_left_as_it_was() {
    let admin = Admin::start();
    let program = env!("CARGO_BIN_EXE_uproar");
    let line = format!(
        "stty rows 24 cols 80; {program} top --interval 3600 --url {}; stty -a | tr ' ' '\n' | grep -x -e isig -e icanon -e echo; echo gone",
        admin.url()
    );
    for quit in [b"q", b"\x03"] {
        let mut terminal = Running::start(Command::new("script").args([
            "--quiet",
            "--command",
            &line,
            "/dev/null",
        ]));
        terminal.until("q ends   ? explains");
        let mut keys = terminal.child.stdin.take().unwrap();
        keys.write_all(b"?").unwrap();
        terminal.until("share of the shard's core in use");
        keys.write_all(b"?").unwrap();
        terminal.until("state: ready");
        keys.write_all(quit).unwrap();
        for left in ["isig\r\n", "icanon\r\n", "echo\r\n", "gone"] {
            terminal.until(left);
        }
        assert_eq!(terminal.end(), Some(0));
    }
}
