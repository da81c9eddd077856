//! The decision for one cache's pulls on one node.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::image_cache::Puller;
use larder_api::names::Reason;
use larder_api::node_image_cache::{
    CacheClaim, CacheOnNode, ImageOnNode, ImageState, NodeState, ReportedDigest,
};
use larder_api::revision::RevisionImage;
use larder_api::{ImageCache, ImageCacheRevisionSpec};

use super::create::create;
use super::decide::{ClaimInput, PullInput, PullJob};
use super::job::{JobKey, JobView};
use super::known::{ImageKey, key, known};
use super::outcome::outcome;
use super::read::read_job;
use crate::backoff;
use crate::choose::is_for_agent;
use crate::entry::is_leaving;
use crate::facts::NodeFacts;
use crate::merge::{Agent, Split};
use crate::plan::saturating;

/// The part of the decision that is about one claim.
pub(super) struct ClaimDecision {
    /// None where the kubelet has no part in the claim.
    pub(super) on_node: Option<CacheOnNode>,
    pub(super) images: Vec<ImageOnNode>,
    pub(super) create: Vec<PullJob>,
    pub(super) delete: Vec<JobKey>,
    pub(super) resolve_again: Vec<(String, String, String, Timestamp)>,
    pub(super) wake_at: Option<Timestamp>,
}

/// What a decision is made in: a claim that can be worked on, and what is around it.
pub(super) struct Scope<'a> {
    pub(super) input: &'a PullInput<'a>,
    pub(super) claimed: &'a ClaimInput<'a>,
    pub(super) claim: &'a CacheClaim,
    pub(super) cache: &'a ImageCache,
    /// The claimed revision.
    pub(super) revision: &'a ImageCacheRevisionSpec,
    /// Its images.
    pub(super) images: &'a [RevisionImage],
    /// Which of them the agent answers for.
    pub(super) split: Split,
    /// The same, by normalised reference.
    pub(super) by_name: BTreeMap<&'a str, &'a RevisionImage>,
    /// What was last written of this cache.
    pub(super) previous: Option<&'a CacheOnNode>,
    /// When images whose failures did not fit into the list may be tried again.
    pub(super) overflow_until: Option<Timestamp>,
    /// A refresh asked for images to be confirmed that were last confirmed before it.
    pub(super) verifying: bool,
}

impl Scope<'_> {
    /// `namespace/name` of the cache.
    pub(super) fn cache_key(&self) -> String {
        format!("{}/{}", self.claim.namespace, self.claim.name)
    }

    /// Whether the kubelet's block answers for the image.
    pub(super) fn is_own(&self, image: &RevisionImage) -> bool {
        !self.split.is_agents(self.revision, image)
    }

    /// Whether a pod may pull the image: not while an agent is there to do it, nor where only an agent may.
    pub(super) fn may_pull(&self, image: &RevisionImage) -> bool {
        let waits = self.input.blocks.presence != Agent::Absent || self.claim.puller == Puller::Agent;
        !(waits && is_for_agent(self.claim.into(), self.revision, image))
    }

    /// The node is there and Ready: what does not move on it does so for a reason of its own.
    pub(super) fn node_ready(&self) -> bool {
        self.input.node.is_some_and(|n| n.ready)
    }
}

/// What is learned about the images while the Jobs are read.
pub(super) struct Work<'a> {
    /// Images held.
    pub(super) ready: BTreeSet<ImageKey>,
    /// Images that failed or are skipped, by reference.
    pub(super) failed: BTreeMap<&'a str, ImageOnNode>,
    /// References that a Job is at work on.
    pub(super) active: BTreeSet<&'a str>,
    /// Jobs that count towards the limit.
    pub(super) pods: usize,
    /// Something that keeps pods from starting at all.
    pub(super) blocked: Option<String>,
    pub(super) reported: BTreeSet<ReportedDigest>,
    pub(super) delete: Vec<JobKey>,
    pub(super) resolve_again: Vec<(String, String, String, Timestamp)>,
    pub(super) wake_at: Option<Timestamp>,
}

