//! `larder-bench`: what Larder costs on a real cluster, beside the floor: the same images on the same nodes, each pulled
//! by one call to the container runtime, all at once.
//!
//! `run` measures on a cluster that is up, with Larder in it (hack/bench brings one up), and writes bench/results;
//! `report` writes docs/benchmarks.md from bench/results.

mod bare;
mod bench;
mod floor;
mod images;
mod machine;
mod measure;
mod memory;
mod pulled;
mod report;
mod result;
mod timeline;
mod watch;
mod writes;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use larder_e2e::cluster::Cluster;
use larder_e2e::cluster::name::ClusterName;

use crate::bench::Bench;
use crate::measure::MEASURES;
use crate::result::{Setting, write_results};

/// Measures Larder on a real cluster.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Do,
}

#[derive(Debug, Subcommand)]
enum Do {
    /// Measures on a cluster that is up, with Larder in it.
    Run {
        /// Which cluster.
        #[arg(long, default_value = "larder-bench")]
        cluster: ClusterName,
        /// How often each measure is taken; the median counts.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
        runs: u8,
        /// Which measures, separated by commas.
        #[arg(long, value_delimiter = ',', default_values = MEASURES, value_parser = MEASURES)]
        only: Vec<String>,
        /// Who pulls.
        #[arg(long, default_value = "Job")]
        puller: String,
        /// What is written down as the way to repeat this.
        #[arg(long, default_value = "make bench")]
        command: String,
        /// Where results go.
        #[arg(long, default_value_os_t = repository().join("bench/results"))]
        results: PathBuf,
    },
    /// Writes docs/benchmarks.md from the newest results.
    Report {
        /// Where results are.
        #[arg(long, default_value_os_t = repository().join("bench/results"))]
        results: PathBuf,
        /// The page.
        #[arg(long, default_value_os_t = repository().join("docs/benchmarks.md"))]
        page: PathBuf,
    },
}

fn main() -> ExitCode {
    match act(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("larder-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(command: Do) -> anyhow::Result<()> {
    match command {
        Do::Run {
            cluster,
            runs,
            only,
            puller,
            command,
            results,
        } => {
            let cluster = Cluster::attach(&cluster)?;
            let nodes = cluster.nodes()?.len();
            if nodes != 2 {
                bail!("the figures are for 2 nodes and {} has {nodes}", cluster.name());
            }
            let setting = Setting::here(puller, command);
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let (found, ended) = runtime.block_on(async {
                let bench = Bench::prepare(cluster).await?;
                let (found, ended) = measure::all(&bench, &setting, usize::from(runs), &only).await;
                anyhow::Ok((found, ended.and(bench.finish().await)))
            })?;
            let file = write_results(&results, &setting, found)?;
            eprintln!("results are in {}", file.display());
            ended
        }
        Do::Report { results, page } => {
            let text = report::page(&result::newest(&results)?);
            std::fs::write(&page, text).with_context(|| format!("write {}", page.display()))
        }
    }
}

/// The checkout that this program was built from.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
        let arguments = Arguments::parse_from(["larder-bench", "run", "--only", "p1,p4"]);
        assert!(matches!(arguments.command, Do::Run { only, runs: 3, .. } if only == ["p1", "p4"]));
        assert!(Arguments::try_parse_from(["larder-bench", "run", "--only", "p2"]).is_err());
    }

    #[test]
    fn the_page_is_current() {
        let root = repository();
        let page = std::fs::read_to_string(root.join("docs/benchmarks.md")).unwrap();
        let fresh = report::page(&result::newest(&root.join("bench/results")).unwrap());
        assert!(
            page == fresh,
            "run `cargo run -p larder-e2e --bin larder-bench -- report`"
        );
    }
}
