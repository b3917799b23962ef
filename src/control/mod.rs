//! The control plane: everything that is not the hot path, on one thread with tokio.
//!
//! It starts the node, answers HTTP, watches the shards and ends the process. It may be slow
//! or stuck; shards go on delivering without it. Each link to a shard is bounded and each
//! question has a deadline.
//!
//! ```text
//! start   serve -> host, layout, bind (activation, keeping), logging -> run
//! HTTP    handover -> sound -> public, health, answer      admin -> metrics, hot, drain
//! REST    background (a thread of less weight), places, pages, answer_bytes
//! while it runs   node (the shards' ports), readiness, reload, drain, wanted, systemd, trouble
//! ```
//!
//! Not here: sockets of viewers (`shard`), rules about comments (the engine).

mod activation;
mod admin;
mod answer;
mod answer_bytes;
mod background;
mod bind;
mod clock;
mod drain;
mod handover;
mod health;
mod host;
mod hot;
mod keeping;
mod layout;
mod lingering;
mod logging;
mod metrics;
mod node;
mod pages;
mod places;
mod public;
mod readiness;
mod reload;
mod run;
mod serve;
mod sound;
mod systemd;
mod trouble;
mod wanted;

pub use activation::ActivationError;
pub use bind::{BindError, Bound, Holder, Sockets, bind};
pub use host::Host;
pub use layout::{Layout, SLOTS_PER_RING_MAX, SLOTS_SPARE};
pub(crate) use layout::{descriptors, rings};
pub(crate) use logging::LAST_WORDS_MAX;
pub use logging::{LogLevel, is_journal};
pub use node::{ANSWER_MS_MAX, NoAnswer, Node};
pub use readiness::{Readiness, State};
pub use reload::{Change, changes};
pub use run::{ControlPlane, Ended};
pub use serve::{StartError, serve};
pub(crate) use systemd::flush as say_last_words;
