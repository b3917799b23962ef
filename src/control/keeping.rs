//! The service manager keeps our listeners while we restart (its descriptor store, sd_notify(3),
//! FDSTORE).
//!
//! systemd holds what a service puts there until the service is stopped: through
//! `systemctl restart`, a crash and the watchdog, but not through `systemctl stop`. So a restart
//! refuses nobody, who comes meanwhile waits in the backlog, and a stop is a stop. A socket unit
//! cannot do both: it outlives the stop as well, and the next connection starts the node again.
//!
//! The manager says in FDSTORE how many descriptors it keeps (systemd 254; FileDescriptorStoreMax=
//! of the unit). Without the variable it keeps none, or is no manager of services.

use std::net::TcpListener;

use tracing::warn;

use super::systemd;

/// The name of our listeners in the store.
pub(super) const KEPT: &str = "uproar-kept";

/// How many descriptors the manager keeps for us.
pub(super) fn places() -> usize {
    std::env::var("FDSTORE").ok().and_then(|places| places.parse().ok()).unwrap_or(0)
}

/// Forgets what the manager kept.
pub(super) fn forget() {
    systemd::forget(KEPT);
}

/// Has the manager keep these, for which it has the [`places`]; false if it does not, and then nothing is kept.
pub(super) fn keep(listeners: &[TcpListener]) -> bool {
    for listener in listeners {
        if let Err(why) = systemd::keep(KEPT, listener) {
            warn!(%why, "the service manager does not keep the listeners; a restart will refuse viewers");
            forget();
            return false;
        }
    }
    true
}
