//! `uproar tail` against a scripted node: what it prints, and how it comes back.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use table::Escapes;
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::protocol::CloseFrame;
use tungstenite::{Message, WebSocket};

#[path = "process/inputs/table.rs"]
mod table;

/// A node that does what the test says, one connection at a time.
struct Node(TcpListener);

impl Node {
    fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").expect("loopback has a free port"))
    }

    fn tail(&self, args: &[&str]) -> Child {
        let url = format!("ws://{}", self.0.local_addr().expect("bound"));
        Command::new(env!("CARGO_BIN_EXE_uproar"))
            .args([&["tail", "final", "--url", &url], args].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs")
    }

    /// Accepts the next connection; gives the request's path and query with it.
    fn accept(&self) -> (String, WebSocket<TcpStream>) {
        let (stream, _) = self.0.accept().expect("the client connects");
        let mut target = String::new();
        #[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
        let note = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
            target = request.uri().to_string();
            Ok(response)
        };
        let socket = tungstenite::accept_hdr(stream, note).expect("the client upgrades");
        (target, socket)
    }
}

fn send(socket: &mut WebSocket<TcpStream>, frames: &[&str]) {
    for frame in frames {
        socket.send(Message::text(*frame)).expect("the client reads");
    }
}

fn welcome(position: &str, recovered: bool) -> String {
    format!(
        r#"{{"type":"welcome","event":"final","node":"n1","position":"{position}","head":9,"recovered":{recovered},"viewers":1}}"#
    )
}

fn comment(offset: u64, text: &str) -> String {
    format!(
        r#"{{"type":"comment","offset":{offset},"id":"x","time":1,"user":"u","name":"Ann","text":"{text}"}}"#
    )
}

