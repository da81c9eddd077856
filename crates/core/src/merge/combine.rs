//! One state of a claim from the words of both pullers.

use std::borrow::Cow;

use larder_api::image_cache::Puller;
use larder_api::names::Reason;
use larder_api::node_image_cache::{CacheClaim, CacheOnNode, NodeState};
use larder_api::revision::ImageCacheRevisionSpec;

use super::{Agent, Blocks, NO_AGENT, Split};
use crate::entry::is_leaving;
use crate::plan::Revisions;
use crate::pull::bits;

impl<'a> Blocks<'a> {
    /// What a node holds of a claim that is to be present; `whose` says whether the agent and the kubelet have a part.
    pub(super) fn combine(
        &self,
        claim: &CacheClaim,
        revision: &ImageCacheRevisionSpec,
        revisions: &Revisions<'_>,
        split: Split,
        whose: (bool, bool),
    ) -> Option<Cow<'a, CacheOnNode>> {
        let agent = self.of_agent(&claim.uid).filter(|_| split.by_agent);
        let kubelet = self.of_kubelet(&claim.uid);
        let mut on_node = match whose {
            (false, _) => Cow::Borrowed(kubelet?),
            (true, false) => match agent {
                Some(agent) => self.waits(claim, Cow::Borrowed(agent)),
                None if self.lacks_agent(claim) => {
                    self.waits(claim, Cow::Owned(nothing(claim, revision, split, true)))
                }
                None => return None,
            },
            (true, true) => {
                if agent.is_none() && kubelet.is_none() && !self.lacks_agent(claim) {
                    return None;
                }
                let of = |entry: Option<&'a CacheOnNode>, agents| match entry {
                    Some(entry) if is_about(claim, entry) => Cow::Borrowed(entry),
                    _ => Cow::Owned(nothing(claim, revision, split, agents)),
                };
                let agent = self.waits(claim, of(agent, true));
                Cow::Owned(add(claim, revision, split, &agent, &of(kubelet, false)))
            }
        };
        let held = self.held(claim, revisions, split);
        if on_node.held != held {
            on_node.to_mut().held = held;
        }
        let removed = self.removed_revisions(claim, split);
        if on_node.removed_revisions != removed {
            on_node.to_mut().removed_revisions = removed;
        }
        self.add_removal_error(claim, &mut on_node);
        Some(on_node)
    }

    /// `puller: Agent`, and there is none.
    fn lacks_agent(&self, claim: &CacheClaim) -> bool {
        self.presence == Agent::Absent && claim.puller == Puller::Agent
    }

    /// The agent's part waits where there is no agent to go on with it.
    fn waits(&self, claim: &CacheClaim, mut part: Cow<'a, CacheOnNode>) -> Cow<'a, CacheOnNode> {
        let whole = part.state == NodeState::Ready && part.revision == claim.revision;
        if self.lacks_agent(claim) && !whole {
            let part = part.to_mut();
            part.state = NodeState::Waiting;
            part.revision.clone_from(&claim.revision);
            part.reason = None;
            NO_AGENT.clone_into(&mut part.message);
        }
        part
    }

    /// Removals that either has finished.
    fn removed_revisions(&self, claim: &CacheClaim, split: Split) -> Vec<String> {
        let agent = self
            .of_agent(&claim.uid)
            .filter(|_| split.by_agent || self.agent_removes(claim));
        let both = [self.of_kubelet(&claim.uid), agent];
        let mut removed: Vec<String> = Vec::new();
        for name in both.into_iter().flatten().flat_map(|e| &e.removed_revisions) {
            if !removed.contains(name) {
                removed.push(name.clone());
            }
        }
        removed
    }

    /// Of the one who removes.
    fn add_removal_error(&self, claim: &CacheClaim, on_node: &mut Cow<'a, CacheOnNode>) {
        let remover = if self.agent_removes(claim) {
            self.of_agent(&claim.uid)
        } else {
            self.of_kubelet(&claim.uid)
        };
        let (words, at) = remover.map_or(("", None), |e| {
            (e.removal_error.as_str(), e.removal_error_at.clone())
        });
        if on_node.removal_error != words {
            let on_node = on_node.to_mut();
            words.clone_into(&mut on_node.removal_error);
            on_node.removal_error_at = at;
        }
    }
}

