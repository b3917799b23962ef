//! What the configuration asks of a host, before the host has a say.

use std::net::SocketAddr;

use serde::Serialize;

use crate::config::{Config, Loaded};
use crate::control::{Host, Layout, SLOTS_PER_RING_MAX, SLOTS_SPARE, rings};

/// What a running node has taken of the host already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Open files: sockets of viewers and its own descriptors.
    pub files: u64,
    /// Memory, with the kernel's part of connections.
    pub memory_bytes: u64,
}

/// The target, with everything the checks compare against.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    /// Live connections on the node.
    pub connections: u64,
    /// CPUs of the shards, one each.
    pub cpus: Vec<usize>,
    /// Rings of each shard at the most slots a ring can have.
    pub rings_per_shard: u64,
    /// Connections waiting for accept, per listener.
    pub accept_backlog: u64,
    /// SO_SNDBUF of each connection.
    pub send_buffer_bytes: u64,
    /// Plain HTTP requests at the same time.
    pub http_connections: u64,
    /// All logs together.
    pub log_bytes: u64,
    /// From SIGTERM to the end of a full node, at the latest, in milliseconds.
    pub deadline_ms: u64,
    /// Where viewers connect.
    pub listen: SocketAddr,
    /// Where the configuration says they do.
    pub listen_configured: SocketAddr,
    /// Why `listen` is only what the configuration says, if the sockets of a node were looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen_unseen: Option<String>,
    /// The admin port, if it is on.
    pub admin: Option<SocketAddr>,
    /// What the node under examination has of it already, which the host shows as taken.
    pub held: Held,
    /// What the node itself would say about this host at start.
    #[serde(skip)]
    pub layout: Result<Layout, String>,
}

impl Target {
    /// The target of a configuration on a host.
    #[must_use]
    pub fn new(loaded: &Loaded, host: &Host) -> Self {
        let Config { server, limits } = &loaded.config;
        let connections = u64::from(limits.connections_max);
        let allowed = server.cpus.as_ref().map_or(&host.cpus, |list| &list.0);
        let shards = server.shards.map_or(allowed.len(), |shards| shards as usize);
        // A low limit of the host asks for more rings than the widest ones would, also where the
        // layout is refused for it. More rings than a shard may have are not planned for.
        let widest = (connections + SLOTS_SPARE).div_ceil(SLOTS_PER_RING_MAX);
        let planned = rings(loaded, host).map_or(widest, |(rings, _)| rings);
        let layout = Layout::new(loaded, host);
        Self {
            connections,
            cpus: allowed.iter().copied().cycle().take(shards).collect(),
            rings_per_shard: planned,
            accept_backlog: server.accept_backlog.into(),
            send_buffer_bytes: server.send_buffer_bytes.into(),
            http_connections: server.http_connections_max.into(),
            log_bytes: limits.log_bytes_max,
            deadline_ms: server.deadline_ms(connections),
            listen: server.listen,
            listen_configured: server.listen,
            listen_unseen: None,
            held: Held::default(),
            admin: server.admin,
            layout: layout.map_err(|problem| problem.to_string()),
        }
    }

    /// Takes the address of a running node's own sockets, which may be systemd's.
    #[must_use]
    pub fn listening_at(self, found: Result<SocketAddr, String>) -> Self {
        match found {
            Ok(listen) => Self { listen, ..self },
            Err(why) => Self { listen_unseen: Some(why), ..self },
        }
    }

    /// Counts what a running node has as part of its own target.
    #[must_use]
    pub fn holding(self, held: Held) -> Self {
        Self { held, ..self }
    }

    /// How many shards.
    #[must_use]
    pub fn shards(&self) -> u64 {
        self.cpus.len() as u64
    }
}
