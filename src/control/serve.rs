//! `uproar serve`, from what was typed to a running node.
//!
//! Nothing is bound before the whole configuration is good, and nothing starts before
//! everything is bound.

use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{info, warn};

use super::bind::{self, BindError, Bound, Holder};
use super::host::{self, Host};
use super::layout::Layout;
use super::logging;
use super::node::Node;
use super::run::{ControlPlane, Ended};
use crate::config::{Loaded, Problems, Sources, documented};
use crate::link::HANDOVERS_MAX;
use crate::shard::{self, LaunchError, Plan};
use crate::version;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong in itself, or does not fit this host.
    #[error("{0}")]
    Config(#[from] Problems),
    /// A port could not be had.
    #[error("{0}")]
    Bind(#[from] BindError),
    /// The kernel refused the shards something.
    #[error("{0}")]
    Launch(#[from] LaunchError),
    /// The control plane's own thread could not be set up.
    #[error("the control plane cannot start: {0}")]
    Control(#[from] std::io::Error),
}

impl StartError {
    /// Whether another try must fail as well, until somebody changes the configuration.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Config(_) => true,
            Self::Bind(why) => why.is_configuration(),
            Self::Launch(_) | Self::Control(_) => false,
        }
    }
}

/// Runs a node until a signal ends it.
///
/// # Errors
/// [`StartError`] when it did not start.
pub fn serve(sources: Sources) -> Result<Ended, StartError> {
    let (loaded, layout) = Layout::load(&sources, &Host::observe())?;
    host::keep_pages_small();
    // From here on, whoever reads the log reads also why the node does not start.
    let log = logging::start(&loaded.config.server)?;
    let bound = bind::bind(&loaded.config.server, layout.cpus.len())?;
    let sockets = bound.sockets();
    let loaded = loaded.under_socket_unit(sockets.unit_listen(), sockets.unit_admin);
    announce(&loaded, &layout, &bound);

    let Bound { listeners, admin, .. } = bound;
    let (sender, handovers) = mpsc::channel(HANDOVERS_MAX);
    let plan = Plan {
        node: layout.node.clone(),
        cpus: layout.cpus.clone(),
        rings_per_shard: layout.rings_per_shard as usize,
        slots_per_ring: layout.slots_per_ring,
        listeners,
        limits: loaded.config.limits.clone(),
        mesh_messages_max: loaded.config.server.mesh_messages_max as usize,
        stall_after_ms: loaded.config.server.stall_after_ms,
        panic_after_ms: loaded.config.server.panic_after_ms,
        conformance_echo: loaded.config.server.conformance_echo,
    };
    let shards = shard::launch(plan, sender)?;
    let node = Node::new(loaded, layout, shards.ports).with_sockets(sockets);
    let node = Arc::new(node);
    Ok(ControlPlane { node, admin, handovers, sources, log }.run()?)
}

/// The resolved plan, in the log, before the shards start.
fn announce(loaded: &Loaded, layout: &Layout, bound: &Bound) {
    for warning in loaded.warnings.iter().chain(&layout.warnings) {
        warn!("{warning}");
    }
    let Layout { node, cpus, rings_per_shard, slots_per_ring, connections_fit, .. } = layout;
    let admin = bound.admin.as_ref().and_then(|admin| admin.local_addr().ok());
    let admin = admin.map_or_else(|| "off".to_owned(), |addr| addr.to_string());
    info!(
        version = version::VERSION,
        commit = version::COMMIT,
        node,
        listen = %bound.listen,
        admin,
        shards = cpus.len(),
        ?cpus,
        rings_per_shard,
        slots_per_ring,
        connections_fit,
        connections_max = loaded.config.limits.connections_max,
        "starting"
    );
    match bound.holder {
        Holder::SocketUnit => info!(
            "a socket unit holds {}: a restart refuses nobody, and ending the service for good takes ending \
             the unit too (systemctl stop uproar.socket uproar.service)",
            bound.listen
        ),
        Holder::Store => info!(
            "the service manager keeps the listeners of {} until the service is stopped: a restart refuses nobody",
            bound.listen
        ),
        Holder::Nobody => {}
    }
    let settings: Vec<String> = documented()
        .map(|setting| format!("{}={}", setting.name, setting.value(&loaded.config)))
        .collect();
    info!("settings: {}", settings.join(" "));
}
