//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::scenario::{Overrides, Scenario};

/// Proves what a live-comment server serves: load with known schedule, every comment verified
#[derive(Debug, Parser)]
#[command(name = "uproar-loadgen", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) task: Task,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Run a scenario against a server
    Run(Box<Run>),
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
    /// CPUs for the load generator's threads, e.g. 1,3: one thread each, away from the server's
    #[arg(long, value_delimiter = ',')]
    pub(crate) cpus: Vec<usize>,
    /// Source addresses of the connections: addresses and first-last ranges; on loopback taken from 127.9.0.0/16 by default
    #[arg(long)]
    pub(crate) source_ip: Option<String>,
    /// The server's process id; found by its listening socket by default
    #[arg(long)]
    pub(crate) server_pid: Option<u32>,
    /// Folder for report.json, report.html and histograms
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// No progress lines
    #[arg(long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) overrides: Overrides,
}
