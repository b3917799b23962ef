//! The server's `/metrics`, in Prometheus text format, fetched by hand.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// A slow answer must not hold up the run.
const PATIENCE: Duration = Duration::from_secs(2);

/// Samples by name with labels, as printed.
pub(crate) type Metrics = BTreeMap<String, f64>;

/// Fetches and reads `http://{admin}/metrics`.
pub(crate) fn fetch(admin: &str) -> std::io::Result<Metrics> {
    let address = admin.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(
        format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| std::io::Error::other("what answers there does not speak HTTP"))?;
    if !head.starts_with("HTTP/1.1 200") {
        let status = head.lines().next().unwrap_or_default();
        return Err(std::io::Error::other(format!("it answered {status:?}")));
    }
    Ok(parse(body))
}

/// Reads the samples; comments and chunk lengths between them are passed over.
fn parse(body: &str) -> Metrics {
    let samples = body.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_alphabetic()));
    let pairs = samples.filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    });
    pairs.collect()
}

/// What each counter grew by.
pub(crate) fn growth(before: &Metrics, after: &Metrics) -> Metrics {
    let is_counter = |name: &str| {
        let base = name.split('{').next().unwrap_or(name);
        base.ends_with("_total") || base.ends_with("_sum") || base.ends_with("_count")
    };
    let counters = after.iter().filter(|(name, _)| is_counter(name));
    let grown = counters.filter_map(|(name, value)| {
        let growth = value - before.get(name).copied().unwrap_or(0.0);
        (growth != 0.0).then(|| (name.clone(), growth))
    });
    grown.collect()
}

/// The CPU of each shard, in percent of one, from what the counters grew by in `secs`; empty when
/// the server names no shards.
pub(crate) fn shards_percent(grown: &Metrics, secs: f64) -> Vec<f64> {
    let shards =
        grown.iter().filter(|(name, _)| name.starts_with("uproar_shard_cpu_seconds_total"));
    shards.map(|(_, cpu_secs)| cpu_secs / secs * 100.0).collect()
}

/// What a node says of its build: the labels of its `uproar_build_info`.
pub(crate) fn build(metrics: &Metrics) -> Option<String> {
    let info = metrics.keys().find_map(|name| name.strip_prefix("uproar_build_info{"))?;
    Some(info.trim_end_matches('}').to_owned())
}

/// How much of what an uproar node may retain it retains, in percent; none when the server does not say.
pub(crate) fn logs_percent(metrics: &Metrics) -> Option<f64> {
    let retained = metrics.iter().filter(|(name, _)| name.starts_with("uproar_log_bytes{"));
    let retained: f64 = retained.map(|(_, bytes)| bytes).sum();
    metrics.get("uproar_log_bytes_max").map(|most| retained / most * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_and_counters_grow() {
        let before = parse("# HELP a_total x\na_total{shard=\"0\"} 5\nb 7\n");
        let after = parse("a_total{shard=\"0\"} 12\nb 9\nc_total 1.5\n");
        let grown = growth(&before, &after);
        assert_eq!(grown["a_total{shard=\"0\"}"], 7.0);
        assert_eq!(grown["c_total"], 1.5);
        assert_eq!(grown.len(), 2);
    }

    #[test]
    fn logs_of_all_shards_are_counted() {
        let metrics = parse(
            "uproar_log_bytes{shard=\"0\"} 30\nuproar_log_bytes{shard=\"1\"} 60\nuproar_log_bytes_max 120\n",
        );
        assert_eq!(logs_percent(&metrics), Some(75.0));
        assert_eq!(logs_percent(&parse("x 3\n")), None);
    }

    #[test]
    fn a_node_tells_its_build() {
        let metrics = parse("uproar_build_info{version=\"0.1.0\",commit=\"abc\"} 1\nx 3\n");
        assert_eq!(build(&metrics).as_deref(), Some("version=\"0.1.0\",commit=\"abc\""));
        assert_eq!(build(&parse("x 3\n")), None);
    }

    #[test]
    fn shards_have_shares_of_a_cpu() {
        let grown = parse(
            "uproar_shard_cpu_seconds_total{shard=\"0\"} 5\nuproar_shard_cpu_seconds_total{shard=\"1\"} 1\nx 3\n",
        );
        assert_eq!(shards_percent(&grown, 10.0), [50.0, 10.0]);
    }
}
