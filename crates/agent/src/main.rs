//! `larder-agent`: what Larder runs on a node. It talks to the node's container runtime and never to the API server.

mod purge;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
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
    /// Remove images from this node and report what became of each.
    Purge(purge::Arguments),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .init();
    match Arguments::parse().command {
        Command::Purge(arguments) => purge::run(&arguments).await,
    }
}
