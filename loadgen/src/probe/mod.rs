//! What the machine says about the server: CPU, memory, who listens. Local servers only.

pub(crate) mod calibrate;
pub(crate) mod cpus;
pub(crate) mod kernel;
pub(crate) mod metrics;
pub(crate) mod process;