#[test]
fn comments_are_printed_and_a_drained_connection_resumes_after_the_last() {
    let node = Node::new();
    let mut tail = node.tail(&["--history", "3"]);
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let mut errors = BufReader::new(tail.stderr.take().unwrap()).lines();

    let (target, mut socket) = node.accept();
    assert_eq!(target, "/v1/events/final/live?history=3");
    send(&mut socket, &[&welcome("5f3a-6", false), &comment(7, "one"), &comment(8, "two")]);
    send(&mut socket, &[r#"{"type":"future","x":1}"#]);
    send(&mut socket, &[r#"{"type":"notice","kind":"gap","from":9,"to":11}"#]);
    send(&mut socket, &[r#"{"type":"notice","kind":"drain","delay_ms":50}"#]);
    socket.close(Some(CloseFrame { code: 1012.into(), reason: "draining".into() })).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "7  Ann: one");
    assert_eq!(lines.next().unwrap().unwrap(), "8  Ann: two");
    let mut error = || errors.next().unwrap().unwrap();
    assert_eq!(error(), "uproar: too slow, comments 9 to 11 were skipped");
    assert_eq!(error(), "uproar: the node is draining and will close within 50 ms");
    assert_eq!(error(), "uproar: closed with 1012 draining; connecting again");
    drop(socket);

    // The gap counts as seen; a connection cut without a close is resumed as well.
    let (target, mut socket) = node.accept();
    assert_eq!(target, "/v1/events/final/live?since=5f3a-11&history=3");
    send(&mut socket, &[&welcome("5f3a-11", true), &comment(12, "three")]);
    assert_eq!(lines.next().unwrap().unwrap(), "12  Ann: three");
    drop(socket);
    assert!(error().starts_with("uproar: the connection broke: "));

    // Another incarnation of the log: said, and followed from there.
    let (target, mut socket) = node.accept();
    assert_eq!(target, "/v1/events/final/live?since=5f3a-12&history=3");
    send(&mut socket, &[&welcome("77-0", false), &comment(1, "\\u001b[31mred")]);
    assert_eq!(error(), "uproar: the node no longer has all comments since the last one printed");
    assert_eq!(lines.next().unwrap().unwrap(), "1  Ann: \\u{1b}[31mred");
    drop(socket);
    let (target, socket) = node.accept();
    assert_eq!(target, "/v1/events/final/live?since=77-1&history=3");
    drop(socket);

    tail.kill().unwrap();
    tail.wait().unwrap();
}

#[test]
fn json_is_printed_as_it_came_and_a_closed_pipe_ends_it_by_sigpipe() {
    let node = Node::new();
    let mut tail = node.tail(&["--json"]);
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let (target, mut socket) = node.accept();
    assert_eq!(target, "/v1/events/final/live");
    let first = comment(1, "one");
    send(&mut socket, &[&welcome("1-0", false), &first]);
    assert_eq!(lines.next().unwrap().unwrap(), first);
    drop(lines);
    // The second comment meets a pipe that nobody reads.
    send(&mut socket, &[&comment(2, "two")]);
    assert_eq!(tail.wait().unwrap().signal(), Some(rustix::process::Signal::PIPE.as_raw()));
}

/// Everything a hostile node can put where text is printed: nothing of it reaches the terminal raw.
#[test]
fn nothing_is_printed_that_a_terminal_would_obey() {
    const EVIL: &str =
        "\u{1b}]0;x\u{7}\u{9b}2J\u{202e}\u{2067}\u{61c}\u{85}\u{2028}\nuproar: forged\r";
    let is_obeyed =
        |c: char| c.is_control() && c != '\n' || "\u{202e}\u{2067}\u{61c}\u{2028}".contains(c);
    let evil = serde_json::to_string(EVIL).unwrap();
    let frame = format!(
        r#"{{"type":"comment","offset":7,"id":"x","time":1,"user":{evil},"name":{evil},"text":{evil}}}"#
    );
    for args in [&[][..], &["--json"]] {
        let node = Node::new();
        let tail = node.tail(args);
        let (_, mut socket) = node.accept();
        send(&mut socket, &[&welcome("5f3a-6", false), &frame]);
        let reason = "\u{1b}[2J\u{202e}\nuproar: forged";
        socket.close(Some(CloseFrame { code: 1012.into(), reason: reason.into() })).unwrap();
        drop(socket);
        let (_, mut socket) = node.accept();
        send(&mut socket, &[&welcome("5f3a-7", true), &format!("no frame: {EVIL}")]);
        let output = tail.wait_with_output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            !stdout.contains(is_obeyed) && !stderr.contains(is_obeyed),
            "{stdout:?} {stderr:?}"
        );
        assert_eq!((stdout.lines().count(), stderr.lines().count()), (1, 2), "{stdout} {stderr}");
        assert!(stderr.contains("closed with 1012 ") && stderr.contains("no frame: "), "{stderr}");
        if !args.is_empty() {
            let shown: serde_json::Value = serde_json::from_str(&stdout).unwrap();
            assert_eq!(shown["text"], EVIL, "the same JSON");
        }
    }
}

/// `tests/inputs/terminal.md`: each text as one line, in the order of the table.
#[test]
fn texts_of_the_table_are_printed_as_it_says() {
    let rows = table::rows("terminal.md");
    let node = Node::new();
    let mut tail = node.tail(&[]);
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let (_, mut socket) = node.accept();
    send(&mut socket, &[&welcome("5f3a-0", false)]);
    for (row, offset) in rows.iter().zip(1..) {
        let text = serde_json::to_string(&row.text(0, Escapes::All)).unwrap();
        let frame = format!(
            r#"{{"type":"comment","offset":{offset},"id":"x","time":1,"user":{text},"text":{text}}}"#
        );
        send(&mut socket, &[&frame]);
        let printed = row.text(1, Escapes::All);
        let line = lines.next().unwrap().unwrap();
        assert_eq!(
            line,
            format!("{offset}  {printed}: {printed}"),
            "{} {:?}",
            row.place,
            row.thread
        );
    }
    drop(socket);
    tail.kill().unwrap();
    tail.wait().unwrap();
}

#[test]
fn a_refusal_shows_the_nodes_own_words() {
    let node = Node::new();
    let tail = node.tail(&[]);
    let (stream, _) = node.0.accept().unwrap();
    let body = r#"{"code":"bad_query","message":"history is a number"}"#;
    #[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
    let refuse = |_: &Request, _: Response| {
        let response = tungstenite::http::Response::builder().status(400);
        Err(response.header("content-length", body.len()).body(Some(body.to_owned())).unwrap())
    };
    assert!(tungstenite::accept_hdr(stream, refuse).is_err());
    let output = tail.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr, "uproar: refused with 400 bad_query: history is a number\n");
}
