//! What the status of a node says of one cache.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::image_cache::Puller;
use larder_api::names::Reason;
use larder_api::node_image_cache::{CacheOnNode, ImageOnNode, ImageState, NodeState};

use super::bits;
use super::claim::{ClaimDecision, Scope, Work, bytes};
use super::decide::PullJob;
use super::known::key;
use crate::merge::{Agent, NO_AGENT};

/// Revisions that a node's status remembers as held whole.
pub(crate) const MAX_HELD: usize = 4;

/// Counts of a revision's images on the node.
#[derive(Default)]
struct Counts {
    ready: i32,
    skipped: i32,
    failed: i32,
    outstanding: i32,
    bytes: i64,
}

/// Sums up.
pub(super) fn outcome(scope: &Scope<'_>, work: Work<'_>, create: Vec<PullJob>) -> ClaimDecision {
    let own = scope.images.iter().filter(|i| scope.is_own(i)).count();
    let (images, counts) = list(scope, &work);
    let whole = counts.failed == 0 && counts.outstanding == 0;
    let resting = work.pods == 0 && create.is_empty();
    let (state, reason, message) = state(scope, &work, &counts, resting);
    let claim = scope.claim;
    let same_revision = scope.previous.is_some_and(|p| p.revision == claim.revision);
    let since = scope
        .previous
        .filter(|p| p.state == state && same_revision)
        .and_then(|p| p.since.clone());
    // Of what is the agent's now, only the agent knows what it means now.
    let undigested: BTreeSet<&str> = scope
        .images
        .iter()
        .filter(|i| i.digest.is_none() && scope.is_own(i))
        .map(|i| i.image.as_str())
        .collect();
    // Results of earlier removals stay as they are.
    let mut on_node = scope.previous.cloned().unwrap_or_default();
    if claim.remove_revisions.is_empty() {
        // Called off: what went wrong with it concerns nobody.
        on_node.removal_error.clear();
        on_node.removal_error_at = None;
    }
    on_node.held = held(scope, whole, counts.failed);
    on_node.checked_at = checked_at(scope, whole, same_revision);
    on_node
        .removed_revisions
        .retain(|r| claim.remove_revisions.contains(r));
    on_node.reported = work
        .reported
        .iter()
        .filter(|r| undigested.contains(r.image.as_str()))
        .cloned()
        .collect();
    let on_node = CacheOnNode {
        namespace: claim.namespace.clone(),
        name: claim.name.clone(),
        uid: claim.uid.clone(),
        revision: claim.revision.clone(),
        state,
        reason,
        message,
        since: since.or(Some(Time(scope.input.now))),
        ready: counts.ready,
        total: own as i32 - counts.skipped,
        skipped: counts.skipped,
        missing: bits::encode(
            &scope
                .images
                .iter()
                .map(|i| !(scope.is_own(i) && work.ready.contains(&key(i))))
                .collect::<Vec<_>>(),
        ),
        bytes: counts.bytes,
        ..on_node
    };
    ClaimDecision {
        // Of a revision without images, which is whole at once, somebody has to say so too.
        on_node: (own > 0 || scope.images.is_empty()).then_some(on_node),
        images,
        create,
        delete: work.delete,
        resolve_again: work.resolve_again,
        wake_at: work.wake_at,
    }
}

/// The images that are not ready, and counts of all.
fn list(scope: &Scope<'_>, work: &Work<'_>) -> (Vec<ImageOnNode>, Counts) {
    let mut list = Vec::new();
    let mut counts = Counts::default();
    for image in scope.images.iter().filter(|i| scope.is_own(i)) {
        if work.ready.contains(&key(image)) {
            counts.ready += 1;
            counts.bytes += scope.input.node.map_or(0, |n| bytes(image, n));
        } else if let Some(failed) = work.failed.get(image.image.as_str()) {
            let skipped = failed.state == ImageState::Skipped;
            counts.skipped += i32::from(skipped);
            counts.failed += i32::from(!skipped);
            list.push(failed.clone());
        } else {
            counts.outstanding += 1;
            list.push(ImageOnNode {
                cache: scope.cache_key(),
                image: image.image.clone(),
                digest: image.digest.clone(),
                ..ImageOnNode::default()
            });
        }
    }
    (list, counts)
}

/// What a claim says whose pods wait for the end of a removal.
const REMOVING: &str =
    "waits until no removal is at work on this node, and until its agent, if it has one, says so";

/// The state, with a reason and words where one thing is the matter with the whole cache.
fn state(
    scope: &Scope<'_>,
    work: &Work<'_>,
    counts: &Counts,
    resting: bool,
) -> (NodeState, Option<Reason>, String) {
    if counts.failed == 0 && counts.outstanding == 0 {
        return (NodeState::Ready, None, String::new());
    }
    if let Some(rejection) = scope.input.rejections.get(&scope.claim.uid) {
        return (
            NodeState::Failed,
            Some(Reason::PodRejected),
            rejection.message.clone(),
        );
    }
    if let Some(message) = work.blocked.clone() {
        return (NodeState::Pulling, None, message);
    }
    // Where even the list of failures is cut, what is not on it waits like the rest.
    if counts.failed > 0 && (counts.outstanding == 0 || resting) {
        let noun = if counts.failed == 1 { "image" } else { "images" };
        return (
            NodeState::Failed,
            None,
            format!("{} {noun} failed", counts.failed),
        );
    }
    let lacks_agent = scope.input.blocks.presence == Agent::Absent && scope.claim.puller == Puller::Agent;
    if lacks_agent && resting {
        return (NodeState::Waiting, None, NO_AGENT.to_owned());
    }
    if scope.cache.spec.suspend {
        return (NodeState::Waiting, None, "suspended".to_owned());
    }
    if scope.input.removing && resting {
        return (NodeState::Pulling, None, REMOVING.to_owned());
    }
    (NodeState::Pulling, None, String::new())
}

/// When everything was last confirmed. That is kept while it is being done anew.
fn checked_at(scope: &Scope<'_>, whole: bool, same_revision: bool) -> Option<Time> {
    let before = scope.previous.and_then(|p| p.checked_at.clone());
    if !whole {
        return before.filter(|_| same_revision);
    }
    let stays = scope.previous.is_some_and(|p| {
        if same_revision {
            p.state == NodeState::Ready && !scope.verifying
        } else {
            // Back to a revision that is still held: nothing was pulled.
            p.held.contains(&scope.claim.revision)
        }
    });
    before.filter(|_| stays).or(Some(Time(scope.input.now)))
}

/// Revisions held whole, the present one first. What the agent answers for has to be there too: the list stays true
/// when the agent goes.
fn held(scope: &Scope<'_>, whole: bool, failed: i32) -> Vec<String> {
    let mut held = scope.previous.map(|p| p.held.clone()).unwrap_or_default();
    let by_agent = |name: &str| {
        let blocks = &scope.input.blocks;
        blocks.agent_holds(scope.claim, scope.input.revisions, scope.split, name)
    };
    held.retain(|r| by_agent(r) != Some(false));
    if whole && by_agent(&scope.claim.revision) == Some(true) {
        held.retain(|r| *r != scope.claim.revision);
        held.insert(0, scope.claim.revision.clone());
        held.truncate(MAX_HELD);
    } else if scope.verifying && failed > 0 {
        // Confirmation failed: nobody knows whether it is still there.
        held.retain(|r| *r != scope.claim.revision);
    }
    held
}
