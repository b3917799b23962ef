//! `uproar serve` as a process: signals, reload, the service manager's protocols, and the end.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod server;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use server::{Server, http, inherit, next_frame, post, temporary, until};
use tungstenite::Message;

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
    let mut server = Server::start(&[
        "--drain-delay-ms",
        "0",
        "--drain-spread-ms",
        "0",
        "--drain-deadline-ms",
        "300",
    ]);
    // A viewer that does not answer the close frame is waited for.
    let mut mute = TcpStream::connect(server.listen).unwrap();
    mute.write_all(
        b"GET /v1/events/e/live HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )
    .unwrap();
    until("the viewer is counted", || {
        http(server.admin, "GET", "/metrics", "").1.contains("uproar_connections{shard=\"0\"} 1\n")
    });
    server.signal(Signal::INT);
    let line = server.log_until("the drain deadline is over, ending");
    assert_eq!(line["connections"], 1);
    assert_eq!(server.end().code(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut server = Server::start(&["--drain-delay-ms", "60000", "--drain-deadline-ms", "600000"]);
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

    // What the next start would refuse is refused now.
    fs::write(&path, "comment_bytes_max = 50\ncpus = [0, 4095]\n").unwrap();
    server.signal(Signal::HUP);
    let line = server.log_until("not reloaded");
    assert!(line["problem"].as_str().unwrap().contains(":2: cpus names CPU 4095"), "{line}");
    assert_eq!(post(&server, "twelve bytes"), 400);

    // The flag on the command line wins over the file, so this says nothing about the rings.
    fs::write(&path, "connections_max = 9000000\ncomment_bytes_max = 50\n").unwrap();
    server.signal(Signal::HUP);
    server.log_until("reloaded: comment_bytes_max is now 50, was 5");
    assert_eq!(post(&server, "twelve bytes"), 201);
    fs::remove_file(&path).unwrap();
}

#[test]
fn a_reload_that_quiets_the_log_says_so_first() {
    let path = temporary("quiet.toml");
    fs::write(&path, "").unwrap();
    let mut server = Server::start(&["--config", path.to_str().unwrap()]);
    fs::write(&path, "log_level = \"warn\"\nposts_per_sec_event = 400\n").unwrap();
    server.signal(Signal::HUP);
    server.log_until("reloaded: log_level is now warn, was info");
    server.log_until("reloaded: posts_per_sec_event is now 400, was ");
    // And says so when it becomes talkative again.
    fs::write(&path, "").unwrap();
    server.signal(Signal::HUP);
    server.log_until("reloaded: log_level is now info, was warn");
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
    let config = temporary("notify.toml");
    fs::write(&config, "").unwrap();
    let args = ["--drain-spread-ms", "1500", "--config", config.to_str().unwrap()];
    let mut server = Server::start_as(command, &args);
    await_state("READY=1");
    await_state("WATCHDOG=1");
    await_state("STATUS=ready, 0 connections, 0 rooms");
    let viewer = server.watch("e");
    await_state("STATUS=ready, 1 connections, 1 rooms");

    server.signal(Signal::HUP);
    assert!(await_state("RELOADING=1").contains("MONOTONIC_USEC="));
    await_state("READY=1");
    let metric = |line: &str| {
        let metrics = http(server.admin, "GET", "/metrics", "").1;
        assert!(metrics.lines().any(|have| have == line), "no {line} in {metrics}");
    };
    metric("uproar_config_reloads_total{result=\"applied\"} 1");
    metric("uproar_config_reloads_total{result=\"refused\"} 0");
    metric("uproar_config_last_reload_successful 1");

    // What is refused is said until a good file has come.
    fs::write(&config, "rooms_max = 0\n").unwrap();
    server.signal(Signal::HUP);
    let told = await_state("READY=1");
    assert!(told.contains("STATUS=ready, but the last reload was refused\n"), "{told}");
    await_state("STATUS=ready, but the last reload was refused; 1 connections, 1 rooms");
    metric("uproar_config_reloads_total{result=\"refused\"} 1");
    metric("uproar_config_last_reload_successful 0");
    fs::write(&config, "").unwrap();
    server.signal(Signal::HUP);
    assert!(await_state("READY=1").contains("STATUS=ready\n"));
    await_state("STATUS=ready, 1 connections, 1 rooms");
    metric("uproar_config_last_reload_successful 1");

    server.signal(Signal::TERM);
    assert!(await_state("STOPPING=1").contains("EXTEND_TIMEOUT_USEC="));
    drop(viewer);
    assert_eq!(server.end().code(), Some(0));
    fs::remove_file(&path).unwrap();
    fs::remove_file(&config).unwrap();
}

#[test]
fn inherited_listeners_are_served_and_told_apart_by_name() {
    let public = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").unwrap();
    let addrs = [&public, &admin].map(|listener| listener.local_addr().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_uproar"));
    let fds = inherit(&mut command, 800, &[(&public, "uproar"), (&admin, "uproar-admin")]);
    let server = Server::start_as(command, &[]);
    drop(fds);
    assert_eq!([server.listen, server.admin], addrs);
    assert_eq!(http(server.listen, "GET", "/ready", "").0, 200);
    assert_eq!(http(server.admin, "GET", "/metrics", "").0, 200);
    drop(server.watch("e"));
}

/// `tb` and `rb` of skmem: the buffers of the one connection of a port, in bytes, as the kernel doubles them.
fn buffers(port: u16) -> Option<(u32, u32)> {
    let port = format!("sport = :{port}");
    let out = Command::new("ss").args(["-Htnm", &port]).output().expect("ss of iproute2 runs");
    let text = String::from_utf8(out.stdout).unwrap();
    let field = |name: &str| text.split(name).nth(1)?.split(',').next()?.parse().ok();
    Some((field(",tb")?, field(",rb")?))
}

#[test]
fn connections_of_an_inherited_listener_have_bounded_buffers() {
    let cases: [(&[&str], (u32, u32)); 2] = [
        (&[], (24_576, 32_768)),
        (&["--send-buffer-bytes", "20000", "--receive-buffer-bytes", "8192"], (40_000, 16_384)),
    ];
    for (flags, doubled) in cases {
        // As a service manager may hand it over: with buffers that are anything but small.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = socket2::SockRef::from(&listener);
        socket.set_recv_buffer_size(1 << 20).unwrap();
        socket.set_send_buffer_size(1 << 20).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_uproar"));
        let fds = inherit(&mut command, 840, &[(&listener, "uproar")]);
        let server = Server::start_as(command, flags);
        drop(fds);
        let viewer = server.watch("e");
        assert_eq!(buffers(server.listen.port()), Some(doubled), "{flags:?}");
        drop(viewer);
    }
}

#[test]
fn an_inherited_descriptor_of_the_wrong_kind_is_named_once() {
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    // Bound, and nobody listens.
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    for wrong in [datagrams.as_fd(), silent.as_fd()] {
        let fd = rustix::io::fcntl_dupfd_cloexec(wrong, 820).unwrap();
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).unwrap();
        let number = fd.as_raw_fd();
        let output = Command::new(env!("CARGO_BIN_EXE_uproar"))
            .args(["serve", "--admin", "off", "--log-format", "journal"])
            .env("LISTEN_FDS", "1")
            .env("LISTEN_FDS_FIRST_FD", number.to_string())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(78));
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            format!(
                "<3>socket activation: descriptor {number} is not a listening TCP socket; use \
                 ListenStream=IP:PORT\n"
            )
        );
    }
}

