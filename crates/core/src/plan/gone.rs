//! Claims whose cache is gone, and what they leave to others.

use std::collections::BTreeSet;

use larder_api::NodeImageCache;
use larder_api::node_image_cache::{CacheClaim, Desired, NodeState};

use super::Snapshot;

/// A claim whose cache is gone lives on only to finish a removal that it can still read.
pub(super) fn outlive<'a>(
    snapshot: &Snapshot<'a>,
    object: Option<&'a NodeImageCache>,
    claim: &CacheClaim,
) -> Option<CacheClaim> {
    let done = object
        .and_then(|o| snapshot.view(o, claim).on_node)
        .is_some_and(|s| s.state == NodeState::Purged);
    let readable = snapshot
        .revisions
        .contains_key(&(claim.namespace.as_str(), claim.revision.as_str()));
    (claim.desired == Desired::Absent && !done && readable).then(|| claim.clone())
}

/// What a vanished claim pulled stays Larder's for those that share images with it: they inherit its `claimedAt`.
pub(super) fn inherit(snapshot: &Snapshot<'_>, before: &[CacheClaim], after: &mut [CacheClaim]) {
    for gone in before
        .iter()
        .filter(|b| !after.iter().any(|a| a.uid == b.uid))
        .collect::<Vec<_>>()
    {
        let theirs = references(snapshot, gone);
        for claim in after.iter_mut().filter(|c| c.claimed_at.0 > gone.claimed_at.0) {
            if !references(snapshot, claim).is_disjoint(&theirs) {
                claim.claimed_at = gone.claimed_at.clone();
            }
        }
    }
}

/// References and digests of a claim's revisions.
fn references<'a>(snapshot: &Snapshot<'a>, claim: &CacheClaim) -> BTreeSet<&'a str> {
    std::iter::once(&claim.revision)
        .chain(&claim.remove_revisions)
        .filter_map(|r| snapshot.revisions.get(&(claim.namespace.as_str(), r.as_str())))
        .flat_map(|r| &r.spec.spec.images)
        .flat_map(|i| std::iter::once(i.image.as_str()).chain(i.digest.as_deref()))
        .collect()
}
