//! Which images of a revision a node is known to hold.

use std::collections::BTreeSet;

use larder_api::ImageCacheRevision;
use larder_api::node_image_cache::{CacheClaim, CacheOnNode, ImageOnNode};
use larder_api::revision::{PlatformManifest, RevisionImage};

use crate::facts::NodeFacts;
use crate::plan::{CONFIRM_AFTER, Revisions, saturating};

/// An image's identity on a node: normalised reference and the digest it should have, where known.
pub(super) type ImageKey = (String, Option<String>);

pub(super) fn key(image: &RevisionImage) -> ImageKey {
    (image.image.clone(), image.digest.clone())
}

/// Images that the last written status proves: those of revisions held whole, and of the revision in work those that
/// are not listed as missing. A status whose list was cut proves nothing about that revision.
pub(super) fn known(
    node: Option<&NodeFacts>,
    claim: &CacheClaim,
    previous: Option<&CacheOnNode>,
    not_ready: &[&ImageOnNode],
    omitted: bool,
    revisions: &Revisions<'_>,
) -> BTreeSet<ImageKey> {
    let Some(previous) = previous.filter(|p| p.uid == claim.uid) else {
        return BTreeSet::new();
    };
    let find = |name: &str| revisions.get(&(claim.namespace.as_str(), name)).copied();
    // A revision is held whole without the images that the node's platform has to do without.
    let offered = |i: &&RevisionImage| {
        let here =
            |p: &PlatformManifest| node.is_some_and(|n| p.os == n.os && p.architecture == n.architecture);
        i.digest.is_none() || i.platforms.iter().any(here)
    };
    let held = previous.held.iter().filter_map(|r| find(r)).flat_map(images);
    let mut keys: BTreeSet<ImageKey> = held.filter(offered).map(key).collect();
    keys.retain(|(image, digest)| !not_ready.iter().any(|i| i.image == *image && i.digest == *digest));
    if previous.total > 0
        && !omitted
        && let Some(revision) = find(&previous.revision)
    {
        let missing: BTreeSet<&str> = not_ready.iter().map(|i| i.image.as_str()).collect();
        keys.extend(
            images(revision)
                .iter()
                .filter(|i| !missing.contains(i.image.as_str()))
                .map(key),
        );
    }
    if let Some(after) = &claim.verify_after {
        let checked = previous.checked_at.as_ref().map(|t| t.0);
        if checked.is_some_and(|c| c < saturating(after.0, -CONFIRM_AFTER)) {
            keys.clear();
        } else if checked.is_some_and(|c| c < after.0) {
            keys.retain(|(_, digest)| digest.is_some());
        }
    }
    keys
}

fn images(revision: &ImageCacheRevision) -> &[RevisionImage] {
    &revision.spec.spec.images
}
