//! Log lines on stderr: human on a terminal, for the journal where stderr is the journal, JSON
//! otherwise; the level changeable live. Lines go through a queue (`lines`), so that nobody waits for whoever
//! collects them.
//!
//! For the journal a line is human text after its priority, `<4>` for a warning (sd-daemon(3)):
//! `journalctl -u uproar -p warning` then shows what matters. The journal has the time itself.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, stderr};
use std::os::unix::fs::MetadataExt;
use std::panic;
use std::thread;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber, error};
use tracing_subscriber::fmt::format::{Format, FormatEvent, FormatFields, Full, Writer};
use tracing_subscriber::fmt::{self, FmtContext};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::{LogFormat, Server};
use crate::lines::{self, Line};

/// How long a process that ends waits for its last lines to be taken.
pub(crate) const LAST_WORDS_MAX: Duration = Duration::from_millis(500);

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

/// Whether stderr is the journal: it says which stream it gave the process (systemd.exec(5)).
#[must_use]
pub fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let is_it = |file: std::fs::Metadata| stream == format!("{}:{}", file.dev(), file.ino());
    std::fs::metadata("/proc/self/fd/2").is_ok_and(is_it)
}

/// Starts the process's log.
///
/// # Errors
/// When the kernel refuses the thread that writes.
pub(super) fn start(server: &Server) -> io::Result<LogLevel> {
    lines::open()?;
    let format = match server.log_format {
        LogFormat::Auto if stderr().is_terminal() => LogFormat::Human,
        LogFormat::Auto if is_journal() => LogFormat::Journal,
        LogFormat::Auto => LogFormat::Json,
        chosen => chosen,
    };
    let lines = fmt::layer().with_writer(|| Line).with_ansi(stderr().is_terminal());
    let lines = match format {
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
        LogFormat::Journal => lines.with_ansi(false).event_format(Prioritized::new()).boxed(),
        LogFormat::Human | LogFormat::Auto => lines.with_target(false).boxed(),
    };
    let (level, handle) = reload::Layer::new(server.log_level);
    tracing_subscriber::registry().with(level).with(lines).init();
    panic::set_hook(Box::new(|crash| complain(&crash.to_string())));
    Ok(LogLevel(Some(handle)))
}

/// What the hook of the standard library writes to stderr, for which a thread that crashes would wait as long
/// as the pipe is full, instead of ending the process.
fn complain(crash: &str) {
    let thread = thread::current();
    let trace = Backtrace::capture();
    let trace = match trace.status() {
        BacktraceStatus::Captured => format!("\n{trace}"),
        _ => String::new(),
    };
    error!("thread {} {crash}{trace}", thread.name().unwrap_or("without a name"));
    lines::flush(LAST_WORDS_MAX);
}

/// A line with its priority in front, and without what the journal has itself.
struct Prioritized(Format<Full, ()>);

impl Prioritized {
    fn new() -> Self {
        Self(fmt::format().without_time().with_level(false).with_target(false).with_ansi(false))
    }
}

impl<S, N> FormatEvent<S, N> for Prioritized
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(line, "<{priority}>")?;
        self.0.format_event(context, line, event)
    }
}
