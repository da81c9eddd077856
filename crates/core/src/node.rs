//! Everything that is decided for one node at a time: pulls, removals, and what its status says.

use std::borrow::Cow;
use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use larder_api::node_image_cache::{
    CacheClaim, CacheOnNode, Desired, ImageOnNode, ImageState, NodeState, PullerStatus, PullerSummary,
};

use crate::choose::kubelet_takes_part;
use crate::entry::{has_settled, loses, references};
use crate::plan::{earliest, saturating};
use crate::pull::{self, JobKey, PullInput, PullJob};
use crate::purge::{self, PurgeDecision, PurgeInput, PurgeJob, PurgeJobView, leaving};
use crate::trim::trim_node;

/// The first report of mere progress comes after this long.
pub const FIRST_PROGRESS: SignedDuration = SignedDuration::from_secs(10);
/// Further reports of mere progress come at most this often.
pub const PROGRESS: SignedDuration = SignedDuration::from_secs(5);

/// What to do for a node, in this order: write the status, delete, create.
#[derive(Debug, Default)]
pub struct NodeDecision {
    /// The status of pulls by pods; to be written if `write` says so.
    pub status: PullerStatus,
    /// Whether and when to write it.
    pub write: Write,
    /// Jobs to delete.
    pub delete: Vec<JobKey>,
    /// Pull Jobs to create.
    pub pull: Vec<PullJob>,
    /// Purge Jobs to create.
    pub purge: Vec<PurgeJob>,
    /// See [`pull::PullDecision::resolve_again`].
    pub resolve_again: Vec<(String, String, String, Timestamp)>,
    /// When time alone changes the decision.
    pub wake_at: Option<Timestamp>,
}

/// Whether a status is worth a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Write {
    /// Nothing changed.
    #[default]
    No,
    /// Mere progress: not before this moment.
    At(Timestamp),
    /// A state, a failure or a result changed.
    Now,
}

/// Decides for a node. `generation` is that of the node's object; `purge_jobs` are all there are for the node;
/// `written_at` is when progress was last written, if this process knows.
pub fn decide(
    mut input: PullInput<'_>,
    generation: i64,
    purge_jobs: Vec<PurgeJobView>,
    written_at: Option<Timestamp>,
) -> NodeDecision {
    input.removing = !purge_jobs.is_empty() || input.blocks.agent_is_behind(generation);
    let pulls = pull::decide(&input);
    let mut caches = pulls.caches;
    let removals = remove(&input, &mut caches, &pulls.images, purge_jobs);
    for changed in removals.caches {
        match caches.iter_mut().find(|c| c.uid == changed.uid) {
            Some(existing) => *existing = changed,
            None => caches.push(changed),
        }
    }
    forget_older(&input, &mut caches);
    let delete: Vec<JobKey> = pulls.delete.into_iter().chain(removals.delete).collect();
    let status = compose(generation, input.node_uid, caches, pulls.images);
    let write = worth_writing(&input, &status, !delete.is_empty(), written_at);
    let wake = [pulls.wake_at, removals.wake_at, input.blocks.presence.wake_at()];
    let mut wake_at = wake.into_iter().flatten().min();
    if let Write::At(at) = write {
        wake_at = earliest(wake_at, at);
    }
    NodeDecision {
        status,
        write,
        delete,
        pull: pulls.create,
        purge: removals.create,
        resolve_again: pulls.resolve_again,
        wake_at,
    }
}

/// Removals by Jobs, of the claims whose removals are not the agent's.
fn remove(
    input: &PullInput<'_>,
    caches: &mut Vec<CacheOnNode>,
    not_ready: &[ImageOnNode],
    jobs: Vec<PurgeJobView>,
) -> PurgeDecision {
    for claim in absent(input) {
        if input.blocks.agent_removes(claim) {
            caches.extend(kubelets_part(input, claim));
        } else {
            let said = input.blocks.view(claim, input.revisions).on_node;
            caches.extend(said.map(Cow::into_owned));
        }
    }
    let of_agent = |claim: &CacheClaim| input.blocks.agent_removes(claim);
    let all = input.claims.iter().map(|c| c.claim);
    let claims = all.filter(|c| c.desired == Desired::Present || !of_agent(c));
    let mut claims: Vec<CacheClaim> = claims.cloned().collect();
    for claim in &mut claims {
        // What waits for an agent has not arrived: until then nothing that it replaces goes.
        if claim.desired == Desired::Present
            && (of_agent(claim) || input.blocks.split(claim, input.revisions).by_agent)
        {
            claim.remove_revisions.clear();
        }
    }
    purge::decide(&purge_input(input, &claims, caches, not_ready, jobs))
}

