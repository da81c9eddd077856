//! What an entry of a node's status proves, and which revisions a claim lets go.

use std::collections::BTreeSet;

use larder_api::node_image_cache::{CacheClaim, CacheOnNode, Desired, NodeState};

use crate::plan::Revisions;

/// Whether it is about a removal.
pub(crate) fn is_leaving(entry: &CacheOnNode) -> bool {
    matches!(entry.state, NodeState::Purging | NodeState::Purged)
}

/// Whether nothing is awaited of the claimed revision.
pub(crate) fn has_settled(entry: &CacheOnNode, claim: &CacheClaim) -> bool {
    entry.revision == claim.revision && matches!(entry.state, NodeState::Ready | NodeState::Failed)
}

/// The revisions of the claim that are to go.
pub(crate) fn going(claim: &CacheClaim) -> Vec<&str> {
    let absent = claim.desired == Desired::Absent;
    let older = claim.remove_revisions.iter().map(String::as_str);
    older.chain(absent.then_some(claim.revision.as_str())).collect()
}

/// References of their images, as far as they can be read.
pub(crate) fn references<'a>(claim: &CacheClaim, revisions: &Revisions<'a>) -> BTreeSet<&'a str> {
    let names = going(claim).into_iter();
    let read = names.filter_map(|name| revisions.get(&(claim.namespace.as_str(), name)).copied());
    read.flat_map(|r| &r.spec.spec.images)
        .map(|i| i.image.as_str())
        .collect()
}

/// Whether a revision has images that go; one that cannot be read may have.
pub(crate) fn loses(revisions: &Revisions<'_>, namespace: &str, name: &str, going: &BTreeSet<&str>) -> bool {
    let revision = revisions.get(&(namespace, name));
    revision.is_none_or(|r| {
        let mut images = r.spec.spec.images.iter();
        images.any(|i| going.contains(i.image.as_str()))
    })
}
