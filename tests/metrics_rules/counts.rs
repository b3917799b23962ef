//! Alerts over what a node counts: refusals, restarts, slow viewers, missed comments.

use std::io::Write;

use crate::node::Node;
use crate::series::{assert_fires, constant, growing, sum};

#[test]
fn what_real_nodes_count_fires_what_it_should() {
    let node = Node::start(&["--connections-per-address-max", "1"]);
    let _viewer = node.watch().unwrap();
    let before = node.metrics();
    assert!(node.watch().is_err());
    let after = node.metrics_with_some(&["uproar_upgrades_refused_total", "address_full"]);
    assert_fires("address", &growing(&before, &after), &["UproarRefusingUpgrades"]);

    let node = Node::start(&["--shards", "1", "--rooms-max", "2"]);
    // Rooms that nobody watches would make place.
    let _watched = ["a", "b"].map(|event| node.upgraded(event));
    let before = node.metrics();
    (0..20).for_each(|i| node.post(&format!("e{i}"), "x"));
    let after = node.metrics_with_some(&["uproar_posts_refused_total", "rooms_full"]);
    assert_fires("overloaded", &growing(&before, &after), &["UproarRefusingPosts"]);

    let starts = (0..4).map(|_| constant(&Node::start(&[]).metrics()));
    let name = "process_start_time_seconds";
    let times: Vec<String> = starts.map(|series| series[name].replace("x300", "")).collect();
    let mut restarting = constant(&Node::start(&[]).metrics());
    // A node that starts again each two minutes, with an hour before it.
    let values = format!("{}x220 {}x8 {}x8 {}x60", times[0], times[1], times[2], times[3]);
    restarting.insert(name.to_owned(), values);
    assert_fires("restarting", &restarting, &["UproarRestarting"]);
}

#[test]
fn requests_that_do_not_end_fire_what_they_should() {
    let node = Node::start(&["--heads-bytes-max", "65536"]);
    let before = node.metrics();
    let head = format!("GET /v1/events/e/live HTTP/1.1\r\nx: {}", "x".repeat(7_000));
    let _crowd: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = node.connect();
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    let after = node.metrics_with_some(&["uproar_budget_hits_total", "heads"]);
    assert_fires(
        "heads",
        &growing(&before, &after),
        &["UproarBudgetUsedUp", "UproarRefusingUpgrades"],
    );
}

#[test]
fn requests_beyond_the_places_for_http_fire_what_they_should() {
    let node = Node::start(&["--http-connections-max", "1"]);
    let before = node.metrics();
    // A request whose body does not come keeps the only place.
    let mut slow = node.connect();
    let head = "POST /v1/events/e/comments HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n";
    slow.write_all(head.as_bytes()).unwrap();
    let refused = ["uproar_http_refused_total", "public"];
    let after = node.metrics_when("refused requests", |metrics| {
        node.get("/v1/events/e");
        sum(metrics, &refused) > 0.0
    });
    assert_fires("http", &growing(&before, &after), &["UproarHttpOverloaded"]);
}

#[test]
fn viewers_that_do_not_read_fire_what_they_should() {
    let flood = |node: &Node| {
        let text = "x".repeat(1_900);
        (0..300).for_each(|_| node.post("e", &text));
    };
    let unlimited = ["--posts-per-sec-event", "0"];
    let node = Node::start(&[&unlimited[..], &["--stall-ms-max", "1000"]].concat());
    let _stalled = node.watch().unwrap();
    let before = node.metrics();
    flood(&node);
    let after = node.metrics_with_some(&["uproar_closes_total", "stalled"]);
    assert_fires("stalled", &growing(&before, &after), &["UproarViewersTooSlow"]);

    let short =
        ["--room-log-frames-max", "16", "--history-frames", "9", "--history-frames-max", "9"];
    let node = Node::start(&[&unlimited[..], &short].concat());
    let mut slow = node.watch().unwrap();
    let before = node.metrics();
    flood(&node);
    while !slow.read().unwrap().to_text().unwrap().contains("\"gap\"") {}
    let after = node.metrics_with_some(&["uproar_gap_comments_total"]);
    assert_fires("missed", &growing(&before, &after), &["UproarCommentsMissed"]);
}

#[test]
fn reads_beyond_the_rate_fire_what_they_should() {
    let node = Node::start(&["--http-reads-per-sec", "1"]);
    node.post("e", "x");
    let before = node.metrics();
    let refused = ["uproar_http_reads_refused_total", "rate"];
    let after = node.metrics_when("refused reads", |metrics| {
        node.get("/v1/events/e/comments");
        sum(metrics, &refused) > 0.0
    });
    assert_fires("reads", &growing(&before, &after), &["UproarReadsRefused"]);
}

#[test]
fn an_address_that_holds_the_places_fires_what_it_should() {
    let node = Node::start(&["--http-connections-max", "2"]);
    let before = node.metrics();
    let head = "POST /v1/events/e/comments HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n";
    let _slow = [(); 2].map(|()| {
        let mut stream = node.connect();
        stream.write_all(head.as_bytes()).unwrap();
        stream
    });
    // Whoever comes from elsewhere gets one of the places.
    let after = node.metrics_when("a place taken back", |metrics| {
        node.get_from([127, 0, 0, 2], "/v1/events/e");
        sum(metrics, &["uproar_http_evicted_total"]) > 0.0
    });
    assert_fires("evicted", &growing(&before, &after), &["UproarHttpEvicted"]);
}

/// That lines are counted which nobody takes is shown by `tests/log_pipe.rs`; this node's are read.
#[test]
fn a_log_that_nobody_takes_fires_what_it_should() {
    let mut deaf = constant(&Node::start(&[]).metrics());
    let lost = deaf.get_mut("uproar_log_lines_lost_total").unwrap();
    assert_eq!(lost, "0x300");
    *lost = "0+4x300".to_owned();
    assert_fires("lines", &deaf, &["UproarLogLinesLost"]);
}
