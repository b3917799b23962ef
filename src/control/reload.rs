//! SIGHUP: the sources are read again, and what can change live changes, all or nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use tracing::{error, info, warn};
use uproar_engine::control::Request;

use super::layout::Layout;
use super::logging::LogLevel;
use super::node::Node;
use crate::config::{Loaded, Problem, Problems, Reload, Sources, table};

/// One setting whose value differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which setting.
    pub name: &'static str,
    /// What is in effect.
    pub from: String,
    /// What was read.
    pub to: String,
    /// Whether it changes without a restart.
    pub is_live: bool,
}

/// The settings in which two configurations differ.
#[must_use]
pub fn changes(old: &Loaded, new: &Loaded) -> Vec<Change> {
    table()
        .map(|setting| Change {
            name: setting.name,
            from: setting.value(&old.config),
            to: setting.value(&new.config),
            is_live: setting.reload == Reload::Live,
        })
        .filter(|change| change.from != change.to)
        .collect()
}

/// How the reloads of this process went.
#[derive(Debug, Default)]
pub(super) struct Reloads {
    applied: AtomicU64,
    refused: AtomicU64,
    is_last_refused: AtomicBool,
}

impl Reloads {
    fn count(&self, is_applied: bool) {
        let count = if is_applied { &self.applied } else { &self.refused };
        count.fetch_add(1, Relaxed);
        self.is_last_refused.store(!is_applied, Relaxed);
    }

    /// By result, as the metrics name it.
    pub(super) fn counts(&self) -> [(&'static str, u64); 2] {
        [("applied", self.applied.load(Relaxed)), ("refused", self.refused.load(Relaxed))]
    }

    /// Whether the file as it is now was refused.
    pub(super) fn is_last_refused(&self) -> bool {
        self.is_last_refused.load(Relaxed)
    }
}

/// Reloads; what happened is counted and in the log.
pub(super) async fn reload(node: &Node, sources: &Sources, log: &LogLevel) {
    let new = load(node, sources);
    node.reloads.count(new.is_ok());
    match new {
        Ok(new) => apply(node, new, log).await,
        Err(problems) => {
            for problem in &problems {
                error!(%problem, "not reloaded");
            }
        }
    }
}

/// A configuration that this node can take, and could start with, or every reason why it cannot.
fn load(node: &Node, sources: &Sources) -> Result<Loaded, Vec<String>> {
    let texts = |problems: Problems| problems.0.iter().map(Problem::to_string).collect::<Vec<_>>();
    let (new, _) = Layout::load(sources, &node.layout.host).map_err(texts)?;
    // What a socket unit holds stays in effect, and is compared and told as such.
    let sockets = node.sockets();
    let new = new.under_socket_unit(sockets.unit_listen(), sockets.unit_admin);
    match node.layout.refuses(&new.config) {
        None => Ok(new),
        Some(problem) => Err(vec![problem]),
    }
}

async fn apply(node: &Node, mut new: Loaded, log: &LogLevel) {
    for warning in &new.warnings {
        warn!("{warning}");
    }
    let old = node.loaded();
    let changes = changes(&old, &new);
    // What needs a restart keeps its old value, so that a later reload still sees it differ.
    for setting in table().filter(|setting| setting.reload == Reload::Restart) {
        setting.copy(&old.config, &mut new.config);
        match old.origins.get(setting.name) {
            Some(origin) => new.origins.insert(setting.name, origin.clone()),
            None => new.origins.remove(setting.name),
        };
    }
    let level = new.config.server.log_level;
    let limits = new.config.limits.clone();
    node.set_loaded(new);
    for (shard, answer) in
        node.ask_all(|| Request::Reload(Box::new(limits.clone()))).await.into_iter().enumerate()
    {
        if let Err(why) = answer {
            error!(shard, %why, "a shard keeps its old limits");
        }
    }
    // The difference is told at the more talkative of both levels: a stricter one would hide it.
    log.set(level.max(old.config.server.log_level));
    for Change { name, from, to, is_live } in &changes {
        if *is_live {
            info!("reloaded: {name} is now {to}, was {from}");
        } else {
            warn!("{name} = {to} needs a restart; {from} stays in effect");
        }
    }
    if changes.is_empty() {
        info!("reloaded: nothing differs");
    }
    log.set(level);
}
