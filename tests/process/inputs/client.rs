//! A client that can say anything: bytes out, and whatever comes back taken apart by hand.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpStream};

use serde_json::Value;

use super::table::{Escapes, bytes_of};
use crate::node::PATIENCE;

/// Sends bytes and reads everything up to the end, or to a 101. Who has the whole answer ends its
/// half, as the node waits for that; what it sends all the same is read as well.
pub(super) fn exchange(to: SocketAddrV4, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(to);
    // The node may answer and close before it has read all.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let mut chunk = [0; 16 * 1024];
    while !(answer.starts_with(b"HTTP/1.1 101 ") && end_of_head(&answer).is_some()) {
        match stream.read(&mut chunk) {
            Ok(read) if read > 0 => answer.extend_from_slice(&chunk[..read]),
            _ => break,
        }
        if is_whole(bytes, &answer) {
            let _ = stream.shutdown(Shutdown::Write);
        }
    }
    answer
}

/// Whether an answer has all the content that it announces.
fn is_whole(request: &[u8], answer: &[u8]) -> bool {
    let Some(end) = end_of_head(answer) else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    request.starts_with(b"HEAD ") || answer.len() - end >= length
}

fn connect(to: SocketAddrV4) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// What an answer says in a few words; `Err` when it breaks a rule that holds for all of them.
pub(super) fn head_outcome(request: &[u8], answer: &[u8]) -> Result<String, String> {
    if answer.is_empty() {
        return Ok("closed".into());
    }
    let shown = || String::from_utf8_lossy(answer).into_owned();
    let end = end_of_head(answer).ok_or_else(|| format!("half an answer: {}", shown()))?;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let content = &answer[end..];
    let header = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.map(str::to_owned)
    };
    let status = head.get(9..12).unwrap_or_default().to_owned();
    let is_head = request.starts_with(b"HEAD ");
    let rule =
        |holds: bool, rule: &str| if holds { Ok(()) } else { Err(format!("{rule}: {}", shown())) };
    if status == "101" {
        let protocol = header("sec-websocket-protocol").map(|name| format!(" {name}"));
        rule(header("date").is_none(), "a 101 with a Date")?;
        return Ok(status + &protocol.unwrap_or_default());
    }
    rule(header("date").is_some_and(|date| date.ends_with(" gmt")), "no Date")?;
    rule(status != "405" || header("allow").is_some(), "a 405 without Allow")?;
    let has_upgrade = header("upgrade").is_some() && header("sec-websocket-version").is_some();
    rule(status != "426" || has_upgrade, "a 426 that does not say to what")?;
    if is_head {
        rule(content.is_empty(), "content for a HEAD request")?;
        return Ok(status);
    }
    let length = header("content-length").and_then(|length| length.parse().ok());
    rule(length.is_none_or(|length: usize| length == content.len()), "not one answer")?;
    let code = serde_json::from_slice::<Value>(content).ok();
    let code = code.and_then(|body| body["code"].as_str().map(|code| format!(" {code}")));
    Ok(status + &code.unwrap_or_default())
}

/// A sound request to upgrade.
pub(super) fn upgrade(event: &str, query: &str) -> Vec<u8> {
    format!(
        "GET /v1/events/{event}/live{query} HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

/// A masked frame; a mask of zeros leaves the payload as it is.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let form = match payload.len() {
        0..126 => 0,
        126..65_536 => 126,
        _ => 127,
    };
    framed(first, form, true, payload)
}

