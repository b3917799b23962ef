//! `uproar doctor`: does the configured target fit this host, and if not, what to change.
//!
//! Each check is a row: what, now, needed, why, the exact fix. The host is read through one
//! type that tests point at a made-up tree; needs are pure functions of the target, and
//! `tuning/` is held to the same numbers by a test. Nothing here changes the host.
//!
//! ```text
//! target.rs, needs.rs   what the configuration asks of a host
//! tree.rs, listening.rs   /proc and /sys
//! kernel.rs, limits.rs, network.rs, processors.rs, stopping.rs   the checks
//! check.rs, table.rs    a row, and how rows are printed
//! ```

mod check;
mod kernel;
mod limits;
mod listening;
mod needs;
mod network;
mod processors;
mod stopping;
mod table;
mod target;
mod tree;

pub use check::{Check, Verdict};
pub use kernel::{RingFeature, Rings};
pub use needs::{Sysctl, descriptors, memlock_bytes, memory_bytes, ring_bytes, sysctls};
pub(crate) use stopping::seconds;
pub use table::{human, json, sysctl_file};
pub use target::{Held, Target};
pub use tree::{Groups, Tree};

/// Checks a host for a target.
#[must_use]
pub fn examine(target: &Target, tree: &Tree, rings: &Rings) -> Vec<Check> {
    let mut checks = kernel::checks(tree, rings);
    checks.extend(limits::checks(target, tree));
    checks.extend(network::checks(target, tree));
    checks.extend(processors::checks(target, tree));
    checks.push(stopping::check(target, tree));
    checks
}

/// Whether nothing stands in the target's way.
#[must_use]
pub fn fits(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.verdict != Verdict::Misfit)
}
