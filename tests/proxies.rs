//! The proxies of `tuning/proxy`, as they stand there but for addresses, before two real nodes: viewers and
//! posts of an event meet, a drain is seen by nobody but those who are closed, and a dead node is left alone.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod server;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use server::{Server, http, next_frame, until};
use tungstenite::{Message, WebSocket};

/// A proxy.
struct Front {
    child: Child,
    dir: PathBuf,
    listen: SocketAddr,
}

/// A proxy before two nodes.
struct Proxy {
    front: Front,
    nodes: [Server; 2],
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Front {
    /// The shipped file `name`, before these two.
    fn start(name: &str, behind: [SocketAddr; 2]) -> Self {
        let listen = free();
        let dir = std::env::temp_dir().join(format!("uproar-{name}-{}", listen.port()));
        fs::create_dir_all(&dir).unwrap();
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning/proxy").join(name);
        let mut text = fs::read_to_string(shipped).unwrap();
        for (from, to) in [
            ("127.0.0.1:8080", behind[0].to_string()),
            ("127.0.0.2:8080", behind[1].to_string()),
            ("listen 80;", format!("listen {listen};")),
            ("bind :80\n", format!("bind {listen}\n")),
        ] {
            text = text.replace(from, &to);
        }
        assert!(text.contains(&listen.to_string()));
        let file = dir.join(name);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if name == "nginx.conf" {
            // What the distribution's own nginx.conf has around conf.d.
            let around = format!(
                "daemon off; master_process off; pid {0}/pid; error_log {0}/error.log;\nevents {{ worker_connections 4096; }}\n\
                 http {{\naccess_log off; client_body_temp_path {0}/body; proxy_temp_path {0}/proxy;\n\
                 fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;\n{text}\n}}\n",
                dir.display()
            );
            fs::write(&file, around).unwrap();
            command.args(["nginx", "-p"]).arg(&dir).arg("-c").arg(&file);
        } else {
            fs::write(&file, text).unwrap();
            command.args(["haproxy", "-db", "-f"]).arg(&file);
        }
        let log = fs::File::create(dir.join("log")).unwrap();
        let child = command
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|why| panic!("{why}; apt install nginx-light haproxy"));
        until("the proxy listens", || TcpStream::connect(listen).is_ok());
        Self { child, dir, listen }
    }

    /// Whether a node answers; an event without comments is none that it knows.
    fn is_served(&self, event: &str) -> bool {
        let path = format!("/v1/events/{event}/comments");
        matches!(http(self.listen, "GET", &path, "").0, 200 | 404)
    }
}

impl Proxy {
    fn start(name: &str) -> Self {
        let drain = ["--drain-delay-ms", "2000", "--drain-spread-ms", "200"];
        let nodes = [Server::start(&drain), Server::start(&drain)];
        let front = Front::start(name, [nodes[0].listen, nodes[1].listen]);
        until("the nodes are taken for good", || front.is_served("e0"));
        Self { front, nodes }
    }

    fn watch(&self, event: &str) -> WebSocket<TcpStream> {
        let listen = self.front.listen;
        let stream = TcpStream::connect(listen).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let url = format!("ws://{listen}/v1/events/{event}/live");
        let (mut socket, _) = tungstenite::client(url, stream).expect("the proxy upgrades");
        assert_eq!(next_frame(&mut socket)["type"], "welcome");
        socket
    }

    fn post(&self, event: &str, text: &str) {
        let body = format!("{{\"text\":\"{text}\"}}");
        let path = format!("/v1/events/{event}/comments");
        let (status, answer) = http(self.front.listen, "POST", &path, &body);
        assert!((200..300).contains(&status), "{status}: {answer}");
    }

