//! Configuration: one table of settings, four places a value may come from.
//!
//! A value typed as a flag wins over one in a variable, over one in the file, over the
//! default. Everything typed is checked, even where something else wins, and all problems are
//! reported at once; nothing is bound or started before the whole configuration is good.
//!
//! ```text
//! server.rs + limits.rs   the rows          file.rs     TOML to typed texts, with lines
//! syntax.rs               what is wrong with a line that is no TOML
//! setting.rs, value.rs    text <-> value    sources.rs  who wins, and where it came from
//! check.rs                rules across rows document.rs `config default` and `config show`
//! drains.rs               how long a drain takes
//! ```
//!
//! Not here: what depends on the host, such as the CPUs behind `auto` (`control::plan`).

mod check;
mod document;
mod drains;
mod file;
mod limits;
mod server;
mod setting;
mod sources;
mod syntax;
mod value;

pub use document::{commented_default, effective};
pub use server::Server;
pub use setting::{Kind, Reload, Setting};
pub use sources::{Judged, Loaded, Origin, Problem, Problems, Sources, Typed};
pub use value::{CpuList, LogFormat};

use uproar_engine::limits::Limits;

/// A whole configuration, valid in itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The settings of the process.
    pub server: Server,
    /// The engine's limits.
    pub limits: Limits,
}

/// Every setting, in the order of the documentation.
pub fn table() -> impl Iterator<Item = &'static Setting> {
    server::SERVER.iter().chain(limits::LIMITS)
}

/// The settings an operator sees: all but the test-only ones.
pub fn documented() -> impl Iterator<Item = &'static Setting> {
    table().filter(|setting| !setting.is_hidden)
}

/// The setting with this name in snake case.
#[must_use]
pub fn find(name: &str) -> Option<&'static Setting> {
    table().find(|setting| setting.name == name)
}

/// The documented name nearest to a mistyped one, if any is near enough to be meant.
#[must_use]
pub fn nearest(name: &str) -> Option<&'static str> {
    const SIMILARITY_MIN: f64 = 0.8;
    let name = name.to_lowercase().replace('-', "_");
    documented()
        .map(|setting| (strsim::jaro_winkler(&name, setting.name), setting.name))
        .filter(|&(similarity, _)| similarity >= SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
