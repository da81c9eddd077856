//! What a node holds, in one view: each block of its status speaks of the images of its own puller, and here they are
//! put together, claim by claim and image by image.
//!
//! At a hand-over the one who pulled before is believed until the other has spoken, so that nothing that is there is
//! pulled again or said to be missing.

mod combine;
mod held;
mod presence;
mod removed;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use jiff::SignedDuration;
use larder_api::NodeImageCache;
use larder_api::image_cache::Puller;
use larder_api::node_image_cache::{CacheClaim, CacheOnNode, Desired, ImageOnNode, PullerStatus};
use larder_api::revision::{ImageCacheRevisionSpec, RevisionImage};

use crate::choose::{Who, is_for_agent};
use crate::entry::is_leaving;
use crate::plan::{Revisions, saturating};

pub use presence::{Agent, AgentFacts, AgentPod, GONE_FOR, JOINED_FOR, NOT_READY_FOR};

/// What a claim of `puller: Agent` says where it waits for an agent.
pub const NO_AGENT: &str = "no agent runs on this node";
/// Clocks of nodes and operator may differ by this much.
const LEEWAY: SignedDuration = SignedDuration::from_secs(10);

/// The blocks of a node's status, and whether an agent is there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Blocks<'a> {
    /// As the operator wrote it from pods; none if it is about another incarnation of the node.
    pub kubelet: Option<&'a PullerStatus>,
    /// As the agent wrote it; none if it is about another incarnation of the node.
    pub agent: Option<&'a PullerStatus>,
    /// Whether an agent is there now.
    pub presence: Agent,
}

/// What a node holds of one claim.
#[derive(Clone, Debug, Default)]
pub struct ClaimView<'a> {
    /// The state; none if nobody has said anything yet.
    pub on_node: Option<Cow<'a, CacheOnNode>>,
    /// Some of its images are the agent's to pull.
    pub agent: bool,
    /// Some are the kubelet's.
    pub kubelet: bool,
    /// An agent looks at all of them all the time: nothing has to be confirmed by a pull.
    pub watched: bool,
}

/// Who answers for the images of one claim.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Split {
    who: Who,
    /// The agent's images are the agent's word; else the kubelet's block speaks of all of them.
    pub(crate) by_agent: bool,
}

impl Split {
    /// Whether the agent answers for the image.
    pub(crate) fn is_agents(self, revision: &ImageCacheRevisionSpec, image: &RevisionImage) -> bool {
        self.by_agent && is_for_agent(self.who, revision, image)
    }
}

impl<'a> Blocks<'a> {
    /// The blocks of an object that are about the node it is for.
    pub fn of(object: &'a NodeImageCache, presence: Agent) -> Self {
        let status = object.status.as_ref();
        let same_node = |block: &&PullerStatus| block.node_uid == object.spec.node_uid;
        Self {
            kubelet: status.and_then(|s| s.kubelet.as_ref()).filter(same_node),
            agent: status
                .and_then(|s| s.agent.as_ref())
                .map(|a| &a.puller)
                .filter(same_node),
            presence,
        }
    }

