//! The node as its control plane sees it: the shards' ports, the readiness, the live settings.
//!
//! Every question to a shard has a deadline, because a shard that stopped turning must not
//! take the health checks down with it.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout_at;
use uproar_engine::control::{Reply, Request};
use uproar_engine::ids::EventId;
use uproar_engine::limits::Limits;
use uproar_engine::placement::home_shard;
use uproar_engine::report::Report;

use super::bind::Sockets;
use super::clock::Clock;
use super::drain::Drain;
use super::layout::Layout;
use super::lingering::Lingering;
use super::metrics::Observer;
use super::pages::Pages;
use super::readiness::{Readiness, State};
use super::reload::Reloads;
use crate::config::Loaded;
use crate::link::{ShardPort, Unreachable};

/// How long a shard may take to answer before the asker is told that the node is overloaded.
pub const ANSWER_MS_MAX: Duration = Duration::from_millis(3_000);

/// What all parts of the control plane share.
#[derive(Debug)]
pub struct Node {
    /// How shards and rings came out.
    pub layout: Layout,
    /// Whether new viewers are welcome.
    pub readiness: Readiness,
    /// When the node started.
    pub started: Instant,
    /// Tells this run of the process from every other: 16 hexadecimal digits.
    pub incarnation: String,
    /// Plain HTTP connections beyond `http_connections_max`, answered 503.
    pub http_refused: Arc<AtomicU64>,
    /// The same of the admin port.
    pub admin_refused: Arc<AtomicU64>,
    /// Plain HTTP connections that gave up their places to another address, on both ports.
    pub http_evicted: AtomicU64,
    /// The host's wall clock.
    pub(super) clock: Clock,
    /// How reloads went.
    pub(super) reloads: Reloads,
    /// What REST is answered from.
    pub(super) pages: Pages,
    /// Who is heard to the end after an answer over plain HTTP.
    pub(super) lingering: Lingering,
    /// What the kernel says of the process.
    pub(super) observer: Observer,
    ports: Vec<ShardPort>,
    /// Whose the sockets are.
    sockets: Sockets,
    loaded: Mutex<Arc<Loaded>>,
    /// The drain under way, if any.
    drain: Mutex<Option<Drain>>,
    drains: AtomicU64,
    /// By shard: connections when it was last heard of.
    connections_seen: Mutex<Vec<u64>>,
}

/// A shard gave no answer: it is gone, has too much to do, or was too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// See [`Unreachable`].
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// The deadline passed.
    #[error("the shard did not answer within {} s", ANSWER_MS_MAX.as_secs())]
    Late,
}

impl Node {
    /// A node over running shards, in the order of their numbers.
    #[must_use]
    pub fn new(loaded: Loaded, layout: Layout, ports: Vec<ShardPort>) -> Self {
        assert_eq!(layout.cpus.len(), ports.len(), "every planned shard has a port");
        let shards = ports.len();
        let http_connections_max = loaded.config.server.http_connections_max as usize;
        Self {
            layout,
            readiness: Readiness::default(),
            started: Instant::now(),
            incarnation: format!("{:016x}", RandomState::new().hash_one(std::process::id())),
            http_refused: Arc::default(),
            admin_refused: Arc::default(),
            http_evicted: AtomicU64::new(0),
            clock: Clock::default(),
            reloads: Reloads::new(shards),
            pages: Pages::default(),
            lingering: Lingering::new(http_connections_max),
            observer: Observer::default(),
            ports,
            sockets: Sockets::default(),
            loaded: Mutex::new(Arc::new(loaded)),
            drain: Mutex::new(None),
            drains: AtomicU64::new(0),
            connections_seen: Mutex::new(vec![0; shards]),
        }
    }

    /// The same node behind these sockets.
    #[must_use]
    pub fn with_sockets(self, sockets: Sockets) -> Self {
        Self { sockets, ..self }
    }

    /// Whose the sockets are.
    pub(super) fn sockets(&self) -> Sockets {
        self.sockets
    }

