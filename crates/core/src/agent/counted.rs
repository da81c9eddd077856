//! What the kubelet's part of the status still counts on: the operator believes it without looking at the node, so nothing
//! goes that it names, lest it be believed again should the removal be called off.

use std::collections::BTreeSet;

use larder_api::node_image_cache::{CacheClaim, CacheOnNode, Desired};

use super::types::AgentInput;
use crate::choose::kubelet_takes_part;
use crate::entry::{self, is_leaving, loses, references};

/// Whether a removal for the claim may begin as far as the kubelet's part is concerned.
///
/// The operator answers to a claim that removes: the claim's own entry then says that it is being purged or, where only
/// older revisions go, that nothing is awaited of the newest, and no entry names an older revision that loses images.
pub(super) fn kubelet_agrees(input: &AgentInput<'_>, claim: &CacheClaim) -> bool {
    let own = match claim.desired {
        Desired::Present => has_settled(input, claim),
        Desired::Absent => {
            let entry = entries(input).find(|c| c.uid == claim.uid);
            entry.map_or_else(|| !kubelet_takes_part(claim, input.revisions), is_leaving)
        }
    };
    let going = references(claim, input.revisions);
    own && !entries(input).any(|entry| counts_on(input, entry, &going))
}

/// Whether nothing is awaited of the kubelet's images of the claimed revision.
pub(super) fn has_settled(input: &AgentInput<'_>, claim: &CacheClaim) -> bool {
    let entry = entries(input).find(|c| c.uid == claim.uid);
    entry.map_or_else(
        || !kubelet_takes_part(claim, input.revisions),
        |entry| entry::has_settled(entry, claim),
    )
}

fn entries<'a>(input: &AgentInput<'a>) -> impl Iterator<Item = &'a CacheOnNode> + use<'a> {
    input.kubelet.into_iter().flat_map(|k| &k.caches)
}

/// Whether the entry counts on a revision that is not, or no longer, claimed, and has images that go; one that cannot be
/// read may have.
fn counts_on(input: &AgentInput<'_>, entry: &CacheOnNode, going: &BTreeSet<&str>) -> bool {
    let mut claims = input.spec.caches.iter();
    let claimed = claims
        .find(|c| c.uid == entry.uid && c.desired == Desired::Present)
        .map(|c| &c.revision);
    let own = (!is_leaving(entry)).then_some(&entry.revision);
    let older = entry.held.iter().chain(own).filter(|name| Some(*name) != claimed);
    older
        .into_iter()
        .any(|name| loses(input.revisions, &entry.namespace, name, going))
}
