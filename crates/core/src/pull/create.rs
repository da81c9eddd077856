//! Which pull Jobs begin now.

use jiff::{SignedDuration, Timestamp};
use larder_api::image_cache::Resolve;
use larder_api::node_image_cache::{ImageOnNode, ImageState};
use larder_api::revision::RevisionImage;

use super::MAX_REJECTION_DELAY;
use super::batch::{Candidate, batches};
use super::claim::{Scope, Work, bytes};
use super::decide::PullJob;
use super::known::key;
use crate::facts::NodeFacts;
use crate::plan::{asked_at, earliest, saturating, signed};
use crate::select::Eligibility;
use crate::{backoff, hash};

/// Seconds beyond all time-outs after which a Job ends by itself, should nobody be there to end it.
const GRACE_SECONDS: i64 = 600;

/// Jobs for what is missing, is not being pulled, and is not waiting for its next attempt.
pub(super) fn create(scope: &Scope<'_>, work: &mut Work<'_>) -> Vec<PullJob> {
    let Some(node) = scope.input.node else {
        return Vec::new();
    };
    let workable = scope.claimed.eligibility == Eligibility::Workable;
    if !workable || scope.cache.spec.suspend || scope.input.removing || is_rejected(scope, node, work) {
        return Vec::new();
    }
    let mut candidates = Vec::new();
    for image in scope.images {
        let settled = work.ready.contains(&key(image)) || work.active.contains(image.image.as_str());
        if settled || !scope.may_pull(image) {
            continue;
        }
        let failed = work.failed.get(image.image.as_str());
        if let (None, Some(until)) = (
            failed,
            scope.overflow_until.filter(|until| scope.input.now < *until),
        ) {
            work.wake_at = earliest(work.wake_at, until);
            continue;
        }
        if let Some(failed) = failed {
            if failed.state == ImageState::Skipped {
                continue;
            }
            let until = retry_at(scope, node, failed);
            if scope.input.now < until {
                work.wake_at = earliest(work.wake_at, until);
                continue;
            }
        }
        let unresolved = image.digest.is_none() && scope.cache.spec.resolve == Resolve::Central;
        let suspect = failed.is_some() || unresolved;
        candidates.push(Candidate {
            image,
            bytes: bytes(image, node),
            suspect,
        });
    }
    let limit = usize::try_from(scope.cache.spec.rollout.images_per_node).unwrap_or(1);
    let attempt = signed(scope.cache.spec.timeouts.attempt).as_secs();
    batches(candidates, limit.saturating_sub(work.pods))
        .into_iter()
        .map(|batch| PullJob {
            namespace: scope.claim.namespace.clone(),
            name: name(scope, work, &batch),
            cache: scope.claim.name.clone(),
            cache_uid: scope.claim.uid.clone(),
            revision: scope.claim.revision.clone(),
            node: node.name.clone(),
            node_uid: node.uid.clone(),
            deadline_seconds: attempt
                .saturating_mul(batch.len() as i64)
                .saturating_add(GRACE_SECONDS),
            images: batch.iter().map(|i| i.image.clone()).collect(),
        })
        .collect()
}

/// The API server refused the last pod, and it is too early to try again.
fn is_rejected(scope: &Scope<'_>, node: &NodeFacts, work: &mut Work<'_>) -> bool {
    let Some(rejection) = scope.input.rejections.get(&scope.claim.uid) else {
        return false;
    };
    let seed = backoff::seed(&[&node.uid, &scope.claim.uid]);
    let delay =
        backoff::delay(&scope.cache.spec.retry, None, rejection.attempts, seed).min(MAX_REJECTION_DELAY);
    let until = after(rejection.at, delay);
    if scope.input.now < until {
        work.wake_at = earliest(work.wake_at, until);
        return true;
    }
    false
}

/// When a failed image is tried again: after its delay, or at once if a refresh was asked for since.
fn retry_at(scope: &Scope<'_>, node: &NodeFacts, failed: &ImageOnNode) -> Timestamp {
    let since = failed.since.as_ref().map_or(Timestamp::MIN, |t| t.0);
    let refresh = scope.cache.status.as_ref().and_then(|s| s.last_refresh.as_ref());
    let asked = refresh.filter(|r| r.finished_at.is_none()).and_then(asked_at);
    if asked.is_some_and(|asked| asked.0 > since) {
        return since;
    }
    let seed = backoff::seed(&[&node.uid, &scope.claim.uid, &failed.image]);
    let delay = backoff::delay(
        &scope.cache.spec.retry,
        failed.reason,
        failed.attempts.max(1),
        seed,
    );
    // Never in the second of the failure: as far as whole seconds tell, it would be that of the Job that follows.
    after(since, delay).max(saturating(since, SignedDuration::from_secs(1)))
}

fn after(at: Timestamp, delay: std::time::Duration) -> Timestamp {
    saturating(at, SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX))
}

/// A hash of all that makes the Job what it is, so that the same decision made twice creates one Job.
fn name(scope: &Scope<'_>, work: &Work<'_>, batch: &[&RevisionImage]) -> String {
    let claim = scope.claim;
    let mut parts = vec![
        scope.input.node_uid.to_owned(),
        claim.uid.clone(),
        claim.revision.clone(),
        claim.assigned_at.0.to_string(),
        claim
            .verify_after
            .as_ref()
            .map(|t| t.0.to_string())
            .unwrap_or_default(),
        scope
            .input
            .rejections
            .get(&claim.uid)
            .map_or(0, |r| r.attempts)
            .to_string(),
    ];
    for image in batch {
        parts.push(image.image.clone());
        parts.push(
            work.failed
                .get(image.image.as_str())
                .map_or(0, |f| f.attempts)
                .to_string(),
        );
    }
    format!("larder-pull-{}", hash::short(parts.iter().map(String::as_str)))
}
