//! Names that are made and moved without a registry.

use anyhow::{Result, ensure};
use larder_core::image_ref::ImageRef;
use larder_runtime::{Records, Runtime};

use super::ConformanceImages;
use super::support::{image, labels, normalized, pull, record, soon};

/// A new name is CRI's at once; a moved one keeps its labels and time.
pub(super) async fn tagging(
    runtime: &dyn Runtime,
    records: &dyn Records,
    images: &ConformanceImages,
    id: &str,
    other: &str,
) -> Result<()> {
    let alias = format!("{}:made-by-hand", ImageRef::parse(&images.tags[0])?.name());
    let first = record(records, &normalized(&images.tags[0])?).await?;
    let second = record(records, &normalized(&images.other)?).await?;
    ensure!(
        first.to_target().size > 0 && !first.media_type.is_empty(),
        "{first:?}"
    );
    records.tag(&alias, &first.to_target()).await?;
    soon("listed under a new name", || async {
        has_tag(runtime, id, &alias).await
    })
    .await?;
    ensure!(
        image(runtime, &alias).await?.id == id,
        "the new name is another image"
    );
    records
        .set_labels(&alias, &labels([("larder.dev/test", "1")]))
        .await?;
    let before = record(records, &alias).await?;
    records.tag(&alias, &first.to_target()).await?;
    ensure!(
        record(records, &alias).await? == before,
        "a tag that was right changed"
    );

    records.tag(&alias, &second.to_target()).await?;
    let after = record(records, &alias).await?;
    ensure!(
        after.to_target() == second.to_target() && after.created_at == before.created_at,
        "{after:?}"
    );
    ensure!(
        after.labels.get("larder.dev/test").is_some_and(|v| v == "1"),
        "a move changed the labels: {after:?}"
    );
    soon("moved to the other image", || async {
        Ok(!has_tag(runtime, id, &alias).await? && has_tag(runtime, other, &alias).await?)
    })
    .await?;
    records.delete(&alias, &second.target, false).await?;
    soon("without the name again", || async {
        Ok(!has_tag(runtime, other, &alias).await?)
    })
    .await
}

/// A pull by digest leaves no tag; the tag is added, and the image is whole under both names.
pub(super) async fn digest_first(
    runtime: &dyn Runtime,
    records: &dyn Records,
    reference: &str,
) -> Result<()> {
    let tag = normalized(reference)?;
    let name = ImageRef::parse(reference)?.name().to_owned();
    pull(runtime, reference).await?;
    let target = record(records, &tag).await?.to_target();
    runtime.remove(reference).await?;
    let by_digest = format!("{name}@{}", target.digest);
    let id = pull(runtime, &by_digest).await?;
    ensure!(
        records.get(&tag).await?.is_none() && runtime.image(&tag).await?.is_none(),
        "a pull by digest made a tag"
    );
    ensure!(
        record(records, &by_digest).await?.to_target() == target,
        "another target"
    );
    records.tag(&tag, &target).await?;
    soon("found by the new tag", || async {
        Ok(runtime.image(&tag).await?.is_some_and(|image| image.id == id))
    })
    .await?;
    pull(runtime, reference).await?;
    runtime.remove(&id).await?;
    ensure!(runtime.image(&tag).await?.is_none(), "removed, still there");
    Ok(())
}

async fn has_tag(runtime: &dyn Runtime, id: &str, tag: &str) -> Result<bool> {
    Ok(image(runtime, id).await?.tags.iter().any(|t| t == tag))
}
