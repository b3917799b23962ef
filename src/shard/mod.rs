//! Shards: glommio executors, each pinned to a CPU, that move bytes between sockets and the
//! engine.
//!
//! A shard is one thread with one task. It turns its private rings, hands what came to the
//! engine, does what the engine wants done, sends the next chunk, and sleeps on one eventfd when
//! there is nothing left. No task, timer or channel belongs to a single connection.
//!
//! Not here: any rule of the service (`uproar-engine`), any unsafe code (`uproar-ring`).

mod accepting;
mod books;
mod closing;
#[cfg(test)]
mod double;
mod driver;
mod events;
mod flushing;
mod handing;
mod input;
mod kernel;
mod load;
mod mesh;
mod outputs;
mod queue;
mod sockets;

use std::net::TcpListener;
use std::sync::{Arc, mpsc as sync_mpsc};
use std::time::{Duration, Instant};

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use tokio::sync::mpsc;
use uproar_engine::limits::{Limits, READ_BYTES_MAX};
use uproar_ring::{Ring, RingAddress, RingConfig, Wake};

use crate::link::{Handover, ShardPort};
use crate::shard::driver::{Driver, Start};
use crate::shard::mesh::{Door, Neighbour, Node};
use crate::shard::queue::mesh_of;

/// Provided buffers of a ring, and their size: what can be read in one turn. They are touched in
/// turn, so all of them count as memory in use.
const BUFFERS: u16 = 128;
const BUFFER_BYTES: u32 = READ_BYTES_MAX;
/// glommio's own I/O memory; nothing goes through it.
const EXECUTOR_IO_BYTES: usize = 64 * 1_024;
/// glommio interrupts a task that runs longer than this, so that others get their turn. The driver is the
/// executor's only task: never.
const PREEMPT_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

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
    /// For tests: shard 0 stops turning this long after it started, in milliseconds; 0: never.
    pub stall_after_ms: u32,
    /// For tests: shard 0 crashes this long after it started, in milliseconds; 0: never.
    pub panic_after_ms: u32,
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

impl Listeners {
    /// The listeners of each of `shards` shards.
    fn divide(self, shards: usize) -> std::io::Result<Vec<Vec<TcpListener>>> {
        match self {
            Self::PerShard(listeners) => Ok(listeners.into_iter().map(|one| vec![one]).collect()),
            Self::Shared(listeners) => {
                let clones = || listeners.iter().map(TcpListener::try_clone).collect();
                (0..shards).map(|_| clones()).collect()
            }
        }
    }
}

/// Running shards.
#[derive(Debug)]
pub struct Shards {
    /// The control plane's links, one a shard.
    pub ports: Vec<ShardPort>,
}

/// Why the shards did not start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The kernel refused a ring, a descriptor or a thread.
    #[error("shard {shard} on CPU {cpu} cannot start: {source}")]
    Kernel {
        /// Which shard.
        shard: usize,
        /// Its CPU.
        cpu: usize,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A shard's executor ended before the shard was ready: glommio could not set up its own rings.
    #[error("shard {shard} cannot start: {}", uproar_ring::explain_executor(why))]
    Died {
        /// Which shard.
        shard: usize,
        /// What glommio said.
        why: String,
    },
}

