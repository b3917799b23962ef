//! `/metrics` as a parser sees it: the text format's rules, our naming rules, and the values.

mod fake;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use fake::{TestNode, request, until};

/// A family as parsed: TYPE, HELP, and samples as (name, labels, value).
struct Family {
    kind: String,
    help: String,
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

fn parse(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let mut help = String::new();
    assert!(text.ends_with('\n'), "the last line ends too");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, text) = rest.split_once(' ').expect("HELP has a text");
            (current, help) = (name.to_owned(), text.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("TYPE has a kind");
            assert_eq!(name, current, "TYPE follows HELP");
            let family = Family { kind: kind.to_owned(), help: help.clone(), samples: Vec::new() };
            assert!(families.insert(name.to_owned(), family).is_none(), "{name} comes once");
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').expect("labels end");
            let labels = labels.split(',').filter(|pair| !pair.is_empty()).map(|pair| {
                let (label, value) = pair.split_once('=').expect("a label has a value");
                (label.to_owned(), value.trim_matches('"').to_owned())
            });
            let value = value.parse().expect("a value is a number");
            let family = families.get_mut(&current).expect("samples follow their TYPE");
            assert!(name.starts_with(&current), "{name} stands under {current}");
            family.samples.push((name.to_owned(), labels.collect(), value));
        }
    }
    families
}

/// What a text names: words that begin as our metrics do, with the star of a pattern.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '*'))
        .filter(|word| word.starts_with("uproar_") && *word != "uproar_*")
}

#[test]
fn every_metric_that_the_documents_name_exists() {
    let families = parse(&TestNode::start(&[]).get_admin("/metrics").body);
    for (file, least) in [("README.md", 12), ("tuning/README.md", 3)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = fs::read_to_string(&path).expect(file);
        let named: BTreeSet<&str> = names(&text).collect();
        assert!(named.len() >= least, "{file} names {named:?}");
        let is_unknown = |name: &&&str| match name.strip_suffix('*') {
            Some(start) => !families.keys().any(|family| family.starts_with(start)),
            None => !families.contains_key(**name),
        };
        let unknown: Vec<&&str> = named.iter().filter(is_unknown).collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}");
    }
}

