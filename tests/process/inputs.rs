//! What peers stumbled over: every row of `tests/inputs` against one node, and its books after.

mod client;
mod table;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use self::client::{Client, exchange, head_outcome};
use self::table::{Escapes, Row, rows};
use crate::node::{NOBODY, Node};

/// Rows that were taken from other projects' public reports.
const CITED_MIN: usize = 100;

const MACROS: &[(&str, &str)] = &[
    ("live", "/v1/events/heads/live"),
    ("comments", "/v1/events/heads/comments"),
    ("key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n"),
    ("13", "Sec-WebSocket-Version: 13\\r\\n"),
    (
        "up",
        "Upgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Version: 13\\r\\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n",
    ),
    (
        "nokey",
        "Host: t\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Version: 13\\r\\n",
    ),
    (
        "ws",
        "Host: t\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Version: 13\\r\\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n",
    ),
];

/// What differs between a row and what the node did; nothing when it is as the table says.
type Difference = Option<String>;

/// Sends a row and looks at what comes.
type Check = fn(&Node, &Row) -> Difference;

#[test]
fn inputs_that_peers_stumbled_over_have_the_outcome_of_their_row() {
    let node = Node::start(&[
        "--posts-per-sec-connection",
        "0",
        "--posts-per-sec-event",
        "0",
        "--handshake-ms-max",
        "1000",
    ]);
    node.comment("heads", "something to read");
    let tables: [(&str, Check); 8] = [
        ("heads.md", head),
        ("frames.md", frames),
        ("close_codes.md", close_code),
        ("queries.md", query),
        ("commands.md", command),
        ("texts.md", text),
        ("names.md", name),
        ("bodies.md", body),
    ];
    let all: Vec<_> = tables
        .iter()
        .flat_map(|(file, check)| rows(file).into_iter().map(move |row| (row, check)))
        .collect();
    let cited = all.iter().filter_map(|(row, _)| row.thread.as_ref());
    cited.clone().for_each(|thread| assert!(is_thread(thread), "{thread} names no thread"));
    assert!(cited.count() >= CITED_MIN, "the tables have become short");

    // A few at a time: some rows wait for a deadline of the node.
    let (next, differences) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((row, check)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(difference) = check(&node, row) {
                        differences.lock().unwrap().push(format!("{}: {difference}", row.place));
                    }
                }
            });
        }
    });
    let differences = differences.into_inner().unwrap();
    assert!(differences.is_empty(), "{} rows:\n{}", differences.len(), differences.join("\n"));
    node.settles(NOBODY);
    let mut viewer = node.join("after", "?user=u");
    assert_eq!(viewer.post_acked("the node is as before"), 1);
}

/// `owner/repository#number`.
fn is_thread(text: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    text.split_once('#').is_some_and(|(repository, number)| {
        let names = repository.split_once('/');
        names.is_some_and(|(owner, name)| is_name(owner) && is_name(name))
            && number.parse::<u32>().is_ok()
    })
}

fn differs(what: &str, expected: &str, outcome: &str) -> Difference {
    (expected != outcome).then(|| format!("{what} is {outcome:?}, not {expected:?}"))
}

fn head(node: &Node, row: &Row) -> Difference {
    let bytes = row.bytes(0, Escapes::All, MACROS);
    let ports = [("public", node.public(), row.cell(1)), ("admin", node.admin(), row.cell(2))];
    ports.into_iter().filter(|(_, _, expected)| *expected != "-").find_map(
        |(port, address, expected)| {
            let outcome = match head_outcome(&bytes, &exchange(address, &bytes)) {
                Ok(outcome) => outcome,
                Err(broken) => return Some(format!("{port}: {broken}")),
            };
            // A row may leave the code open; hyper's own answers have none.
            let is_status = expected.len() == 3 && outcome.get(..3) == Some(expected);
            if is_status { None } else { differs(port, expected, &outcome) }
        },
    )
}

fn frames(node: &Node, row: &Row) -> Difference {
    let cell = row.cell(0);
    let early = cell.strip_prefix("early + ");
    let mut writes = early.unwrap_or(cell).split(" / ").map(client::frames_of);
    let first = early.and_then(|_| writes.next()).unwrap_or_default();
    let mut client = Client::join(node.public(), "frames", "?user=u&history=0", &first);
    writes.for_each(|write| client.write(&write));
    let expected = String::from_utf8(row.bytes(1, Escapes::All, &[])).unwrap();
    let outcome = client.outcome(expected.ends_with("open"));
    differs("the outcome", &expected, &outcome)
}

fn close_code(node: &Node, row: &Row) -> Difference {
    let mut client = Client::join(node.public(), "closes", "?history=0", &[]);
    client.write(&client::frame(0x88, &client::close_payload(row.cell(0))));
    let outcome = client.outcome(false);
    differs("the answer", &format!("close {}", row.cell(1)), &outcome)
}

fn query(node: &Node, row: &Row) -> Difference {
    let query = row.text(0, Escapes::All);
    let expected = row.text(1, Escapes::All);
    let request = client::upgrade("queries", &format!("?{query}"));
    let answer = exchange(node.public(), &request);
    if !answer.starts_with(b"HTTP/1.1 101 ") {
        let outcome = head_outcome(&request, &answer).unwrap_or_else(|broken| broken);
        return differs("the outcome", &expected, &outcome);
    }
    let mut client = Client::join(node.public(), "queries", &format!("?{query}"), &[]);
    // Others write in this event as well; the own comment is known by its text.
    let text = format!("of {}", row.place);
    client.post(&json!({ "type": "post", "text": text }));
    let (mut you, mut shown) = (None, None);
    while shown.is_none() {
        let Some(frame) = client.json() else { return Some("it was cut off".into()) };
        match frame["type"].as_str() {
            Some("you") => you = Some(frame["user"].clone()),
            Some("comment") if frame["text"] == text => shown = Some(frame),
            Some("error") => return Some(frame.to_string()),
            _ => {}
        }
    }
    let shown = shown.unwrap();
    let user =
        if you == Some(shown["user"].clone()) { "guest" } else { shown["user"].as_str().unwrap() };
    let name = shown["name"].as_str().map(|name| format!(", {name}")).unwrap_or_default();
    differs("who posted", &expected, &format!("{user}{name}"))
}