/// Starts one thread a shard and returns once each has its rings and accepts.
///
/// # Errors
/// [`LaunchError`] says in one sentence what the kernel refused and what to do.
#[expect(clippy::needless_pass_by_value, reason = "only the shards keep the channel open")]
pub fn launch(plan: Plan, handovers: mpsc::Sender<Handover>) -> Result<Shards, LaunchError> {
    let count = plan.cpus.len();
    let node = Arc::new(Node::default());
    let kernel = |shard: usize, source: std::io::Error| LaunchError::Kernel {
        shard,
        cpu: plan.cpus[shard],
        source,
    };
    let listeners = plan.listeners.divide(count).map_err(|source| kernel(0, source))?;
    let links = mesh_of(count, plan.mesh_messages_max);
    let started = Instant::now();
    let mut ports = Vec::new();
    let mut made = Vec::new();
    for (shard, listeners) in listeners.into_iter().enumerate() {
        let wake = Wake::new().map_err(|source| kernel(shard, source))?;
        let (port, end) = ShardPort::new(wake.waker());
        ports.push(port);
        let (tell_made, is_made) = sync_mpsc::channel();
        let (tell_neighbours, neighbours) = sync_mpsc::channel();
        let waker = wake.waker();
        let start = Start {
            shard,
            cpu: plan.cpus[shard],
            node_name: plan.node.clone(),
            limits: plan.limits.clone(),
            stalls_after: after(shard, plan.stall_after_ms),
            panics_after: after(shard, plan.panic_after_ms),
            conformance_echo: plan.conformance_echo,
            slots_per_ring: plan.slots_per_ring,
            listeners,
            has_ended_accepting: end.has_ended_accepting,
            jobs: end.jobs,
            handovers: handovers.clone(),
            node: Arc::clone(&node),
            inbox: links.iter().map(|row| Arc::clone(&row[shard])).collect(),
            outbox: links[shard].clone(),
            started,
        };
        let config =
            RingConfig { slots: plan.slots_per_ring, buffers: BUFFERS, buffer_bytes: BUFFER_BYTES };
        let rings_per_shard = plan.rings_per_shard;
        let executor = LocalExecutorBuilder::new(Placement::Fixed(plan.cpus[shard]))
            .name(&format!("shard-{shard}"))
            .io_memory(EXECUTOR_IO_BYTES)
            .preempt_timer(PREEMPT_EVERY)
            .spawn(move || async move {
                // A ring belongs to the thread that makes it.
                let rings: Result<Vec<Ring>, _> =
                    (0..rings_per_shard).map(|_| Ring::new(config, &wake)).collect();
                match rings {
                    Err(error) => drop(tell_made.send(Err(error))),
                    Ok(rings) => {
                        let doors = rings.iter().map(Ring::address).collect();
                        drop(tell_made.send(Ok(doors)));
                        let Ok(neighbours) = neighbours.recv() else { return };
                        Driver::new(start, rings, wake, neighbours).run();
                    }
                }
            })
            .map_err(|error| LaunchError::Died { shard, why: error.to_string() })?;
        made.push(Made { is_made, tell_neighbours, waker, executor });
    }
    introduce(made, plan.slots_per_ring, &plan.cpus)?;
    Ok(Shards { ports })
}

/// When shard 0 does what a test wants of it.
fn after(shard: usize, ms: u32) -> Option<Duration> {
    (shard == 0 && ms > 0).then(|| Duration::from_millis(ms.into()))
}

type Addresses = Vec<RingAddress>;

/// A shard that is starting.
struct Made {
    is_made: sync_mpsc::Receiver<std::io::Result<Addresses>>,
    tell_neighbours: sync_mpsc::Sender<Arc<Vec<Neighbour<RingAddress>>>>,
    waker: uproar_ring::Waker,
    executor: ExecutorJoinHandle<()>,
}

impl Made {
    /// Why the executor ended before its task began.
    fn died(self, shard: usize) -> LaunchError {
        let ended = self.executor.join();
        let why = ended.map_or_else(|error| error.to_string(), |()| "it ended".to_owned());
        LaunchError::Died { shard, why }
    }
}

/// Waits until every shard has its rings and tells each about all of them.
fn introduce(made: Vec<Made>, slots: u32, cpus: &[usize]) -> Result<(), LaunchError> {
    let mut neighbours = Vec::new();
    let mut ready = Vec::new();
    for (shard, made) in made.into_iter().enumerate() {
        let Ok(answer) = made.is_made.recv() else { return Err(made.died(shard)) };
        let addresses =
            answer.map_err(|source| LaunchError::Kernel { shard, cpu: cpus[shard], source })?;
        let door = |address| Door { address, free: slots.into() };
        let doors = addresses.into_iter().map(door).collect();
        neighbours.push(Neighbour { doors, waker: made.waker.clone() });
        ready.push(made);
    }
    let neighbours = Arc::new(neighbours);
    for (shard, made) in ready.into_iter().enumerate() {
        if made.tell_neighbours.send(Arc::clone(&neighbours)).is_err() {
            return Err(made.died(shard));
        }
    }
    Ok(())
}
