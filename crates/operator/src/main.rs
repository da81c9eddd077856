//! The operator of Larder.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use larder_operator::config::Args;
use larder_operator::resolve::{self, ResolveArgs};

fn main() -> anyhow::Result<ExitCode> {
    // Before anything speaks TLS: there is one cryptography in this program.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok()
        .context("cannot choose the cryptography of TLS")?;
    let mut words = std::env::args_os();
    let program = words.next();
    if words.next().is_some_and(|word| word == "resolve") {
        // Not a subcommand of the flags below: they have nothing in common, and some of those are required.
        let args = ResolveArgs::parse_from(program.into_iter().chain(words));
        let runtime = tokio::runtime::Runtime::new()?;
        return Ok(runtime.block_on(resolve::run(&args)).unwrap_or_else(|error| {
            eprintln!("larder-operator resolve: {error:#}");
            ExitCode::from(2)
        }));
    }
    let args = Args::parse();
    larder_operator::logging::init(args.log_format, &args.log_level).context("cannot use --log-level")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(larder_operator::run::run(args));
    // Watches and answers that nobody waits for any more.
    runtime.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}
