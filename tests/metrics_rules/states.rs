//! Alerts over what a node is: full, draining, stuck, short of slots, full of unread answers.

use std::io::Write;

use rustix::process::Signal;

use crate::node::{Node, http, raise_descriptors};
use crate::series::{assert_fires, constant, sum};

#[test]
fn what_real_nodes_expose_fires_what_it_should() {
    let node = Node::start(&["--drain-delay-ms", "0"]);
    assert_fires("good", &constant(&node.metrics()), &[]);
    http(node.admin, "POST", "/drain");
    let draining = node.metrics_with("uproar_not_ready{reason=\"draining\"} 1");
    assert_fires("draining", &constant(&draining), &["UproarDrainingLong"]);

    let node = Node::start(&["--connections-max", "1"]);
    let _viewer = node.watch().unwrap();
    let full = node.metrics_with("uproar_not_ready{reason=\"full\"} 1");
    assert_fires("full", &constant(&full), &["UproarFull", "UproarNearlyFull"]);

    let file = std::env::temp_dir().join(format!("uproar-refused-{}.toml", std::process::id()));
    std::fs::write(&file, "").unwrap();
    let node = Node::start(&["--config", file.to_str().unwrap()]);
    std::fs::write(&file, "posts_per_sec_event = \"many\"\n").unwrap();
    node.signal(Signal::HUP);
    let refused = node.metrics_with("uproar_config_last_reload_successful 0");
    std::fs::remove_file(&file).unwrap();
    assert_fires("refused", &constant(&refused), &["UproarReloadRefused"]);

    let node = Node::start(&["--stall-after-ms", "300"]);
    let stuck = node.metrics_with("uproar_shard_up{shard=\"0\"} 0");
    assert_fires("stuck", &constant(&stuck), &["UproarShardStuck"]);
    // Under the watchdog one scrape sees it, a minute before the end of the hour; the next is of a new process.
    let mut busy = constant(&stuck);
    busy.insert("uproar_shard_up{shard=\"0\"}".to_owned(), "1x235 0 1x64".to_owned());
    assert_fires("one-scrape", &busy, &[]);
    let mut restarted = busy;
    restarted.insert("process_start_time_seconds".to_owned(), "100x236 200x64".to_owned());
    assert_fires("restarted", &restarted, &["UproarShardStuck"]);

    // Nobody sets the clock of a host for a test: as if it had been set back ten minutes ago.
    let node = Node::start(&[]);
    let mut stepped = constant(&node.metrics());
    let steps = stepped.get_mut("uproar_clock_steps_total{direction=\"back\"}").unwrap();
    assert_eq!(std::mem::replace(steps, "0x200 1x100".to_owned()), "0x300");
    assert_fires("stepped", &stepped, &["UproarClockStepped"]);
}

/// A table of 1,100 slots: the least that a node takes is 1,024 more than its connections.
#[test]
fn silent_sockets_that_fill_the_table_fire_what_they_should() {
    raise_descriptors();
    let args = ["--shards", "1", "--connections-max", "50", "--handshakes-max", "5000"];
    let node = Node::start_under(&["prlimit", "--nofile=1100:1100"], &args);
    assert_eq!(sum(&node.metrics(), &["uproar_ring_slots{"]), 1_100.0);
    // Who is silent for over a second is shed from a full table, and the backlog takes the places.
    let _silent: Vec<_> = (0..2_500).map(|_| node.connect()).collect();
    let is_full = |metrics: &str| sum(metrics, &["uproar_ring_slots_used"]) > 990.0;
    let full = node.metrics_when("a full table", is_full);
    assert_fires("slots", &constant(&full), &["UproarSlotsNearlyUsed"]);
}

#[test]
fn messages_that_do_not_end_fire_what_they_should() {
    raise_descriptors();
    let node = Node::start(&["--connections-max", "2000", "--message-ms-max", "600000"]);
    // The first half of a masked message of 16,000 bytes.
    let mut half = vec![0x81, 0xfe, 0x3e, 0x80, 0, 0, 0, 0];
    half.resize(half.len() + 8_000, b'x');
    let _viewers: Vec<_> = (0..1_010)
        .map(|_| {
            let mut viewer = node.upgraded("e");
            viewer.write_all(&half).unwrap();
            viewer
        })
        .collect();
    let is_held =
        |metrics: &str| sum(metrics, &["uproar_connection_memory_bytes"]) > 1_010.0 * 8_000.0;
    let held = node.metrics_when("unfinished messages", is_held);
    assert_fires("memory", &constant(&held), &["UproarConnectionMemory"]);
}