pub(super) fn decide_claim(
    input: &PullInput<'_>,
    claimed: &ClaimInput<'_>,
    jobs: &[&JobView],
) -> ClaimDecision {
    let claim = claimed.claim;
    let cache_key = format!("{}/{}", claim.namespace, claim.name);
    let blocks = &input.blocks;
    let split = blocks.split(claim, input.revisions);
    // Whoever answers for all images begins with what the other one said.
    let previous = if split.by_agent {
        blocks.of_kubelet(&claim.uid).map(Cow::Borrowed)
    } else {
        blocks.view(claim, input.revisions).on_node
    };
    let previous = previous.as_deref();
    let listed: Vec<&ImageOnNode> = if split.by_agent {
        let written = blocks.kubelet.iter().flat_map(|p| &p.images);
        written.filter(|i| i.cache == cache_key).collect()
    } else {
        blocks.images(claim, input.revisions)
    };
    let (Some(revision), Some(cache)) = (claimed.revision, claimed.cache) else {
        return idle(input.now, claimed, previous, &listed, jobs, split);
    };
    if let Some(decision) = after_a_removal(blocks.of_kubelet(&claim.uid), jobs) {
        return decision;
    }
    let revision = &revision.spec.spec;
    let images = revision.images.as_slice();
    let after = claim.verify_after.as_ref();
    let checked = previous.and_then(|p| p.checked_at.as_ref());
    let scope = Scope {
        input,
        claimed,
        claim,
        cache,
        revision,
        images,
        split,
        by_name: images.iter().map(|i| (i.image.as_str(), i)).collect(),
        previous,
        overflow_until: overflow_until(input, cache, &listed),
        verifying: after.is_some_and(|after| checked.is_some_and(|c| c.0 < after.0)),
    };
    let mut work = Work {
        ready: known(input.node, claim, previous, &listed, input.revisions),
        failed: BTreeMap::new(),
        active: BTreeSet::new(),
        pods: 0,
        blocked: None,
        reported: previous.iter().flat_map(|p| &p.reported).cloned().collect(),
        delete: Vec::new(),
        resolve_again: Vec::new(),
        wake_at: None,
    };
    remember(&scope, &listed, &mut work);
    for job in jobs {
        read_job(&scope, job, &mut work);
    }
    let Work { failed, ready, .. } = &mut work;
    failed.retain(|name, _| scope.by_name.get(name).is_none_or(|i| !ready.contains(&key(i))));
    let create = create(&scope, &mut work);
    outcome(&scope, work, create)
}

/// A removal was called off, and Jobs from before it are there that nobody has deleted yet: what they show may be gone, so
/// the entry keeps saying that a removal is at work until they are on their way.
fn after_a_removal(said: Option<&CacheOnNode>, jobs: &[&JobView]) -> Option<ClaimDecision> {
    let said = said.filter(|s| is_leaving(s))?;
    let delete: Vec<JobKey> = jobs
        .iter()
        .filter(|j| !j.deleting)
        .map(|j| j.key.clone())
        .collect();
    (!delete.is_empty()).then(|| ClaimDecision {
        on_node: Some(said.clone()),
        images: Vec::new(),
        create: Vec::new(),
        delete,
        resolve_again: Vec::new(),
        wake_at: None,
    })
}

/// The list of failures is cut, failed ones last. Where not even those fit, the rest waits as long as the latest of them.
fn overflow_until(input: &PullInput<'_>, cache: &ImageCache, listed: &[&ImageOnNode]) -> Option<Timestamp> {
    let cut = input.blocks.kubelet.is_some_and(|p| p.images_omitted > 0);
    if !cut || listed.is_empty() || listed.iter().any(|i| i.state == ImageState::Waiting) {
        return None;
    }
    let latest = listed.iter().max_by_key(|i| i.since.as_ref().map(|t| t.0))?;
    let delay = backoff::delay(&cache.spec.retry, latest.reason, latest.attempts.max(1), 0);
    let delay = SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX);
    Some(saturating(latest.since.as_ref()?.0, delay))
}

/// A failure is remembered for as long as the very same image is wanted.
fn remember<'a>(scope: &Scope<'a>, listed: &[&ImageOnNode], work: &mut Work<'a>) {
    for old in listed {
        if let Some(image) = scope.by_name.get(old.image.as_str())
            && old.digest == image.digest
            && matches!(old.state, ImageState::Failed | ImageState::Skipped)
            && !work.ready.contains(&key(image))
        {
            work.failed.insert(image.image.as_str(), (*old).clone());
        }
    }
}

/// Nothing can be decided, for the cache is gone and its claim will follow, or the revision cannot be read: what the
/// node holds is left alone, Jobs are ended.
fn idle(
    now: Timestamp,
    claimed: &ClaimInput<'_>,
    previous: Option<&CacheOnNode>,
    listed: &[&ImageOnNode],
    jobs: &[&JobView],
    split: Split,
) -> ClaimDecision {
    let claim = claimed.claim;
    let mut on_node = previous.cloned().unwrap_or_default();
    on_node.namespace.clone_from(&claim.namespace);
    on_node.name.clone_from(&claim.name);
    on_node.uid.clone_from(&claim.uid);
    if claimed.revision.is_none() && claimed.cache.is_some() {
        if on_node.reason != Some(Reason::RevisionMissing) {
            on_node.since = Some(Time(now));
        }
        on_node.state = NodeState::Failed;
        on_node.reason = Some(Reason::RevisionMissing);
        on_node.message = format!("revision {} cannot be read", claim.revision);
    }
    ClaimDecision {
        // Where there is an agent, it says so itself.
        on_node: (!split.by_agent || previous.is_some()).then_some(on_node),
        images: listed.iter().map(|i| (*i).clone()).collect(),
        create: Vec::new(),
        delete: jobs
            .iter()
            .filter(|j| !j.deleting)
            .map(|j| j.key.clone())
            .collect(),
        resolve_again: Vec::new(),
        wake_at: None,
    }
}

/// Compressed bytes of the image on the node's platform; zero where unknown.
pub(super) fn bytes(image: &RevisionImage, node: &NodeFacts) -> i64 {
    let platforms = image
        .platforms
        .iter()
        .filter(|p| p.os == node.os && p.architecture == node.architecture);
    platforms.map(|p| p.size_bytes).max().unwrap_or(0)
}
