//! Rules across settings: pairs that must be in order, and pairs that must differ.
//!
//! What a rule finds comes with the settings it compared, because one that is not good in itself
//! makes the finding worthless.

use std::net::SocketAddr;

use super::sources::{Loaded, Origin, Problem};
use super::{Config, find};

/// What a rule found, after the settings it compared.
type Found = (&'static [&'static str], Problem);

/// The first must not exceed the second, because of `why`. Zero of the first is always in order.
struct Order {
    names: &'static [&'static str; 2],
    why: &'static str,
}

const ORDERS: &[Order] = &[
    Order {
        names: &["frame_bytes_max", "message_bytes_max"],
        why: "a message of one frame must fit",
    },
    Order {
        names: &["comment_bytes_max", "message_bytes_max"],
        why: "a comment arrives as one message",
    },
    Order {
        names: &["comment_bytes_max", "private_queue_bytes_max"],
        why: "a frame for one connection must fit into its queue",
    },
    Order {
        names: &["private_queue_bytes_max", "answers_bytes_max"],
        why: "one connection's answers are part of the node's",
    },
    Order {
        names: &["message_bytes_max", "unfinished_bytes_max"],
        why: "one connection's message is part of what the node holds of them",
    },
    Order {
        names: &["handshake_bytes_max", "heads_bytes_max"],
        why: "one socket's request head is part of what the node holds of them",
    },
    Order {
        names: &["room_log_bytes_max", "log_bytes_max"],
        why: "one room's log is part of the node's",
    },
    Order {
        names: &["history_frames", "history_frames_max"],
        why: "nobody gets more history than may be asked for",
    },
    Order {
        names: &["history_frames_max", "room_log_frames_max"],
        why: "a log cannot give more than it keeps",
    },
    Order {
        names: &["connections_per_address_max", "connections_max"],
        why: "an address cannot have more connections than the node",
    },
];

pub(super) fn problems(loaded: &Loaded) -> Vec<Found> {
    let mut problems: Vec<Found> =
        ORDERS.iter().filter_map(|order| out_of_order(order, loaded)).collect();
    problems.extend(drain(loaded));
    let server = &loaded.config.server;
    problems.extend(unreachable(loaded, &["listen"], Some(server.listen)));
    problems.extend(unreachable(loaded, &["admin"], server.admin));
    if server.admin.is_some_and(|admin| admin == server.listen && admin.port() != 0) {
        let problem = Problem {
            origin: origin(loaded, "admin"),
            sentence: format!("admin and listen are both {}, but need a port each", server.listen),
        };
        problems.push((&["admin", "listen"], problem));
    }
    problems
}

/// An address that the kernel may bind, and to which nobody can connect.
fn unreachable(
    loaded: &Loaded,
    names: &'static [&'static str; 1],
    addr: Option<SocketAddr>,
) -> Option<Found> {
    let addr = addr?;
    let what = match addr {
        _ if addr.ip().is_multicast() => "a multicast address",
        SocketAddr::V4(addr) if addr.ip().is_broadcast() => "the broadcast address",
        SocketAddr::V6(addr) if addr.ip().is_unicast_link_local() && addr.scope_id() == 0 => {
            "a link's address without the link (write [fe80::1%2]:8080; `ip link` numbers them)"
        }
        _ => return None,
    };
    let [name] = *names;
    let sentence = format!("{name} is {addr}, {what}, to which nobody can connect");
    Some((names, Problem { origin: origin(loaded, name), sentence }))
}

/// The deadline counts from the signal, so it must hold the delay and the spread, in this order.
fn drain(loaded: &Loaded) -> Option<Found> {
    const NAMES: [&str; 3] = ["drain_deadline_ms", "drain_spread_ms", "drain_delay_ms"];
    let [deadline, spread, delay] = NAMES;
    let least = value(loaded, delay) + value(loaded, spread);
    if least <= value(loaded, deadline) {
        return None;
    }
    let sentence = format!(
        "{delay} ({}) and {spread} ({}) together are {least}, over {deadline}, which is {} ({}): \
         the process would end before the last viewers are closed",
        value(loaded, delay),
        value(loaded, spread),
        value(loaded, deadline),
        origin(loaded, deadline)
    );
    Some((&NAMES, Problem { origin: first_typed(loaded, &NAMES), sentence }))
}

pub(super) fn warnings(loaded: &Loaded) -> Vec<String> {
    let Config { server, .. } = &loaded.config;
    let mut warnings = Vec::new();
    if !server.listen.ip().is_loopback() {
        warnings.push(format!(
            "listen is {}, which is not loopback, and authentication is off: everyone who \
             reaches it may read and post",
            server.listen
        ));
    }
    if let Some(admin) = server.admin.filter(|admin| !admin.ip().is_loopback()) {
        warnings.push(format!(
            "admin is {admin}, which is not loopback, and has no authentication: everyone who \
             reaches it may drain this node"
        ));
    }
    if server.stall_after_ms > 0 {
        warnings.push("stall_after_ms is on: shard 0 of this node will stop turning".into());
    }
    if server.panic_after_ms > 0 {
        warnings.push("panic_after_ms is on: shard 0 of this node will crash".into());
    }
    if server.conformance_echo {
        warnings.push("conformance_echo is on: this node echoes and serves no events".into());
    }
    warnings
}

fn out_of_order(&Order { names, why }: &Order, loaded: &Loaded) -> Option<Found> {
    let [lower, upper] = names.map(|name| value(loaded, name));
    if lower <= upper {
        return None;
    }
    let [lower_name, upper_name] = *names;
    let sentence = format!(
        "{lower_name} is {lower}, over {upper_name}, which is {upper} ({}): {why}",
        origin(loaded, upper_name)
    );
    Some((names, Problem { origin: first_typed(loaded, names), sentence }))
}

/// Blames what was typed; when several were, the first named.
fn first_typed(loaded: &Loaded, names: &[&str]) -> Origin {
    let mut origins = names.iter().map(|name| origin(loaded, name));
    origins.find(|origin| *origin != Origin::Default).unwrap_or(Origin::Default)
}

fn origin(loaded: &Loaded, name: &str) -> Origin {
    loaded.origins.get(name).cloned().unwrap_or(Origin::Default)
}

fn value(loaded: &Loaded, name: &str) -> u64 {
    let setting = find(name).expect("orders name settings of the table");
    setting.value(&loaded.config).parse().expect("orders compare numbers")
}