/// An answer without its `ref`, which may be a number that this program has no type for.
#[derive(serde::Deserialize)]
struct Answer {
    #[serde(rename = "type")]
    kind: String,
    code: Option<String>,
}

fn command(node: &Node, row: &Row) -> Difference {
    let mut client = Client::join(node.public(), "commands", "?user=u&history=0", &[]);
    client.write(&client::frame(0x81, &row.bytes(0, Escapes::BesideJson, &[])));
    let expected = row.text(1, Escapes::All);
    loop {
        let Some(text) = client.text() else { return Some("it was cut off".into()) };
        let answer: Answer = serde_json::from_str(&text).unwrap();
        let outcome = match (&*answer.kind, answer.code) {
            ("ack", None) => "ack".to_owned(),
            ("error", Some(code)) => format!("error {code}"),
            _ => continue,
        };
        // As it stands there: a number read and written again may be another.
        let reference = text.split_once(",\"ref\":").map(|(_, rest)| {
            let end = rest.find([',', '}']).expect("a field ends");
            format!(" {}", &rest[..end])
        });
        let outcome = outcome + &reference.unwrap_or_default();
        return differs("the answer", &expected, &outcome);
    }
}

/// What became of a text: itself, or the code of its refusal.
type Fate = Result<String, String>;

fn fate_of(expected: &str, written: &str, refusal: impl Fn(&str) -> String) -> Fate {
    if expected == "kept" {
        Ok(written.to_owned())
    } else if let Some(kept) = expected.strip_prefix("becomes `") {
        let kept = kept.strip_suffix('`').expect("a code span ends");
        Ok(String::from_utf8(table::bytes_of(kept, Escapes::All, &[])).unwrap())
    } else {
        Err(refusal(expected.strip_prefix("refused").expect("an outcome of the README").trim()))
    }
}

fn text(node: &Node, row: &Row) -> Difference {
    let written = row.text(0, Escapes::All);
    let expected = fate_of(row.cell(1), &written, str::to_owned);
    let event = event_of(row);
    let mut client = Client::join(node.public(), &event, "?user=u", &[]);
    client.post(&json!({ "type": "post", "text": written }));
    let over_socket = loop {
        let Some(frame) = client.json() else { return Some("it was cut off".into()) };
        match frame["type"].as_str().unwrap() {
            "comment" => break Ok(frame["text"].as_str().unwrap().to_owned()),
            "error" => break Err(frame["code"].as_str().unwrap().to_owned()),
            _ => {}
        }
    };
    let over_rest = posted(node, &event, &json!({ "text": written }))
        .map(|comment| comment["text"].as_str().unwrap().to_owned());
    let show = |fate: &Fate| format!("{fate:?}");
    differs("over WebSocket", &show(&expected), &show(&over_socket))
        .or_else(|| differs("over REST", &show(&expected), &show(&over_rest)))
}

fn name(node: &Node, row: &Row) -> Difference {
    let written = row.text(0, Escapes::All);
    let fate = |refusal: &str| match row.cell(1) {
        "none" => Ok(None),
        expected => fate_of(expected, &written, |_| refusal.to_owned()).map(Some),
    };
    let event = event_of(row);
    let encoded: String = written.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let query = format!("?user=u&name={encoded}");
    let answer = exchange(node.public(), &client::upgrade(&event, &query));
    let name_of = |comment: &Value| comment["name"].as_str().map(str::to_owned);
    let over_socket = if answer.starts_with(b"HTTP/1.1 101 ") {
        let mut client = Client::join(node.public(), &event, &query, &[]);
        client.post(&json!({ "type": "post", "text": "x" }));
        loop {
            let Some(frame) = client.json() else { return Some("it was cut off".into()) };
            if frame["type"] == "comment" {
                break Ok(name_of(&frame));
            }
        }
    } else {
        Err(head_outcome(b"GET", &answer).unwrap_or_else(|broken| broken))
    };
    let body = json!({ "text": "x", "user": "u", "name": written });
    let over_rest = posted(node, &event, &body).map(|comment| name_of(&comment));
    let show = |fate: &Result<Option<String>, String>| format!("{fate:?}");
    differs("over WebSocket", &show(&fate("400 bad_query")), &show(&over_socket))
        .or_else(|| differs("over REST", &show(&fate("bad_text")), &show(&over_rest)))
}

/// The comment that a REST post became, or the code that refused it.
fn posted(node: &Node, event: &str, body: &Value) -> Result<Value, String> {
    let path = format!("/v1/events/{event}/comments");
    let answer = node.post(&path, &body.to_string());
    if answer.status != 201 {
        return Err(answer.code());
    }
    let page = node.get(&format!("{path}?limit=1")).json();
    Ok(page["comments"][0].clone())
}

fn body(node: &Node, row: &Row) -> Difference {
    let body = row.bytes(0, Escapes::BesideJson, &[]);
    let head = format!(
        "POST /v1/events/bodies/comments HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let request = [head.into_bytes(), body].concat();
    let outcome = head_outcome(&request, &exchange(node.public(), &request));
    differs("the answer", row.cell(1), &outcome.unwrap_or_else(|broken| broken))
}

/// An event of the row's own.
fn event_of(row: &Row) -> String {
    row.place.replace(':', ".")
}
