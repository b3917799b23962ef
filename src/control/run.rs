//! The control plane's own loop: signals, the poll of the shards, the routers.
//!
//! One thread, tokio's current-thread runtime. Whatever happens here, shards go on serving.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use super::background::Background;
use super::bind::Holder;
use super::drain::Left;
use super::logging::LogLevel;
use super::node::{ANSWER_MS_MAX, Node};
use super::readiness::{State, silence};
use super::trouble::Trouble;
use super::{admin, drain, handover, public, reload, systemd, wanted};
use crate::config::Sources;
use crate::link::Handover;

/// How often the shards are asked for reports, at least: the age of "full" and of STATUS.
const POLL: Duration = Duration::from_secs(1);

/// Everything the control plane runs with.
#[derive(Debug)]
pub struct ControlPlane {
    /// The node over its shards.
    pub node: Arc<Node>,
    /// The admin port, if it is on.
    pub admin: Option<TcpListener>,
    /// Plain HTTP from the shards.
    pub handovers: mpsc::Receiver<Handover>,
    /// What SIGHUP reads again.
    pub sources: Sources,
    /// What SIGHUP may change about the log.
    pub log: LogLevel,
}

/// How the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Drained, with this many connections known to be left at the deadline.
    Drained(u64),
    /// By a second signal.
    AtOnce,
}

/// What a terminal sends on Ctrl-C.
const INTERRUPT: &str = "SIGINT";

/// The signals that ask the process to end.
struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl EndSignals {
    fn new() -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next of them.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => INTERRUPT,
        }
    }
}

impl ControlPlane {
    /// Serves until a signal ends the process.
    ///
    /// # Errors
    /// When the runtime, the signal handlers or the admin port cannot be set up.
    pub fn run(self) -> std::io::Result<Ended> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ended = runtime.block_on(self.serve());
        // A read of a disk that hangs is not waited for.
        runtime.shutdown_background();
        ended
    }

    async fn serve(self) -> std::io::Result<Ended> {
        let Self { node, admin, handovers, sources, log } = self;
        let mut end = EndSignals::new()?;
        let hangup = signal(SignalKind::hangup())?;
        let http_connections_max = node.loaded().config.server.http_connections_max as usize;
        let router = public::router(Arc::clone(&node));
        let background = Background::start()?;
        let public = handover::Port {
            router,
            runtime: background.handle(),
            connections_max: http_connections_max,
            refused: Arc::clone(&node.http_refused),
            node: Arc::clone(&node),
        };
        tokio::spawn(for_ever("the public port", handover::serve(handovers, public)));
        background.handle().spawn(for_ever("the sweep of pages", sweep(Arc::clone(&node))));
        if let Some(admin) = admin {
            admin.set_nonblocking(true)?;
            let admin = tokio::net::TcpListener::from_std(admin)?;
            let (sender, accepted) = mpsc::channel(1);
            let router = admin::router(Arc::clone(&node));
            tokio::spawn(for_ever("the accepts of the admin port", admin::accept(admin, sender)));
            let port = handover::Port {
                router,
                runtime: Handle::current(),
                connections_max: admin::CONNECTIONS_MAX,
                refused: Arc::clone(&node.admin_refused),
                node: Arc::clone(&node),
            };
            tokio::spawn(for_ever("the admin port", handover::serve(accepted, port)));
        }
        tokio::spawn(for_ever("the watch over the shards", watch(Arc::clone(&node))));
        node.readiness.start();
        systemd::ready("ready");
        info!("ready");

        let reloads = reload::reload_on(hangup, Arc::clone(&node), sources, log);
        let reloads = tokio::spawn(for_ever("the wait for SIGHUP", reloads));
        let signal = end.next().await;
        // A node that ends takes no new configuration, and is not READY again.
        reloads.abort();
        node.readiness.end();
        let server = &node.loaded().config.server;
        let connections = node.connections_seen();
        // Whoever types Ctrl-C waits for it, and no load balancer knows of the node.
        let delay_ms = if signal == INTERRUPT { 0 } else { server.drain_delay_ms };
        info!(
            signal,
            delay_ms,
            connections,
            spread_ms = server.spread_ms(connections),
            deadline_ms = server.deadline_ms(connections),
            "draining; a second signal ends the process at once"
        );
        if node.sockets().holder == Holder::SocketUnit {
            info!(
                "the socket unit goes on holding the port: unless it is stopped too (systemctl stop uproar.socket), \
                 whoever connects next starts the node again"
            );
        }
        tokio::select! {
            left = drain::until_empty(&node, delay_ms) => {
                let Left { connections, silent } = &left;
                match silent.as_slice() {
                    [] if *connections == 0 => info!("drained, ending"),
                    [] => warn!(connections, "the drain deadline is over, ending"),
                    shards => warn!(
                        connections,
                        ?shards,
                        "the drain deadline is over, ending: {} connections are known to be left, \
                         and {}",
                        connections,
                        silence(shards)
                    ),
                }
                Ok(Ended::Drained(left.connections))
            }
            signal = end.next() => {
                warn!(signal, "a second signal, ending at once");
                Ok(Ended::AtOnce)
            }
        }
    }
}

