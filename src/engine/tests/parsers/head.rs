//! The request head: verdicts do not depend on the cuts, and what we accept tungstenite's
//! handshake accepts as well, with the same key.

use std::io::{self, Cursor, Read, Write};

use httparse::{EMPTY_HEADER, Response, Status};
use tungstenite::http::Uri;
use uproar_engine::codec::clean_label;
use uproar_engine::http::{
    Content, Head, Upgrade, read_head, split_target, write_rejection, write_switching,
};
use uproar_engine::limits::Limits;

use super::{Dice, for_seeds};

fn sound_head(dice: &mut Dice) -> Vec<u8> {
    let query = dice.pick(&[
        "",
        "?",
        "?since=5f3a-12&history=9",
        "?user=u%31&name=Ann+B%C3%A9",
        "?name=%E2%80%AEa%E2%81%A7b%E2%80%AC",
    ]);
    let path = dice.pick(&[
        "/v1/events/e.1/live",
        "/v1/events/e.1/live",
        "ws://a:1/v1/events/e.1/live",
        "/health",
    ]);
    let mut lines = vec![
        "Host: localhost",
        dice.pick(&["Upgrade: websocket", "upgrade: WebSocket"]),
        dice.pick(&["Connection: Upgrade", "Connection: keep-alive, Upgrade"]),
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    if dice.roll(2) == 0 {
        let offers = ["Sec-WebSocket-Protocol: uproar.rkyv.v1", "Sec-WebSocket-Protocol: a, b"];
        lines.insert(dice.roll(5), dice.pick(&offers));
    }
    if dice.roll(4) == 0 {
        let more = [
            "Host: localhost",
            "Content-Length: 0",
            "Content-Length: 4",
            "Transfer-Encoding: chunked",
        ];
        lines.insert(dice.roll(lines.len()), dice.pick(&more));
    }
    if dice.roll(6) == 0 {
        lines.remove(dice.roll(lines.len()));
    }
    let early = dice.pick(&["", "", "\u{1}early frames\r\n\r\n"]);
    format!("GET {path}{query} HTTP/1.1\r\n{}\r\n\r\n{early}", lines.join("\r\n")).into_bytes()
}

fn limits() -> Limits {
    Limits { handshake_bytes_max: 250, ..Limits::default() }
}

/// Verdicts compare by what a client would see of them.
fn seen(head: &Head) -> String {
    format!("{head:?}")
}

/// How many lines of a head have this name.
fn lines_named(head: &[u8], name: &str) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    head.lines().filter(|line| line.split_once(':').is_some_and(|(have, _)| have == name)).count()
}

/// What holds of every head that is served, here or by the control plane.
fn check_served(head: &[u8]) {
    let is_1_1 = String::from_utf8_lossy(head).lines().any(|line| line.ends_with("HTTP/1.1"));
    let hosts = lines_named(head, "host");
    assert!(hosts == 1 || hosts == 0 && !is_1_1, "{}", head.escape_ascii());
}

fn check_upgrade(upgrade: &Upgrade, input: &[u8]) {
    let head = &input[..upgrade.head_len];
    check_served(head);
    assert_eq!(lines_named(head, "transfer-encoding"), 0);
    let announced = String::from_utf8_lossy(head).to_ascii_lowercase();
    let mut lengths = announced.lines().filter_map(|line| line.strip_prefix("content-length:"));
    assert!(lengths.all(|length| length.trim().parse() == Ok(0)), "{announced}");
    assert!(head.ends_with(b"\r\n\r\n") && head.len() <= 250);
    for label in [&upgrade.user, &upgrade.name].into_iter().flatten() {
        assert_eq!(clean_label(label.clone()), Ok(Some(label.clone())), "it is clean already");
    }
    let mut out = Vec::new();
    write_switching(&mut out, upgrade);
    assert_eq!(status(&out), 101);
}

/// The status of a whole response head.
fn status(response: &[u8]) -> u16 {
    let mut headers = [EMPTY_HEADER; 16];
    let mut parsed = Response::new(&mut headers);
    assert!(matches!(parsed.parse(response), Ok(Status::Complete(_))));
    parsed.code.expect("a response has a status")
}

/// Reads from one side, keeps what is written to the other.
struct Peer(Cursor<Vec<u8>>, Vec<u8>);

