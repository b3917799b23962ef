//! Alert rules and dashboard against the metrics of a real node: promtool judges the forms, and
//! every name and label they use must be one that the node exposes.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

fn observability(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning/observability").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(observability(name)).unwrap()
}

/// A running node with two shards.
struct Node {
    child: Child,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Node {
    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_uproar"))
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "2"])
            .args(["--connections-max", "500", "--log-format", "json"])
            .args(args)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut addresses = None;
        for line in BufReader::new(child.stderr.take().unwrap()).lines() {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let address = |key: &str| line[key].as_str().unwrap().parse().unwrap();
            if line["message"] == "starting" {
                addresses = Some((address("listen"), address("admin")));
            } else if line["message"] == "ready" {
                break;
            }
        }
        let (listen, admin) = addresses.expect("a node says where it listens");
        Self { child, listen, admin }
    }

    fn metrics(&self) -> String {
        http(self.admin, "GET", "/metrics")
    }

    /// The metrics once they hold this line.
    fn metrics_with(&self, line: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let metrics = self.metrics();
            if metrics.lines().any(|have| have == line) {
                return metrics;
            }
            assert!(Instant::now() < deadline, "no {line} in {metrics}");
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn http(to: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn promtool(args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new("promtool")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|why| panic!("promtool: {why}; apt install prometheus"));
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn assert_good(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

/// Every metric name in a text, without a histogram's suffixes.
fn names(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("uproar_") || word.starts_with("process_"))
        .map(|name| {
            ["_bucket", "_sum", "_count"].iter().fold(name, |n, s| n.strip_suffix(s).unwrap_or(n))
        })
        .collect()
}

/// Every value that a text compares these labels with.
fn label_values(text: &str) -> BTreeSet<(&str, &str)> {
    let mut found = BTreeSet::new();
    for label in ["reason", "cause", "code"] {
        for (at, _) in text.match_indices(label) {
            let rest = &text[at + label.len()..];
            let Some(rest) = rest.strip_prefix("=~\"").or(rest.strip_prefix("=\"")) else {
                continue;
            };
            let values = rest.split_once('"').unwrap().0;
            found.extend(values.split('|').map(|value| (label, value)));
        }
    }
    found
}

#[test]
fn promtool_finds_no_fault_with_the_metrics() {
    let node = Node::start(&[]);
    let output = promtool(&["check", "metrics"], &node.metrics());
    assert_good(&output);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr),
        ""
    );
}

#[test]
fn rules_and_dashboard_use_only_what_a_node_exposes() {
    let metrics = Node::start(&[]).metrics();
    let exposed: BTreeSet<&str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    for file in ["alerts.yml", "alerts_test.yml", "dashboard.json"] {
        // JSON escapes the quotes of label values.
        let text = read(file).replace("\\\"", "\"");
        let used = names(&text);
        assert!(used.len() > 10, "{file}: {used:?}");
        let unknown: Vec<_> = used.difference(&exposed).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
        for (label, value) in label_values(&text) {
            assert!(metrics.contains(&format!("{label}=\"{value}\"")), "{file}: {label}={value}");
        }
    }
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.iter().all(|panel| panel["targets"].as_array().is_some_and(|t| !t.is_empty())));
}

#[test]
fn the_rules_are_valid_and_each_alert_fires() {
    let alerts = observability("alerts.yml");
    assert_good(&promtool(&["check", "rules", alerts.to_str().unwrap()], ""));
    let tests = observability("alerts_test.yml");
    assert_good(&promtool(&["test", "rules", tests.to_str().unwrap()], ""));
    let (rules, tests) = (read("alerts.yml"), read("alerts_test.yml"));
    let alerts: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 15, "{alerts:?}");
    for alert in alerts {
        assert!(tests.contains(&format!("alertname=\"{alert}\"")), "{alert} is never fired");
    }
}

/// Time series for promtool: what each is called, and its values every 15 s for over an hour.
type Series = BTreeMap<String, String>;

/// Every sample of a scrape, by its series.
fn samples(metrics: &str) -> impl Iterator<Item = (&str, f64)> {
    metrics
        .lines()
        .filter(|line| !line.starts_with('#') && !line.contains("_bucket"))
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(series, value)| (series, value.parse().unwrap()))
}

