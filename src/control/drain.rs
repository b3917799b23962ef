//! Drain: readiness goes, load balancers get time to see it, then every shard lets its viewers
//! go, and someone watches until they are gone.
//!
//! ```text
//! order ── /ready 503, still serving and admitting ──► closes begin ── spread ──► nobody left
//!          waiting (drain_delay_ms)                    closing (the spread)       drained
//! ```
//!
//! The spread is `drain_spread_ms`, or what `drain_closes_per_sec` needs for the connections there are
//! (`config::drains`). Every shard spreads its own over all of it, so together they keep the rate. A shard that
//! misses an order hears of it again (`wanted`).
//!
//! A drain that the admin port ordered stops there and can be undone; one that a signal ordered
//! takes over whatever drain is under way, and the process ends after it or at its deadline.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};
use uproar_engine::control::Request;
use uproar_engine::report::Report;

use super::bind::Holder;
use super::node::{NoAnswer, Node};
use super::readiness::silence;
use super::systemd;

/// How often the shards are asked whether anyone is left.
const POLL: Duration = Duration::from_millis(100);
/// How often progress is logged and the service manager asked for patience.
const PROGRESS: Duration = Duration::from_secs(1);
/// How much more time each progress notice asks the service manager for.
const EXTENSION: Duration = Duration::from_secs(10);

/// How much later than its plan a drain may be before it is said to be.
const SLACK: Duration = Duration::from_secs(2);

/// How long the last who were accepted may take to say what they want.
const SETTLE: Duration = Duration::from_millis(500);
/// How often they are looked for.
const SETTLE_POLL: Duration = Duration::from_millis(10);

/// A drain under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    /// Which one; a later order has another number.
    number: u64,
    /// When readiness went.
    since: Instant,
    /// When the closes begin, or began.
    closes_at: Instant,
    /// The closes, once they have begun.
    pub(super) closes: Option<Closes>,
}

/// The closes of a drain, which go on when a signal takes the drain over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closes {
    /// As which drain the shards know it.
    pub(super) number: u64,
    /// Over how long they are spread.
    pub(super) spread_ms: u32,
    began: Instant,
    /// Connections then.
    connections: u64,
}

impl Closes {
    /// What the shards are told.
    pub(super) fn request(&self) -> Request {
        Request::Drain { number: self.number, spread_ms: self.spread_ms }
    }

    fn spread(&self) -> Duration {
        Duration::from_millis(self.spread_ms.into())
    }

    /// Whether the last one should be gone: told, closed, and heard to its end.
    fn is_overdue(&self, close_ms_max: u32) -> bool {
        self.began.elapsed() > self.spread() + Duration::from_millis(close_ms_max.into()) + SLACK
    }
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Load balancers are given time; viewers are served and admitted.
    Waiting,
    /// Viewers are told and closed.
    Closing,
    /// Nobody is left.
    Drained,
}

impl Phase {
    /// All phases, in their order.
    pub(super) const ALL: [Self; 3] = [Self::Waiting, Self::Closing, Self::Drained];

    /// The word in metrics and answers.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Closing => "closing",
            Self::Drained => "drained",
        }
    }
}

/// Who is left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// Connections on the shards that answered.
    pub(super) connections: u64,
    /// The shards that did not: what they hold nobody knows.
    pub(super) silent: Vec<usize>,
}

impl Left {
    fn of(reports: &[Option<Report>]) -> Self {
        let silent = (0..reports.len()).filter(|&shard| reports[shard].is_none()).collect();
        let connections = reports.iter().flatten().map(|report| report.connections).sum();
        Self { connections, silent }
    }

    /// The number, if it is known of the whole node.
    fn all(&self) -> Option<u64> {
        self.silent.is_empty().then_some(self.connections)
    }
}

impl Drain {
    /// How far it is, with this many connections left; `None` is not known.
    pub(super) fn phase(&self, left: Option<u64>) -> Phase {
        match (self.closes, left) {
            (None, _) => Phase::Waiting,
            (Some(_), Some(0)) => Phase::Drained,
            (Some(_), _) => Phase::Closing,
        }
    }

    /// Since when the node has been draining.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// The share of its connections that is gone, in thousandths; 0 while it waits.
    pub(super) fn gone_permille(&self, left: u64) -> u64 {
        let Some(of) = self.closes.map(|closes| closes.connections.max(left)) else { return 0 };
        ((of - left) * 1_000).checked_div(of).unwrap_or(1_000)
    }

