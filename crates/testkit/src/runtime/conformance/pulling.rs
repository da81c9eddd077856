//! What a pull leaves.

use anyhow::{Context as _, Result, ensure};
use larder_core::image_ref::ImageRef;
use larder_runtime::{Records, Runtime};

use super::ConformanceImages;
use super::support::{PULL, has, image, normalized, pull, record};

/// A pull leaves three records; the time of the id's is that of the first pull. Answers the image id.
pub(super) async fn pulling(
    runtime: &dyn Runtime,
    records: &dyn Records,
    images: &ConformanceImages,
) -> Result<String> {
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
