//! `larder-cluster`: a real Kubernetes cluster on this machine, for trying Larder and for its tests.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    match cli::run(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("larder-cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}