    /// One line for people.
    fn sentence(&self, left: &Left) -> String {
        let Left { connections, silent } = left;
        let known = match self.closes {
            None => {
                let wait = self.closes_at.saturating_duration_since(Instant::now());
                let seconds = wait.as_millis().div_ceil(1_000);
                format!("waiting {seconds} s for load balancers, {connections} connections")
            }
            Some(_) if left.all() == Some(0) => "drained, 0 connections left".to_owned(),
            Some(_) if !silent.is_empty() => {
                format!("draining, {connections} connections known to be left")
            }
            Some(closes) => {
                let of = closes.connections.max(*connections);
                let rest = closes.spread().saturating_sub(closes.began.elapsed());
                let last = match rest.as_millis().div_ceil(1_000) {
                    0 => "all are told to go".to_owned(),
                    seconds => format!("the last is closed in {seconds} s"),
                };
                format!("draining, {connections} of {of} connections left, {last}")
            }
        };
        if silent.is_empty() { known } else { format!("{known}, and {}", silence(silent)) }
    }
}

/// What the admin port answers about drains.
pub(super) async fn json(node: &Node) -> Value {
    let left = left(node).await;
    let Some(drain) = node.drain() else {
        let status = format!("not draining; {}", node.readiness.sentence());
        return json!({
            "draining": false,
            "incarnation": node.incarnation,
            "connections": left.all(),
            "silent": left.silent,
            "status": status,
        });
    };
    let close_ms_max = node.limits().close_ms_max;
    json!({
        "draining": true,
        "incarnation": node.incarnation,
        "phase": drain.phase(left.all()).word(),
        "connections": left.all(),
        "connections_known": left.connections,
        "connections_at_start": drain.closes.map(|closes| closes.connections),
        "silent": left.silent,
        "spread_ms": drain.closes.map(|closes| closes.spread_ms),
        "overdue": drain.closes.is_some_and(|closes| closes.is_overdue(close_ms_max)),
        "seconds": drain.age().as_secs(),
        "closes_in_ms": drain.closes_at.saturating_duration_since(Instant::now()).as_millis() as u64,
        "status": drain.sentence(&left),
    })
}

/// Takes readiness away and drains in the background; nothing happens if the node drains already.
pub(super) fn order(node: &Arc<Node>) {
    let delay_ms = node.loaded().config.server.drain_delay_ms;
    node.readiness.drain();
    if node.drain().is_some() {
        return;
    }
    let drain = start(node, delay_ms);
    let node = Arc::clone(node);
    tokio::spawn(async move { attend(&node, drain.number, systemd::status).await });
}

/// What came of undoing a drain.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undone {
    /// The node takes viewers again.
    Done,
    /// There was no drain.
    Nothing,
    /// The process is ending, and nothing changed.
    Ending,
}

/// Ends a drain that [`order`] began, and admits again.
pub(super) async fn undo(node: &Node) -> Undone {
    if !node.readiness.undrain() {
        return Undone::Ending;
    }
    let drain = node.drain();
    node.set_drain(None);
    // Also without a drain: a shard that missed the end of an earlier one hears of it now.
    complain(&node.ask_all(|| Request::Undrain).await, "end its drain");
    if drain.is_some() { Undone::Done } else { Undone::Nothing }
}

/// Drains until nobody is left or the deadline is over; who is left is returned.
/// `delay_ms` is for load balancers, and for a drain under way it has run since its beginning.
pub(super) async fn until_empty(node: &Node, delay_ms: u32) -> Left {
    systemd::stopping(EXTENSION);
    let began = Instant::now();
    let drain = start(node, delay_ms);
    let tell = |status: &str| systemd::draining(status, EXTENSION);
    let drained = async {
        attend(node, drain.number, tell).await;
        until_accepted_none(node).await;
    };
    // A stuck shard must not stretch the deadline, so every wait on the shards ends with it.
    tokio::select! {
        () = drained => Left::default(),
        () = until_deadline(node, began) => Left::of(&node.reports_within(POLL).await),
    }
}

/// Waits for the deadline, which moves while connections come during the wait for load balancers.
async fn until_deadline(node: &Node, began: Instant) {
    loop {
        let closing = node.drain().and_then(|drain| drain.closes);
        let connections = closing.map_or(node.connections_seen(), |closes| closes.connections);
        let deadline_ms = node.loaded().config.server.deadline_ms(connections);
        let deadline = began + Duration::from_millis(deadline_ms);
        if Instant::now() >= deadline {
            return;
        }
        sleep_until(deadline.min(Instant::now() + POLL)).await;
    }
}

/// Ends the accepts and waits, for a moment, until those who came last have got their answer: a connection
/// that was accepted and never answered is worse than one that was refused.
async fn until_accepted_none(node: &Node) {
    node.end_accepting();
    let settled = async {
        loop {
            let reports = node.reports().await;
            let pending = |r: &Report| r.handshakes + r.shell.accepts_in_flight;
            if reports.iter().flatten().map(pending).sum::<u64>() == 0 {
                return;
            }
            sleep(SETTLE_POLL).await;
        }
    };
    // Who has not said a word by then loses nothing.
    let _ = timeout(SETTLE, settled).await;
}

