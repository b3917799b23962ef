//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::scenario::{Overrides, Scenario};

/// What the last lines of `--help` and of the manual say.
const CODES: &str = "Exit codes: 0 all was measured and held; 1 something did not hold, or the run was interrupted; 2 nothing \
failed, but not everything was measured, or the run could not take place. SIGINT and SIGTERM end a run with what it has \
measured. Memory is measured as root only. More: /usr/share/doc/uproar-loadgen/";

/// The version, and the commit it was built of.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("BUILD_COMMIT"), ")");

/// Proves what a live-comment server serves: load with known schedule, every comment verified
#[derive(Debug, Parser)]
#[command(name = "uproar-loadgen", version = VERSION, max_term_width = 100, after_long_help = CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) task: Task,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Run a scenario against a server
    #[command(allow_negative_numbers = true)]
    Run(Box<Run>),
    /// Set the reports of two runs side by side
    Compare(Compare),
    /// Measure what receiving costs here, beside a plain epoll client; exit code 0 if it is no dearer
    Floor(Floor),
    /// Run planes for coordinators on other hosts: `run --workers` there names this one
    Worker(Worker),
    /// Print the manual page
    #[command(hide = true)]
    Man,
}

/// Two runs.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Compare {
    /// Folder of the first run
    pub(crate) a: PathBuf,
    /// Folder of the second run
    pub(crate) b: PathBuf,
    /// Write both into one HTML page
    #[arg(long)]
    pub(crate) html: Option<PathBuf>,
}

/// Where to measure.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Floor {
    /// CPU of both receivers; the last that this process may use by default
    #[arg(long)]
    pub(crate) cpu: Option<usize>,
}

/// A host that lends its CPUs.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Worker {
    /// Where coordinators connect; whoever reaches it can make this host send load
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// CPUs for planes, one thread each; the last that this process may use by default
    #[arg(long, value_delimiter = ',')]
    pub(crate) cpus: Vec<usize>,
    /// Source addresses of the connections, as for `run`
    #[arg(long)]
    pub(crate) source_ip: Option<String>,
}

/// Progress while a run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Progress {
    /// One line that is written over on a terminal, nothing elsewhere
    Auto,
    /// A line a second, wherever it goes
    Lines,
    /// Nothing
    Off,
}

/// One run.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Run {
    /// Which scenario; its parameters can be shown with --print and overridden by flags
    #[arg(value_enum)]
    pub(crate) scenario: Scenario,
    /// Print the scenario's parameters and stop
    #[arg(long)]
    pub(crate) print: bool,
    /// CPUs for the load generator's threads, e.g. 1,3: one thread each, away from the server's; the last that this process may use by default
    #[arg(long, value_delimiter = ',')]
    pub(crate) cpus: Vec<usize>,
    /// Source addresses of the connections: addresses and first-last ranges; on loopback taken from 127.9.0.0/16 by default
    #[arg(long)]
    pub(crate) source_ip: Option<String>,
    /// Workers that run the load in place of this host: HOST:PORT,HOST:PORT
    #[arg(long, value_delimiter = ',')]
    pub(crate) workers: Vec<String>,
    /// The server's process id; found by its listening socket by default, with all processes that hold it
    #[arg(long)]
    pub(crate) server_pid: Option<u32>,
    /// Count the CPU and memory of --server-pid's descendants as the server's
    #[arg(long, requires = "server_pid")]
    pub(crate) server_children: bool,
    /// Folder for report.json, report.html and histograms
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// How progress is shown on standard error
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) progress: Progress,
    #[command(flatten)]
    pub(crate) overrides: Overrides,
}
