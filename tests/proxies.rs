//! The proxies of `tuning/proxy`, as they stand there but for addresses, before two real nodes: viewers and
//! posts of an event meet, a drain is seen by nobody but those who are closed, and a dead node is left alone.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod server;

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use server::{Server, http, next_frame, until};
use tungstenite::{Message, WebSocket};

/// A proxy before two nodes.
struct Proxy {
    child: Child,
    dir: PathBuf,
    listen: SocketAddr,
    nodes: [Server; 2],
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Proxy {
    fn start(name: &str) -> Self {
        let drain = ["--drain-delay-ms", "2000", "--drain-spread-ms", "200"];
        let nodes = [Server::start(&drain), Server::start(&drain)];
        let dir = std::env::temp_dir().join(format!("uproar-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let listen = free();
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning/proxy").join(name);
        let mut text = fs::read_to_string(shipped).unwrap();
        for (from, to) in [
            ("127.0.0.1:8080", nodes[0].listen.to_string()),
            ("127.0.0.2:8080", nodes[1].listen.to_string()),
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
        let proxy = Self { child, dir, listen, nodes };
        until("the nodes are taken for good", || proxy.is_served("e0"));
        proxy
    }

    /// Whether a node answers; an event without comments is none that it knows.
    fn is_served(&self, event: &str) -> bool {
        let path = format!("/v1/events/{event}/comments");
        matches!(http(self.listen, "GET", &path, "").0, 200 | 404)
    }

    fn watch(&self, event: &str) -> WebSocket<TcpStream> {
        let stream = TcpStream::connect(self.listen).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let url = format!("ws://{}/v1/events/{event}/live", self.listen);
        let (mut socket, _) = tungstenite::client(url, stream).expect("the proxy upgrades");
        assert_eq!(next_frame(&mut socket)["type"], "welcome");
        socket
    }

    fn post(&self, event: &str, text: &str) {
        let body = format!("{{\"text\":\"{text}\"}}");
        let path = format!("/v1/events/{event}/comments");
        let (status, answer) = http(self.listen, "POST", &path, &body);
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

impl Drop for Proxy {
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
    }

    // A drain: nobody who comes is refused, at any time of it.
    assert_eq!(http(proxy.nodes[0].admin, "POST", "/drain", "").0, 202);
    let mut comes = events.iter().cycle();
    until("the node is empty", || {
        drop(proxy.watch(comes.next().unwrap()));
        assert!(proxy.is_served("e1"));
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
        assert!(proxy.is_served(event), "{event}");
    }
    // What is not for viewers is not to be reached.
    assert_eq!(http(proxy.listen, "GET", "/metrics", "").0, 404);
    assert_eq!(http(proxy.listen, "GET", "/ready", "").0, 404);
}

#[test]
fn nginx() {
    works_through("nginx.conf");
}

#[test]
fn haproxy() {
    works_through("haproxy.cfg");
}
