//! Rules across settings: pairs that must be in order, and pairs that must differ.
//!
//! Each setting is in its own range by the time these run.

use super::sources::{Loaded, Origin, Problem};
use super::{Config, find};

/// `lower` must not exceed `upper`, because of `why`. Zero of `lower` is always in order.
struct Order {
    lower: &'static str,
    upper: &'static str,
    why: &'static str,
}

const ORDERS: &[Order] = &[
    Order {
        lower: "frame_bytes_max",
        upper: "message_bytes_max",
        why: "a message of one frame must fit",
    },
    Order {
        lower: "comment_bytes_max",
        upper: "message_bytes_max",
        why: "a comment arrives as one message",
    },
    Order {
        lower: "comment_bytes_max",
        upper: "private_queue_bytes_max",
        why: "a frame for one connection must fit into its queue",
    },
    Order {
        lower: "room_log_bytes_max",
        upper: "log_bytes_max",
        why: "one room's log is part of the node's",
    },
    Order {
        lower: "history_frames",
        upper: "history_frames_max",
        why: "nobody gets more history than may be asked for",
    },
    Order {
        lower: "history_frames_max",
        upper: "room_log_frames_max",
        why: "a log cannot give more than it keeps",
    },
    Order {
        lower: "connections_per_address_max",
        upper: "connections_max",
        why: "an address cannot have more connections than the node",
    },
    Order {
        lower: "drain_spread_ms",
        upper: "drain_deadline_ms",
        why: "closes planned after the deadline would never be announced in time",
    },
];

pub(super) fn problems(loaded: &Loaded) -> Vec<Problem> {
    let mut problems: Vec<Problem> =
        ORDERS.iter().filter_map(|order| out_of_order(order, loaded)).collect();
    let server = &loaded.config.server;
    if server.admin.is_some_and(|admin| admin == server.listen && admin.port() != 0) {
        problems.push(Problem {
            origin: origin(loaded, "admin"),
            sentence: format!("admin and listen are both {}, but need a port each", server.listen),
        });
    }
    problems
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
    if server.conformance_echo {
        warnings.push("conformance_echo is on: this node echoes and serves no events".into());
    }
    warnings
}

fn out_of_order(order: &Order, loaded: &Loaded) -> Option<Problem> {
    let (lower, upper) = (value(loaded, order.lower), value(loaded, order.upper));
    if lower <= upper {
        return None;
    }
    // Blame what was typed; when both were, the first named.
    let origin = match origin(loaded, order.lower) {
        Origin::Default => origin(loaded, order.upper),
        typed => typed,
    };
    Some(Problem {
        origin,
        sentence: format!(
            "{} is {lower}, over {}, which is {upper} ({}): {}",
            order.lower,
            order.upper,
            self::origin(loaded, order.upper),
            order.why
        ),
    })
}

fn origin(loaded: &Loaded, name: &str) -> Origin {
    loaded.origins.get(name).cloned().unwrap_or(Origin::Default)
}

fn value(loaded: &Loaded, name: &str) -> u64 {
    let setting = find(name).expect("orders name settings of the table");
    setting.value(&loaded.config).parse().expect("orders compare numbers")
}