    /// What the kubelet's block says of the cache.
    pub(crate) fn of_kubelet(&self, uid: &str) -> Option<&'a CacheOnNode> {
        self.kubelet?.caches.iter().find(|c| c.uid == uid)
    }

    /// What the agent's block says of the cache.
    pub(crate) fn of_agent(&self, uid: &str) -> Option<&'a CacheOnNode> {
        self.agent?.caches.iter().find(|c| c.uid == uid)
    }

    /// Removals of the claim are the agent's. Where only the kubelet pulls, Jobs remove, too: what goes and what is pulled
    /// again is then decided in one place, and a removal that is called off leaves nobody believing in what is gone.
    pub fn agent_removes(&self, claim: &CacheClaim) -> bool {
        self.presence != Agent::Absent && claim.puller != Puller::Job
    }

    /// Whether the agent may still be removing by an older spec than that of `generation`, which may want what goes: its
    /// block names a generation once nothing that an older one asked for is at work any more.
    pub(crate) fn agent_is_behind(&self, generation: i64) -> bool {
        let said = self.agent.map(|a| a.observed_generation);
        self.presence != Agent::Absent && said.is_some_and(|said| said < generation)
    }

    /// Who is to answer for the claim's images from now on.
    pub(crate) fn split(&self, claim: &CacheClaim, revisions: &Revisions<'_>) -> Split {
        let takes_part = match self.presence {
            Agent::Alive | Agent::Waiting { .. } => claim.puller != Puller::Job,
            Agent::Absent => claim.puller == Puller::Agent,
        };
        // What the kubelet pulled before the agent came stands until this one has spoken, and not one before it.
        let spoken = || {
            let agent = self.presence == Agent::Alive && self.of_agent(&claim.uid).is_some();
            agent || !(self.is_whole(claim, revisions) || self.has_removed(claim))
        };
        Split {
            who: claim.into(),
            by_agent: takes_part && spoken(),
        }
    }

    /// Whose word is believed at this moment.
    fn believed(&self, claim: &CacheClaim, revisions: &Revisions<'_>) -> Split {
        let split = self.split(claim, revisions);
        // An agent that is gone is believed until the kubelet has taken over.
        let inherits = || {
            let spoke = self.of_agent(&claim.uid).and_then(last_word);
            claim.puller != Puller::Job
                && !self.has_removed(claim)
                && !self.is_whole(claim, revisions)
                && spoke.is_some_and(|at| saturating(at, LEEWAY) >= claim.claimed_at.0)
        };
        Split {
            by_agent: split.by_agent || (self.presence == Agent::Absent && inherits()),
            ..split
        }
    }

    /// Whether the kubelet's block tells of a removal: what an agent said before it is no longer so.
    fn has_removed(&self, claim: &CacheClaim) -> bool {
        let said = self.of_kubelet(&claim.uid);
        said.is_some_and(is_leaving)
    }

    /// Whether the kubelet's block speaks of images that would be the agent's, if there were one.
    fn is_whole(&self, claim: &CacheClaim, revisions: &Revisions<'_>) -> bool {
        let Some(entry) = self.of_kubelet(&claim.uid) else {
            return false;
        };
        counts_all(claim, entry, revisions)
    }

    /// What the node holds of a claim.
    pub fn view(&self, claim: &CacheClaim, revisions: &Revisions<'_>) -> ClaimView<'a> {
        let split = self.believed(claim, revisions);
        let key = (claim.namespace.as_str(), claim.revision.as_str());
        let Some(revision) = revisions.get(&key).map(|r| &r.spec.spec) else {
            return ClaimView {
                on_node: match claim.desired {
                    Desired::Present => self.unreadable(claim, split).map(Cow::Borrowed),
                    Desired::Absent => self.removed(claim),
                },
                agent: split.by_agent,
                kubelet: !split.by_agent,
                watched: false,
            };
        };
        let agent = revision.images.iter().any(|i| split.is_agents(revision, i));
        let kubelet = revision.images.iter().any(|i| !split.is_agents(revision, i));
        let on_node = match claim.desired {
            Desired::Present => self.combine(claim, revision, revisions, split, (agent, kubelet)),
            Desired::Absent => self.removed(claim),
        };
        ClaimView {
            on_node,
            agent,
            kubelet,
            watched: self.presence == Agent::Alive && agent && !kubelet,
        }
    }

    /// Images of a claim that are not there, each by the word of its puller.
    pub fn images(&self, claim: &CacheClaim, revisions: &Revisions<'_>) -> Vec<&'a ImageOnNode> {
        let split = self.believed(claim, revisions);
        let revision = revisions
            .get(&(claim.namespace.as_str(), claim.revision.as_str()))
            .map(|r| &r.spec.spec);
        let agents = |image: &ImageOnNode| {
            let found = revision.and_then(|r| Some((r, r.images.iter().find(|i| i.image == image.image)?)));
            found.map(|(r, i)| split.is_agents(r, i))
        };
        let kubelet = self.kubelet.into_iter().flat_map(|b| &b.images);
        let agent = self.agent.filter(|_| split.by_agent).into_iter();
        let agent = agent.flat_map(|b| &b.images);
        let of_claim = |i: &&ImageOnNode| {
            i.cache
                .split_once('/')
                .is_some_and(|(namespace, name)| namespace == claim.namespace && name == claim.name)
        };
        kubelet
            .filter(of_claim)
            .filter(|i| agents(i) != Some(true))
            .chain(agent.filter(of_claim).filter(|i| agents(i) != Some(false)))
            .collect()
    }

    /// Of a revision that cannot be read nobody knows whose images are whose.
    fn unreadable(&self, claim: &CacheClaim, split: Split) -> Option<&'a CacheOnNode> {
        let agent = self.of_agent(&claim.uid).filter(|_| split.by_agent);
        let said = [agent, self.of_kubelet(&claim.uid)];
        let mut said = said.into_iter().flatten();
        let first = said.clone().next();
        said.find(|e| e.reason == Some(larder_api::names::Reason::RevisionMissing))
            .or(first)
    }
}

/// Whether the entry counts all images of its revision, some of which would be the agent's if there were one.
fn counts_all(claim: &CacheClaim, entry: &CacheOnNode, revisions: &Revisions<'_>) -> bool {
    let key = (claim.namespace.as_str(), entry.revision.as_str());
    revisions.get(&key).map(|r| &r.spec.spec).is_some_and(|r| {
        let counted = usize::try_from(entry.total.saturating_add(entry.skipped)).unwrap_or(0);
        counted == r.images.len() && r.images.iter().any(|i| is_for_agent(claim.into(), r, i))
    })
}

/// The last moment that an entry tells of itself.
fn last_word(entry: &CacheOnNode) -> Option<jiff::Timestamp> {
    let times = [entry.since.as_ref(), entry.checked_at.as_ref()];
    times.into_iter().flatten().map(|t| t.0).max()
}