/// Puts down a new drain, which goes on where one under way is.
fn start(node: &Node, delay_ms: u32) -> Drain {
    let now = Instant::now();
    let delay = Duration::from_millis(delay_ms.into());
    let number = node.next_drain_number();
    let fresh = Drain { number, since: now, closes_at: now + delay, closes: None };
    let drain = node.drain().map_or(fresh, |before| Drain {
        number,
        closes_at: before.closes_at.min(before.since + delay),
        ..before
    });
    node.set_drain(Some(drain));
    drain
}

/// Takes a drain through its phases until nobody is left or another order has replaced it.
async fn attend(node: &Node, number: u64, tell: impl Fn(&str)) {
    let current = || node.drain().filter(|drain| drain.number == number);
    let mut progress = Instant::now();
    while let Some(drain) = current() {
        let is_waiting = drain.closes.is_none();
        if is_waiting && Instant::now() >= drain.closes_at {
            begin_closes(node, number).await;
            continue;
        }
        // The wait costs the shards no question: the poll of once a second is good enough.
        let left = if is_waiting { seen(node) } else { left(node).await };
        let is_empty = drain.phase(left.all()) == Phase::Drained;
        if current().is_none() {
            return;
        }
        if is_empty || Instant::now() >= progress {
            progress = Instant::now() + PROGRESS;
            let sentence = drain.sentence(&left);
            info!("{sentence}");
            tell(&sentence);
        }
        if is_empty {
            return;
        }
        let pause = Instant::now() + POLL;
        sleep_until(if is_waiting { drain.closes_at.min(progress) } else { pause }).await;
    }
}

/// Tells every shard to refuse upgrades and close everyone, over as long as it takes.
async fn begin_closes(node: &Node, number: u64) {
    // Those that the last poll has not seen count as well. A silent shard has what it had then.
    node.note_connections(&node.reports_within(POLL).await);
    let connections = node.connections_seen();
    let Some(drain) = node.drain().filter(|drain| drain.number == number) else { return };
    let spread_ms = node.loaded().config.server.spread_ms(connections);
    let closes = Closes { number, spread_ms, began: Instant::now(), connections };
    node.set_drain(Some(Drain { closes: Some(closes), ..drain }));
    info!(connections, spread_ms, "closing {connections} connections over {spread_ms} ms");
    if node.sockets().holder != Holder::Nobody && node.readiness.is_ending() {
        // The next process takes whoever comes from now on; this one would only refuse them.
        node.end_accepting();
    }
    complain(&node.ask_all(|| closes.request()).await, "drain");
}

fn complain<T>(answers: &[Result<T, NoAnswer>], what: &str) {
    for (shard, answer) in answers.iter().enumerate() {
        if let Err(why) = answer {
            warn!(shard, %why, "a shard could not be told to {what}; it is told again when it answers");
        }
    }
}

/// Who is left on the node. Who is still shaking hands is not counted: a drain refuses them, and the
/// clients that it has closed keep coming back to be refused.
async fn left(node: &Node) -> Left {
    Left::of(&node.reports().await)
}

/// The same by the last poll.
fn seen(node: &Node) -> Left {
    Left { connections: node.connections_seen(), silent: node.readiness.stuck_shards() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_counts_what_is_gone_of_what_there_was() {
        let now = Instant::now();
        let closes = |connections| Closes { number: 0, spread_ms: 60_000, began: now, connections };
        let drain = |connections: Option<u64>| Drain {
            number: 0,
            since: now,
            closes_at: now,
            closes: connections.map(closes),
        };
        let left = |connections| Left { connections, silent: Vec::new() };
        let waiting = drain(None);
        assert_eq!((waiting.phase(Some(0)), waiting.gone_permille(5)), (Phase::Waiting, 0));
        let closing = drain(Some(80));
        assert_eq!(closing.phase(None), Phase::Closing);
        assert_eq!([80, 20, 0].map(|left| closing.gone_permille(left)), [0, 750, 1_000]);
        // The count of the beginning may be a second old.
        assert_eq!(closing.gone_permille(90), 0);
        assert_eq!(
            closing.sentence(&left(90)),
            "draining, 90 of 90 connections left, the last is closed in 60 s"
        );
        assert_eq!(
            closing.sentence(&Left { connections: 7, silent: vec![1] }),
            "draining, 7 connections known to be left, and shard 1 does not answer"
        );
        assert_eq!(
            (drain(Some(0)).phase(Some(0)), drain(Some(0)).gone_permille(0)),
            (Phase::Drained, 1_000)
        );
    }
}