#[test]
fn the_text_follows_the_format_and_the_naming_rules() {
    let node = TestNode::start(&[]);
    let answer = node.get_admin("/metrics");
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    let families = parse(&answer.body);
    assert!(families.len() > 50, "only {}", families.len());
    let allowed =
        "shard reason cause budget code kind le version commit phase part space port result direction limit"
            .split(' ');
    let allowed: Vec<&str> = allowed.collect();
    for (name, family) in &families {
        assert!(name.starts_with("uproar_") || name.starts_with("process_"), "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert_eq!(family.kind == "counter", name.ends_with("_total"), "{name}");
        assert!(family.help.ends_with('.') && family.help.len() > 20, "{name}: {}", family.help);
        for unit in ["_ms", "_us", "_milliseconds", "_kilobytes", "_percent"] {
            let stem = name.strip_suffix("_total").unwrap_or(name);
            assert!(!stem.ends_with(unit), "{name} is not in base units");
        }
        assert!(!family.samples.is_empty(), "{name} has no samples");
        let mut seen = BTreeSet::new();
        for (sample, labels, _) in &family.samples {
            assert!(labels.keys().all(|label| allowed.contains(&label.as_str())), "{sample}");
            assert!(seen.insert((sample, labels)), "{sample} {labels:?} comes twice");
        }
    }
}

#[test]
fn histograms_are_cumulative_and_end_at_infinity() {
    let node = TestNode::start(&[]);
    let families = parse(&node.get_admin("/metrics").body);
    let family = &families["uproar_pass_duration_seconds"];
    assert_eq!(family.kind, "histogram");
    let buckets: Vec<_> = family
        .samples
        .iter()
        .filter(|(name, labels, _)| name.ends_with("_bucket") && labels["shard"] == "0")
        .collect();
    assert_eq!(buckets.first().unwrap().1["le"], "0.000100");
    assert_eq!(buckets.last().unwrap().1["le"], "+Inf");
    assert!(buckets.is_sorted_by(|a, b| a.2 <= b.2));
    let count = family.samples.iter().find(|(name, ..)| name.ends_with("_count")).unwrap();
    assert_eq!(count.2, buckets.last().unwrap().2);
}

#[test]
fn what_happened_is_counted_where_it_says() {
    let node = TestNode::start(&[]);
    assert_eq!(node.post("/v1/events/e/comments", r#"{"text":"x"}"#).status, 201);
    assert_eq!(node.post("/v1/events/e/comments", r#"{"text":""}"#).status, 400);
    let families = parse(&node.get_admin("/metrics").body);
    let sum = |name: &str, label: Option<(&str, &str)>| -> f64 {
        let matches = |labels: &BTreeMap<String, String>| {
            label.is_none_or(|(k, v)| labels.get(k).is_some_and(|have| have == v))
        };
        families[name].samples.iter().filter(|s| matches(&s.1)).map(|s| s.2).sum()
    };
    assert_eq!(sum("uproar_comments_total", None), 1.0);
    assert_eq!(sum("uproar_posts_refused_total", None), 1.0);
    assert_eq!(sum("uproar_posts_refused_total", Some(("code", "empty"))), 1.0);
    assert_eq!(sum("uproar_rooms", None), 1.0);
    assert_eq!(sum("uproar_ready", None), 1.0);
    assert_eq!(sum("uproar_not_ready", None), 0.0);
    assert_eq!(sum("uproar_connections_max", None), 55_000.0);
    assert_eq!(sum("uproar_cpu_target_ratio", None), 0.7);
    assert!(sum("process_resident_memory_bytes", None) > 1e6);
    assert!(sum("process_start_time_seconds", None) > 1.7e9);
    let (open, most) = (sum("process_open_fds", None), sum("process_max_fds", None));
    assert!(open > 3.0 && open < most);
}

#[test]
fn the_report_is_the_same_as_json() {
    let node = TestNode::start(&[("node", "node-7")]);
    let report = node.get_admin("/report").json();
    assert_eq!(report["node"], "node-7");
    assert_eq!(report["state"], "ready");
    let families = parse(&node.get_admin("/metrics").body);
    let names: BTreeSet<&str> = report["metrics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|family| family["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, families.keys().map(String::as_str).collect());
}

#[test]
fn a_shard_that_does_not_answer_takes_readiness_away_until_it_does() {
    let node = TestNode::start(&[]);
    node.is_stuck.store(true, Ordering::Relaxed);
    until("the node knows", || node.get("/ready").status == 503);
    let ready = node.get_admin("/ready");
    assert_eq!((ready.status, ready.code()), (503, "stuck".into()));
    assert_eq!(ready.json()["message"], "shard 0 does not answer; use another node");
    assert_eq!(node.get("/health").status, 200);
    let metrics = node.get_admin("/metrics").body;
    for line in [
        "uproar_ready 0\n",
        "uproar_not_ready{reason=\"stuck\"} 1\n",
        "uproar_shard_up{shard=\"0\"} 0\n",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    assert_eq!(node.get_admin("/report").json()["state"], "stuck");
    let drain = node.get_admin("/drain").json();
    assert_eq!(drain["status"], "not draining; shard 0 does not answer; use another node");
    node.is_stuck.store(false, Ordering::Relaxed);
    until("the node is ready again", || node.get("/ready").status == 200);
}

#[test]
fn drain_by_the_admin_port_takes_readiness_away_and_can_be_undone() {
    let node = TestNode::start(&[("drain_delay_ms", "0")]);
    let from_a_page = request(node.admin, "POST", "/drain", "origin: http://evil\r\n", "");
    assert_eq!((from_a_page.status, node.get("/ready").status), (403, 200));

    assert_eq!(request(node.admin, "POST", "/drain", "", "").status, 202);
    let ready = node.get("/ready");
    assert_eq!((ready.status, ready.code()), (503, "draining".into()));
    until("the shards have heard of it", || {
        let refused = node.post("/v1/events/e/comments", r#"{"text":"x"}"#);
        (refused.status, refused.code()) == (503, "draining".into())
    });
    let metrics = node.get_admin("/metrics").body;
    assert!(metrics.contains("uproar_ready 0\n"));
    assert!(metrics.contains("uproar_not_ready{reason=\"draining\"} 1\n"));

    assert_eq!(request(node.admin, "DELETE", "/drain", "", "").status, 200);
    assert_eq!(node.get("/ready").status, 200);
    assert_eq!(node.post("/v1/events/e/comments", r#"{"text":"x"}"#).status, 201);
    assert_eq!(request(node.admin, "GET", "/drain", "", "").json()["draining"], false);
    assert_eq!(request(node.admin, "PUT", "/drain", "", "").status, 405);
}
