//! How a configuration comes out on a host, and what does not fit.

mod fake;

use fake::{host, load, sources};
use uproar::control::{Host, Layout, SLOTS_SPARE};

fn layout(flags: &[(&'static str, &str)], host: &Host) -> Result<Layout, String> {
    Layout::new(&load(flags), host).map_err(|problem| problem.to_string())
}

#[test]
fn every_shard_holds_every_connection_of_the_node() {
    let layout = layout(&[], &host()).unwrap();
    assert_eq!(layout.cpus, [0, 1]);
    assert_eq!((layout.rings_per_shard, layout.slots_per_ring), (3, 20_000));
    assert!(layout.connections_fit >= 55_000);
    assert_eq!(layout.node, "n1");
    assert!(layout.warnings.is_empty(), "{:?}", layout.warnings);
}

#[test]
fn rings_are_as_many_as_connections_and_descriptors_ask_for() {
    let rings = |connections: u64, descriptors_max| {
        let host = Host { descriptors_max, ..host() };
        let layout = layout(&[("connections_max", &connections.to_string())], &host).unwrap();
        let slots = u64::from(layout.rings_per_shard) * u64::from(layout.slots_per_ring);
        assert!(slots >= connections + SLOTS_SPARE, "{layout:?}");
        (layout.rings_per_shard, layout.slots_per_ring)
    };
    assert_eq!(rings(1, 20_000), (1, 20_000));
    assert_eq!(rings(20_000 - SLOTS_SPARE, 20_000), (1, 20_000));
    assert_eq!(rings(20_001 - SLOTS_SPARE, 20_000), (2, 20_000));
    assert_eq!(rings(55_000, u64::MAX), (2, 32_768));
    assert_eq!(rings(1_000_000, 1 << 20), (31, 32_768));
}

#[test]
fn shards_follow_the_cpus_unless_told() {
    let of = |flags: &[(&'static str, &str)]| layout(flags, &host()).unwrap();
    assert_eq!(of(&[("cpus", "1")]).cpus, [1]);
    assert_eq!(of(&[("cpus", "1,0")]).cpus, [1, 0]);
    assert_eq!(of(&[("shards", "1")]).cpus, [0]);
    let shared = of(&[("shards", "3")]);
    assert_eq!(shared.cpus, [0, 1, 0]);
    assert!(shared.warnings[0].starts_with("3 shards share 2 CPU(s)"), "{:?}", shared.warnings);
    let many = Host { cpus: (0..300).collect(), ..host() };
    assert_eq!(layout(&[], &many).unwrap().cpus.len(), 256);
}

#[test]
fn a_room_log_over_a_shards_share_is_warned_about() {
    let flags = [("room_log_bytes_max", "40000000")];
    let warnings = layout(&flags, &host()).unwrap().warnings;
    assert!(warnings[0].starts_with("room_log_bytes_max is 40000000, over the 33554432"));
}

#[test]
fn what_does_not_fit_says_which_setting_and_what_to_do() {
    let small = Host { descriptors_max: 1_024, ..host() };
    let tiny = Host { descriptors_max: 256, ..host() };
    for (flags, host, sentence) in [
        (
            &[("cpus", "0,7")][..],
            &host(),
            "cpus names CPU 7, which this process may not use (it may use 0,1)",
        ),
        (&[("rings_per_shard", "2")], &host(), "hold 38976 connections a shard, fewer than"),
        (&[("rooms_max", "1")], &host(), "rooms_max is 1, but 2 shards divide it"),
        (&[("connections_max", "10000000")], &small, "10000000, which needs 9767 rings a shard"),
        (
            &[("connections_max", "1000")],
            &tiny,
            "the descriptor limit is 256, but this configuration needs",
        ),
    ] {
        let problem = layout(flags, host).expect_err(sentence);
        assert!(problem.contains(sentence), "{problem}");
    }
}

#[test]
fn what_is_wrong_and_what_does_not_fit_come_together_when_the_settings_are_good() {
    let problems = |flags: &[(&'static str, &str)]| {
        let problems = Layout::load(&sources(flags), &host()).expect_err("it does not fit");
        problems.to_string().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let both = problems(&[("cpus", "0,7"), ("rings_per_shard", "1"), ("keepalive_ms", "1")]);
    assert_eq!(both.len(), 3, "{both:#?}");
    for (problem, begin) in both.iter().zip(["--keepalive-ms: ", "--cpus: ", "--rings-per-shard: "])
    {
        assert!(problem.starts_with(begin), "{both:#?}");
    }
    // Without the value that was meant, nobody knows how many rings it takes.
    let one = problems(&[("connections_max", "many"), ("rings_per_shard", "1")]);
    assert_eq!(one.len(), 1, "{one:#?}");
}

#[test]
fn a_reload_past_the_rings_is_refused() {
    let layout = layout(&[], &host()).unwrap();
    assert_eq!(layout.refuses(&load(&[("connections_max", "58976")]).config), None);
    let refused = layout.refuses(&load(&[("connections_max", "58977")]).config);
    assert!(refused.unwrap().contains("the rings made at start hold 58976: restart"));
}
