//! Labels, the pin among them.

use anyhow::{Result, ensure};
use larder_runtime::{Records, Runtime};

use super::ConformanceImages;
use super::support::{PIN, image, labels, pull, record, soon};

/// A label on the id's record survives a pull; the pin counts for the image under every name.
pub(super) async fn pinning(
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
