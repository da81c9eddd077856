//! How far the removal of a claim's images has come.

use std::borrow::Cow;
use std::collections::BTreeSet;

use larder_api::node_image_cache::{CacheClaim, CacheOnNode, NodeState};

use super::{Blocks, LEEWAY, last_word};
use crate::entry::is_leaving;
use crate::plan::saturating;

impl<'a> Blocks<'a> {
    /// What is said of a claim that is to be absent. Older removals that are done stay so, whoever did them, should this
    /// one be called off.
    pub(super) fn removed(&self, claim: &CacheClaim) -> Option<Cow<'a, CacheOnNode>> {
        let entries = [self.of_agent(&claim.uid), self.of_kubelet(&claim.uid)];
        let entries = entries.into_iter().flatten();
        let done: BTreeSet<&String> = entries.flat_map(|e| &e.removed_revisions).collect();
        let said = self.removal(claim);
        if done.is_empty() || said.as_ref().is_some_and(|s| s.state == NodeState::Purged) {
            return said;
        }
        let mut said = said.unwrap_or_else(|| Cow::Owned(begun(claim)));
        let done: Vec<String> = done.into_iter().cloned().collect();
        if said.removed_revisions != done {
            said.to_mut().removed_revisions = done;
        }
        Some(said)
    }

    /// By the word of the agent where it removes, else of purge Jobs.
    fn removal(&self, claim: &CacheClaim) -> Option<Cow<'a, CacheOnNode>> {
        let agent = self.of_agent(&claim.uid);
        let kubelet = self.of_kubelet(&claim.uid);
        let is = |entry: &&CacheOnNode, state| entry.state == state;
        if !self.agent_removes(claim) {
            // What an agent finished before it went need not be done again.
            let done = agent
                .filter(|a| is(a, NodeState::Purged))
                .filter(|a| last_word(a).is_some_and(|at| saturating(at, LEEWAY) >= claim.assigned_at.0));
            let said = kubelet.filter(|k| is_leaving(k));
            return said.or(done).or(kubelet).map(Cow::Borrowed);
        }
        let said = agent.filter(|a| is_leaving(a));
        let Some(said) = said else {
            // The agent has not seen it yet.
            return Some(Cow::Owned(begun(claim)));
        };
        let Some(kubelet) = kubelet else {
            return Some(Cow::Borrowed(said));
        };
        let mut both = said.clone();
        if is(&kubelet, NodeState::Purging) {
            // A pod may still bring back what the agent removes.
            both.state = NodeState::Purging;
        }
        if is(&kubelet, NodeState::Purged) {
            both.removed += kubelet.removed;
            both.in_use += kubelet.in_use;
            both.foreign += kubelet.foreign;
            both.shared += kubelet.shared;
        }
        Some(Cow::Owned(both))
    }
}

/// A removal of which nobody has spoken yet.
fn begun(claim: &CacheClaim) -> CacheOnNode {
    CacheOnNode {
        namespace: claim.namespace.clone(),
        name: claim.name.clone(),
        uid: claim.uid.clone(),
        revision: claim.revision.clone(),
        state: NodeState::Purging,
        ..CacheOnNode::default()
    }
}