    /// Connections of each node.
    fn viewers(&self) -> [f64; 2] {
        [0, 1].map(|node| {
            let metrics = http(self.nodes[node].admin, "GET", "/metrics", "").1;
            let line = metrics
                .lines()
                .find_map(|line| line.strip_prefix("uproar_connections{shard=\"0\"} "));
            line.unwrap().parse().unwrap()
        })
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Reads until a comment with this text has come.
fn await_comment(socket: &mut WebSocket<TcpStream>, text: &str) {
    while next_frame(socket)["text"] != text {}
}

fn works_through(name: &str) {
    let mut proxy = Proxy::start(name);
    // Events lie on both nodes, and who posts meets who watches.
    let events: Vec<String> = (0..24).map(|i| format!("e{i}")).collect();
    let mut viewers: Vec<_> = events.iter().map(|event| proxy.watch(event)).collect();
    let before = proxy.viewers();
    assert!(before.iter().all(|&viewers| viewers > 0.0), "{before:?}");
    for (event, viewer) in events.iter().zip(&mut viewers) {
        proxy.post(event, "hello");
        await_comment(viewer, "hello");
        // However it is written, it is that event.
        proxy.post(&event.replacen('e', "%65", 1), "escaped");
        await_comment(viewer, "escaped");
    }

    // A drain: nobody who comes is refused, at any time of it.
    assert_eq!(http(proxy.nodes[0].admin, "POST", "/drain", "").0, 202);
    let mut comes = events.iter().cycle();
    until("the node is empty", || {
        drop(proxy.watch(comes.next().unwrap()));
        assert!(proxy.front.is_served("e1"));
        proxy.viewers()[0] == 0.0
    });
    let closed: Vec<u16> = viewers
        .iter_mut()
        .zip(&events)
        .filter_map(|(viewer, event)| {
            // Those of the other node are still there, and hear what is posted now.
            proxy.post(event, "still");
            loop {
                match viewer.read().unwrap() {
                    Message::Close(Some(close)) => return Some(close.code.into()),
                    Message::Text(text) if text.contains("still") => return None,
                    _ => {}
                }
            }
        })
        .collect();
    assert_eq!(closed.len() as f64, before[0], "who was there was closed, through the proxy");
    assert!(closed.iter().all(|&code| code == 1012), "{closed:?}");
    // They come back, all to the other node.
    let again: Vec<_> = events.iter().map(|event| proxy.watch(event)).collect();
    assert_eq!(proxy.viewers()[0], 0.0);
    drop(again);

    // Back in service, it gets viewers again; and when the other dies, all of them.
    assert_eq!(http(proxy.nodes[0].admin, "DELETE", "/drain", "").0, 200);
    until("the node is used again", || {
        let _back: Vec<_> = events.iter().map(|event| proxy.watch(event)).collect();
        proxy.viewers()[0] > 0.0
    });
    proxy.nodes[1].signal(rustix::process::Signal::KILL);
    proxy.nodes[1].end();
    for event in &events {
        assert!(proxy.front.is_served(event), "{event}");
    }
    // What is not for viewers is not to be reached.
    assert_eq!(http(proxy.front.listen, "GET", "/metrics", "").0, 404);
    assert_eq!(http(proxy.front.listen, "GET", "/ready", "").0, 404);
}

/// Takes each post and closes without an answer, as a node that dies in the middle of one; how many it took.
fn takes_posts() -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, taken) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&taken);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut bytes = [0; 1_024];
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut bytes) {
                    Ok(read @ 1..) => head.extend_from_slice(&bytes[..read]),
                    _ => break,
                }
            }
            if head.starts_with(b"POST") {
                count.fetch_add(1, Relaxed);
            } else {
                // Who asks may be gone.
                let _ = stream.write_all(
                    b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                );
            }
        }
    });
    (address, taken)
}

fn posts_once_through(name: &str) {
    let (nodes, taken): (Vec<_>, Vec<_>) = (0..2).map(|_| takes_posts()).unzip();
    let front = Front::start(name, [nodes[0], nodes[1]]);
    until("the nodes are taken for good", || front.is_served("e0"));
    let (status, _) = http(front.listen, "POST", "/v1/events/e/comments", "{\"text\":\"x\"}");
    assert_eq!(status, 502, "nobody knows what became of it");
    let taken: u64 = taken.iter().map(|taken| taken.load(Relaxed)).sum();
    assert_eq!(taken, 1, "a second one could be a second comment");
}

#[test]
fn nginx() {
    works_through("nginx.conf");
    posts_once_through("nginx.conf");
}

#[test]
fn haproxy() {
    works_through("haproxy.cfg");
    posts_once_through("haproxy.cfg");
}
