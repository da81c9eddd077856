//! The operator of Larder.

use anyhow::Context;
use clap::Parser;
use larder_operator::config::Args;

fn main() -> anyhow::Result<()> {
    // Before anything speaks TLS: there is one cryptography in this program.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok()
        .context("cannot choose the cryptography of TLS")?;
    let args = Args::parse();
    larder_operator::logging::init(args.log_format, &args.log_level).context("cannot use --log-level")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(larder_operator::run::run(args));
    // Watches and answers that nobody waits for any more.
    runtime.shutdown_background();
    result
}
