//! The request head: one sound upgrade and what each change to it does.

use super::*;
use crate::report::Refusal;

const SOUND: &str = "GET /v1/events/final.2026/live HTTP/1.1\r\n\
    Host: localhost\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn read(input: &str) -> Head {
    read_head(input.as_bytes(), &Limits::default())
}

/// The sound head with one part of it replaced.
fn changed(from: &str, to: &str) -> String {
    assert!(SOUND.contains(from), "{from}");
    SOUND.replacen(from, to, 1)
}

fn accepted(input: &str) -> Upgrade {
    match read(input) {
        Head::Upgrade(upgrade) => *upgrade,
        other => panic!("{other:?} for {input}"),
    }
}

fn refused(input: &str) -> Rejection {
    match read(input) {
        Head::Refused(rejection) => rejection,
        other => panic!("{other:?} for {input}"),
    }
}

fn with_query(query: &str) -> String {
    changed("/live", &format!("/live?{query}"))
}

#[test]
fn the_rfcs_example_is_accepted() {
    let upgrade = accepted(SOUND);
    assert_eq!(
        upgrade,
        Upgrade {
            event: "final.2026".parse().unwrap(),
            accept_key: "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into(),
            codec: Codec::Json,
            names_protocol: false,
            since: None,
            history: None,
            user: None,
            name: None,
            head_len: SOUND.len(),
        }
    );
    let mut out = Vec::new();
    write_switching(&mut out, &upgrade);
    let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    assert_eq!(out, expected.as_bytes());
}

#[test]
fn early_frames_are_left_for_the_reader() {
    let head_len = accepted(&format!("{SOUND}\u{1}early")).head_len;
    assert_eq!(head_len, SOUND.len());
}