/// The entry is about the claimed revision, and not left from a removal.
fn is_about(claim: &CacheClaim, entry: &CacheOnNode) -> bool {
    !is_leaving(entry) && (entry.revision == claim.revision || entry.reason == Some(Reason::RevisionMissing))
}

/// What stands for the word of somebody who has not spoken yet.
fn nothing(claim: &CacheClaim, revision: &ImageCacheRevisionSpec, split: Split, agents: bool) -> CacheOnNode {
    let own = |i: &_| split.is_agents(revision, i) == agents;
    CacheOnNode {
        namespace: claim.namespace.clone(),
        name: claim.name.clone(),
        uid: claim.uid.clone(),
        revision: claim.revision.clone(),
        state: NodeState::Pulling,
        total: revision.images.iter().filter(|i| own(i)).count() as i32,
        missing: bits::encode(&vec![true; revision.images.len()]),
        ..CacheOnNode::default()
    }
}

/// What is still to come goes before what failed, and that before what waits; only both Ready are Ready.
fn rank(state: NodeState) -> u8 {
    match state {
        NodeState::Pulling | NodeState::Unreachable | NodeState::Purging | NodeState::Purged => 3,
        NodeState::Failed => 2,
        NodeState::Waiting => 1,
        NodeState::Ready => 0,
    }
}

fn add(
    claim: &CacheClaim,
    revision: &ImageCacheRevisionSpec,
    split: Split,
    agent: &CacheOnNode,
    kubelet: &CacheOnNode,
) -> CacheOnNode {
    let missing: Vec<bool> = revision
        .images
        .iter()
        .enumerate()
        .map(|(n, image)| {
            let owner = if split.is_agents(revision, image) {
                agent
            } else {
                kubelet
            };
            bits::is_missing(&owner.missing, n)
        })
        .collect();
    let (first, second) = if rank(agent.state) >= rank(kubelet.state) {
        (agent, kubelet)
    } else {
        (kubelet, agent)
    };
    let same_state = first.state == second.state;
    // A reason of one part, such as a pod that was refused, is the reason why the whole does not get on.
    let telling = if first.reason.is_none() && second.reason.is_some() {
        second
    } else {
        first
    };
    let mut message = telling.message.clone();
    if same_state && telling.reason.is_none() && !second.message.is_empty() && second.message != message {
        let join = if message.is_empty() { "" } else { "; " };
        message = format!("{message}{join}{}", second.message);
    }
    let since = match (same_state, &first.since, &second.since) {
        (true, Some(a), Some(b)) if first.state == NodeState::Ready => Some(a.max(b).clone()),
        (true, Some(a), Some(b)) => Some(a.min(b).clone()),
        _ => first.since.clone(),
    };
    let checked_at = match (&agent.checked_at, &kubelet.checked_at) {
        (Some(a), Some(b)) => Some(a.min(b).clone()),
        _ => None,
    };
    let mut reported = agent.reported.clone();
    reported.extend(
        kubelet
            .reported
            .iter()
            .filter(|k| !agent.reported.iter().any(|a| a.image == k.image))
            .cloned(),
    );
    // At a hand-over both may still count the same images.
    let all = revision.images.len() as i32;
    let total = (agent.total + kubelet.total).min(all);
    CacheOnNode {
        revision: claim.revision.clone(),
        state: first.state,
        reason: telling.reason,
        message,
        since,
        ready: missing.iter().filter(|m| !**m).count() as i32,
        total,
        skipped: (agent.skipped + kubelet.skipped).min(all - total),
        missing: bits::encode(&missing),
        bytes: agent.bytes.saturating_add(kubelet.bytes),
        checked_at,
        reported,
        ..agent.clone()
    }
}
