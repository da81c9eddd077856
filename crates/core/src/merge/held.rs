//! Which revisions a node holds whole.

use larder_api::node_image_cache::{CacheClaim, CacheOnNode, NodeState};

use super::{Blocks, Split};
use crate::plan::Revisions;
use crate::pull::MAX_HELD;

impl Blocks<'_> {
    /// Revisions that everybody who answers for some of their images holds, the claimed one first.
    ///
    /// The agent's block names what holds for the agent's images. The operator's names only what holds for all, so that
    /// it stays true when the kubelet comes to answer for everything.
    pub(super) fn held(&self, claim: &CacheClaim, revisions: &Revisions<'_>, split: Split) -> Vec<String> {
        let agent = self.of_agent(&claim.uid).filter(|_| split.by_agent);
        let kubelet = self.of_kubelet(&claim.uid);
        let by_agent = |name: &String| agent.is_some_and(|e| e.held.contains(name));
        let by_kubelet =
            |name: &String| kubelet.is_some_and(|e| e.held.contains(name) || has_its_part(e, name));
        let named = [agent, kubelet].into_iter().flatten().flat_map(|e| &e.held);
        let mut held: Vec<String> = Vec::new();
        for name in named {
            let whole = match revisions.get(&(claim.namespace.as_str(), name.as_str())) {
                Some(revision) => {
                    let revision = &revision.spec.spec;
                    let whose = |agents| {
                        let mut images = revision.images.iter();
                        images.any(|i| split.is_agents(revision, i) == agents)
                    };
                    (!whose(true) || by_agent(name)) && (!whose(false) || by_kubelet(name))
                }
                None => (agent.is_none() || by_agent(name)) && (kubelet.is_none() || by_kubelet(name)),
            };
            if whole && !held.contains(name) {
                held.push(name.clone());
            }
        }
        held.sort_by_key(|name| *name != claim.revision);
        held.truncate(MAX_HELD);
        held
    }

    /// Whether the agent holds its part of a revision, as far as it has a part and has spoken.
    pub(crate) fn agent_holds(
        &self,
        claim: &CacheClaim,
        revisions: &Revisions<'_>,
        split: Split,
        name: &str,
    ) -> Option<bool> {
        let revision = &revisions.get(&(claim.namespace.as_str(), name))?.spec.spec;
        if !revision.images.iter().any(|i| split.is_agents(revision, i)) {
            return Some(true);
        }
        let agent = self.of_agent(&claim.uid)?;
        Some(agent.held.iter().any(|held| held == name))
    }
}

/// All that the kubelet pulls of the revision is there.
fn has_its_part(entry: &CacheOnNode, name: &str) -> bool {
    entry.state == NodeState::Ready && entry.revision == name
}
