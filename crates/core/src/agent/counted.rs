//! What the kubelet's part of the status still counts on: the operator believes it without looking at the node, so nothing
//! goes that it names, lest it be believed again should the removal be called off.

use larder_api::node_image_cache::{CacheClaim, CacheOnNode, Desired, NodeState};

use super::types::AgentInput;
use crate::choose::kubelet_takes_part;

/// Whether a removal for the claim may begin as far as the kubelet's part is concerned.
///
/// The operator answers to a claim that removes: every entry then names only revisions that are claimed, and the claim's
/// own says that it is being purged or, where only older revisions go, that nothing is awaited of the newest.
pub(super) fn kubelet_agrees(input: &AgentInput<'_>, claim: &CacheClaim) -> bool {
    let entries = || input.kubelet.iter().flat_map(|k| &k.caches);
    if entries().any(|entry| counts_on_older(input, entry)) {
        return false;
    }
    let Some(entry) = entries().find(|c| c.uid == claim.uid) else {
        return !kubelet_takes_part(claim, input.revisions);
    };
    match claim.desired {
        Desired::Absent => is_leaving(entry),
        Desired::Present => matches!(entry.state, NodeState::Ready | NodeState::Failed),
    }
}

fn is_leaving(entry: &CacheOnNode) -> bool {
    matches!(entry.state, NodeState::Purging | NodeState::Purged)
}

/// Whether the entry counts on images of a revision that is not, or no longer, claimed.
fn counts_on_older(input: &AgentInput<'_>, entry: &CacheOnNode) -> bool {
    let mut claims = input.spec.caches.iter();
    let claimed = claims
        .find(|c| c.uid == entry.uid && c.desired == Desired::Present)
        .map(|c| &c.revision);
    let own = (!is_leaving(entry)).then_some(&entry.revision);
    entry.held.iter().chain(own).any(|name| Some(name) != claimed)
}