/// Runs a part of the control plane that never ends. A bug that ends one all the same must be seen: a node whose
/// admin port is gone, or that watches nobody, looks well from outside.
async fn for_ever(what: &'static str, part: impl Future<Output = ()>) {
    part.await;
    panic!("{what} has ended, and a node does not go on without it");
}

/// Lets go of pages that nobody asks for.
async fn sweep(node: Arc<Node>) {
    let mut tick = interval(POLL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        node.pages.sweep();
    }
}

/// Polls the shards: readiness, STATUS and the watchdog follow from their answers.
async fn watch(node: Arc<Node>) {
    let watchdog = systemd::watchdog();
    let mut tick = interval(watchdog.map_or(POLL, |limit| POLL.min(limit / 3)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut were_stuck = Vec::new();
    let mut heard_at = vec![Instant::now(); node.ports().len()];
    let mut trouble = Trouble::new();
    loop {
        tick.tick().await;
        if let Some(line) = node.clock.look() {
            warn!("{line}");
        }
        let reports = node.reports().await;
        node.note_connections(&reports);
        wanted::tell_again(&node, &reports);
        for (heard_at, report) in heard_at.iter_mut().zip(&reports) {
            if report.is_some() {
                *heard_at = Instant::now();
            }
        }
        // A shard that only has too many requests waiting says no at once, and is not stuck yet.
        let is_stuck = |&shard: &usize| heard_at[shard].elapsed() >= ANSWER_MS_MAX;
        let stuck: Vec<usize> = (0..reports.len()).filter(is_stuck).collect();
        if stuck != were_stuck {
            node.readiness.set_stuck(&stuck);
            match stuck.as_slice() {
                [] => info!("all shards answer again"),
                shards => error!(?shards, "these shards do not answer; /ready answers 503"),
            }
            if !stuck.is_empty() && node.readiness.state() != State::Draining {
                systemd::status(&format!("stuck: {}", silence(&stuck)));
            }
            were_stuck = stuck;
        }
        if reports.iter().any(Option::is_none) {
            continue;
        }
        if watchdog.is_some() {
            systemd::alive();
        }
        let present: Vec<_> = reports.iter().flatten().collect();
        if let Some(line) = trouble.line(Instant::now(), &present) {
            info!("{line}");
        }
        let connections = node.connections_seen();
        let rooms: u64 = reports.iter().flatten().map(|r| r.rooms).sum();
        let was = node.readiness.state();
        let places: u64 = reports.iter().flatten().map(|r| r.places).sum();
        node.readiness.set_full(places >= u64::from(node.limits().connections_max));
        let state = node.readiness.state();
        match (was, state) {
            (State::Ready, State::Full) => warn!(connections, "full; new viewers get 503"),
            (State::Full, State::Ready) => info!(connections, "no longer full"),
            _ => {}
        }
        if state != State::Draining {
            let sep = if node.reloads.trouble().is_some() { ";" } else { "," };
            let status = node.status();
            systemd::status(&format!("{status}{sep} {connections} connections, {rooms} rooms"));
        }
    }
}
