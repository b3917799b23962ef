//! Shards: glommio executors, each pinned to a CPU, that move bytes between sockets and the
//! engine. (API first; the shell behind it follows.)

use std::net::TcpListener;

use tokio::sync::mpsc;
use uproar_engine::limits::Limits;

use crate::link::{Handover, ShardPort};

/// Everything the shards need to know before the first socket is opened.
#[derive(Debug)]
pub struct Plan {
    /// The node's name, as clients and other nodes see it.
    pub node: String,
    /// The CPU of each shard; its length is the number of shards.
    pub cpus: Vec<usize>,
    /// Private rings of each shard.
    pub rings_per_shard: usize,
    /// Direct descriptors of each ring; at most RLIMIT_NOFILE.
    pub slots_per_ring: u32,
    /// One listener a shard (SO_REUSEPORT), or all inherited ones under socket activation.
    pub listeners: Listeners,
    /// The engine's limits.
    pub limits: Limits,
    /// Messages that may wait on a mesh link.
    pub mesh_messages_max: usize,
    /// Answer every message with itself instead of joining a room: the conformance suite's path.
    pub conformance_echo: bool,
}

/// Where shards accept from.
#[derive(Debug)]
pub enum Listeners {
    /// One listener for each shard, in the order of [`Plan::cpus`].
    PerShard(Vec<TcpListener>),
    /// Every shard accepts from all of these (socket activation).
    Shared(Vec<TcpListener>),
}

/// Running shards.
#[derive(Debug)]
pub struct Shards {
    /// The control plane's links, one a shard.
    pub ports: Vec<ShardPort>,
}

/// Why the shards did not start.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LaunchError(pub String);

/// Starts one thread a shard and returns once each has its rings and accepts.
///
/// # Errors
/// [`LaunchError`] says in one sentence what the kernel refused and what to do.
pub fn launch(plan: Plan, handovers: mpsc::Sender<Handover>) -> Result<Shards, LaunchError> {
    let _ = (plan, handovers);
    Err(LaunchError("the shell is not written yet".into()))
}
