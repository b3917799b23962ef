//! What the machine says about the server: CPU, memory, who listens. Local servers only.

pub(crate) mod calibrate;
pub(crate) mod kernel;
pub(crate) mod metrics;
pub(crate) mod process;

/// Tests that open many sockets to see them in the host's books take turns.
#[cfg(test)]
pub(crate) static BOOKS: std::sync::Mutex<()> = std::sync::Mutex::new(());
