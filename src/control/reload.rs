//! SIGHUP: the sources are read again, and what can change live changes, all or nothing.

use tracing::{error, info, warn};
use uproar_engine::control::Request;

use super::logging::LogLevel;
use super::node::Node;
use crate::config::{Loaded, Reload, Sources, table};

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

/// Reloads; what happened is in the log.
pub(super) async fn reload(node: &Node, sources: &Sources, log: &LogLevel) {
    let mut new = match sources.load() {
        Ok(new) => new,
        Err(problems) => {
            for problem in &problems.0 {
                error!(%problem, "not reloaded");
            }
            return;
        }
    };
    if let Some(problem) = node.layout.refuses(&new.config) {
        error!(%problem, "not reloaded");
        return;
    }
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
    log.set(new.config.server.log_level);
    let limits = new.config.limits.clone();
    node.set_loaded(new);
    for (shard, answer) in
        node.ask_all(|| Request::Reload(Box::new(limits.clone()))).await.into_iter().enumerate()
    {
        if let Err(why) = answer {
            error!(shard, %why, "a shard keeps its old limits");
        }
    }
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
}