/// Of a claim that the agent removes: that nothing is counted on any more, for which the agent waits. It is not Purged
/// before the agent says so, who may go, nor before its pods are gone, which may bring back what went.
fn kubelets_part(input: &PullInput<'_>, claim: &CacheClaim) -> Option<CacheOnNode> {
    let said = input.blocks.of_kubelet(&claim.uid);
    let purged = said.filter(|c| c.state == NodeState::Purged);
    let pulling = input.jobs.iter().any(|j| j.cache_uid == claim.uid);
    if !pulling && (purged.is_some() || !kubelet_takes_part(claim, input.revisions)) {
        return purged.cloned();
    }
    let mut next = leaving(claim, said, input.now);
    // Counts are the agent's.
    (next.removed, next.in_use, next.foreign, next.shared) = (0, 0, 0, 0);
    let agent = input.blocks.of_agent(&claim.uid);
    if !pulling && agent.is_some_and(|a| a.state == NodeState::Purged && a.revision == claim.revision) {
        next.state = NodeState::Purged;
    }
    Some(next)
}

/// An agent that is to remove images waits until no entry counts on an older revision that has them: see `agent::counted`.
/// Going back to one is then a matter of a pull that finds everything there, or does not.
fn forget_older(input: &PullInput<'_>, caches: &mut [CacheOnNode]) {
    let claims = || input.claims.iter().map(|c| c.claim);
    let by_agent = claims().filter(|c| input.blocks.agent_removes(c));
    let going: BTreeSet<&str> = by_agent
        .filter(|claim| begins(input, claim))
        .flat_map(|claim| references(claim, input.revisions))
        .collect();
    if going.is_empty() {
        return;
    }
    for entry in caches {
        let claimed = claims().find(|c| c.uid == entry.uid && c.desired == Desired::Present);
        let CacheOnNode { namespace, held, .. } = entry;
        held.retain(|name| {
            let wanted = claimed.is_some_and(|c| c.revision == *name);
            wanted || !loses(input.revisions, namespace, name, &going)
        });
    }
}

/// Whether what the claim lets go goes by now: older revisions only once nothing is awaited of the newest, for until then
/// a rollout counts on what the node holds.
fn begins(input: &PullInput<'_>, claim: &CacheClaim) -> bool {
    let said = || input.blocks.view(claim, input.revisions).on_node;
    claim.desired == Desired::Absent || said().is_some_and(|said| has_settled(&said, claim))
}

fn absent<'a>(input: &PullInput<'a>) -> impl Iterator<Item = &'a CacheClaim> {
    let claims = input.claims.iter().map(|c| c.claim);
    claims.filter(|c| c.desired == Desired::Absent)
}

fn purge_input<'a>(
    input: &'a PullInput<'_>,
    claims: &'a [CacheClaim],
    on_node: &'a [CacheOnNode],
    not_ready: &'a [ImageOnNode],
    jobs: Vec<PurgeJobView>,
) -> PurgeInput<'a> {
    PurgeInput {
        now: input.now,
        node: input.node.map_or("", |n| n.name.as_str()),
        node_uid: input.node_uid,
        node_ready: input.node.is_some_and(|n| n.ready),
        claims,
        on_node,
        not_ready,
        pulling: input.jobs.iter().map(|j| j.cache_uid.clone()).collect(),
        jobs,
        revisions: input.revisions,
    }
}

