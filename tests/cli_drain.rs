//! `uproar drain` against a running node: what viewers, load balancers and the operator see.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod server;

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use server::{Server, http, next_frame, post, run, until};
use tungstenite::Message;

/// A node whose load balancers get an hour, so that only an end of the wait ends it.
const PATIENT: [&str; 4] = ["--drain-delay-ms", "3600000", "--drain-deadline-ms", "7200000"];
/// A node that closes everyone at once, and waits for nobody's answer.
const HASTY: [&str; 6] =
    ["--drain-delay-ms", "0", "--drain-spread-ms", "100", "--close-ms-max", "100"];

fn drain_metric(server: &Server, line: &str) -> bool {
    http(server.admin, "GET", "/metrics", "").1.lines().any(|have| have == line)
}

#[test]
fn during_the_wait_readiness_is_gone_and_viewers_are_served_and_admitted() {
    let mut server = Server::start(&PATIENT);
    let mut viewer = server.watch("e");
    let said = server.ask(&["drain"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(
        said.stdout.starts_with("waiting 3600 s for load balancers, 1 connections"),
        "{said:?}"
    );
    assert_eq!(http(server.listen, "GET", "/ready", "").0, 503);
    assert!(drain_metric(&server, "uproar_drain_phase{phase=\"waiting\"} 1"));

    let mut late = server.watch("e");
    assert_eq!(post(&server, "still here"), 201);
    for viewer in [&mut viewer, &mut late] {
        assert_eq!(next_frame(viewer)["text"], "still here");
    }

    let undone = server.ask(&["drain", "--undo"]);
    assert_eq!(
        (undone.code, undone.stdout.as_str()),
        (Some(0), "no longer draining; the node takes viewers\n")
    );
    let again = server.ask(&["drain", "--undo"]);
    assert_eq!(
        (again.code, again.stdout.as_str()),
        (Some(0), "was not draining; the node takes viewers\n")
    );
    server.log_until("asked by the admin port to undo a drain, but there was none");
    assert_eq!(http(server.listen, "GET", "/ready", "").0, 200);
    assert!(drain_metric(&server, "uproar_drain_phase{phase=\"waiting\"} 0"));
    assert_eq!(post(&server, "and on"), 201);
    assert_eq!(next_frame(&mut viewer)["text"], "and on", "no drain notice came in between");
}

#[test]
fn after_the_wait_everyone_is_closed_and_wait_says_when() {
    let server = Server::start(&["--drain-delay-ms", "300", "--drain-spread-ms", "100"]);
    let mut viewer = server.watch("e");
    let reader = thread::spawn(move || {
        let mut kinds = Vec::new();
        loop {
            match viewer.read().unwrap() {
                Message::Text(text) => {
                    kinds.push(serde_json::from_str::<Value>(&text).unwrap()["kind"].clone());
                }
                Message::Close(close) => return (kinds, u16::from(close.unwrap().code)),
                _ => {}
            }
        }
    });
    let said = server.ask(&["drain", "--wait"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.ends_with("drained, 0 connections left\n"), "{said:?}");
    assert_eq!(reader.join().unwrap(), (vec!["drain".into()], 1012));
    assert!(drain_metric(&server, "uproar_drain_phase{phase=\"drained\"} 1"));
    assert!(drain_metric(&server, "uproar_drain_progress_ratio 1.000"));
    assert_eq!(post(&server, "x"), 503);
    // Asking again starts nothing over.
    let again = server.ask(&["drain", "--status"]);
    assert_eq!(again.stdout, "drained, 0 connections left\n");

    assert_eq!(server.ask(&["drain", "--undo"]).code, Some(0));
    drop(server.watch("e"));
}

#[test]
fn clients_that_a_drain_closed_resume_without_losing_anything() {
    let server = Server::start(&HASTY);
    let mut viewer = server.watch("e");
    let (mut epoch, mut seen) = (String::new(), 0);
    for round in 0..3 {
        assert_eq!(post(&server, "before"), 201);
        assert_eq!(server.ask(&["drain", "--wait"]).code, Some(0));
        assert_eq!(server.ask(&["drain", "--undo"]).code, Some(0));
        // Nobody watches now; what is posted meanwhile waits in the log.
        assert_eq!(post(&server, "meanwhile"), 201);
        loop {
            match viewer.read().unwrap() {
                Message::Text(text) => {
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    if frame["type"] == "comment" {
                        assert_eq!(frame["offset"], seen + 1);
                        seen += 1;
                    }
                }
                Message::Close(close) => break assert_eq!(u16::from(close.unwrap().code), 1012),
                _ => {}
            }
        }
        if round == 0 {
            let (_, body) = http(server.listen, "GET", "/v1/events/e", "");
            let event: Value = serde_json::from_str(&body).unwrap();
            epoch = event["position"].as_str().unwrap().split_once('-').unwrap().0.to_owned();
        }
        let (resumed, welcome) = server.watch_from("e", &format!("?since={epoch}-{seen}"));
        assert_eq!(welcome["recovered"], true, "{welcome}");
        viewer = resumed;
        assert_eq!(next_frame(&mut viewer)["offset"], seen + 1);
        seen += 1;
    }
    assert_eq!(seen, 6);
}

#[test]
fn a_drain_that_somebody_undoes_ends_the_wait_with_1() {
    let server = Server::start(&PATIENT);
    let _viewer = server.watch("e");
    let (waiting, lines) = waiting(&server);
    assert_eq!(server.ask(&["drain", "--undo"]).code, Some(0));
    assert_eq!(lines.last().unwrap().unwrap(), "not draining; the node takes viewers");
    assert_eq!(last_words(waiting), (Some(1), "uproar: somebody undid the drain\n".into()));
}

#[test]
fn sigterm_waits_for_load_balancers_and_goes_on_with_a_drain_under_way() {
    let mut server = Server::start(&["--drain-delay-ms", "400", "--drain-spread-ms", "100"]);
    server.signal(Signal::TERM);
    let line = server.log_until("draining; a second signal");
    assert_eq!((&line["delay_ms"], &line["spread_ms"]), (&400.into(), &100.into()));
    assert_eq!(http(server.listen, "GET", "/ready", "").0, 503);
    let mut viewer = server.watch("e");
    assert_eq!(server.ask(&["drain", "--undo"]).code, Some(1), "an ending process goes on");
    assert_eq!(next_frame(&mut viewer)["kind"], "drain");
    while !matches!(viewer.read().unwrap(), Message::Close(_)) {}
    drop(viewer);
    assert_eq!(server.end().code(), Some(0));

    let mut server = Server::start(&HASTY);
    assert_eq!(server.ask(&["drain", "--wait"]).code, Some(0));
    server.signal(Signal::TERM);
    server.log_until("drained, ending");
    assert_eq!(server.end().code(), Some(0));
}

#[test]
fn a_shard_that_does_not_answer_is_not_drained() {
    let mut server = Server::start(
        &[
            &["--shards", "2", "--stall-after-ms", "200"][..],
            &["--drain-spread-ms", "0", "--drain-deadline-ms", "2000"],
        ]
        .concat(),
    );
    until("a shard is stuck", || http(server.admin, "GET", "/ready", "").0 == 503);
    server.signal(Signal::TERM);
    let end = server.log_until("the drain deadline is over, ending");
    let message = end["message"].as_str().unwrap();
    assert!(
        message.ends_with("0 connections are known to be left, and shard 0 does not answer"),
        "{end}"
    );
    assert_eq!(server.end().code(), Some(0));
}

#[test]
fn a_wait_beside_a_stuck_shard_ends_with_what_to_do() {
    let args = ["--shards", "2", "--stall-after-ms", "200", "--drain-delay-ms", "0"];
    let server = Server::start(&args);
    until("a shard is stuck", || http(server.admin, "GET", "/ready", "").0 == 503);
    let said = server.ask(&["drain", "--wait"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.contains("and shard 0 does not answer"), "{said:?}");
    assert!(said.stderr.contains("shards [0] do not answer"), "{said:?}");
    assert!(said.stderr.contains("systemctl restart uproar"), "{said:?}");
    let (_, body) = http(server.admin, "GET", "/drain", "");
    let state: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&state["silent"], &state["connections"]), (&serde_json::json!([0]), &Value::Null));
    assert_eq!(state["connections_known"], 0);
}

/// `uproar drain --wait` of a node whose wait for load balancers does not end, after its first line.
fn waiting(server: &Server) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut waiting = Command::new(env!("CARGO_BIN_EXE_uproar"))
        .args(["drain", "--wait", "--url", &format!("http://{}", server.admin)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(waiting.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("waiting"));
    (waiting, lines)
}

fn last_words(mut waiting: Child) -> (Option<i32>, String) {
    let mut stderr = String::new();
    waiting.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (waiting.wait().unwrap().code(), stderr)
}

#[test]
fn a_restart_is_told_from_an_undone_drain() {
    let server = Server::start(&PATIENT);
    let admin = server.admin.to_string();
    let (waiting, lines) = waiting(&server);
    drop(server);
    let _again = Server::start(&["--admin", &admin]);
    let lines: Vec<String> = lines.map(|line| line.unwrap()).collect();
    assert_eq!(lines.last().unwrap(), "not draining; the node takes viewers", "{lines:?}");
    let (code, stderr) = last_words(waiting);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("the node was restarted before its drain was done"), "{stderr}");
}

#[test]
fn a_node_that_is_gone_is_said_to_be() {
    let server = Server::start(&PATIENT);
    let (waiting, lines) = waiting(&server);
    drop(server);
    assert!(lines.last().unwrap().unwrap().ends_with("; trying again"));
    let (code, stderr) = last_words(waiting);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("the node was there and is not any more"), "{stderr}");
}

#[test]
fn a_wait_that_nobody_reads_ends_by_sigpipe() {
    let server = Server::start(&PATIENT);
    let (mut waiting, lines) = waiting(&server);
    drop(lines);
    assert_eq!(waiting.wait().unwrap().signal(), Some(Signal::PIPE.as_raw()));
    let mut stderr = String::new();
    waiting.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(stderr, "", "it ends silently");
}

#[test]
fn closes_take_as_long_as_their_rate_wants_and_the_deadline_waits_for_them() {
    let mut server = Server::start(&[
        "--drain-delay-ms",
        "0",
        "--drain-spread-ms",
        "100",
        "--drain-deadline-ms",
        "1100",
        "--drain-closes-per-sec",
        "10",
    ]);
    let viewers: Vec<_> = (0..30).map(|_| server.watch("e")).collect();
    until("the drain would take three seconds", || {
        drain_metric(&server, "uproar_drain_spread_seconds 3.100000")
    });
    server.signal(Signal::TERM);
    let line = server.log_until("draining; a second signal");
    assert_eq!((&line["spread_ms"], &line["deadline_ms"]), (&3_100.into(), &4_100.into()));
    let line = server.log_until("closing 30 connections over 3100 ms");
    assert_eq!(line["connections"], 30);
    let began = Instant::now();
    let readers = viewers.into_iter().map(|mut viewer| {
        thread::spawn(move || {
            while !matches!(viewer.read().unwrap(), Message::Close(_)) {}
            Instant::now()
        })
    });
    let readers: Vec<_> = readers.collect();
    let mut closed: Vec<Instant> =
        readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    closed.sort_unstable();
    // A loaded machine may see closes late and together, never early.
    let in_time = closed.iter().filter(|at| at.duration_since(began).as_millis() < 1_000).count();
    assert!(in_time <= 12, "{in_time} of 30 in the first second");
    assert!(closed[29].duration_since(began).as_millis() >= 2_000);
    server.log_until("drained, ending");
    assert_eq!(server.end().code(), Some(0));
}

#[test]
fn ctrl_c_does_not_wait() {
    let mut server = Server::start(&PATIENT);
    server.signal(Signal::INT);
    server.log_until("drained, ending");
    assert_eq!(server.end().code(), Some(0));
}

#[test]
fn what_is_no_admin_port_is_said_so() {
    let server = Server::start(&[]);
    let public = format!("http://{}", server.listen);
    let said = run(&["drain", "--url", &public]);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("has no /drain (404); is --url the admin port"), "{said:?}");

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said = run(&["drain", "--url", &format!("http://{closed}")]);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("nothing listens there; is the node running?"), "{said:?}");

    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", other.local_addr().unwrap());
    let speaker = thread::spawn(move || {
        let (mut stream, _) = other.accept().unwrap();
        stream.write_all(b"220 mail.example ESMTP\r\n").unwrap();
        // Reads on, so that the close is no reset.
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let said = run(&["drain", "--status", "--url", &url]);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("does not speak HTTP; is --url the admin port"), "{said:?}");
    speaker.join().unwrap();
    assert_eq!(run(&["drain", "--undo", "--wait"]).code, Some(2));
}