fn framed(first: u8, form: u8, is_masked: bool, payload: &[u8]) -> Vec<u8> {
    let mask = if is_masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    let length = payload.len();
    match form {
        126 => {
            bytes.push(mask | 126);
            bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        127 => {
            bytes.push(mask | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
        _ => bytes.push(mask | u8::try_from(length).unwrap()),
    }
    bytes.extend(if is_masked { &[0; 4][..] } else { &[] });
    bytes.extend(payload);
    bytes
}

/// The bytes of a write of frames, as `tests/inputs/frames.md` has them.
pub(super) fn frames_of(write: &str) -> Vec<u8> {
    write.split(" + ").flat_map(frame_of).collect()
}

fn frame_of(token: &str) -> Vec<u8> {
    let hex = |digits: &str| -> Vec<u8> {
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex");
        (0..digits.len()).step_by(2).map(byte).collect()
    };
    if let Some(bytes) = token.strip_prefix('x') {
        return hex(bytes);
    }
    let (first, rest) = token.split_at(2);
    let first = u8::from_str_radix(first, 16).expect("a frame begins with its first byte");
    if let Some(length) = rest.strip_prefix('#') {
        return [&[first, 0xff][..], &hex(length), &[0; 4]].concat();
    }
    let (how, payload) = rest.split_once(':').expect("a frame has a payload");
    let payload = bytes_of(payload, Escapes::All, &[]);
    match how {
        "" => frame(first, &payload),
        "!" => framed(first, 0, false, &payload),
        "/16" => framed(first, 126, true, &payload),
        "/64" => framed(first, 127, true, &payload),
        other => panic!("no way to write a frame: {other}"),
    }
}

/// A close frame's payload: a code and a reason, or bytes.
pub(super) fn close_payload(cell: &str) -> Vec<u8> {
    let (code, reason) = cell.split_once(' ').unwrap_or((cell, ""));
    match code.parse::<u16>() {
        Ok(code) => [&code.to_be_bytes()[..], &bytes_of(reason, Escapes::All, &[])].concat(),
        Err(_) => bytes_of(cell, Escapes::All, &[]),
    }
}

/// An upgraded connection.
pub(super) struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    /// Upgrades, with bytes behind the request.
    pub(super) fn join(to: SocketAddrV4, event: &str, query: &str, early: &[u8]) -> Self {
        let mut stream = connect(to);
        stream.write_all(&[&upgrade(event, query), early].concat()).unwrap();
        let mut client = Self { stream, received: Vec::new() };
        let end = loop {
            if let Some(end) = end_of_head(&client.received) {
                break end;
            }
            assert!(client.read(), "no answer to the upgrade");
        };
        let head: Vec<u8> = client.received.drain(..end).collect();
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        client
    }

    fn read(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        let read = self.stream.read(&mut chunk).unwrap_or(0);
        self.received.extend_from_slice(&chunk[..read]);
        read > 0
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        // A node that has closed takes no more.
        let _ = self.stream.write_all(bytes);
    }

    pub(super) fn post(&mut self, command: &Value) {
        self.write(&frame(0x81, command.to_string().as_bytes()));
    }

    /// The next frame's opcode and payload; none at the end.
    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let [first, second, ..] = *self.received {
                let (head, length) = match (second, &self.received[2..]) {
                    (126, [a, b, ..]) => (4, Some(usize::from(u16::from_be_bytes([*a, *b])))),
                    (126, _) => (4, None),
                    (length, _) => (2, Some(usize::from(length))),
                };
                assert!(first & 0xf0 == 0x80 && second < 127, "{first:02x} {second:02x}");
                if let Some(length) = length.filter(|length| self.received.len() >= head + length) {
                    let frame: Vec<u8> = self.received.drain(..head + length).collect();
                    return Some((first & 0xf, frame[head..].to_vec()));
                }
            }
            if !self.read() {
                return None;
            }
        }
    }

    /// The next text; none at the end, or at a close.
    pub(super) fn text(&mut self) -> Option<String> {
        let (opcode, payload) = self.frame()?;
        (opcode == 1).then(|| String::from_utf8(payload).expect("texts are UTF-8"))
    }

    pub(super) fn json(&mut self) -> Option<Value> {
        self.text().map(|text| serde_json::from_str(&text).expect("texts are JSON"))
    }

    /// What the node says until it closes, or until a ping behind everything is answered.
    pub(super) fn outcome(&mut self, is_open: bool) -> String {
        if is_open {
            // Within a message that was left open a ping is as good.
            self.write(&frame(0x89, b"end"));
        }
        let mut outcome = Vec::new();
        loop {
            match self.frame() {
                Some((1, payload)) => {
                    let frame: Value = serde_json::from_slice(&payload).expect("texts are JSON");
                    match frame["type"].as_str().unwrap() {
                        "ack" => outcome.push("ack".to_owned()),
                        "error" => {
                            let code = frame["code"].as_str().unwrap();
                            outcome.push(format!("error {code}"));
                        }

                        _ => {}
                    }
                }
                Some((0xa, payload)) if payload == b"end" => {
                    outcome.push("open".into());
                    break;
                }
                Some((0xa, payload)) => {
                    outcome.push(format!("pong:{}", String::from_utf8_lossy(&payload)));
                }
                Some((8, payload)) => {
                    let code = u16::from_be_bytes([payload[0], payload[1]]);
                    outcome.push(format!("close {code}"));
                    self.end(&mut outcome);
                    break;
                }
                Some((opcode, _)) => outcome.push(format!("opcode {opcode}")),
                None => {
                    outcome.push("cut off".into());
                    break;
                }
            }
        }
        outcome.join(", ")
    }

    /// After the node's close frame nothing comes but the end.
    fn end(&mut self, outcome: &mut Vec<String>) {
        let _ = self.stream.shutdown(Shutdown::Write);
        while self.read() {}
        if !self.received.is_empty() {
            outcome.push("more behind the close frame".into());
        }
    }
}
