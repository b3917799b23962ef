//! The layout: how shards, CPUs, rings and descriptor slots come out on this host.
//!
//! A pure function of the configuration and the host, so that every refusal can be tested.
//! The rule behind the arithmetic: everyone may be in one room, and a room may live on one
//! shard, so each shard has a slot for every connection of the node, and some to spare.

use uproar_ring::RAISE_NOFILE;

use super::host::Host;
use crate::config::{Config, Loaded, Origin, Problem, Problems, Sources, find};

/// Slots of a shard beyond `connections_max`: handshakes, accepts in flight, moves and plain
/// HTTP on their way to the control plane. A full table would end accepting with ENFILE.
pub const SLOTS_SPARE: u64 = 1_024;
/// Direct descriptors of one ring; larger tables gain nothing here.
pub const SLOTS_PER_RING_MAX: u64 = 32_768;
/// Ordinary descriptors the process itself needs: logs, listeners, epoll, signals, files; and 64 health checks.
const DESCRIPTORS_OWN: u64 = 128;
/// Ordinary descriptors of a shard besides its rings: listener, eventfd, executor.
const DESCRIPTORS_PER_SHARD: u64 = 16;

/// The layout of a node on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The node's name.
    pub node: String,
    /// The CPU of each shard.
    pub cpus: Vec<usize>,
    /// Rings of each shard.
    pub rings_per_shard: u32,
    /// Direct descriptors of each ring.
    pub slots_per_ring: u32,
    /// Connections that fit into any one shard, and so into the node.
    pub connections_fit: u64,
    /// What works but is probably not meant.
    pub warnings: Vec<String>,
    /// The host it was made for.
    pub host: Host,
}

impl Layout {
    /// Reads a configuration for a host: what is wrong in itself and what does not fit come
    /// together. Start, reload and `config check` all judge here, and so cannot differ.
    ///
    /// # Errors
    /// Every [`Problem`] found.
    pub fn load(sources: &Sources, host: &Host) -> Result<(Loaded, Self), Problems> {
        let mut judged = sources.judge();
        let mut layout = None;
        judged.check(|loaded| match lay_out(loaded, host) {
            Ok(fits) => {
                layout = Some(fits);
                Vec::new()
            }
            Err(found) => found,
        });
        let loaded = judged.finish()?;
        let layout = layout.expect("a layout that fails is a problem of good settings");
        Ok((loaded, layout))
    }

    /// Lays out a configuration on a host.
    ///
    /// # Errors
    /// [`Problem`]s that name the setting and what to do.
    pub fn new(loaded: &Loaded, host: &Host) -> Result<Self, Problems> {
        lay_out(loaded, host)
            .map_err(|found| Problems(found.into_iter().map(|(_, problem)| problem).collect()))
    }

    /// Why a new configuration cannot be taken without a restart, if it cannot.
    #[must_use]
    pub fn refuses(&self, config: &Config) -> Option<String> {
        let wanted = u64::from(config.limits.connections_max);
        (wanted > self.connections_fit).then(|| {
            format!(
                "connections_max is {wanted}, but the rings made at start hold {}: restart to \
                 raise it",
                self.connections_fit
            )
        })
    }
}

/// Ordinary descriptors of a node, besides the sockets in rings. Plain HTTP connections are served, and then heard to
/// their end (`control::lingering`).
#[must_use]
pub(crate) fn descriptors(http_connections: u64, shards: u64, rings_per_shard: u64) -> u64 {
    DESCRIPTORS_OWN + 2 * http_connections + shards * (DESCRIPTORS_PER_SHARD + rings_per_shard)
}

/// What does not fit, after the settings that it follows from.
pub(crate) type Found = (&'static [&'static str], Problem);

fn found(loaded: &Loaded, names: &'static [&'static str], blamed: &str, sentence: String) -> Found {
    let origin = loaded.origins.get(blamed).cloned().unwrap_or(Origin::Default);
    (names, Problem { origin, sentence })
}

