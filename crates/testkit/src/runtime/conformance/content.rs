//! The content store, and what CRI says when content is gone.

use anyhow::{Context as _, Result, bail, ensure};
use larder_core::manifest::Manifest;
use larder_runtime::{Content, Contents, Manifests, Records, Runtime, RuntimeError, TargetContents};

use super::support::{pull, record, soon};

const ABSENT: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
const LIMIT: u64 = 1 << 20;

/// Manifest and configuration are there and can be read, layers have their sizes, and the snapshot is found.
pub(super) async fn reading(content: &dyn Content, records: &dyn Records, id: &str) -> Result<()> {
    let target = record(records, id).await?.to_target();
    let document = read(content, &target.digest).await?;
    ensure!(
        document.len() as u64 == target.size,
        "{} bytes of {target:?}",
        document.len()
    );
    let manifest = Manifest::parse(&document)?;
    let mut image = None;
    for digest in manifest.candidates("linux", crate::runtime::image::architecture()) {
        if content.blob(digest).await?.is_some() {
            image = Some(Manifest::parse(&read(content, digest).await?)?);
        }
    }
    let Manifest::Image(image) = image.unwrap_or(manifest) else {
        bail!("no manifest of this platform is there");
    };
    ensure!(image.config.digest == id, "the configuration is not the image id");
    ensure!(!image.layers.is_empty(), "no layers");
    let listed = content.blobs().await?;
    let find = |digest: &str| listed.iter().find(|blob| blob.digest == digest);
    let config = find(id).context("the configuration is not listed")?;
    ensure!(
        content.blob(id).await?.as_ref() == Some(config),
        "{config:?} is another one alone"
    );
    let mut unpacked = config.labels.iter().filter_map(|(key, name)| {
        let snapshotter = key.strip_prefix("containerd.io/gc.ref.snapshot.")?;
        Some((snapshotter, name))
    });
    let (snapshotter, name) = unpacked
        .next()
        .context("no snapshot in the configuration's labels")?;
    ensure!(
        content.snapshots(snapshotter).await?.contains(name),
        "no snapshot {name}"
    );
    for part in image.layers.iter().chain([&image.config]) {
        // A runtime may be set up to drop layers that it has unpacked.
        let blob = find(&part.digest);
        ensure!(blob.is_none_or(|b| b.size == part.size), "{part:?} is {blob:?}");
    }
    let refused = content.read(&target.digest, target.size - 1).await;
    ensure!(
        matches!(refused, Err(RuntimeError::TooLarge { .. })),
        "{refused:?}"
    );
    ensure!(
        content.blob(ABSENT).await?.is_none() && content.read(ABSENT, LIMIT).await?.is_none(),
        "an absent blob is there"
    );
    content.delete(ABSENT).await.context("deleting what is absent")?;
    ensure!(
        content.snapshots("no-such-snapshotter").await.is_err(),
        "an unknown snapshotter has snapshots"
    );
    Ok(())
}

/// CRI lists an image whose manifest is gone; a pull repairs it. Unpacked layers are not missed.
pub(super) async fn losing(runtime: &dyn Runtime, content: &dyn Content, reference: &str) -> Result<()> {
    let id = pull(runtime, reference).await?;
    let mut manifests = Manifests::default();
    let sound = look(runtime, &mut manifests, &id).await?;
    ensure!(
        sound.whole && !sound.layers.is_empty(),
        "not whole after a pull: {sound:?}"
    );
    for layer in &sound.layers {
        content.delete(&layer.digest).await?;
    }
    ensure!(
        look(runtime, &mut manifests, &id).await?.whole,
        "unpacked, and yet missed"
    );
    pull(runtime, reference).await?;
    for layer in &sound.layers {
        ensure!(
            content.blob(&layer.digest).await?.is_none(),
            "an unpacked layer came again"
        );
    }
    content.delete(&sound.target.digest).await?;
    ensure!(
        runtime.image(reference).await?.is_some(),
        "CRI noticed that the manifest is gone"
    );
    let lost = look(runtime, &mut manifests, &id).await?;
    ensure!(!lost.whole, "whole without its manifest");
    pull(runtime, reference).await?;
    let repaired = look(runtime, &mut manifests, &id).await?;
    ensure!(repaired.whole, "not whole after it was pulled again");

    content.delete(&id).await?;
    let lost = look(runtime, &mut manifests, &id).await?;
    ensure!(!lost.whole, "whole without its configuration");
    pull(runtime, reference).await?;
    ensure!(
        look(runtime, &mut manifests, &id).await?.whole,
        "no configuration after it was pulled again"
    );
    runtime.remove(reference).await?;
    soon("gone with its content", || async {
        Ok(content.blob(&sound.target.digest).await?.is_none())
    })
    .await
}

async fn look(runtime: &dyn Runtime, manifests: &mut Manifests, id: &str) -> Result<TargetContents> {
    let contents = Contents::observe(runtime, manifests).await?;
    let image = contents.images.into_iter().find(|image| image.id == id);
    let mut image = image.with_context(|| format!("{id} is not there"))?;
    ensure!(image.targets.len() == 1, "{image:?}");
    let (_, target) = image.targets.pop_first().context("no target")?;
    Ok(target)
}

async fn read(content: &dyn Content, digest: &str) -> Result<Vec<u8>> {
    let document = content.read(digest, LIMIT).await?;
    document.with_context(|| format!("{digest} is absent"))
}
