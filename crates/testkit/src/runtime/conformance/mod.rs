//! What every runtime with containerd's API does, as far as Larder relies on it. Run against the fake and the real one.

mod content;
mod events;
mod pinning;
mod progress;
mod pulling;
mod removing;
mod support;
mod tagging;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use larder_runtime::{Runtime, RuntimeClient, Timeouts};

use support::{image, pull};

/// References that the runtime can pull. They are removed in the end.
#[derive(Clone, Debug)]
pub struct ConformanceImages {
    /// Two tags of one image in one repository. It has layers.
    pub tags: [String; 2],
    /// A tag of another image.
    pub other: String,
    /// A tag of an image that takes long enough to be seen on its way: tens of megabytes.
    pub large: String,
    /// A reference that its registry answers "not found" for.
    pub missing: String,
}

/// Runs against the containerd, or the fake, at this socket. The first thing that differs is the error.
pub async fn conformance(socket: &Path, images: &ConformanceImages) -> Result<()> {
    let client = RuntimeClient::connect(socket, Timeouts::default()).await?;
    let runtime: &dyn Runtime = &client;
    let records = runtime.records().context("containerd's own API is not served")?;
    let content = runtime.content().context("no content is shown")?;
    let all = || images.tags.iter().chain([&images.other, &images.large]);
    for reference in all() {
        runtime
            .remove(reference)
            .await
            .context("removing what may be absent")?;
    }
    let version = runtime.version().await?;
    ensure!(
        !version.runtime.is_empty() && !version.version.is_empty(),
        "{version:?}"
    );
    for container in runtime.containers().await? {
        runtime.mounted_images(&container.id).await?;
    }
    ensure!(
        runtime.mounted_images("absent").await?.is_empty(),
        "an absent container mounts something"
    );
    let fs = runtime.image_fs().await?;
    ensure!(
        fs.iter().any(|fs| !fs.mountpoint.is_empty()),
        "no image file system: {fs:?}"
    );

    let other = pull(runtime, &images.other).await?;
    let id = pulling::pulling(runtime, records, images).await?;
    tagging::tagging(runtime, records, images, &id, &other).await?;
    pinning::pinning(runtime, records, images, &id).await?;
    content::reading(content, records, &id).await?;
    removing::removing(runtime, records, images, &id).await?;
    content::losing(runtime, content, &images.tags[0]).await?;
    tagging::digest_first(runtime, records, &images.tags[0]).await?;
    events::events(runtime, &images.tags[0]).await?;
    progress::progress(runtime, content, &images.large).await?;

    let left = image(runtime, &images.other).await?;
    ensure!(left.id == other, "another image was touched: {left:?}");
    runtime.remove(&other).await?;
    ensure!(
        runtime.image(&images.other).await?.is_none(),
        "removed by id, still there by name"
    );
    for reference in all() {
        runtime.remove(reference).await?;
    }
    Ok(())
}
