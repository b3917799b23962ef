//! The alert over Prometheus's own series: a real Prometheus scrapes a node that then dies.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::node::{Node, bound, http, wait_until};
use crate::promtool::read;

/// A Prometheus on a free port, with a folder of its own.
struct Prometheus {
    child: Child,
    folder: PathBuf,
    web: SocketAddr,
}

impl Prometheus {
    /// Scrapes `target` five times a second and judges these rules as often.
    fn start(target: SocketAddr, rules: &str) -> Self {
        let name = format!("prometheus-{}", std::process::id());
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("alerts.yml"), rules).unwrap();
        let config = format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}}\n\
             rule_files: [alerts.yml]\nscrape_configs:\n  - job_name: uproar\n    \
             static_configs: [{{targets: ['{target}']}}]\n"
        );
        let config_path = folder.join("prometheus.yml");
        fs::write(&config_path, config).unwrap();
        let mut child = bound(&["prometheus", "--web.listen-address=127.0.0.1:0"])
            .arg(format!("--config.file={}", config_path.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("series").display()))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut web = None;
        let mut line = String::new();
        while web.is_none() && log.read_line(&mut line).unwrap() > 0 {
            web = line
                .split_once("Listening on\" address=")
                .map(|(_, address)| address.trim().parse().unwrap());
            line.clear();
        }
        // Its log must go on having a reader.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, folder, web: web.expect("Prometheus says where it listens") }
    }

    /// The parts `of` an answer of its API that hold results.
    fn ask(&self, path: &str, of: &str) -> Vec<Value> {
        let answer = http(self.web, "GET", path);
        let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
        answer["data"][of].as_array().cloned().unwrap_or_default()
    }

    fn firing(&self) -> Vec<String> {
        self.ask("/api/v1/alerts", "alerts")
            .iter()
            .filter(|alert| alert["state"] == "firing")
            .map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn a_node_that_dies_fires_what_it_should() {
    let node = Node::start(&[]);
    // Half a minute is long for a test; the conditions stay what they are.
    let rules = read("alerts.yml").replace("for: 30s", "for: 1s");
    let prometheus = Prometheus::start(node.admin, &rules);
    let up = "/api/v1/query?query=up%7Bjob%3D%22uproar%22%7D%3D%3D1";
    wait_until("a node is up", || prometheus.ask(up, "result").len() == 1);
    assert_eq!(prometheus.firing(), [""; 0]);
    drop(node);
    wait_until("an alert", || !prometheus.firing().is_empty());
    assert_eq!(prometheus.firing(), ["UproarDown"]);
}
