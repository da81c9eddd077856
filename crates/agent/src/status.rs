//! `larder-agent status`: what Larder sees on this node.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use larder_api::names::{PINNED_LABEL, PULLED_LABEL};
use larder_api::node_image_cache::Capability;
use larder_core::format;
use larder_runtime::{Contents, ImageContents, Manifests, Runtime as _, Timeouts};
use larder_runtime::{disk, find_runtime, observed};
use serde::Serialize;

use crate::pull::socket_path;

/// Shows the runtime, what it lets Larder do, the room for images, and the images that Larder pulled or pinned.
///
/// Exits with 1 if no runtime answers.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Form of what is written.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    /// The runtime's socket, if it is none of the known ones; `unix://` may stand before it.
    #[arg(long, visible_alias = "socket", value_name = "PATH")]
    cri_socket: Option<String>,
    /// Where the node's /run is; the runtime's socket is looked for at the known paths below.
    #[arg(long, value_name = "DIR", default_value = "/run")]
    host_run: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Table,
    /// One object.
    Json,
}

/// Everything that is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    runtime: String,
    version: String,
    socket: PathBuf,
    capabilities: Vec<Capability>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk: Option<ShownDisk>,
    /// Images on the node, whosever they are.
    images_in_all: usize,
    /// Those that Larder pulled or pinned.
    images: Vec<ShownImage>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownDisk {
    total_bytes: u64,
    free_bytes: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownImage {
    /// Names with a tag, or else the digests under which it is known.
    names: Vec<String>,
    id: String,
    /// When Larder pulled it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pulled: Option<String>,
    /// Larder pinned it, and the runtime says that it is pinned.
    pinned: bool,
    /// All of its content is there.
    complete: bool,
    /// A container was made from it.
    used: bool,
}

/// Runs the command.
pub async fn run(arguments: &Arguments) -> ExitCode {
    let shown = async { print(&look(arguments).await?, arguments.output) };
    match shown.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn look(arguments: &Arguments) -> Result<Shown> {
    let socket = arguments.cri_socket.as_deref().map(socket_path).transpose()?;
    let runtime = find_runtime(&arguments.host_run, socket.as_deref(), Timeouts::default()).await?;
    let contents = Contents::observe(&runtime, &mut Manifests::default())
        .await
        .context("cannot look at the runtime")?;
    // Not every runtime tells where its images are.
    let disk = disk(&runtime.image_fs().await.unwrap_or_default());
    let observed = observed(&contents, disk);
    let mut images: Vec<ShownImage> = contents
        .images
        .iter()
        .zip(&observed.images)
        .filter(|(_, image)| image.pulled_by_us || image.pinned_by_us)
        .map(|(contents, image)| ShownImage {
            names: names(contents),
            id: image.id.clone(),
            pulled: contents
                .labels
                .get(PULLED_LABEL)
                .filter(|at| !at.is_empty())
                .cloned(),
            pinned: image.pinned && contents.labels.contains_key(PINNED_LABEL),
            complete: image.complete,
            used: image.used,
        })
        .collect();
    images.sort_by(|a, b| a.names.cmp(&b.names));
    Ok(Shown {
        runtime: observed.runtime.name,
        version: observed.runtime.version,
        socket: runtime.path().to_owned(),
        capabilities: observed.capabilities,
        disk: observed.disk.map(|disk| ShownDisk {
            total_bytes: disk.total,
            free_bytes: disk.free,
        }),
        images_in_all: observed.images.len(),
        images,
    })
}

fn names(image: &ImageContents) -> Vec<String> {
    if image.tags.is_empty() {
        image.targets.keys().cloned().collect()
    } else {
        image.tags.keys().cloned().collect()
    }
}

fn print(shown: &Shown, form: Format) -> Result<()> {
    let text = match form {
        Format::Json => serde_json::to_string_pretty(shown)?,
        Format::Table => table(shown),
    };
    writeln!(io::stdout(), "{}", text.trim_end()).context("nobody reads standard output")
}

fn table(shown: &Shown) -> String {
    let capabilities: Vec<String> = shown.capabilities.iter().map(|c| format!("{c:?}")).collect();
    let bytes = |n: u64| format::bytes(i64::try_from(n).unwrap_or(i64::MAX));
    let disk = shown.disk.as_ref().map_or("unknown".to_owned(), |disk| {
        format!("{} free of {}", bytes(disk.free_bytes), bytes(disk.total_bytes))
    });
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // A String takes everything.
        let _ = writeln!(text, "{name:<14}{value}");
    };
    line("Runtime:", &format!("{} {}", shown.runtime, shown.version));
    line("Socket:", &shown.socket.display().to_string());
    line(
        "Capabilities:",
        &if capabilities.is_empty() {
            "none".to_owned()
        } else {
            capabilities.join(", ")
        },
    );
    line("Disk:", &disk);
    line(
        "Images:",
        &format!(
            "{} on the node, {} by Larder",
            shown.images_in_all,
            shown.images.len()
        ),
    );
    if shown.images.is_empty() {
        return text;
    }
    let yes = |yes: bool| if yes { "yes" } else { "no" };
    let _ = writeln!(
        text,
        "\n{:<22}{:<8}{:<10}{:<6}NAMES",
        "PULLED", "PINNED", "COMPLETE", "USED"
    );
    for image in &shown.images {
        let _ = writeln!(
            text,
            "{:<22}{:<8}{:<10}{:<6}{}",
            image.pulled.as_deref().unwrap_or("-"),
            yes(image.pinned),
            yes(image.complete),
            yes(image.used),
            image.names.join(", ")
        );
    }
    text
}
