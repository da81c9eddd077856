//! `larder-agent`: the agent of a node, and commands that run once.

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use larder_agent::{pull, purge, run, status};
use tracing_subscriber::EnvFilter;

/// What Larder runs on a node.
#[derive(Debug, Parser)]
#[command(name = "larder-agent", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keep this node as its `NodeImageCache` says, until told to stop.
    Run(run::Arguments),
    /// Pull images to this node and report each attempt.
    Pull(pull::Arguments),
    /// Remove images from this node and report what became of each.
    Purge(purge::Arguments),
    /// Show what Larder sees on this node.
    Status(status::Arguments),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let arguments = Arguments::parse();
    // A person at a terminal is shown what the command itself writes.
    let quiet = match &arguments.command {
        Command::Pull(pull) => pull.shows_progress(),
        Command::Status(_) => true,
        Command::Run(_) | Command::Purge(_) => false,
    };
    let logs = tracing_subscriber::fmt().with_writer(io::stderr);
    if quiet {
        logs.with_max_level(tracing::Level::WARN).init();
    } else {
        logs.json().with_env_filter(filter).init();
    }
    match arguments.command {
        Command::Run(arguments) => run::run(arguments).await,
        Command::Pull(arguments) => pull::run(arguments).await,
        Command::Purge(arguments) => purge::run(&arguments).await,
        Command::Status(arguments) => status::run(&arguments).await,
    }
}
