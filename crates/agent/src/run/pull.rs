//! One pull: from the registry to an image that is verified, tagged and marked as Larder's.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use larder_api::names::{PIN_LABEL, PINNED_LABEL, PULLED_LABEL, Reason};
use larder_core::agent::{PullFailure, PullOrder};
use larder_core::image_ref::{ImageRef, is_digest};
use larder_runtime::{Image, Records, Runtime, RuntimeError};
use tracing::warn;

use super::act::PIN_VALUE;
use super::plugins::Plugins;
use crate::credentials::Found;
use crate::failure;

/// Pulls it, with the credentials that were found for it, if any were to be looked for. `there_before` are the ids of the
/// images that were on the node: those are not Larder's.
pub(super) async fn pull(
    runtime: &dyn Runtime,
    order: &PullOrder,
    there_before: &BTreeSet<String>,
    plugins: &Plugins,
    found: Option<&Found>,
) -> Result<(), PullFailure> {
    let image = ImageRef::parse(&order.image).map_err(|error| PullFailure {
        reason: Reason::InvalidReference,
        message: error.to_string(),
    })?;
    let start = async |source: &str| {
        if let Some(found) = found {
            return plugins.pull(runtime, &image, source, found, order.attempt).await;
        }
        let pulled = runtime.pull(source, None, order.attempt).await;
        pulled.map_err(|error| failure::of(&error))
    };
    let Some(records) = runtime.records() else {
        // A pull by digest would leave no tag, and nothing but a pull makes one.
        let source = order.tag.as_deref().unwrap_or(&order.image);
        start(source).await?;
        let found = runtime.image(source).await.map_err(|e| failure::of(&e))?;
        return by_report(order, &image, found);
    };
    let source = match &order.digest {
        Some(digest) => format!("{}@{digest}", image.name()),
        None => image.normalized().to_owned(),
    };
    let id = start(&source).await?;
    by_record(runtime, records, order, &source, &id, there_before).await
}

/// Looks at what the pulled name points at, points the tag there too, and marks the image.
async fn by_record(
    runtime: &dyn Runtime,
    records: &dyn Records,
    order: &PullOrder,
    source: &str,
    id: &str,
    there_before: &BTreeSet<String>,
) -> Result<(), PullFailure> {
    let record = records.get(source).await.map_err(|e| failure::of(&e))?;
    let record = record.ok_or_else(|| PullFailure {
        reason: Reason::RuntimeError,
        message: "the runtime pulled the image and does not know it".to_owned(),
    })?;
    if order.digest.is_some() && !fits(order, &record.target) {
        return Err(mismatch(order, &record.target));
    }
    if let Some(tag) = &order.tag {
        records
            .tag(tag, &record.to_target())
            .await
            .map_err(|e| failure::of(&e))?;
    }
    if is_digest(id)
        && let Err(error) = mark(runtime, records, order, id, there_before).await
    {
        // The image is there; the next look finds it without its pin and pins it.
        warn!(%error, image = order.image, id, "cannot mark an image");
    }
    Ok(())
}

/// Marks on the record of the image id, which no pull replaces.
async fn mark(
    runtime: &dyn Runtime,
    records: &dyn Records,
    order: &PullOrder,
    id: &str,
    there_before: &BTreeSet<String>,
) -> Result<(), RuntimeError> {
    let mut labels = BTreeMap::new();
    let new = !there_before.contains(id);
    if new {
        labels.insert(PULLED_LABEL.to_owned(), now());
    }
    // A pin that somebody else has set is not ours to take away later.
    if order.pin && (new || !runtime.image(id).await?.is_some_and(|image| image.pinned)) {
        labels.insert(PIN_LABEL.to_owned(), PIN_VALUE.to_owned());
        labels.insert(PINNED_LABEL.to_owned(), "true".to_owned());
    }
    if labels.is_empty() {
        return Ok(());
    }
    records.set_labels(id, &labels).await
}

/// To the second: it is for people and for a comparison of days.
fn now() -> String {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// Where CRI alone tells what arrived. It gives every digest that the content is known by, whoever pulled that: the one
/// that is wanted is among them, and which of them the tag means is not asked here.
fn by_report(order: &PullOrder, image: &ImageRef, found: Option<Image>) -> Result<(), PullFailure> {
    let names = found.iter().flat_map(|found| &found.digests);
    let digests: Vec<(&str, &str)> = names.filter_map(|name| name.split_once('@')).collect();
    if digests.is_empty() {
        return Err(PullFailure {
            reason: Reason::Unverified,
            message: "the runtime does not tell which digest arrived".to_owned(),
        });
    }
    if order.digest.is_none() || digests.iter().any(|(_, digest)| fits(order, digest)) {
        return Ok(());
    }
    // Its own repository's word first: others may know the content by another index.
    let first = digests
        .iter()
        .min_by_key(|(name, digest)| (*name != image.name(), *digest));
    Err(mismatch(order, first.map_or("", |(_, digest)| *digest)))
}

fn fits(order: &PullOrder, arrived: &str) -> bool {
    [&order.digest, &order.manifest]
        .into_iter()
        .flatten()
        .any(|wanted| wanted == arrived)
}

fn mismatch(order: &PullOrder, arrived: &str) -> PullFailure {
    let wanted = order.digest.as_deref().unwrap_or_default();
    PullFailure {
        reason: Reason::DigestMismatch,
        message: format!("{arrived} arrived, {wanted} is wanted"),
    }
}
