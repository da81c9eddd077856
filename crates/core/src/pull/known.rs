//! Which images of a revision a node is known to hold.

use std::collections::BTreeSet;

use larder_api::ImageCacheRevision;
use larder_api::node_image_cache::{CacheClaim, CacheOnNode, ImageOnNode, NodeState};
use larder_api::revision::{PlatformManifest, RevisionImage};

use super::bits::is_missing;
use crate::entry::is_leaving;
use crate::facts::NodeFacts;
use crate::plan::{CONFIRM_AFTER, Revisions, saturating};

/// An image's identity on a node: normalised reference and the digest it should have, where known.
pub(super) type ImageKey = (String, Option<String>);

pub(super) fn key(image: &RevisionImage) -> ImageKey {
    (image.image.clone(), image.digest.clone())
}

/// Images that the last written status proves: those of revisions held whole, and of the revision in work those that
/// are not marked as missing. While a refresh has images confirmed, only what was confirmed since counts.
pub(super) fn known(
    node: Option<&NodeFacts>,
    claim: &CacheClaim,
    previous: Option<&CacheOnNode>,
    not_ready: &[&ImageOnNode],
    revisions: &Revisions<'_>,
) -> BTreeSet<ImageKey> {
    // While something is removed nothing that was there before proves anything.
    let Some(previous) = previous.filter(|p| p.uid == claim.uid && !is_leaving(p)) else {
        return BTreeSet::new();
    };
    let find = |name: &str| revisions.get(&(claim.namespace.as_str(), name)).copied();
    let in_work = find(&previous.revision)
        .filter(|_| previous.total + previous.skipped > 0)
        .into_iter()
        .flat_map(|r| {
            images(r)
                .iter()
                .enumerate()
                .filter(|(i, _)| !is_missing(&previous.missing, *i))
                .map(|(_, image)| key(image))
        });
    let checked = previous.checked_at.as_ref().map(|t| t.0);
    let after = claim.verify_after.as_ref().map(|t| t.0);
    if let (Some(checked), Some(after)) = (checked, after)
        && checked < after
    {
        if previous.state != NodeState::Ready {
            return in_work.collect();
        }
        // Confirmation begins: a reference without a digest counts for nothing, any other for a day.
        let recent = checked >= saturating(after, -CONFIRM_AFTER);
        return in_work.filter(|(_, digest)| recent && digest.is_some()).collect();
    }
    // A revision is held whole without the images that the node's platform has to do without.
    let offered = |i: &&RevisionImage| {
        let here =
            |p: &PlatformManifest| node.is_some_and(|n| p.os == n.os && p.architecture == n.architecture);
        i.digest.is_none() || i.platforms.iter().any(here)
    };
    let held = previous.held.iter().filter_map(|r| find(r)).flat_map(images);
    let mut keys: BTreeSet<ImageKey> = held.filter(offered).map(key).collect();
    keys.retain(|(image, digest)| !not_ready.iter().any(|i| i.image == *image && i.digest == *digest));
    keys.extend(in_work);
    keys
}

fn images(revision: &ImageCacheRevision) -> &[RevisionImage] {
    &revision.spec.spec.images
}