impl Read for Peer {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Peer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The accept key by tungstenite's own handshake, if it accepts the head.
fn their_accept_key(head: &[u8]) -> Option<String> {
    let peer = Peer(Cursor::new(head.to_vec()), Vec::new());
    let socket = tungstenite::accept(peer).ok()?;
    let response = String::from_utf8(socket.get_ref().1.clone()).ok()?;
    let line = response
        .lines()
        .find(|line| line.to_ascii_lowercase().starts_with("sec-websocket-accept:"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Where tungstenite refuses what does no harm: bytes beyond ASCII in headers that concern
/// neither of us, a list in `Upgrade` (RFC 9110 §7.8), stray bits after a key's 16 bytes, a
/// parameter we ignore with characters that a URI should escape.
fn are_stricter(head: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(head) else { return true };
    let is_sole_upgrade = text.to_ascii_lowercase().contains("\nupgrade: websocket\r\n");
    let is_exact_key = ["A==\r\n", "Q==\r\n", "g==\r\n", "w==\r\n"];
    let is_uri = text.split(' ').nth(1).is_some_and(|target| target.parse::<Uri>().is_ok());
    !text.is_ascii()
        || !is_uri
        || !is_sole_upgrade
        || !is_exact_key.iter().any(|end| text.contains(end))
}

#[test]
fn a_verdict_is_final_whatever_follows() {
    for_seeds(0..3_000, |dice| {
        let mut input = sound_head(dice);
        dice.damage(&mut input, b"\r\n :/?%&=,\0\x80AZ09");
        let mut received = 0;
        let mut verdict: Option<String> = None;
        for chunk in dice.chunks(&input) {
            received += chunk.len();
            let head = read_head(&input[..received], &limits());
            match &head {
                Head::Incomplete => {
                    assert!(verdict.is_none() && received < 250);
                    continue;
                }
                Head::Upgrade(upgrade) => check_upgrade(upgrade, &input[..received]),
                Head::Plain => {
                    let end = input.windows(4).position(|four| four == b"\r\n\r\n");
                    check_served(&input[..end.expect("a whole head has an end") + 4]);
                }
                Head::Refused(rejection) => {
                    let mut out = Vec::new();
                    write_rejection(&mut out, rejection, 0, Content::Sent);
                    assert_eq!(status(&out), rejection.status);
                }
            }
            // Past the limit a head that was too large may turn out to be garbage as well.
            if received <= 250 {
                let seen = seen(&head);
                assert_eq!(*verdict.get_or_insert_with(|| seen.clone()), seen);
            }
        }
    });
}

#[test]
fn tungstenite_accepts_what_we_accept() {
    let mut accepted = 0;
    for_seeds(0..3_000, |dice| {
        let mut input = sound_head(dice);
        dice.damage(&mut input, b"\r\n :/?%&=,\0\x80AZ09");
        let Head::Upgrade(upgrade) = read_head(&input, &limits()) else { return };
        let head = &input[..upgrade.head_len];
        if are_stricter(head) {
            return;
        }
        let theirs = their_accept_key(head);
        assert_eq!(theirs.as_ref(), Some(&upgrade.accept_key), "{}", input.escape_ascii());
        accepted += 1;
    });
    assert!(accepted > 300, "{accepted}");
}

#[test]
fn noise_is_survived() {
    for_seeds(0..3_000, |dice| {
        let len = dice.roll(300);
        let input = dice.bytes(len);
        assert!(!matches!(read_head(&input, &limits()), Head::Upgrade(_)));
    });
}

#[test]
fn targets_come_apart_as_uris_do() {
    let mut absolute = 0;
    for_seeds(0..5_000, |dice| {
        let scheme = dice.pick(&["", "http://", "WS://", "wss://", "ftp://"]);
        let authority =
            if scheme.is_empty() { "" } else { dice.pick(&["a", "a:80", "[::1]:9", ""]) };
        let rest = dice.pick(&["/", "/v1/events/e/live", "/a?b=c&d", "?q", ""]);
        let mut target = format!("{scheme}{authority}{rest}").into_bytes();
        dice.damage(&mut target, b"/:?.a[]%");
        let Ok(target) = String::from_utf8(target) else { return };
        let Some((path, query)) = split_target(&target) else { return };
        assert!(path.starts_with('/') || path == "*", "{target}");
        let Ok(uri) = target.parse::<Uri>() else { return };
        assert_eq!((path, query), (uri.path(), uri.query().unwrap_or_default()), "{target}");
        absolute += u32::from(uri.scheme().is_some());
    });
    assert!(absolute > 500, "{absolute}");
}