fn lay_out(loaded: &Loaded, host: &Host) -> Result<Layout, Vec<Found>> {
    let config = &loaded.config;
    let mut warnings = Vec::new();
    let (cpus, (rings, slots)) =
        match (shard_cpus(loaded, host, &mut warnings), rings(loaded, host)) {
            (Ok(cpus), Ok(rings)) => (cpus, rings),
            (cpus, rings) => return Err(cpus.err().into_iter().chain(rings.err()).collect()),
        };
    let shards = cpus.len() as u64;
    let http_connections = u64::from(config.server.http_connections_max);
    let descriptors = descriptors(http_connections, shards, rings);
    if descriptors > host.descriptors_max {
        let sentence = format!(
            "the descriptor limit is {}, but this configuration needs {descriptors} besides \
             the sockets in rings: {RAISE_NOFILE}; or lower http_connections_max",
            host.descriptors_max
        );
        let names = &["http_connections_max", "cpus", "shards", "connections_max"];
        return Err(vec![found(loaded, names, "http_connections_max", sentence)]);
    }
    let share = config.limits.log_bytes_max / shards;
    if config.limits.room_log_bytes_max > share {
        warnings.push(format!(
            "room_log_bytes_max is {}, over the {share} bytes that each of {shards} shards \
             has of log_bytes_max: one busy room can push out the logs of all others there",
            config.limits.room_log_bytes_max
        ));
    }
    Ok(Layout {
        node: config.server.node.clone().unwrap_or_else(|| host.name.clone()),
        cpus,
        rings_per_shard: u32::try_from(rings).expect("rings are bounded by their row"),
        slots_per_ring: u32::try_from(slots).expect("slots are at most SLOTS_PER_RING_MAX"),
        connections_fit: rings * slots - SLOTS_SPARE,
        warnings,
        host: host.clone(),
    })
}

fn shard_cpus(
    loaded: &Loaded,
    host: &Host,
    warnings: &mut Vec<String>,
) -> Result<Vec<usize>, Found> {
    let server = &loaded.config.server;
    let cpus = server.cpus.as_ref().map_or(&host.cpus, |list| &list.0);
    if let Some(cpu) = cpus.iter().find(|cpu| !host.cpus.contains(cpu)) {
        let allowed: Vec<String> = host.cpus.iter().map(usize::to_string).collect();
        let sentence = format!(
            "cpus names CPU {cpu}, which this process may not use (it may use {})",
            allowed.join(",")
        );
        return Err(found(loaded, &["cpus"], "cpus", sentence));
    }
    // `shards` ends at 256, which is also where a comment id's shard byte ends.
    let shards_max = 256;
    let shards = server.shards.map_or(cpus.len().min(shards_max), |n| n as usize);
    if shards > cpus.len() {
        warnings.push(format!(
            "{shards} shards share {} CPU(s); they will be slower than one shard for each CPU",
            cpus.len()
        ));
    }
    if loaded.config.limits.rooms_max < shards as u32 {
        let sentence = format!(
            "rooms_max is {}, but {shards} shards divide it and need at least one room each",
            loaded.config.limits.rooms_max
        );
        return Err(found(loaded, &["rooms_max", "shards", "cpus"], "rooms_max", sentence));
    }
    Ok(cpus.iter().copied().cycle().take(shards).collect())
}

/// Rings of a shard, and slots of a ring.
pub(crate) fn rings(loaded: &Loaded, host: &Host) -> Result<(u64, u64), Found> {
    let name = "rings_per_shard";
    let names = &["rings_per_shard", "connections_max"];
    let slots = host.descriptors_max.min(SLOTS_PER_RING_MAX);
    let connections = u64::from(loaded.config.limits.connections_max);
    let needed = connections + SLOTS_SPARE;
    let given = u64::from(loaded.config.server.rings_per_shard);
    let rings = if given == 0 { needed.div_ceil(slots) } else { given };
    let rings_max = rings_max();
    if rings > rings_max {
        let sentence = format!(
            "connections_max is {connections}, which needs {rings} rings a shard with a \
             descriptor limit of {}, but {rings_max} is the most: {RAISE_NOFILE}; or lower connections_max",
            host.descriptors_max
        );
        return Err(found(loaded, names, "connections_max", sentence));
    }
    if rings * slots < needed {
        let sentence = format!(
            "{name} is {rings}: rings of {slots} slots hold {} connections a shard, fewer than \
             connections_max, which is {connections}; set it to 0 (as many as needed) or lower \
             connections_max",
            (rings * slots).saturating_sub(SLOTS_SPARE)
        );
        return Err(found(loaded, names, name, sentence));
    }
    Ok((rings, slots))
}

fn rings_max() -> u64 {
    let setting = find("rings_per_shard").expect("the table has rings_per_shard");
    setting.kind.bounds().expect("rings_per_shard is a number").2
}
