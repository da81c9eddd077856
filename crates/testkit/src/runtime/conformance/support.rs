//! What every part of the conformance function asks.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_core::image_ref::ImageRef;
use larder_runtime::{Image, Record, Records, Runtime};

/// The label that keeps an image.
pub(super) const PIN: &str = "io.cri-containerd.pinned";
pub(super) const PULL: Duration = Duration::from_mins(1);
/// How long the runtime may take to see and collect what was deleted.
pub(super) const SOON: Duration = Duration::from_secs(10);

pub(super) async fn pull(runtime: &dyn Runtime, reference: &str) -> Result<String> {
    runtime
        .pull(reference, None, PULL)
        .await
        .with_context(|| format!("pulling {reference}"))
}

pub(super) async fn image(runtime: &dyn Runtime, reference: &str) -> Result<Image> {
    runtime
        .image(reference)
        .await?
        .with_context(|| format!("{reference} is absent"))
}

pub(super) async fn has(runtime: &dyn Runtime, digest: &str) -> Result<bool> {
    let content = runtime.content().context("no content is shown")?;
    Ok(content.blob(digest).await?.is_some())
}

pub(super) fn labels<const N: usize>(labels: [(&str, &str); N]) -> BTreeMap<String, String> {
    labels
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

pub(super) async fn record(records: &dyn Records, name: &str) -> Result<Record> {
    records
        .get(name)
        .await?
        .with_context(|| format!("no record {name}"))
}

pub(super) fn normalized(reference: &str) -> Result<String> {
    Ok(ImageRef::parse(reference)?.normalized().to_owned())
}

pub(super) async fn soon<F>(what: &str, holds: impl Fn() -> F) -> Result<()>
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
