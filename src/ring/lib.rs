//! The home of unsafe code (being written): rings, provided buffers, the waker.
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Wakes a sleeping shard from another thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Makes the shard's next look for work happen now.
    pub fn wake(&self) {
        // The counter saturating (EAGAIN) means the shard is already due to wake.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}
