//! What the status says of one image.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::image_cache::OnMissingPlatform;
use larder_api::names::Reason;
use larder_api::node_image_cache::{DiskOnNode, ImageOnNode, ImageState, ReportedDigest};
use larder_api::revision::RevisionImage;

use super::Counts;
use crate::agent::pulls::{Pulls, Standing};
use crate::agent::scope::Scope;
use crate::agent::types::Failed;
use crate::agent::wanted::{Claimed, Key, Wish};
use crate::message::{redact, shorten};
use crate::plan::whole_seconds;

/// Longest message of an image, in characters.
const MAX_WORDS: usize = 256;

/// What is said of an image that the agent should bring; none if it is there.
#[allow(clippy::too_many_arguments, reason = "each is a fact of its own")]
pub(super) fn image(
    scope: &Scope<'_>,
    claimed: &Claimed<'_>,
    cache: &str,
    wish: &Wish<'_>,
    key: Key<'_>,
    pulls: &Pulls<'_>,
    disk: Option<&DiskOnNode>,
    counts: &mut Counts,
) -> Option<ImageOnNode> {
    let bytes = scope.wanted.images.get(&key).map_or(0, |w| w.bytes);
    let entry = ImageOnNode {
        cache: cache.to_owned(),
        image: wish.image.image.clone(),
        digest: wish.image.digest.clone(),
        ..ImageOnNode::default()
    };
    let mut total = bytes;
    let said = match pulls.standings.get(&key) {
        Some(Standing::Whole) => {
            counts.bytes += bytes;
            None
        }
        Some(Standing::Pulling(pull, failed)) => {
            total = pull.bytes_total.max(bytes);
            counts.arrived += pull.bytes_done;
            Some(match failed {
                // A repetition that brings nothing is no news.
                Some(failed) if pull.bytes_done == 0 => self::failed(claimed, entry, failed),
                failed => ImageOnNode {
                    state: ImageState::Pulling,
                    bytes_done: pull.bytes_done.max(0),
                    bytes_total: total,
                    attempts: failed.map_or(0, |f| f.attempts),
                    ..entry
                },
            })
        }
        Some(Standing::Failed(failed)) => Some(self::failed(claimed, entry, failed)),
        Some(Standing::Vanishing(vanished)) => Some(ImageOnNode {
            state: ImageState::Failed,
            reason: Some(Reason::RuntimeError),
            message: format!(
                "went from the node {} times without Larder's doing",
                vanished.times
            ),
            since: Some(Time(whole_seconds(vanished.at))),
            ..entry
        }),
        Some(Standing::Refused(words)) => Some(refused(scope, entry, words, disk)),
        Some(Standing::Waiting) | None => Some(entry),
    };
    counts.all = counts.all.filter(|_| total > 0).map(|all| all + total);
    said
}

fn failed(claimed: &Claimed<'_>, entry: ImageOnNode, failed: &Failed) -> ImageOnNode {
    let skip = failed.failure.reason == Reason::NoMatchingPlatform
        && claimed.settings.on_missing_platform == OnMissingPlatform::Skip;
    ImageOnNode {
        state: if skip {
            ImageState::Skipped
        } else {
            ImageState::Failed
        },
        reason: Some(failed.failure.reason),
        message: shorten(&redact(&failed.failure.message), MAX_WORDS),
        attempts: failed.attempts,
        since: Some(Time(whole_seconds(failed.at))),
        ..entry
    }
}

/// The numbers are those of the moment when the disk was last told of: they are not written each time it breathes.
fn refused(scope: &Scope<'_>, entry: ImageOnNode, words: &str, disk: Option<&DiskOnNode>) -> ImageOnNode {
    let before = scope.listed(&entry.cache, &entry.image).filter(|b| {
        b.reason == Some(Reason::InsufficientDisk) && b.digest == entry.digest && b.attempts == 0
    });
    let told = scope.input.previous.and_then(|p| p.disk.as_ref()) == disk;
    let message = before.filter(|_| told).map(|b| b.message.clone());
    ImageOnNode {
        state: ImageState::Failed,
        reason: Some(Reason::InsufficientDisk),
        message: message.unwrap_or_else(|| words.to_owned()),
        since: before
            .and_then(|b| b.since.clone())
            .or(Some(Time(scope.input.now))),
        ..entry
    }
}

pub(super) fn no_platform(
    scope: &Scope<'_>,
    claimed: &Claimed<'_>,
    cache: &str,
    image: &RevisionImage,
) -> ImageOnNode {
    let skip = claimed.settings.on_missing_platform == OnMissingPlatform::Skip;
    let since = scope
        .listed(cache, &image.image)
        .filter(|b| b.reason == Some(Reason::NoMatchingPlatform) && b.digest == image.digest)
        .and_then(|b| b.since.clone());
    ImageOnNode {
        cache: cache.to_owned(),
        image: image.image.clone(),
        digest: image.digest.clone(),
        state: if skip {
            ImageState::Skipped
        } else {
            ImageState::Failed
        },
        reason: Some(Reason::NoMatchingPlatform),
        message: format!("no manifest for {}/{}", scope.input.os, scope.input.architecture),
        since: since.or(Some(Time(scope.input.now))),
        ..ImageOnNode::default()
    }
}

/// The digest behind a reference for which the revision has none, as it is now. Nothing where that cannot be told: what a
/// tag meant once, or may mean, would be taken for a node that differs from others.
pub(super) fn report(scope: &Scope<'_>, image: &RevisionImage, key: Key<'_>) -> Option<ReportedDigest> {
    if image.digest.is_some() {
        return None;
    }
    let digest = key.1.or_else(|| scope.store.digest_behind(key.0))?;
    Some(ReportedDigest {
        image: image.image.clone(),
        digest: digest.to_owned(),
    })
}