#[test]
fn headers_are_lists_in_any_case() {
    for input in [
        changed("Upgrade: websocket", "uPGRADE:  h2c , WebSocket"),
        changed("Connection: Upgrade", "connection: keep-alive,upgrade"),
        changed("Connection: Upgrade", "Connection: keep-alive\r\nConnection: upgrade"),
        changed("Host: localhost", "Host:"),
        changed("Host: localhost", "host: [::1%25lo]:8080"),
        changed("Host", "Content-Length: 0\r\nHost"),
    ] {
        assert_eq!(accepted(&input).accept_key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}

#[test]
fn the_first_known_subprotocol_is_chosen_and_named() {
    for (offer, codec) in [
        ("uproar.json.v1", Codec::Json),
        ("uproar.rkyv.v1", Codec::Binary),
        ("mqtt, uproar.rkyv.v1, uproar.json.v1", Codec::Binary),
        ("mqtt\r\nSec-WebSocket-Protocol: uproar.json.v1,uproar.rkyv.v1", Codec::Json),
    ] {
        let header = format!("Sec-WebSocket-Protocol: {offer}\r\nHost");
        let upgrade = accepted(&changed("Host", &header));
        assert_eq!((upgrade.codec, upgrade.names_protocol), (codec, true), "{offer}");
        let mut out = Vec::new();
        write_switching(&mut out, &upgrade);
        let named = format!("\r\nSec-WebSocket-Protocol: {}\r\n\r\n", codec.subprotocol());
        assert!(out.ends_with(named.as_bytes()));
    }
    let empty = accepted(&changed("Host", "Sec-WebSocket-Protocol: ,\r\nHost"));
    assert!(!empty.names_protocol);
}

#[test]
fn query_parameters_are_decoded() {
    let query = "since=5f3a-1154&history=20&user=u%31&name=Ann+%C3%A9&token=x%&later";
    let upgrade = accepted(&with_query(query));
    assert_eq!(upgrade.since, Some(Position { epoch: 0x5f3a, offset: 1154 }));
    assert_eq!(upgrade.history, Some(20));
    assert_eq!(upgrade.user.as_deref(), Some("u1"));
    assert_eq!(upgrade.name.as_deref(), Some("Ann é"));
    assert_eq!(accepted(&with_query("user=a+b")).user.as_deref(), Some("a b"));
    assert_eq!(accepted(&with_query("%75ser=a%2Bb")).user.as_deref(), Some("a+b"));
    for nothing in
        ["", "user", "user=", "name=&user=", "since=", "history=&since", "user=%e2%80%8b"]
    {
        let upgrade = accepted(&with_query(nothing));
        assert_eq!((upgrade.user, upgrade.name), (None, None), "{nothing}");
        assert_eq!((upgrade.since, upgrade.history), (None, None), "{nothing}");
    }
    assert_eq!(accepted(&with_query("user=&user=a")).user.as_deref(), Some("a"));
    // An override that is not closed would turn around what a viewer shows after the name.
    assert_eq!(accepted(&with_query("name=%e2%80%aennA")).name.as_deref(), Some("nnA"));
    // More than any cap is as good as the cap.
    assert_eq!(accepted(&with_query("history=99999999999")).history, Some(u32::MAX));
    assert_eq!(accepted(&changed("final.2026", "a%3Ab")).event.as_str(), "a:b");
    let longest = "x".repeat(64);
    assert_eq!(accepted(&with_query(&format!("name={longest}"))).name.as_deref(), Some(&*longest));
}

#[test]
fn targets_may_be_absolute() {
    for target in [
        "http://localhost/v1/events/final.2026/live?user=u",
        "ws://localhost:8080/v1/events/final.2026/live?user=u",
        "WSS://a.b/v1/events/final.2026/live?user=u",
    ] {
        let upgrade = accepted(&changed("/v1/events/final.2026/live", target));
        assert_eq!(upgrade.event.as_str(), "final.2026", "{target}");
        assert_eq!(upgrade.user.as_deref(), Some("u"), "{target}");
    }
    for (target, parts) in [
        ("/a?b", Some(("/a", "b"))),
        ("http://h", Some(("/", ""))),
        ("http://h?q", Some(("/", "q"))),
        ("http://h/?q?", Some(("/", "q?"))),
        ("*", Some(("*", ""))),
        ("http:///a", None),
        ("ftp://h/a", None),
        ("h:80", None),
        ("a", None),
        ("", None),
        ("/a#b", None),
    ] {
        assert_eq!(split_target(target), parts, "{target}");
    }
}

#[test]
fn each_row_of_the_status_table_that_a_head_can_cause() {
    let many_headers = changed("Host: localhost\r\n", &"X: y\r\n".repeat(61));
    let long_head = changed("Host: localhost", &format!("Host: {}", "h".repeat(9_000)));
    let rows = [
        (
            Rejection::BAD_REQUEST,
            vec![
                "\u{1}\u{2}\u{3}".into(),
                "GET / HTTP/2.0\r\n\r\n".into(),
                SOUND.replace("\r\n", "\n"),
                changed("localhost\r\n", "localhost\n"),
                format!("\n{SOUND}"),
                changed("Host: localhost\r\n", ""),
                changed("Host", "Host: localhost\r\nHost"),
                changed("Host: localhost", "Host: local host"),
                changed("Host: localhost", "Host: a/b"),
                changed("HTTP/1.1", "HTTP/1.0"),
                changed("Host", "Content-Length: 1\r\nHost"),
                changed("Host", "Content-Length: 0\r\nContent-Length: 5\r\nHost"),
                changed("Host", "Content-Length:\r\nHost"),
                changed("Host", "Transfer-Encoding: chunked\r\nHost"),
                changed("/v1", "ftp://h/v1"),
                changed("/live", "/live#x"),
                "GET /health HTTP/1.1\r\n\r\n".into(),
                "GET /health HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n".into(),
                "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n".into(),
                changed("Host", "Ho st"),
                changed("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
                changed("Host", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nHost"),
                changed("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ="),
                changed("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQQQ"),
                changed("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub-5jZQ=="),
            ],
        ),
        (
            Rejection::BAD_EVENT,
            vec![
                changed("final.2026", ""),
                changed("final.2026", ".."),
                changed("final.2026", "a%20b"),
                changed("final.2026", "a%2"),
                changed("final.2026", &"x".repeat(129)),
            ],
        ),
        (
            Rejection::BAD_QUERY,
            vec![
                with_query("since=5f3a"),
                with_query("since=1-1&since=1-1"),
                with_query("history=-1"),
                with_query("history=%2b1"),
                with_query("since=5f3a-1+1"),
                with_query("history=+1"),
                with_query("user=%"),
                with_query("user=%4"),
                with_query("user=%4x"),
                with_query("user=%ff"),
                with_query("name=a%0ab"),
                with_query(&format!("name={}", "x".repeat(65))),
            ],
        ),
        (
            Rejection::BAD_SUBPROTOCOL,
            vec![changed("Host", "Sec-WebSocket-Protocol: mqtt, uproar.json.v2\r\nHost")],
        ),
        (
            Rejection::UPGRADE_REQUIRED,
            vec![
                "GET /v1/events/e/live HTTP/1.1\r\nHost: x\r\n\r\n".into(),
                "GET /v1/events/e/live HTTP/1.0\r\n\r\n".into(),
                changed("Upgrade: websocket", "Upgrade: h2c"),
                changed("Connection: Upgrade", "Connection: close"),
                changed("Sec-WebSocket-Version: 13\r\n", ""),
                changed("Version: 13", "Version: 8"),
                changed("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 8"),
            ],
        ),
        (
            Rejection::TOO_LARGE,
            vec![many_headers, long_head, "GET /".to_owned() + &"x".repeat(8_192)],
        ),
    ];
    for (rejection, inputs) in rows {
        for input in inputs {
            assert_eq!(refused(&input), rejection, "{input}");
        }
    }
}

#[test]
fn other_requests_are_the_control_planes() {
    for input in [
        "GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /health HTTP/1.0\r\n\r\n",
        "GET http://x/health HTTP/1.1\r\nHost: x\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /v1/events/e HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\n\r\n",
        "POST /v1/events/e/comments HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
        "GET /v1/events/e/live/more HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        assert!(matches!(read(input), Head::Plain), "{input}");
    }
    // Where there is no upgrade to do, the wish for one is ignored; the live path has one method.
    for input in [
        changed("/v1/events/final.2026/live", "/health"),
        changed("/live", "/live/"),
        changed("/live", "/x/live"),
        changed("/v1", "/v2"),
        changed("GET", "POST"),
        changed("GET", "HEAD"),
        changed("GET", "get"),
    ] {
        assert!(matches!(read(&input), Head::Plain), "{input}");
    }
}

#[test]
fn every_cut_of_a_sound_head_is_incomplete() {
    for len in 0..SOUND.len() {
        assert!(matches!(read(&SOUND[..len]), Head::Incomplete), "{len}");
    }
}

#[test]
fn the_head_may_be_as_long_as_its_limit_and_no_longer() {
    let pad = |len: usize| changed("localhost", &"h".repeat(len - SOUND.len() + 9));
    assert_eq!(accepted(&pad(8_192)).head_len, 8_192);
    assert_eq!(refused(&pad(8_193)), Rejection::TOO_LARGE);
    assert!(matches!(read(&pad(8_193)[..8_191]), Head::Incomplete));
    assert_eq!(refused(&pad(8_193)[..8_192]), Rejection::TOO_LARGE);
    let early = format!("{}{}", pad(8_192), "x".repeat(9_000));
    assert_eq!(accepted(&early).head_len, 8_192);
}

#[test]
fn rejections_are_whole_responses_with_the_documented_codes() {
    let documented = [
        (400, "bad_request", Refusal::BadRequest),
        (400, "bad_event", Refusal::BadRequest),
        (400, "bad_query", Refusal::BadRequest),
        (400, "bad_subprotocol", Refusal::BadRequest),
        (426, "upgrade_required", Refusal::BadRequest),
        (408, "timeout", Refusal::Timeout),
        (431, "too_large", Refusal::TooLarge),
        (429, "address_full", Refusal::AddressFull),
        (429, "address_unfinished", Refusal::AddressUnfinished),
        (503, "handshakes_full", Refusal::HandshakesFull),
        (503, "full", Refusal::Full),
        (503, "draining", Refusal::Draining),
        (503, "rooms_full", Refusal::RoomsFull),
        (503, "overloaded", Refusal::Overloaded),
    ];
    for (rejection, (status, code, refusal)) in Rejection::ALL.iter().zip(documented) {
        assert_eq!((rejection.status, rejection.code), (status, code));
        assert_eq!(rejection.refusal(), refusal, "{code}");
        let mut out = Vec::new();
        write_rejection(&mut out, rejection, 784_111_777_000, Content::Sent);
        let mut headers = [EMPTY_HEADER; 8];
        let mut response = httparse::Response::new(&mut headers);
        let Ok(Status::Complete(head_len)) = response.parse(&out) else { panic!("{code}") };
        assert_eq!(response.code, Some(status));
        let header = |name| {
            only(response.headers, name).map(|value| std::str::from_utf8(value).unwrap().to_owned())
        };
        assert_eq!(header("Content-Length"), Some((out.len() - head_len).to_string()));
        assert!(header("Connection").unwrap().starts_with("close"));
        assert_eq!(header("Retry-After").is_some(), status == 503 || status == 429, "{code}");
        let version = (status == 426).then(|| "13".to_owned());
        assert_eq!(header("Sec-WebSocket-Version"), version);
        assert_eq!(header("Upgrade").is_some(), status == 426);
        assert_eq!(header("Date").as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        let mut to_head = Vec::new();
        write_rejection(&mut to_head, rejection, 784_111_777_000, Content::Announced);
        assert_eq!(to_head, out[..head_len], "a HEAD request gets the same head alone");
        let body: serde_json::Value = serde_json::from_slice(&out[head_len..]).unwrap();
        assert_eq!(body, serde_json::json!({ "code": code, "message": rejection.message }));
    }
}