#[test]
fn the_journal_gets_a_priority_with_each_line() {
    // A file stands for the stream that the journal gives a service.
    let path = temporary("journal");
    let file = fs::File::create(&path).unwrap();
    let stream = file.metadata().unwrap();
    let start = |stream: &str, args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_uproar"))
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "off", "--shards", "1"])
            .args(args)
            .env("JOURNAL_STREAM", stream)
            .stderr(Stdio::from(file.try_clone().unwrap()))
            .spawn()
            .unwrap()
    };
    let own = format!("{}:{}", stream.dev(), stream.ino());
    let mut server = start(&own, &["--connections-max", "500"]);
    let log = || fs::read_to_string(&path).unwrap();
    until("the node is ready", || log().lines().any(|line| line == "<6>ready"));
    kill_process(Pid::from_child(&server), Signal::INT).unwrap();
    assert!(server.wait().unwrap().success());
    assert!(log().lines().all(|line| line.starts_with("<6>")), "{}", log());

    assert_eq!(start(&own, &["--shards", "0"]).wait().unwrap().code(), Some(78));
    assert!(log().lines().any(|line| line.starts_with("<3>uproar: --shards:")), "{}", log());
    // Stderr that is not the journal's stream, as under a wrapper that has a log of its own.
    assert_eq!(start("1:1", &["--shards", "0"]).wait().unwrap().code(), Some(78));
    assert!(log().lines().any(|line| line.starts_with("uproar: --shards:")), "{}", log());
    fs::remove_file(&path).unwrap();
}

#[test]
fn a_flood_of_bad_requests_is_one_line() {
    let mut server = Server::start(&[]);
    let listen = server.listen;
    let flood = || {
        for _ in 0..200 {
            let mut stream = TcpStream::connect(listen).unwrap();
            stream.write_all(b"nonsense\r\n\r\n").unwrap();
            // The node waits for the end of whoever has its answer.
            assert_ne!(stream.read(&mut [0; 1_024]).unwrap(), 0, "an answer");
        }
    };
    flood();
    let line = server.log_until("trouble with peers");
    assert!(line["message"].as_str().unwrap().contains(" bad_request="), "{line}");
    flood();
    server.signal(Signal::INT);
    let lines = server.log_rest();
    assert!(lines.iter().all(|line| !line.contains("trouble with peers")), "{lines:#?}");
}
