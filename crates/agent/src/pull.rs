//! `larder-agent pull`: pulls images, one shot, on a host that need not belong to a cluster.

mod list;
mod output;
mod work;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use larder_runtime::{Timeouts, find_runtime};
use tokio::signal::unix::{SignalKind, signal};

use crate::credentials::{Finder, ProviderFlags};
use crate::duration;
use output::Output;
use work::{Patience, Work};

/// What clap, too, answers to arguments that make no sense.
const BAD_ARGUMENTS: u8 = 2;

/// Pulls images to this node.
///
/// Exits with 0 only if all of them are there, with 1 if any is not, and with 2 if the arguments make no sense. What the
/// registry refuses for good (not found, unauthorized) is given up after a few attempts; everything else is repeated
/// until --overall-timeout.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Images to pull.
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    /// A file with an image a line; what follows a # is a comment. `-` is standard input.
    #[arg(long, value_name = "FILE")]
    image_list_file: Vec<PathBuf>,
    /// The runtime's socket, if it is none of the known ones below /run; `unix://` may stand before it.
    #[arg(long, visible_alias = "socket", value_name = "PATH")]
    cri_socket: Option<String>,
    /// Credentials as `docker login` and pull secrets keep them: a file with {"auths": ...}.
    #[arg(long, value_name = "FILE")]
    docker_config: Vec<PathBuf>,
    #[command(flatten)]
    providers: ProviderFlags,
    /// Images pulled at a time.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    parallel: u16,
    /// How long the first attempt at an image may take. It doubles with each. Credential provider plugins have a minute of
    /// their own.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    attempt_timeout: Duration,
    /// What it doubles to.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration::parse)]
    max_attempt_timeout: Duration,
    /// How long all of it may take.
    #[arg(long, value_name = "DURATION", default_value = "20m", value_parser = duration::parse)]
    overall_timeout: Duration,
    /// Time before the second attempt at an image. It doubles with each.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration::parse)]
    retry_delay: Duration,
    /// What it doubles to, and the time between attempts at what the registry refused for good.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    max_retry_delay: Duration,
    /// What is written: a progress bar, or a JSON object a line for each attempt and one for the end.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    /// Name of this node in the records; else the host's.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node_name: Option<String>,
}

/// Form of what is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// `progress` on a terminal, else `json`.
    #[default]
    Auto,
    /// JSON lines on standard output.
    Json,
    /// A bar on standard error, and what failed on standard output.
    Progress,
}

impl Arguments {
    /// Whether a person is looking at a progress bar.
    pub fn shows_progress(&self) -> bool {
        match self.output {
            Format::Auto => io::stdout().is_terminal() && io::stderr().is_terminal(),
            Format::Json => false,
            Format::Progress => true,
        }
    }
}

/// Runs the command to its end.
pub async fn run(arguments: Arguments) -> ExitCode {
    let (images, finder) = match prepare(&arguments) {
        Ok(prepared) => prepared,
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::from(BAD_ARGUMENTS);
        }
    };
    match pull(&arguments, images, finder).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Reads everything that is asked for, so that mistakes show before the first pull.
fn prepare(arguments: &Arguments) -> Result<(list::Wanted, Finder)> {
    let mut wanted = list::Wanted::default();
    for image in &arguments.images {
        wanted.add(image);
    }
    for path in &arguments.image_list_file {
        wanted.add_file(path)?;
    }
    ensure!(
        !wanted.is_empty(),
        "nothing to pull: name images or give --image-list-file"
    );
    ensure!(
        !arguments.attempt_timeout.is_zero() && !arguments.overall_timeout.is_zero(),
        "time-outs must not be zero"
    );
    let mut finder = Finder::default();
    for path in &arguments.docker_config {
        finder.add_docker_config(path)?;
    }
    if let Some(files) = arguments.providers.files() {
        finder.add_providers(&files)?;
    }
    Ok((wanted, finder))
}

async fn pull(arguments: &Arguments, wanted: list::Wanted, finder: Finder) -> Result<bool> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let socket = arguments.cri_socket.as_deref().map(socket_path).transpose()?;
    let roots = [PathBuf::from("/run")];
    let runtime = find_runtime(&roots, socket.as_deref(), Timeouts::default()).await?;
    let output = Output::new(arguments.shows_progress(), wanted.len());
    let work = Work {
        runtime: Arc::new(runtime),
        finder,
        patience: Patience {
            attempt: arguments.attempt_timeout,
            max_attempt: arguments.max_attempt_timeout.max(arguments.attempt_timeout),
            delay: arguments.retry_delay,
            max_delay: arguments.max_retry_delay.max(arguments.retry_delay),
        },
        node: arguments.node_name.clone().unwrap_or_else(host_name),
        output,
    };
    let end = async {
        tokio::select! {
            () = tokio::time::sleep(arguments.overall_timeout) => "not done within --overall-timeout",
            _ = terminate.recv() => "ended by SIGTERM",
            _ = interrupt.recv() => "ended by SIGINT",
        }
    };
    Ok(work.run(wanted, usize::from(arguments.parallel), end).await)
}

/// The kubelet's flags and crictl name sockets as URLs.
pub(crate) fn socket_path(text: &str) -> Result<PathBuf> {
    let path = text.strip_prefix("unix://").unwrap_or(text);
    if path.contains("://") {
        bail!("{text:?} is not a Unix socket");
    }
    Ok(PathBuf::from(path))
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| String::new(), |name| name.trim().to_owned())
}
