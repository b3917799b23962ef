//! SIGHUP: the sources are read again, and what can change live changes, all or nothing.
//!
//! It goes on beside everything else: a file that cannot be read to its end, or a shard that does not answer, holds up
//! this reload and nothing else. A shard that misses it is told again (`wanted`), and until all shards have
//! the new limits the reload is not complete.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::signal::unix::Signal;
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use super::layout::Layout;
use super::logging::LogLevel;
use super::node::Node;
use super::systemd;
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
///
/// Each one that is not refused has a number, its generation, and is complete when every shard says that it has it.
/// `applied` counts those that are; a later one completes those before it.
#[derive(Debug)]
pub(super) struct Reloads {
    applied: AtomicU64,
    refused: AtomicU64,
    is_last_refused: AtomicBool,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    /// The newest; 0 is what the node started with.
    generation: u64,
    /// By shard: the newest it said that it has.
    held: Vec<u64>,
}

impl Progress {
    fn behind(&self) -> Vec<usize> {
        (0..self.held.len()).filter(|&shard| self.held[shard] != self.generation).collect()
    }
}

impl Reloads {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            applied: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            is_last_refused: AtomicBool::new(false),
            progress: Mutex::new(Progress { generation: 0, held: vec![0; shards] }),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest configuration's number.
    pub(super) fn generation(&self) -> u64 {
        self.progress().generation
    }

    fn refuse(&self) {
        self.refused.fetch_add(1, Relaxed);
        self.is_last_refused.store(true, Relaxed);
    }

    fn begin(&self) {
        self.progress().generation += 1;
        self.is_last_refused.store(false, Relaxed);
    }

    /// A shard has said which limits it has.
    pub(super) fn note_held(&self, shard: usize, generation: u64) {
        let mut progress = self.progress();
        let were_behind = progress.behind().len();
        progress.held[shard] = generation;
        if were_behind > 0 && progress.behind().is_empty() {
            self.applied.fetch_add(1, Relaxed);
            info!("reloaded: every shard has the new values");
        }
    }

    /// Shards that have not said yet that they have the newest limits.
    pub(super) fn behind(&self) -> Vec<usize> {
        self.progress().behind()
    }

    /// By result, as the metrics name it.
    pub(super) fn counts(&self) -> [(&'static str, u64); 2] {
        [("applied", self.applied.load(Relaxed)), ("refused", self.refused.load(Relaxed))]
    }

    /// Whether the file as it is now was refused.
    pub(super) fn is_last_refused(&self) -> bool {
        self.is_last_refused.load(Relaxed)
    }

    /// What is wrong with the last reload, if anything is.
    pub(super) fn trouble(&self) -> Option<String> {
        if self.is_last_refused() {
            return Some("the last reload was refused".to_owned());
        }
        match self.behind().as_slice() {
            [] => None,
            [shard] => Some(format!("shard {shard} has not taken the last reload yet")),
            shards => {
                let numbers: Vec<String> = shards.iter().map(usize::to_string).collect();
                Some(format!("shards {} have not taken the last reload yet", numbers.join(", ")))
            }
        }
    }
}

/// Reloads on every SIGHUP, for as long as the node does not end. Signals that come meanwhile are one more.
pub(super) async fn reload_on(
    mut hangup: Signal,
    node: Arc<Node>,
    sources: Sources,
    log: LogLevel,
) {
    while hangup.recv().await.is_some() {
        systemd::reloading();
        reload(&node, &sources, &log).await;
        systemd::ready(&node.status());
    }
}

/// Reloads; what happened is counted and in the log.
async fn reload(node: &Arc<Node>, sources: &Sources, log: &LogLevel) {
    let (reader, sources) = (Arc::clone(node), sources.clone());
    // A file may be on a disk that hangs, or be no file; signals and health checks must not wait for it.
    let read = spawn_blocking(move || load(&reader, &sources)).await;
    match read.expect("reading neither panics nor is aborted") {
        Ok(new) => apply(node, new, log).await,
        Err(problems) => {
            node.reloads.refuse();
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
    node.set_loaded(new);
    node.reloads.begin();
    let generation = node.reloads.generation();
    let answers = node.ask_all(|| node.reload_request()).await;
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
    for (shard, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(_) => node.reloads.note_held(shard, generation),
            Err(why) => error!(
                shard, %why,
                "the reload is not complete: a shard keeps its old limits until it answers, and is told again then"
            ),
        }
    }
    log.set(level);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_is_applied_when_every_shard_has_it() {
        let reloads = Reloads::new(2);
        assert_eq!(reloads.trouble(), None);
        reloads.begin();
        assert_eq!(reloads.behind(), [0, 1]);
        reloads.note_held(1, 1);
        assert_eq!(reloads.counts(), [("applied", 0), ("refused", 0)]);
        assert_eq!(reloads.trouble().unwrap(), "shard 0 has not taken the last reload yet");
        reloads.note_held(0, 1);
        reloads.note_held(0, 1);
        assert_eq!((reloads.counts(), reloads.trouble()), ([("applied", 1), ("refused", 0)], None));
        // What is refused leaves what the shards have; they have it all the same.
        reloads.refuse();
        assert_eq!(reloads.behind(), [] as [usize; 0]);
        assert_eq!(reloads.trouble().unwrap(), "the last reload was refused");
    }
}