/// A node that goes on exposing these metrics.
fn constant(metrics: &str) -> Series {
    samples(metrics).map(|(name, value)| (name.to_owned(), format!("{value}x300"))).collect()
}

/// A node whose counters go on growing every 15 s as they did between two scrapes.
fn growing(before: &str, after: &str) -> Series {
    let before: BTreeMap<&str, f64> = samples(before).collect();
    samples(after)
        .map(|(name, value)| {
            let is_counter = name.split('{').next().unwrap().ends_with("_total");
            let grown = if is_counter { value - before[name] } else { 0.0 };
            (name.to_owned(), format!("{value}+{grown}x300"))
        })
        .collect()
}

/// Asserts that these alerts, and no others, fire over such a node.
fn assert_fires(name: &str, series: &Series, alerts: &[&str]) {
    let input: String = series
        .iter()
        .map(|(series, values)| {
            let (metric, labels) = series.split_once('{').unwrap_or((series, "}"));
            let comma = if labels == "}" { "" } else { "," };
            let labels = format!("job=\"uproar\",instance=\"n\"{comma}{labels}");
            format!("      - {{series: '{metric}{{{labels}', values: '{values}'}}\n")
        })
        .collect();
    let expected: String = alerts
        .iter()
        .map(|alert| format!("          - {{labels: '{{alertname=\"{alert}\"}}', value: 1}}\n"))
        .collect();
    let text = format!(
        "rule_files: [{}]\nevaluation_interval: 15s\ntests:\n  - interval: 15s\n    \
         input_series:\n{input}    promql_expr_test:\n      - expr: 'count by (alertname) \
         (ALERTS{{alertstate=\"firing\"}})'\n        eval_time: 60m\n        exp_samples:\n{}",
        observability("alerts.yml").display(),
        if expected.is_empty() { "          []\n".to_owned() } else { expected }
    );
    let path = std::env::temp_dir().join(format!("uproar-{}-{name}.yml", std::process::id()));
    fs::write(&path, text).unwrap();
    let output = promtool(&["test", "rules", path.to_str().unwrap()], "");
    fs::remove_file(&path).unwrap();
    assert_good(&output);
}

type Viewer = tungstenite::WebSocket<tungstenite::stream::MaybeTlsStream<TcpStream>>;

impl Node {
    /// A viewer of the event "e", or why there is none.
    fn watch(&self) -> tungstenite::Result<Viewer> {
        tungstenite::connect(format!("ws://{}/v1/events/e/live", self.listen))
            .map(|(viewer, _)| viewer)
    }

    fn post(&self, event: &str, text: &str) {
        let mut stream = TcpStream::connect(self.listen).unwrap();
        let body = format!("{{\"text\":\"{text}\"}}");
        let head = format!("POST /v1/events/{event}/comments HTTP/1.1\r\nhost: x");
        write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }

    /// The metrics once the samples that contain all of this add up to more than nothing.
    fn metrics_with_some(&self, parts: &[&str]) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let metrics = self.metrics();
            let is_it = |series: &str| parts.iter().all(|part| series.contains(part));
            let sum: f64 = samples(&metrics).filter(|(series, _)| is_it(series)).map(|s| s.1).sum();
            if sum > 0.0 {
                return metrics;
            }
            assert!(Instant::now() < deadline, "no {parts:?} in {metrics}");
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
}

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

    let node = Node::start(&["--stall-after-ms", "300"]);
    let stuck = node.metrics_with("uproar_shard_up{shard=\"0\"} 0");
    assert_fires("stuck", &constant(&stuck), &["UproarShardStuck"]);
}

#[test]
fn what_real_nodes_count_fires_what_it_should() {
    let node = Node::start(&["--connections-per-address-max", "1"]);
    let _viewer = node.watch().unwrap();
    let before = node.metrics();
    assert!(node.watch().is_err());
    let after = node.metrics_with_some(&["uproar_upgrades_refused_total", "address_full"]);
    assert_fires("address", &growing(&before, &after), &["UproarRefusingUpgrades"]);

    let node = Node::start(&["--rooms-max", "2"]);
    let before = node.metrics();
    (0..20).for_each(|i| node.post(&format!("e{i}"), "x"));
    let after = node.metrics_with_some(&["uproar_posts_refused_total", "overloaded"]);
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
