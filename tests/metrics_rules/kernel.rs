//! Alerts over what the kernel tells a node of its sockets. A sound node cannot be brought to contradict itself, so
//! its metrics are real but for the one number that says so.

use crate::node::Node;
use crate::series::{assert_fires, constant, sum};

#[test]
fn sockets_that_part_from_connections_fire_what_they_should() {
    let node = Node::start(&[]);
    let _viewers: Vec<_> = (0..12).map(|_| node.watch().unwrap()).collect();
    let metrics = node.metrics_when("all are connected", |metrics| {
        sum(metrics, &["uproar_connections{"]) == 12.0
    });
    assert_fires("agree", &constant(&metrics), &[]);

    let mut leaking = constant(&metrics);
    leaking.insert("uproar_ring_polls{shard=\"0\"}".to_owned(), "30x300".to_owned());
    assert_fires("leaking", &leaking, &["UproarSocketsPart"]);

    let mut contradicted = constant(&metrics);
    let unknown = "uproar_ring_contradictions_total{shard=\"0\",kind=\"unknown\"}";
    assert!(contradicted.contains_key(unknown), "{metrics}");
    contradicted.insert(unknown.to_owned(), "0x230 1x70".to_owned());
    assert_fires("contradicted", &contradicted, &["UproarRingContradicts"]);

    let mut deaf = constant(&metrics);
    let listener = "uproar_accepts_failed_total{shard=\"0\",reason=\"listener\"}";
    assert!(deaf.contains_key(listener), "{metrics}");
    deaf.insert(listener.to_owned(), "0+32x300".to_owned());
    assert_fires("deaf", &deaf, &["UproarAcceptsFail"]);
}