#[test]
fn hot_rooms_are_in_top_and_a_room_on_two_shards_is_one_entry() {
    let server = Server::start(&["--shards", "2", "--spread-subscribers-min", "1"]);
    let _hot: Vec<_> = (0..6).map(|_| server.watch("final")).collect();
    let _quiet = server.watch("other");
    (0..20).for_each(|_| assert_eq!(post(&server, "x"), 201));
    until("the home shard has heard of its replica's viewers", || {
        let (_, body) = http(server.listen, "GET", "/v1/events/final", "");
        body.contains("\"viewers\":6")
    });
    assert!(
        drain_metric(&server, "uproar_room_replicas{shard=\"0\"} 1")
            || drain_metric(&server, "uproar_room_replicas{shard=\"1\"} 1"),
        "the room has spread"
    );
    let (_, body) = http(server.admin, "GET", "/report?rooms=2", "");
    let report: Value = serde_json::from_str(&body).unwrap();
    let names = |list: &str| -> Vec<(String, u64)> {
        let rooms = report["hot_rooms"][list].as_array().unwrap().iter();
        rooms
            .map(|room| {
                (room["event"].as_str().unwrap().to_owned(), room["viewers"].as_u64().unwrap())
            })
            .collect()
    };
    assert_eq!(names("by_viewers"), [("final".into(), 6), ("other".into(), 1)]);
    assert_eq!(names("by_comments"), [("e".into(), 0)]);
    let rate = report["hot_rooms"]["by_comments"][0]["comments_per_second"].as_f64().unwrap();
    assert!(rate > 1.0 && rate <= 2.0, "20 comments in ten seconds: {rate}");

    let said = server.ask(&["top", "--frames", "1"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains("HOT ROOMS BY VIEWERS"), "{said:?}");
    assert!(
        said.stdout.lines().any(|line| line.starts_with("final ") && line.contains("      6 ")),
        "{said:?}"
    );
    // Nobody pays for a look that was not asked for, and a name in a list has no metric.
    assert!(serde_json::from_str::<Value>(&http(server.admin, "GET", "/report", "").1).unwrap()["hot_rooms"].is_null());
    assert!(!http(server.admin, "GET", "/metrics", "").1.contains("final"));
    assert_eq!(http(server.admin, "GET", "/report?rooms=many", "").0, 400);
}
