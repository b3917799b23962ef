//! Who asks for more than a share: what is answered, when it is closed, and what it costs the others.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::node::{Node, wait_until};
use crate::viewer::Viewer;

const CLOSES: &str = "uproar_closes_total";
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// A frame as a client sends it; a mask of zeros leaves the payload as it is.
fn masked(opcode: u8, payload: &str) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[opcode, 0x80 | length, 0, 0, 0, 0], payload.as_bytes()].concat()
}

fn write(viewer: &mut Viewer, bytes: &[u8]) {
    viewer.socket.get_mut().write_all(bytes).unwrap();
}

/// Posts that are told apart by their `ref`.
fn posts(refs: std::ops::Range<u32>) -> Vec<u8> {
    refs.flat_map(|n| masked(0x81, &format!(r#"{{"type":"post","ref":"{n}","text":"x"}}"#)))
        .collect()
}

#[test]
fn the_hundredth_command_over_the_rate_is_answered_and_ends_the_connection() {
    let node = Node::start(&["--posts-per-sec-connection", "1"]);
    let mut calm = node.join("e", "?history=0");
    let mut eager = node.join("e", "?history=0");
    // The burst is two; the 99 after it are borne, the next is not, nobody hears of the rest.
    write(&mut eager, &posts(0..150));
    let mut refused = Vec::new();
    let mut acks = 0;
    let (code, reason) = loop {
        match eager.socket.read().expect("it is told why") {
            tungstenite::Message::Text(text) => {
                let frame: serde_json::Value = serde_json::from_str(&text).unwrap();
                match frame["type"].as_str() {
                    Some("ack") => acks += 1,
                    Some("error") => {
                        assert_eq!(frame["code"], "rate_limited");
                        refused.push(frame["ref"].as_str().unwrap().to_owned());
                    }
                    _ => assert!(["comment", "you"].contains(&frame["type"].as_str().unwrap())),
                }
            }
            tungstenite::Message::Close(frame) => {
                let frame = frame.unwrap();
                break (u16::from(frame.code), frame.reason.to_string());
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((code, &*reason), (1008, "too many commands over the rate"));
    assert!((2..=4).contains(&acks), "a burst of two, and one a second: {acks}");
    let expected: Vec<String> = (acks..acks + 100).map(|n| n.to_string()).collect();
    assert_eq!(refused, expected, "each command over the rate is answered, the last as well");
    node.wait_metric(CLOSES, "\"over_rate\"", 1.0);
    assert!(calm.post_acked("another viewer's patience is its own") > 2);
}

#[test]
fn what_is_no_command_is_charged_as_one() {
    let node = Node::start(&[]);
    for garbage in ["{}", "", "[[[[", r#"{"type":"dance"}"#] {
        let mut viewer = node.join("e", "");
        write(&mut viewer, &masked(0x81, garbage).repeat(200));
        assert_eq!(viewer.closing().map(|(code, _)| code), Some(1008), "{garbage:?}");
    }
    node.wait_metric(CLOSES, "\"over_rate\"", 4.0);
}

#[test]
fn pings_and_pongs_have_a_rate() {
    let node = Node::start(&[]);
    for opcode in [PING, PONG] {
        let mut viewer = node.join("e", "?history=0");
        write(&mut viewer, &masked(opcode, "").repeat(100));
        viewer.post("p", "a hundred within a second are fine");
        assert_eq!(viewer.next_of("ack")["ref"], "p");
        let mut viewer = node.join("e", "?history=0");
        write(&mut viewer, &masked(opcode, "").repeat(101));
        let told = viewer.closing();
        assert_eq!(told, Some((1008, "too many pings and pongs".to_owned())), "{opcode:x}");
    }
    node.wait_metric(CLOSES, "\"over_rate\"", 2.0);
}

#[test]
fn the_limits_can_be_set_and_lifted() {
    let node =
        Node::start(&["--over-rate-commands-max", "3", "--control-frames-per-sec-max", "10"]);
    let mut viewer = node.join("e", "");
    write(&mut viewer, &posts(0..13));
    assert_eq!(
        viewer.closing().map(|(code, _)| code),
        Some(1008),
        "the third beyond a burst of ten"
    );
    let mut viewer = node.join("e", "");
    write(&mut viewer, &masked(PONG, "").repeat(11));
    assert_eq!(viewer.closing().map(|(code, _)| code), Some(1008));

    let node = Node::start(&["--over-rate-commands-max", "0", "--control-frames-per-sec-max", "0"]);
    let mut viewer = node.join("e", "?history=0");
    write(&mut viewer, &posts(0..400));
    let refused = (0..).take_while(|_| viewer.next()["ref"] != "399").count();
    assert!(refused >= 390, "all are answered");
    write(&mut viewer, &masked(PONG, "").repeat(1_000));
    write(&mut viewer, &masked(PING, "still here"));
    wait_until("its ping is answered", || viewer.socket.read().unwrap().is_pong());
}

/// Is over when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// With the limits lifted a flood goes on for ever: then the turns of the shard are divided.
#[test]
fn a_flood_leaves_sends_their_share_and_pauses_nobody() {
    let lifted = ["over-rate-commands-max", "control-frames-per-sec-max", "posts-per-sec-event"];
    let flags: Vec<String> =
        lifted.iter().flat_map(|flag| [format!("--{flag}"), "0".into()]).collect();
    let node = Node::start(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    let mut viewers: Vec<_> = (0..20).map(|_| node.join("e", "?history=0")).collect();
    let is_over = AtomicBool::new(false);
    // They are not answered: whoever reads its answers slower than it asks is dropped.
    let pongs = masked(PONG, "").repeat(10_000);
    std::thread::scope(|scope| {
        let _over = Over(&is_over);
        for _ in 0..16 {
            let mut flooder = node.join("flood", "");
            let (pongs, is_over) = (&pongs, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    flooder.socket.get_mut().write_all(pongs).expect("it is not closed");
                }
            });
        }
        let cut = || node.metric("uproar_shard_turns_cut_total", "");
        let mut offset = 0;
        wait_until("turns are cut", || {
            node.comment("e", "to everybody");
            offset += 1;
            for viewer in &mut viewers {
                assert_eq!(viewer.next_of("comment")["offset"], offset);
            }
            cut() > 20.0
        });
        // The flood is what keeps the core busy, and the governor knows.
        wait_until("the flood is told from fan-out", || {
            let metrics = node.metrics();
            let of = |name: &str| {
                let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or("0 0");
                line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
            };
            assert_eq!(of("uproar_governor_pause_ratio{"), 0.0, "nobody is paused for a flood");
            let (core, fanout) =
                (of("uproar_shard_busy_ratio{"), of("uproar_shard_fanout_busy_ratio{"));
            core > 0.3 && fanout < 0.7 * core
        });
        let (input, send) = (
            node.metric("uproar_shard_input_seconds_total", ""),
            node.metric("uproar_shard_send_seconds_total", ""),
        );
        assert!(input > send && send > 0.0, "{input} {send}");
        assert!(node.metric("uproar_delivery_seconds_count", "") >= offset as f64);
    });
}
