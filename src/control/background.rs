//! A thread for what may wait: REST, beside shards that may not.
//!
//! It has a lower scheduling weight than every other thread of the process: on a core that a shard
//! needs it gets about a tenth (sched(7): nice 10 weighs 110, nice 0 1,024). What an operator or a load
//! balancer depends on (signals, /health, /metrics) is not here.

use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tracing::warn;

/// How much nicer than the rest of the process the thread is.
const NICENESS: i32 = 10;

/// A runtime on a thread of its own, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Background {
    handle: Handle,
    _ends: oneshot::Sender<()>,
}

impl Background {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the kernel refuses a thread or an epoll instance.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (ends, has_ended) = oneshot::channel::<()>();
        thread::Builder::new().name("rest".into()).spawn(move || {
            be_nice();
            // Ends with an error, as nothing is ever sent.
            let _ = runtime.block_on(has_ended);
        })?;
        Ok(Self { handle, _ends: ends })
    }

    /// Where to spawn.
    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

/// Gives this thread a lower weight: Linux keeps it for each thread (setpriority(2), "C library/kernel differences").
fn be_nice() {
    if let Err(why) = rustix::process::nice(NICENESS) {
        warn!(
            %why,
            "REST cannot be given a lower priority than viewers: setpriority is filtered; allow it \
             in SystemCallFilter= or the seccomp profile"
        );
    }
}
