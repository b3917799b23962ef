//! Kernel settings of the network: backlogs, TCP memory, tracking, ports, congestion control.

use super::check::{Check, Verdict};
use super::needs::{Sysctl, sysctls};
use super::target::Target;
use super::tree::Tree;

pub(super) fn checks(target: &Target, tree: &Tree) -> Vec<Check> {
    let mut checks: Vec<Check> = sysctls(target).iter().map(|need| sysctl(need, tree)).collect();
    checks.extend([
        send_buffer(target, tree),
        congestion(tree),
        socket_unit(target, tree),
        port_collision(target, tree),
        proxy_ports(target, tree),
    ]);
    checks
}

fn sysctl(need: &Sysctl, tree: &Tree) -> Check {
    let needed = numbers(&need.at_least);
    let row = Check::new(need.key, need.why).needed(format!("at least {needed}"));
    let Some(now) = tree.sysctl(need.key) else {
        return if need.is_optional { row.now("no such setting") } else { row.unknown() };
    };
    let is_short = now.get(need.decisive) < need.at_least.get(need.decisive);
    let verdict = if need.is_vital { Verdict::Misfit } else { Verdict::Advice };
    // What the host has more of stays: tuning lowers nothing.
    let raised: Vec<u64> = need
        .at_least
        .iter()
        .enumerate()
        .map(|(place, &least)| least.max(now.get(place).copied().unwrap_or(0)))
        .collect();
    let fix = format!(
        "sysctl -w {}=\"{}\"; tuning/apply --from a file of `uproar doctor --sysctl` keeps it",
        need.key,
        numbers(&raised)
    );
    row.now(numbers(&now)).wrong_if(is_short, verdict, fix)
}

fn numbers(list: &[u64]) -> String {
    list.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
}

fn send_buffer(target: &Target, tree: &Tree) -> Check {
    let now = tree.sysctl("net.core.wmem_max").and_then(|numbers| numbers.first().copied());
    let needed = target.send_buffer_bytes;
    Check::new("net.core.wmem_max", "caps send_buffer_bytes silently; short sends cost CPU")
        .at_least(
            now,
            needed,
            Verdict::Advice,
            format!("sysctl -w net.core.wmem_max={needed}, or lower send_buffer_bytes"),
        )
}

fn congestion(tree: &Tree) -> Check {
    let row = Check::new(
        "net.ipv4.tcp_allowed_congestion_control",
        "bbr paces each connection with a timer, which costs CPU; the node picks cubic if it may",
    )
    .needed("cubic among them");
    let Some(allowed) = tree.sysctl_text("net.ipv4.tcp_allowed_congestion_control") else {
        return row.unknown();
    };
    let has_cubic = allowed.split_whitespace().any(|name| name == "cubic");
    let fix = format!(
        "modprobe tcp_cubic; sysctl -w net.ipv4.tcp_allowed_congestion_control=\"{allowed} cubic\""
    );
    row.now(&allowed).wrong_if(!has_cubic, Verdict::Advice, fix)
}

/// A socket unit decides about the address, whatever is configured.
fn socket_unit(target: &Target, tree: &Tree) -> Check {
    let configured = target.listen_configured;
    let row = Check::new(
        "uproar.socket",
        "the socket unit's ListenStream= is in effect and listen is not: who was to connect finds nothing",
    )
    .needed(format!("listen ({configured}) in effect"));
    let fix = "systemctl edit uproar.socket (ListenStream=), or do without it: systemctl disable --now \
               uproar.socket && systemctl restart uproar";
    let Some(streams) = tree.socket_unit() else {
        let is_other = target.listen != configured && configured.port() != 0;
        return match is_other {
            false => row.now("not enabled"),
            // Brought by some unit that is not found under this name.
            true => row.now(format!("listening on {}", target.listen)).wrong_if(
                true,
                Verdict::Advice,
                fix,
            ),
        };
    };
    let is_same = streams.iter().any(|stream| stream.parse() == Ok(configured));
    row.now(format!("enabled, {}", streams.join(", "))).wrong_if(!is_same, Verdict::Advice, fix)
}

/// An outgoing connection that happens to use our port makes the next start fail.
fn port_collision(target: &Target, tree: &Tree) -> Check {
    let ports: Vec<u64> = [Some(target.listen), target.admin]
        .into_iter()
        .flatten()
        .map(|addr| addr.port().into())
        .collect();
    let row = Check::new(
        "net.ipv4.ip_local_port_range",
        "an outgoing connection of any process could hold the node's port when it restarts",
    )
    .needed(format!("without {}, or these reserved", numbers(&ports)));
    let Some([low, high]) = tree.sysctl("net.ipv4.ip_local_port_range").as_deref().and_then(pair)
    else {
        return row.unknown();
    };
    let reserved = tree.sysctl_text("net.ipv4.ip_local_reserved_ports").unwrap_or_default();
    let in_danger: Vec<u64> = ports
        .into_iter()
        .filter(|port| (low..=high).contains(port) && !is_listed(&reserved, *port))
        .collect();
    // The setting is one list for the whole host: what others reserved stays in it.
    let kept = [reserved, numbers(&in_danger).replace(' ', ",")];
    let list: Vec<&str> = kept.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    let setting = format!("net.ipv4.ip_local_reserved_ports={}", list.join(","));
    let fix =
        format!("sysctl -w {setting}; the line {setting} in a file of /etc/sysctl.d keeps it");
    row.now(format!("{low} {high}"))
        .wrong_if(!in_danger.is_empty(), Verdict::Advice, fix)
        .listening(target.listen_unseen.as_ref())
}

/// A proxy on this host needs a port of its own for each connection to one address of ours.
fn proxy_ports(target: &Target, tree: &Tree) -> Check {
    let row = Check::new(
        "ephemeral ports",
        "a proxy beside the node uses one port a viewer for each address it connects to",
    );
    if !target.listen.ip().is_loopback() {
        let row = row.needed("no local proxy").now("listen is not loopback");
        return row.listening(target.listen_unseen.as_ref());
    }
    let range = tree.sysctl("net.ipv4.ip_local_port_range");
    let ports = range.as_deref().and_then(pair).map(|[low, high]| (high + 1).saturating_sub(low));
    let port = target.listen.port();
    row.at_least(
        ports,
        target.connections,
        Verdict::Advice,
        format!(
            "spread the proxy over several addresses (listen on 0.0.0.0:{port} behind a firewall, \
             upstreams 127.0.0.1:{port}, 127.0.0.2:{port}, ...), or let viewers connect directly"
        ),
    )
    .listening(target.listen_unseen.as_ref())
}

fn pair(numbers: &[u64]) -> Option<[u64; 2]> {
    numbers.try_into().ok()
}

/// Whether a list such as `8080,9000-9100` holds a port.
fn is_listed(list: &str, port: u64) -> bool {
    list.split(',').any(|part| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        matches!((low.parse(), high.parse()), (Ok(low), Ok(high)) if (low..=high).contains(&port))
    })
}
