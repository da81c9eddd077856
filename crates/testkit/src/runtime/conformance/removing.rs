//! What goes with a deletion and what with a removal.

use anyhow::{Context as _, Result, ensure};
use larder_core::image_ref::ImageRef;
use larder_runtime::{Record, Records, Runtime};

use super::ConformanceImages;
use super::support::{has, image, normalized, pull, record, soon};

/// A deleted tag leaves the image with its other names; CRI's removal takes all of them and the content.
pub(super) async fn removing(
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
