//! How a sleeping shard wakes: one eventfd, written by the kernel for its rings' completions
//! and by other threads for the mesh and the control plane.
//!
//! The sleep is a plain read that blocks the thread. A shard's executor has one task, so there is nobody
//! to give the thread to meanwhile, and a read through glommio's own ring costs several system calls and a
//! timer (ARCHITECTURE.md has the measurement). Polling a `DEFER_TASKRUN` ring's descriptor instead hangs, and
//! a non-blocking eventfd makes the read return at once.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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

    /// Blocks the thread until something was written since the last sleep.
    ///
    /// # Errors
    /// The kernel's.
    pub fn sleep_thread(&self) -> io::Result<()> {
        let mut count = [0; 8];
        match rustix::io::read(&*self.waker.fd, &mut count) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Forgets what was written, without waiting for more.
    pub fn drain(&self) {
        let mut count = [0; 8];
        let (here, no_wait) = (u64::MAX, rustix::io::ReadWriteFlags::NOWAIT);
        // It fails only when nothing was written.
        let _ = rustix::io::preadv2(
            &*self.waker.fd,
            &mut [io::IoSliceMut::new(&mut count)],
            here,
            no_wait,
        );
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
