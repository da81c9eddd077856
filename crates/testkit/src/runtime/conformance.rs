//! What every runtime with containerd's API does, as far as Larder relies on it. Run against the fake and the real one.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_core::image_ref::ImageRef;
use larder_runtime::{Image, Record, Records, Runtime, RuntimeClient, Timeouts};

const PIN: &str = "io.cri-containerd.pinned";
const PULL: Duration = Duration::from_mins(1);
/// How long the runtime may take to see and collect what was deleted.
const SOON: Duration = Duration::from_secs(10);

/// References that the runtime can pull. They are removed in the end.
#[derive(Clone, Debug)]
pub struct ConformanceImages {
    /// Two tags of one image in one repository.
    pub tags: [String; 2],
    /// A tag of another image.
    pub other: String,
    /// A reference that its registry answers "not found" for.
    pub missing: String,
}

/// Runs against the containerd, or the fake, at this socket. The first thing that differs is the error.
pub async fn conformance(socket: &Path, images: &ConformanceImages) -> Result<()> {
    let client = RuntimeClient::connect(socket, Timeouts::default()).await?;
    let runtime: &dyn Runtime = &client;
    let records = runtime.records().context("containerd's own API is not served")?;
    for reference in images.tags.iter().chain([&images.other]) {
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
    let id = pulling(runtime, records, images).await?;
    pinning(runtime, records, images, &id).await?;
    removing(runtime, records, images, &id).await?;

    let left = image(runtime, &images.other).await?;
    ensure!(left.id == other, "another image was touched: {left:?}");
    runtime.remove(&other).await?;
    ensure!(
        runtime.image(&images.other).await?.is_none(),
        "removed by id, still there by name"
    );
    Ok(())
}

/// A pull leaves three records; the time of the id's is that of the first pull. Answers the image id.
async fn pulling(runtime: &dyn Runtime, records: &dyn Records, images: &ConformanceImages) -> Result<String> {
    let [first, second] = &images.tags;
    ensure!(
        runtime.image(first).await?.is_none(),
        "an absent image is none, not an error"
    );
    let id = pull(runtime, first).await?;
    let found = image(runtime, first).await?;
    ensure!(found.id == id, "pull answers {id}, status {}", found.id);
    let tag = record(records, &normalized(first)?).await?;
    let by_digest = format!("{}@{}", ImageRef::parse(first)?.name(), tag.target);
    let by_id = record(records, &id).await?;
    ensure!(
        record(records, &by_digest).await?.target == tag.target,
        "the digest record points elsewhere"
    );
    ensure!(
        by_id.target == tag.target && by_id.created_at.is_some(),
        "{by_id:?}"
    );
    ensure!(
        found.tags.contains(&tag.name) && found.digests.contains(&by_digest),
        "{found:?}"
    );
    ensure!(image(runtime, &by_digest).await?.id == id, "not found by digest");
    ensure!(has(runtime, &tag.target).await?, "no manifest");
    ensure!(has(runtime, &id).await?, "no config");

    ensure!(
        pull(runtime, first).await? == id,
        "pulled again, it is another image"
    );
    ensure!(
        pull(runtime, second).await? == id,
        "the two tags are not one image"
    );
    ensure!(
        record(records, &id).await?.created_at == by_id.created_at,
        "a later pull changes the id's time"
    );
    let both = image(runtime, &id).await?;
    ensure!(
        both.tags.contains(&normalized(first)?) && both.tags.contains(&normalized(second)?),
        "{both:?}"
    );

    let missing = runtime.pull(&images.missing, None, PULL).await;
    let error = missing.err().context("a missing image was pulled")?;
    ensure!(
        error.is_not_found() && error.to_string().contains("not found"),
        "{error}"
    );
    let listed = runtime.images().await?;
    ensure!(
        listed.iter().filter(|i| i.id == id).count() == 1,
        "not listed once: {listed:?}"
    );
    ensure!(
        records.list().await?.iter().any(|r| r.name == id),
        "the id record is not listed"
    );
    Ok(id)
}

/// A label on the id's record survives a pull; the pin counts for the image under every name.
async fn pinning(
    runtime: &dyn Runtime,
    records: &dyn Records,
    images: &ConformanceImages,
    id: &str,
) -> Result<()> {
    let before = record(records, id).await?;
    records.set_labels(id, &labels([(PIN, "pinned")])).await?;
    pull(runtime, &images.tags[0]).await?;
    let after = record(records, id).await?;
    ensure!(
        after.labels.get(PIN).is_some_and(|v| v == "pinned"),
        "the label went with a pull: {after:?}"
    );
    ensure!(
        before.labels.iter().all(|(k, v)| after.labels.get(k) == Some(v)),
        "other labels changed: {after:?}"
    );
    if !runtime
        .version()
        .await?
        .version
        .trim_start_matches('v')
        .starts_with("1.6.")
    {
        soon("pinned", || async {
            Ok(image(runtime, &images.tags[1]).await?.pinned)
        })
        .await?;
    }
    records.set_labels(id, &labels([(PIN, "")])).await?;
    soon("unpinned", || async {
        Ok(!image(runtime, &images.tags[1]).await?.pinned)
    })
    .await?;
    let absent = records
        .set_labels("docker.io/library/absent-from-here:1", &labels([(PIN, "pinned")]))
        .await;
    ensure!(
        absent.is_err_and(|e| e.is_not_found()),
        "a label on an absent record"
    );
    Ok(())
}

/// A deleted tag leaves the image with its other names; CRI's removal takes all of them and the content.
async fn removing(
    runtime: &dyn Runtime,
    records: &dyn Records,
    images: &ConformanceImages,
    id: &str,
) -> Result<()> {
    let [first, second] = [normalized(&images.tags[0])?, normalized(&images.tags[1])?];
    let target = record(records, &second).await?.target;
    records.delete(&second, &target, false).await?;
    records
        .delete(&second, &target, true)
        .await
        .context("deleting what is absent")?;
    ensure!(records.get(&second).await?.is_none(), "deleted, still there");
    soon("one tag gone", || async {
        let left = image(runtime, &first).await?;
        Ok(left.tags.contains(&first) && !left.tags.contains(&second))
    })
    .await?;
    ensure!(has(runtime, &target).await?, "content went with one of two names");

    pull(runtime, &second).await?;
    runtime.remove(&images.tags[0]).await?;
    runtime.remove(&images.tags[0]).await.context("removing twice")?;
    let left: Vec<Record> = records
        .list()
        .await?
        .into_iter()
        .filter(|r| r.target == target)
        .collect();
    ensure!(left.is_empty(), "records left of a removed image: {left:?}");
    ensure!(
        runtime.image(&second).await?.is_none() && runtime.image(id).await?.is_none(),
        "removed, still there"
    );
    soon("content collected", || async {
        Ok(!has(runtime, &target).await?)
    })
    .await?;

    // Name by name the same end, if the id goes last and waits for the collection.
    pull(runtime, &first).await?;
    let by_digest = format!("{}@{target}", ImageRef::parse(&first)?.name());
    records.delete(&first, &target, false).await?;
    records.delete(&by_digest, &target, false).await?;
    records.delete(id, &target, true).await?;
    ensure!(
        !has(runtime, &target).await?,
        "the last deletion did not wait for the collection"
    );
    soon("image gone", || async { Ok(runtime.image(id).await?.is_none()) }).await
}

async fn pull(runtime: &dyn Runtime, reference: &str) -> Result<String> {
    runtime
        .pull(reference, None, PULL)
        .await
        .with_context(|| format!("pulling {reference}"))
}

async fn image(runtime: &dyn Runtime, reference: &str) -> Result<Image> {
    runtime
        .image(reference)
        .await?
        .with_context(|| format!("{reference} is absent"))
}

async fn has(runtime: &dyn Runtime, digest: &str) -> Result<bool> {
    let content = runtime.content().context("no content is shown")?;
    Ok(content.blob(digest).await?.is_some())
}

fn labels<const N: usize>(labels: [(&str, &str); N]) -> BTreeMap<String, String> {
    labels
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

async fn record(records: &dyn Records, name: &str) -> Result<Record> {
    records
        .get(name)
        .await?
        .with_context(|| format!("no record {name}"))
}

fn normalized(reference: &str) -> Result<String> {
    Ok(ImageRef::parse(reference)?.normalized().to_owned())
}

async fn soon<F>(what: &str, holds: impl Fn() -> F) -> Result<()>
where
    F: Future<Output = Result<bool>>,
{
    let end = tokio::time::Instant::now() + SOON;
    while !holds().await? {
        ensure!(tokio::time::Instant::now() < end, "not {what} within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
