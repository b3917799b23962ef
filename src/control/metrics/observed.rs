//! What the kernel says of the process and of the host's sockets, read on a thread that may wait.
//!
//! `/proc/self/smaps_rollup` is a walk over all memory of the process, tens of milliseconds with gigabytes, and
//! longer where the host is busy: the thread that answers `/health` and signals does not do it. Who scrapes within a
//! second of another gets what was read for that one, and is told how old it is.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::exposition::Family;
use super::{memory, process};

/// How old an answer may be.
const AGE_MAX: Duration = Duration::from_secs(1);

/// What was read.
#[derive(Clone, Debug)]
pub(in crate::control) struct Observed {
    at: Instant,
    /// Proportional set size of the process, in bytes.
    pub(super) pss: Option<u64>,
    /// Page tables of the process, in bytes.
    pub(super) page_tables: Option<u64>,
    /// Bytes in buffers of the host's TCP sockets, and how many sockets that is.
    pub(super) tcp_buffers: Option<(u64, u64)>,
    /// The families of `process_*`.
    pub(super) process: Vec<Family>,
}

impl Observed {
    /// Reads everything.
    pub(super) fn read() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            at: Instant::now(),
            pss: memory::kib_row(&read("/proc/self/smaps_rollup"), "Pss"),
            page_tables: memory::kib_row(&read("/proc/self/status"), "VmPTE"),
            tcp_buffers: memory::tcp_buffers(&read("/proc/net/sockstat")),
            process: process::families(),
        }
    }

    /// How long ago it was read.
    pub(super) fn age(&self) -> Duration {
        self.at.elapsed()
    }
}

/// Reads when somebody asks, at most once in [`AGE_MAX`] and one at a time.
#[derive(Debug, Default)]
pub(in crate::control) struct Observer(Mutex<Option<Arc<Observed>>>);

impl Observer {
    pub(super) async fn look(&self) -> Arc<Observed> {
        self.look_by(Observed::read).await
    }

    async fn look_by(&self, read: impl FnOnce() -> Observed + Send + 'static) -> Arc<Observed> {
        let mut last = self.0.lock().await;
        if let Some(fresh) = last.as_ref().filter(|observed| observed.age() < AGE_MAX) {
            return Arc::clone(fresh);
        }
        let observed = spawn_blocking(read).await.expect("reading neither panics nor is aborted");
        Arc::clone(last.insert(Arc::new(observed)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_slow_read_holds_up_nobody_else_and_serves_all_who_ask_meanwhile() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let observer = Arc::new(Observer::default());
            let (go_on, may_go_on) = mpsc::channel();
            let first = Arc::clone(&observer);
            let first = tokio::spawn(async move {
                let read = move || {
                    may_go_on.recv().expect("the test goes on");
                    Observed::read()
                };
                first.look_by(read).await
            });
            // This is the same thread: it would stand still if the read were on it.
            tokio::task::yield_now().await;
            let second = Arc::clone(&observer);
            let again = || panic!("the first read is a moment old");
            let second = tokio::spawn(async move { second.look_by(again).await });
            tokio::task::yield_now().await;
            assert!(!first.is_finished() && !second.is_finished());
            go_on.send(()).expect("the read waits");
            let (first, second) = (first.await.expect("read"), second.await.expect("read"));
            assert!(Arc::ptr_eq(&first, &second));
            assert!(first.pss.is_some_and(|bytes| bytes > 0) && !first.process.is_empty());
        });
    }
}
