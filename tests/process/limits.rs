//! Each limit that a stranger can reach, made small and reached, with the metric that says so.
//! (Sizes of frames and messages are in `closes`, of heads in `handshakes`, slow viewers in `slow`.)

use std::io::Write;

use crate::node::{Answer, Node, wait_until};

const REFUSED: &str = "uproar_upgrades_refused_total";

/// A good upgrade request; the answer.
fn upgrade(node: &Node, event: &str) -> Answer {
    node.raw(
        format!(
            "GET /v1/events/{event}/live HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        .as_bytes(),
    )
}

#[test]
fn connections_max() {
    let node = Node::start(&["--connections-max", "2"]);
    let seats = [node.join("a", ""), node.join("b", "")];
    let refused = upgrade(&node, "c");
    assert_eq!((refused.status, refused.code().as_str()), (503, "full"));
    assert!(refused.head.contains("retry-after: "), "{refused:?}");
    node.wait_metric(REFUSED, "\"full\"", 1.0);
    wait_until("a full node is not ready", || node.get("/ready").status == 503);
    drop(seats);
    wait_until("there is room again", || upgrade(&node, "c").status == 101);
}

#[test]
fn connections_per_address_max() {
    let node = Node::start(&["--connections-per-address-max", "1"]);
    let seat = node.join("a", "");
    let refused = upgrade(&node, "a");
    assert_eq!((refused.status, refused.code().as_str()), (429, "address_full"));
    node.wait_metric(REFUSED, "\"address_full\"", 1.0);
    drop(seat);
    wait_until("the address may come again", || upgrade(&node, "a").status == 101);
}

#[test]
fn rooms_max() {
    let node = Node::start(&["--rooms-max", "1"]);
    let _seat = node.join("a", "");
    let refused = upgrade(&node, "b");
    assert_eq!((refused.status, refused.code().as_str()), (503, "rooms_full"));
    node.wait_metric(REFUSED, "\"rooms_full\"", 1.0);
    node.join("a", "");
}

#[test]
fn comment_bytes_max() {
    let node = Node::start(&["--comment-bytes-max", "5"]);
    let mut viewer = node.join("e", "");
    viewer.post("1", "éé1");
    assert_eq!(viewer.next_of("ack")["offset"], 1, "five bytes fit");
    viewer.post("2", "ééé");
    assert_eq!(viewer.next_of("error")["code"], "too_long");
    node.wait_metric("uproar_posts_refused_total", "\"too_long\"", 1.0);
}

#[test]
fn posts_per_sec_connection() {
    let node = Node::start(&["--posts-per-sec-connection", "1"]);
    let (mut eager, mut calm) = (node.join("e", ""), node.join("e", ""));
    (0..20).for_each(|number| eager.post(&number.to_string(), "x"));
    assert_eq!(eager.next_of("error")["code"], "rate_limited");
    node.wait_metric("uproar_posts_refused_total", "\"rate_limited\"", 16.0);
    assert!(calm.post_acked("mine") >= 3, "two fit the burst, and others may still post");
}

#[test]
fn posts_per_sec_event() {
    let node = Node::start(&["--posts-per-sec-connection", "0", "--posts-per-sec-event", "2"]);
    let (mut one, mut other) = (node.join("e", ""), node.join("f", ""));
    (0..20).for_each(|number| one.post(&number.to_string(), "x"));
    assert_eq!(one.next_of("error")["code"], "rate_limited");
    assert_eq!(other.post_acked("elsewhere"), 1, "another event is not affected");
    let body = r#"{"text":"over http"}"#;
    let refused = node.post("/v1/events/e/comments", body);
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"));
}

#[test]
fn room_log_frames_max() {
    let node = Node::start(&[
        "--room-log-frames-max",
        "16",
        "--history-frames",
        "0",
        "--history-frames-max",
        "16",
        "--posts-per-sec-event",
        "0",
    ]);
    (0..40).for_each(|_| drop(node.comment("e", "x")));
    let event = node.get("/v1/events/e").json();
    assert_eq!(event["tail"], 25, "the newest 16 of 40 are kept");
    let page = node.get("/v1/events/e/comments?limit=100").json();
    assert_eq!(page["comments"].as_array().unwrap().len(), 16);
}

#[test]
fn room_log_bytes_max() {
    let node = Node::start(&["--room-log-bytes-max", "65536", "--posts-per-sec-event", "0"]);
    let text = "x".repeat(1_900);
    (0..100).for_each(|_| drop(node.comment("e", &text)));
    let tail = node.get("/v1/events/e").json()["tail"].as_u64().unwrap();
    assert!((100 - 65_536 / 1_900..100).contains(&tail), "{tail}");
    assert!(node.metric("uproar_log_bytes", "") <= 2.0 * 65_536.0);
}

#[test]
fn log_bytes_max() {
    let node = Node::start(&[
        "--log-bytes-max",
        "1048576",
        "--room-log-bytes-max",
        "131072",
        "--posts-per-sec-event",
        "0",
    ]);
    let text = "x".repeat(1_900);
    for room in 0..16 {
        (0..50).for_each(|_| drop(node.comment(&format!("room-{room}"), &text)));
    }
    assert!(node.metric("uproar_log_bytes", "shard") <= 1_048_576.0 + 131_072.0);
    assert!(node.metric("uproar_log_evicted_frames_total", "") > 0.0, "the coldest rooms gave way");
    let newest = node.get("/v1/events/room-15").json();
    assert_eq!(newest["position"].as_str().unwrap().split('-').nth(1), Some("50"));
}

#[test]
fn room_idle_ms_max() {
    let node = Node::start(&["--room-idle-ms-max", "1000"]);
    let epoch = node.join("e", "").epoch();
    node.comment("e", "x");
    node.wait_metric("uproar_rooms_freed_total", "", 1.0);
    assert_eq!(node.get("/v1/events/e").status, 404);
    assert_ne!(node.join("e", "").epoch(), epoch, "what comes back is another log");
}

#[test]
fn http_connections_max() {
    let node = Node::start(&["--http-connections-max", "1"]);
    let path = "/v1/events/e/comments";
    let mut slow = node.connect();
    // A request whose body does not come keeps the only place.
    let head = format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: 99\r\n\r\n");
    slow.write_all(head.as_bytes()).unwrap();
    wait_until("the place is taken", || node.get("/v1/events/e").status == 503);
    let refused = node.get("/v1/events/e");
    assert_eq!((refused.status, refused.code().as_str()), (503, "overloaded"));
    assert!(refused.head.contains("retry-after: "), "{refused:?}");
    node.wait_metric("uproar_http_refused_total", "\"public\"", 2.0);
    assert_eq!((node.get("/health").status, node.get("/ready").status), (200, 200));
    let mut viewer = node.join("e", "");
    assert_eq!(viewer.post_acked("viewers do not notice"), 1);
    drop(slow);
    wait_until("the place is free again", || node.get("/v1/events/e").status == 200);
}

#[test]
fn mesh_messages_max() {
    let node = Node::start(&[
        "--shards",
        "2",
        "--cpus",
        "0,1",
        "--mesh-messages-max",
        "16",
        "--spread-subscribers-min",
        "1",
        "--posts-per-sec-connection",
        "0",
        "--posts-per-sec-event",
        "0",
    ]);
    let mut viewers: Vec<_> = (0..4).map(|_| node.join("e", "?history=0&user=u")).collect();
    assert!(node.metric("uproar_room_replicas", "") >= 1.0);
    // More posts in one read than a link holds, over a connection of each shard.
    let burst = masked_text(r#"{"type":"post","text":"x"}"#).repeat(100);
    for viewer in &mut viewers {
        viewer.socket.get_mut().write_all(&burst).unwrap();
    }
    for viewer in &mut viewers {
        let (mut acks, mut offsets) = (0, Vec::new());
        while acks < 100 || offsets.len() < 400 {
            let frame = viewer.next();
            match frame["type"].as_str() {
                Some("ack") => acks += 1,
                Some("comment") => offsets.push(frame["offset"].as_u64().unwrap()),
                _ => panic!("neither an ack nor a comment: {frame}"),
            }
        }
        assert!(offsets.into_iter().eq(1..=400), "a full link loses nothing");
    }
    node.wait_metric("uproar_mesh_full_total", "", 1.0);
}

/// A text frame as a client sends it; a mask of zeros leaves the payload as it is.
fn masked_text(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

#[test]
fn connections_per_address_max_reloaded() {
    let path = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("address.toml");
    std::fs::write(&path, "connections_per_address_max = 0\n").unwrap();
    let node = Node::start(&["--config", path.to_str().unwrap()]);
    std::fs::write(&path, "connections_per_address_max = 1\n").unwrap();
    node.signal(rustix::process::Signal::HUP);
    wait_until("it is reloaded", || node.log().contains("connections_per_address_max is now 1"));
    let _seat = node.join("a", "");
    assert_eq!(upgrade(&node, "a").status, 429, "a second from the same address");
}