    /// The configuration in effect.
    #[must_use]
    pub fn loaded(&self) -> Arc<Loaded> {
        Arc::clone(&self.loaded.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_loaded(&self, loaded: Loaded) {
        *self.loaded.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
    }

    /// The limits in effect, as shards are told them.
    pub(super) fn reload_request(&self) -> Request {
        let generation = self.reloads.generation();
        Request::Reload { generation, limits: Box::new(self.limits()) }
    }

    /// Takes down which limits each shard says that it has.
    pub(super) fn note_held(&self, reports: &[Option<Report>]) {
        for (shard, report) in reports.iter().enumerate() {
            if let Some(report) = report {
                self.reloads.note_held(shard, report.limits_generation);
            }
        }
    }

    /// What the service manager shows of the node, besides numbers.
    pub(super) fn status(&self) -> String {
        let state = self.readiness.state();
        match (state, self.reloads.trouble()) {
            (_, None) => state.code().to_owned(),
            (State::Ready, Some(trouble)) => format!("ready, but {trouble}"),
            (_, Some(trouble)) => format!("{}, and {trouble}", state.code()),
        }
    }

    /// The links to the shards.
    pub(super) fn ports(&self) -> &[ShardPort] {
        &self.ports
    }

    /// Has every shard accept no more, for good.
    pub(super) fn end_accepting(&self) {
        self.ports.iter().for_each(ShardPort::end_accepting);
    }

    /// The drain under way.
    pub(super) fn drain(&self) -> Option<Drain> {
        *self.drain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_drain(&self, drain: Option<Drain>) {
        *self.drain.lock().unwrap_or_else(PoisonError::into_inner) = drain;
    }

    /// A number that no drain had.
    pub(super) fn next_drain_number(&self) -> u64 {
        self.drains.fetch_add(1, Relaxed)
    }

    /// Connections at the last poll, a second ago at most; of a shard that does not answer, those it had before.
    pub(super) fn connections_seen(&self) -> u64 {
        self.connections_seen.lock().unwrap_or_else(PoisonError::into_inner).iter().sum()
    }

    pub(super) fn note_connections(&self, reports: &[Option<Report>]) {
        let mut seen = self.connections_seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (seen, report) in seen.iter_mut().zip(reports) {
            *seen = report.as_ref().map_or(*seen, |report| report.connections);
        }
    }

    /// The engine's limits in effect.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.loaded().config.limits.clone()
    }

    /// Asks the home shard of an event.
    ///
    /// # Errors
    /// [`NoAnswer`]; whether a post was appended is then unknown, which is what `key` is for.
    pub async fn ask_home(&self, event: &EventId, request: Request) -> Result<Reply, NoAnswer> {
        let shards = u32::try_from(self.ports.len()).expect("shards are at most 256");
        let home = home_shard(event.as_str(), shards) as usize;
        ask(&self.ports[home], request).await
    }

    /// Asks every shard at once, before anything else happens on this thread; the answers are in the order of the
    /// shards.
    pub async fn ask_all(&self, request: impl Fn() -> Request) -> Vec<Result<Reply, NoAnswer>> {
        self.ask_all_within(ANSWER_MS_MAX, request).await
    }

    async fn ask_all_within(
        &self,
        limit: Duration,
        request: impl Fn() -> Request,
    ) -> Vec<Result<Reply, NoAnswer>> {
        let deadline = tokio::time::Instant::now() + limit;
        let asked: Vec<_> = self.ports.iter().map(|port| port.ask(request())).collect();
        let mut replies = Vec::with_capacity(asked.len());
        for asked in asked {
            replies.push(answer(asked, deadline).await);
        }
        replies
    }

    /// A report from each shard; `None` where a shard gave no answer.
    pub async fn reports(&self) -> Vec<Option<Report>> {
        self.reports_within(ANSWER_MS_MAX).await
    }

    /// The same for who cannot wait as long.
    pub(super) async fn reports_within(&self, limit: Duration) -> Vec<Option<Report>> {
        let replies = self.ask_all_within(limit, || Request::Report).await;
        replies
            .into_iter()
            .map(|reply| match reply {
                Ok(Reply::Report(report)) => Some(*report),
                _ => None,
            })
            .collect()
    }
}

/// Asks a shard and waits for its answer, but not for ever.
pub(super) async fn ask(port: &ShardPort, request: Request) -> Result<Reply, NoAnswer> {
    answer(port.ask(request), tokio::time::Instant::now() + ANSWER_MS_MAX).await
}

async fn answer(
    asked: Result<oneshot::Receiver<Reply>, Unreachable>,
    deadline: tokio::time::Instant,
) -> Result<Reply, NoAnswer> {
    match timeout_at(deadline, asked?).await {
        Ok(answer) => Ok(answer.map_err(|_| Unreachable::Stopped)?),
        Err(_) => Err(NoAnswer::Late),
    }
}