pub(crate) fn compose(
    generation: i64,
    node_uid: &str,
    mut caches: Vec<CacheOnNode>,
    images: Vec<ImageOnNode>,
) -> PullerStatus {
    caches.sort_by(|a, b| (&a.namespace, &a.name, &a.uid).cmp(&(&b.namespace, &b.name, &b.uid)));
    let whole = caches.iter().filter(|c| c.state == NodeState::Ready).count();
    let not_ready = images.iter().filter(|i| i.state != ImageState::Skipped).count();
    let summary = PullerSummary {
        caches: format!("{whole}/{}", caches.len()),
        not_ready: i32::try_from(not_ready).unwrap_or(i32::MAX),
    };
    trim_node(PullerStatus {
        observed_generation: generation,
        node_uid: node_uid.to_owned(),
        caches,
        images,
        images_omitted: 0,
        summary,
    })
}

fn worth_writing(
    input: &PullInput<'_>,
    next: &PullerStatus,
    deletes: bool,
    written_at: Option<Timestamp>,
) -> Write {
    let empty = PullerStatus::default();
    let previous = input.blocks.kubelet.unwrap_or(&empty);
    if input.blocks.kubelet.is_none() && next.caches.is_empty() {
        // Where agents do everything the operator says nothing.
        return Write::No;
    }
    let same = PullerStatus {
        observed_generation: previous.observed_generation,
        ..next.clone()
    } == *previous;
    if same {
        // A newer generation that changes nothing here is not worth a write.
        return Write::No;
    }
    // A Job is deleted only once what it showed is written.
    if deletes || forgets(previous, next) || milestones(previous) != milestones(next) {
        return Write::Now;
    }
    let begun = input
        .claims
        .iter()
        .map(|c| c.claim.assigned_at.0)
        .max()
        .unwrap_or(input.now);
    let at = saturating(begun, FIRST_PROGRESS).max(written_at.map_or(begun, |w| saturating(w, PROGRESS)));
    if at <= input.now {
        Write::Now
    } else {
        Write::At(at)
    }
}

/// Whether a cache's entry goes, for which an agent waits before it removes what the entry counts on.
fn forgets(previous: &PullerStatus, next: &PullerStatus) -> bool {
    let stays = |uid: &str| next.caches.iter().any(|n| n.uid == uid);
    previous.caches.iter().any(|p| !stays(&p.uid))
}

/// What is reported at once: everything but images that wait or are being pulled, and counts.
pub(crate) fn milestones(status: &PullerStatus) -> (BTreeSet<String>, BTreeSet<String>) {
    let caches = status.caches.iter().filter_map(|c| {
        // An entry that says no more than "begun" is no news, but that a removal has: others wait for it.
        let removal = c.state == NodeState::Purging;
        let begun = removal || matches!(c.state, NodeState::Pulling | NodeState::Waiting);
        let quiet = begun && c.reason.is_none() && c.removal_error.is_empty();
        let state = if quiet {
            None
        } else {
            Some((c.state, c.reason, &c.message, &c.checked_at))
        };
        let say = removal || state.is_some() || !c.held.is_empty() || !c.removed_revisions.is_empty();
        say.then(|| {
            let parts = (
                &c.uid,
                removal,
                state,
                &c.held,
                &c.removed_revisions,
                &c.removal_error,
                &c.removal_error_at,
            );
            format!("{parts:?}")
        })
    });
    let images = status
        .images
        .iter()
        .filter(|i| !matches!(i.state, ImageState::Waiting | ImageState::Pulling))
        .map(|i| format!("{:?}", (&i.cache, &i.image, i.state, i.reason, i.attempts)));
    (caches.collect(), images.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_goes_is_news_even_if_it_only_said_that_work_had_begun() {
        let status = |uids: &[&str]| PullerStatus {
            caches: uids
                .iter()
                .map(|uid| CacheOnNode {
                    uid: (*uid).into(),
                    state: NodeState::Pulling,
                    ..CacheOnNode::default()
                })
                .collect(),
            ..PullerStatus::default()
        };
        assert!(forgets(&status(&["a", "b"]), &status(&["b"])));
        assert!(!forgets(&status(&["b"]), &status(&["a", "b"])));
        assert_eq!(milestones(&status(&["a"])), milestones(&status(&[])));
    }
}
