//! Log lines on stderr: human on a terminal, JSON otherwise, the level changeable live.

use std::io::{IsTerminal, stderr};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::{LogFormat, Server};

/// Changes the level of a running log.
#[derive(Clone, Debug)]
pub struct LogLevel(Option<reload::Handle<LevelFilter, Registry>>);

impl LogLevel {
    /// For a process whose log someone else set up, as tests do.
    #[must_use]
    pub fn fixed() -> Self {
        Self(None)
    }

    /// Writes only lines at least this severe from now on.
    pub fn set(&self, level: LevelFilter) {
        if let Some(handle) = &self.0 {
            // Fails only when the subscriber is gone, and then there is no log to change.
            let _ = handle.reload(level);
        }
    }
}

/// Starts the process's log.
#[must_use]
pub(super) fn start(server: &Server) -> LogLevel {
    let is_json = match server.log_format {
        LogFormat::Human => false,
        LogFormat::Json => true,
        LogFormat::Auto => !stderr().is_terminal(),
    };
    let lines = fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal());
    let lines = if is_json {
        lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
    } else {
        lines.with_target(false).boxed()
    };
    let (level, handle) = reload::Layer::new(server.log_level);
    tracing_subscriber::registry().with(level).with(lines).init();
    LogLevel(Some(handle))
}
