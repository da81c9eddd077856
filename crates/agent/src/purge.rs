//! `larder-agent purge`: removes images, one shot, and reports in the container's termination message.

pub(crate) mod carry_out;
mod gather;

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use larder_core::image_ref::ImageRef;
use larder_core::removal::{PurgeEntry, PurgeReport};
use larder_runtime::{Timeouts, find_runtime};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use carry_out::carry_out;

/// Entries of one call: they arrive as arguments, and their outcomes have to fit into one termination message.
const MAX_ENTRIES: usize = 100;

/// Removes images from this node.
///
/// Exits with 0 once the fate of every entry is decided, also if some could not be removed: the report says so. Exits with
/// 1 if no runtime answers, or it stops answering, or the arguments make no sense; the report is then
/// {"error": "..."}, with the counts of what was done by then.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where the node's /run is mounted; the runtime's socket is looked for at the known paths below. Repeat it for
    /// microk8s' /var/snap/microk8s/common/run.
    #[arg(long, value_name = "DIR", default_value = "/host/run")]
    host_run: Vec<PathBuf>,
    /// The runtime's socket, if it is none of the known ones.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// An image to remove, as JSON: {"reference": "nginx:1.27", "digest": "sha256:…", "claimedAt":
    /// "2026-01-02T03:04:05Z", "all": false}. What came to the node more than a minute before claimedAt is foreign and
    /// stays, unless `all`. Digest and `all` may be left out. At most 100.
    #[arg(long = "entry", value_name = "JSON")]
    entries: Vec<String>,
    /// A file with a JSON list of such images.
    #[arg(long, value_name = "PATH")]
    entries_file: Option<PathBuf>,
    /// A reference that stays whatever the entries say, because something else on the node wants it: of the content of
    /// `nginx:1.27` that is also wanted as `nginx@sha256:…`, only the tag then goes.
    #[arg(long, value_name = "REFERENCE")]
    keep: Vec<String>,
    /// Where the report goes beside standard output.
    #[arg(long, value_name = "PATH", default_value = "/dev/termination-log")]
    termination_log: PathBuf,
}

/// Runs the command to its end.
pub async fn run(arguments: &Arguments) -> ExitCode {
    let (message, done) = match purge(arguments).await {
        Ok(report) => {
            match &report.error {
                None => info!(%report, "purged"),
                Some(error) => error!(%report, error, "purge ended early"),
            }
            (report.to_message(), report.error.is_none())
        }
        Err(error) => {
            let words = format!("{error:#}");
            error!(error = words, "purge failed");
            (
                json!({ "error": words.chars().take(1000).collect::<String>() }).to_string(),
                false,
            )
        }
    };
    let told = tell(&arguments.termination_log, &message);
    if let Err(error) = &told {
        error!(error = format!("{error:#}"), "cannot report");
    }
    if done && told.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn purge(arguments: &Arguments) -> Result<PurgeReport> {
    let entries = read_entries(arguments)?;
    let keep = read_keep(arguments)?;
    // As the first process of a container it would not end by SIGTERM of itself.
    let mut end = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let work = async {
        let timeouts = Timeouts::default();
        let runtime = find_runtime(&arguments.host_run, arguments.socket.as_deref(), timeouts).await?;
        Ok(carry_out(&entries, &keep, &runtime).await)
    };
    tokio::select! {
        report = work => report,
        _ = end.recv() => bail!("told to end before everything was decided"),
    }
}

fn read_keep(arguments: &Arguments) -> Result<Vec<ImageRef>> {
    let parse = |text: &String| ImageRef::parse(text).with_context(|| format!("--keep {text}"));
    arguments.keep.iter().map(parse).collect()
}

fn read_entries(arguments: &Arguments) -> Result<Vec<PurgeEntry>> {
    let mut entries = Vec::new();
    for text in &arguments.entries {
        entries.push(serde_json::from_str(text).with_context(|| format!("--entry {text}"))?);
    }
    if let Some(path) = &arguments.entries_file {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("--entries-file {}", path.display()))?;
        let more: Vec<PurgeEntry> =
            serde_json::from_str(&text).with_context(|| format!("--entries-file {}", path.display()))?;
        entries.extend(more);
    }
    ensure!(
        !entries.is_empty(),
        "nothing to remove: give --entry or --entries-file"
    );
    ensure!(
        entries.len() <= MAX_ENTRIES,
        "{} entries; at most {MAX_ENTRIES} in one call",
        entries.len()
    );
    Ok(entries)
}

/// Tells the kubelet and whoever watches. In a container the kubelet has made the file; none is made in /dev, so the
/// command also runs by hand.
fn tell(termination_log: &Path, message: &str) -> Result<()> {
    if let Err(error) = writeln!(io::stdout(), "{message}") {
        warn!(%error, "nobody reads standard output");
    }
    if termination_log.starts_with("/dev") && !termination_log.exists() {
        return Ok(());
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(termination_log)
        .with_context(|| format!("cannot open {}", termination_log.display()))?;
    file.write_all(message.as_bytes())
        .with_context(|| format!("cannot write {}", termination_log.display()))
}
