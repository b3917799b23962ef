//! The links between the control plane and the shards: bounded both ways, and neither side
//! ever waits for the other inside its own loop.
//!
//! Towards a shard: a bounded queue of jobs and the shard's waker; each job carries the sender
//! of its answer. Towards the control plane: sockets of plain HTTP requests, in a bounded
//! channel that the shard only ever tries.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::ArrayQueue;
use tokio::sync::oneshot;
use uproar_engine::control::{Reply, Request};
use uproar_ring::Waker;

/// Jobs that may wait for one shard; more are answered 503 by the control plane.
pub const JOBS_MAX: usize = 1_024;
/// Plain HTTP sockets that may wait for the control plane; more are answered 503 by the shard.
pub const HANDOVERS_MAX: usize = 256;

/// A request to a shard and the way back.
#[derive(Debug)]
pub struct Job {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes; a dropped receiver is not an error.
    pub reply: oneshot::Sender<Reply>,
}

/// A socket that carries plain HTTP, on its way to the control plane's router.
#[derive(Debug)]
pub struct Handover {
    /// The socket, an ordinary descriptor again, non-blocking.
    pub stream: TcpStream,
    /// The bytes already read from it.
    pub read: Vec<u8>,
    /// The other end.
    pub peer: SocketAddr,
}

/// Why a shard did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// The queue towards the shard holds [`JOBS_MAX`] jobs.
    #[error("the shard has {JOBS_MAX} requests waiting; try again in a few seconds")]
    Busy,
    /// The shard has stopped.
    #[error("the shard has stopped; the node is going down")]
    Stopped,
}

/// The control plane's end of the link to one shard. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ShardPort {
    jobs: Arc<ArrayQueue<Job>>,
    has_ended_accepting: Arc<AtomicBool>,
    waker: Waker,
}

/// The shard's end of the link.
#[derive(Debug)]
pub struct ShardEnd {
    /// What is asked of it.
    pub jobs: Arc<ArrayQueue<Job>>,
    /// Set for good when it is to accept no more.
    pub has_ended_accepting: Arc<AtomicBool>,
}

impl ShardPort {
    /// Makes the two ends; `waker` wakes the shard that keeps the queue.
    #[must_use]
    pub fn new(waker: Waker) -> (Self, ShardEnd) {
        let jobs = Arc::new(ArrayQueue::new(JOBS_MAX));
        let has_ended_accepting = Arc::new(AtomicBool::new(false));
        let end = ShardEnd {
            jobs: Arc::clone(&jobs),
            has_ended_accepting: Arc::clone(&has_ended_accepting),
        };
        (Self { jobs, has_ended_accepting, waker }, end)
    }

    /// Has the shard accept no more, for good. Its report says when the last accept has ended.
    pub fn end_accepting(&self) {
        self.has_ended_accepting.store(true, Ordering::Relaxed);
        self.waker.wake();
    }

    /// Puts a request into the shard's queue, at once; the answer comes over what is returned, or an error from it
    /// when the shard has stopped. The shard does it whether or not somebody waits.
    ///
    /// # Errors
    /// [`Unreachable::Busy`] when the queue is full.
    pub fn ask(&self, request: Request) -> Result<oneshot::Receiver<Reply>, Unreachable> {
        let (reply, answer) = oneshot::channel();
        self.jobs.push(Job { request, reply }).map_err(|_| Unreachable::Busy)?;
        self.waker.wake();
        Ok(answer)
    }

    /// Asks the shard and waits for its answer.
    ///
    /// # Errors
    /// [`Unreachable`] when the queue is full or the shard has stopped.
    pub async fn request(&self, request: Request) -> Result<Reply, Unreachable> {
        self.ask(request)?.await.map_err(|_| Unreachable::Stopped)
    }
}
