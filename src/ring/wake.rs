//! How a sleeping shard wakes: one eventfd, written by the kernel for its rings' completions
//! and by other threads for the mesh and the control plane.
//!
//! The executor's task sleeps in a read of the eventfd through glommio's own ring. Polling a
//! `DEFER_TASKRUN` ring's descriptor instead hangs, and a non-blocking eventfd makes the read
//! return at once.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use glommio::io::BufferedFile;
use rustix::event::{EventfdFlags, eventfd};

/// The eventfd that a shard sleeps on.
#[derive(Debug)]
pub struct Wake {
    waker: Waker,
}

impl Wake {
    /// Makes the eventfd (blocking, close-on-exec).
    ///
    /// # Errors
    /// The kernel's, when the process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        let fd = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        Ok(Self { waker: Waker { fd, is_asleep: Arc::new(AtomicBool::new(false)) } })
    }

    /// A handle with which other threads wake the sleeper.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// The sleeping end. Call it on the executor's thread; it lives as long as the process.
    ///
    /// # Errors
    /// The kernel's, when the process is out of descriptors.
    pub fn sleeper(&self) -> io::Result<Sleeper> {
        let own = self.waker.fd.try_clone()?.into_raw_fd();
        // SAFETY: `own` was just duplicated and given up by its OwnedFd, so this file is its only
        // owner. WHY: glommio has no safe way to read an eventfd.
        let file = unsafe { BufferedFile::from_raw_fd(own) };
        Ok(Sleeper { file })
    }

    /// From here on other threads write to the eventfd. Look for work once more, then sleep.
    pub fn announce_sleep(&self) {
        self.waker.is_asleep.store(true, Ordering::SeqCst);
    }

    /// Awake again: other threads need not write.
    pub fn announce_awake(&self) {
        self.waker.is_asleep.store(false, Ordering::SeqCst);
    }

    pub(crate) fn raw(&self) -> i32 {
        self.waker.fd.as_raw_fd()
    }
}

/// Wakes a sleeping shard from another thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Waker {
    fd: Arc<OwnedFd>,
    is_asleep: Arc<AtomicBool>,
}

impl Waker {
    /// Makes the shard look for work now, if it sleeps. Call it after the work was queued.
    pub fn wake(&self) {
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.is_asleep.swap(false, Ordering::SeqCst) {
            // It fails only when the counter is saturated, and then the shard is due to wake anyway.
            let _ = rustix::io::write(&*self.fd, &1u64.to_ne_bytes());
        }
    }
}

/// The end of the eventfd that the shard's one task sleeps on.
#[derive(Debug)]
pub struct Sleeper {
    file: BufferedFile,
}

impl Sleeper {
    /// Sleeps until something was written since the last sleep.
    ///
    /// # Errors
    /// The kernel's, if the executor's own ring fails.
    pub async fn sleep(&self) -> io::Result<()> {
        self.file.read_at(0, 8).await.map(|_| ()).map_err(io::Error::from)
    }
}
