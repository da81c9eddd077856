//! The decision for one cache's pulls on one node.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::ImageCache;
use larder_api::image_cache::{OnMissingPlatform, Resolve, RetrySpec};
use larder_api::names::Reason;
use larder_api::node_image_cache::{
    CacheClaim, CacheOnNode, ImageOnNode, ImageState, NodeState, ReportedDigest,
};
use larder_api::revision::RevisionImage;

use super::batch::{Candidate, batches};
use super::decide::{ClaimInput, PullInput, PullJob};
use super::job::{JobKey, JobView};
use super::known::{ImageKey, key, known};
use super::pod::ContainerState;
use super::{MAX_REJECTION_DELAY, NO_POD_AFTER, STUCK_AFTER};
use crate::backoff;
use crate::facts::NodeFacts;
use crate::hash;
use crate::plan::{earliest, saturating, signed};
use crate::select::Eligibility;

/// Revisions that a node's status remembers as held whole.
const MAX_HELD: usize = 4;

/// The part of the decision that is about one claim.
pub(super) struct ClaimDecision {
    pub(super) on_node: CacheOnNode,
    pub(super) images: Vec<ImageOnNode>,
    pub(super) create: Vec<PullJob>,
    pub(super) delete: Vec<JobKey>,
    pub(super) resolve_again: Vec<(String, String, String, Timestamp)>,
    pub(super) wake_at: Option<Timestamp>,
}

/// What is learned about the images while the Jobs are read.
struct Work<'a> {
    /// Images held.
    ready: BTreeSet<ImageKey>,
    /// Images that failed or are skipped, by reference.
    failed: BTreeMap<&'a str, ImageOnNode>,
    /// References that a Job is at work on.
    active: BTreeSet<&'a str>,
    /// Jobs that count towards the limit.
    pods: usize,
    /// Something that keeps pods from starting at all.
    blocked: Option<(Option<Reason>, String)>,
    reported: BTreeSet<ReportedDigest>,
    delete: Vec<JobKey>,
    resolve_again: Vec<(String, String, String, Timestamp)>,
    wake_at: Option<Timestamp>,
}

pub(super) fn decide_claim(input: &PullInput<'_>, c: &ClaimInput<'_>, jobs: &[&JobView]) -> ClaimDecision {
    let claim = c.claim;
    let cache_key = format!("{}/{}", claim.namespace, claim.name);
    let previous = input
        .previous
        .and_then(|p| p.caches.iter().find(|o| o.uid == claim.uid));
    let listed: Vec<&ImageOnNode> = input
        .previous
        .iter()
        .flat_map(|p| &p.images)
        .filter(|i| i.cache == cache_key)
        .collect();

    let (Some(revision), Some(cache)) = (c.revision, c.cache) else {
        return missing(input.now, claim, previous, &listed, jobs);
    };
    let images = revision.spec.spec.images.as_slice();
    let omitted = input.previous.is_some_and(|p| p.images_omitted > 0);
    let verifying = previous.is_some_and(|p| {
        claim
            .verify_after
            .as_ref()
            .is_some_and(|after| p.checked_at.as_ref().is_some_and(|c| c.0 < after.0))
    });
    let mut work = Work {
        ready: known(claim, previous, &listed, omitted, input.revisions),
        failed: BTreeMap::new(),
        active: BTreeSet::new(),
        pods: 0,
        blocked: None,
        reported: previous.iter().flat_map(|p| &p.reported).cloned().collect(),
        delete: Vec::new(),
        resolve_again: Vec::new(),
        wake_at: None,
    };
    let by_name: BTreeMap<&str, &RevisionImage> = images.iter().map(|i| (i.image.as_str(), i)).collect();
    for old in &listed {
        // A failure is remembered for as long as the very same image is wanted.
        if let Some(image) = by_name.get(old.image.as_str())
            && old.digest == image.digest
            && matches!(old.state, ImageState::Failed | ImageState::Skipped)
            && !work.ready.contains(&key(image))
        {
            work.failed.insert(image.image.as_str(), (*old).clone());
        }
    }
    let node_ready = input.node.is_some_and(|n| n.ready);
    for job in jobs {
        read_job(input, c, cache, &by_name, job, node_ready, &mut work);
    }
    work.failed
        .retain(|name, _| by_name.get(name).is_none_or(|i| !work.ready.contains(&key(i))));

    let create = create(input, c, cache, images, &mut work);
    report(
        input, c, cache, &cache_key, images, previous, verifying, work, create,
    )
}

/// Nothing can be decided: what the node holds is left alone, Jobs are ended, the state says why.
fn missing(
    now: Timestamp,
    claim: &CacheClaim,
    previous: Option<&CacheOnNode>,
    listed: &[&ImageOnNode],
    jobs: &[&JobView],
) -> ClaimDecision {
    let mut on_node = previous.cloned().unwrap_or_default();
    on_node.namespace.clone_from(&claim.namespace);
    on_node.name.clone_from(&claim.name);
    on_node.uid.clone_from(&claim.uid);
    if on_node.reason != Some(Reason::RevisionMissing) {
        on_node.since = Some(Time(now));
    }
    on_node.state = NodeState::Failed;
    on_node.reason = Some(Reason::RevisionMissing);
    on_node.message = format!("revision {} cannot be read", claim.revision);
    ClaimDecision {
        on_node,
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

fn read_job<'a>(
    input: &PullInput<'_>,
    c: &ClaimInput<'_>,
    cache: &ImageCache,
    by_name: &BTreeMap<&'a str, &'a RevisionImage>,
    job: &JobView,
    node_ready: bool,
    work: &mut Work<'a>,
) {
    let claim = c.claim;
    let of_job = input
        .revisions
        .get(&(claim.namespace.as_str(), job.revision.as_str()));
    let mut pending: Vec<&'a str> = Vec::new();
    let mut obsolete = false;
    let mut moved_at = job.pod.as_ref().map_or(job.created_at, |p| p.moved_at);
    for (name, state) in job.states() {
        let Some(pulled) = of_job.and_then(|r| r.spec.spec.images.iter().find(|i| i.image == name)) else {
            continue;
        };
        let wanted = by_name.get(name).copied().filter(|i| key(i) == key(pulled));
        match state {
            ContainerState::Held { digest } => {
                work.ready.insert(key(pulled));
                compare(claim, job, pulled, digest.as_deref(), work);
            }
            ContainerState::Failed { reason, message } => {
                if let Some(image) = wanted {
                    let since = fail(input.now, cache, claim, image, job, *reason, message, work);
                    moved_at = moved_at.max(since);
                }
            }
            ContainerState::Pending => match wanted {
                Some(image) if !work.ready.contains(&key(image)) => pending.push(image.image.as_str()),
                Some(_) => {}
                None => obsolete = true,
            },
        }
    }
    if job.deleting {
        // Its pod may still be pulling: until it is gone nothing else begins on the same images.
        work.active.extend(pending);
        return;
    }
    let over = job.finished || job.pod.as_ref().is_some_and(|p| p.over);
    let mut end = pending.is_empty() || obsolete;
    if !end && over {
        let words = job
            .pod
            .as_ref()
            .map(|p| p.message.as_str())
            .filter(|m| !m.is_empty())
            .unwrap_or(&job.message);
        let (reason, words) = if words.contains("DeadlineExceeded") || words.contains("deadline") {
            (Reason::Timeout, words)
        } else {
            (
                Reason::RuntimeError,
                if words.is_empty() {
                    "the pull pod ended early"
                } else {
                    words
                },
            )
        };
        for name in &pending {
            if let Some(image) = by_name.get(name) {
                fail(input.now, cache, claim, image, job, reason, words, work);
            }
        }
        end = true;
    }
    if !end && node_ready {
        let attempt = signed(cache.spec.timeouts.attempt);
        if job.pod.is_none() {
            let until = saturating(job.created_at, NO_POD_AFTER);
            if input.now >= until {
                // The next dry run brings the API server's words.
                end = true;
            } else {
                work.wake_at = earliest(work.wake_at, until);
            }
        } else if input.now >= saturating(moved_at, attempt) {
            if let Some(image) = pending.first().and_then(|name| by_name.get(name)) {
                let words = "no end of the pull within timeouts.attempt";
                fail(input.now, cache, claim, image, job, Reason::Timeout, words, work);
            }
            end = true;
        } else {
            work.wake_at = earliest(work.wake_at, saturating(moved_at, attempt));
        }
    }
    if end {
        work.delete.push(job.key.clone());
        return;
    }
    work.pods += 1;
    if let Some(blocked) = job.pod.as_ref().and_then(|p| p.blocked.clone()) {
        work.blocked = Some(blocked);
        work.active.extend(pending);
        return;
    }
    let stuck_at = saturating(moved_at, STUCK_AFTER);
    if pending.len() > 1 && node_ready && job.pod.is_some() {
        if input.now >= stuck_at {
            // The images behind the one that hangs may go on in another pod.
            work.active.extend(pending.first());
            return;
        }
        work.wake_at = earliest(work.wake_at, stuck_at);
    }
    work.active.extend(pending);
}

/// Notes a failure once for each Job; returns when it was first seen.
#[allow(
    clippy::too_many_arguments,
    reason = "one call site's worth of context, spelled out"
)]
fn fail<'a>(
    now: Timestamp,
    cache: &ImageCache,
    claim: &CacheClaim,
    image: &'a RevisionImage,
    job: &JobView,
    reason: Reason,
    message: &str,
    work: &mut Work<'a>,
) -> Timestamp {
    let skip =
        reason == Reason::NoMatchingPlatform && cache.spec.on_missing_platform == OnMissingPlatform::Skip;
    let state = if skip {
        ImageState::Skipped
    } else {
        ImageState::Failed
    };
    let old = work.failed.get(image.image.as_str());
    let counted = old
        .and_then(|o| o.since.as_ref())
        .map(|t| t.0)
        .filter(|since| *since >= job.created_at);
    let attempts = old.map_or(0, |o| o.attempts) + i32::from(counted.is_none());
    let since = counted.unwrap_or(now);
    work.failed.insert(
        image.image.as_str(),
        ImageOnNode {
            cache: format!("{}/{}", claim.namespace, claim.name),
            image: image.image.clone(),
            digest: image.digest.clone(),
            state,
            reason: Some(reason),
            message: message.to_owned(),
            attempts,
            since: Some(Time(since)),
        },
    );
    since
}

/// Compares what the kubelet names with what the revision says.
fn compare(
    claim: &CacheClaim,
    job: &JobView,
    image: &RevisionImage,
    digest: Option<&str>,
    work: &mut Work<'_>,
) {
    let Some(digest) = digest else { return };
    let Some(wanted) = &image.digest else {
        work.reported.retain(|r| r.image != image.image);
        work.reported.insert(ReportedDigest {
            image: image.image.clone(),
            digest: digest.to_owned(),
        });
        return;
    };
    let fits = wanted == digest || image.platforms.iter().any(|p| p.digest == digest);
    // The kubelet names the first of all digests that the runtime knows for the same configuration, so another one
    // proves nothing; but a tag may have moved, and one newer resolution tells.
    if !fits && !image.image.contains('@') {
        let again = (
            claim.namespace.clone(),
            claim.name.clone(),
            image.image.clone(),
            job.created_at,
        );
        work.resolve_again.push(again);
    }
}

fn create(
    input: &PullInput<'_>,
    c: &ClaimInput<'_>,
    cache: &ImageCache,
    images: &[RevisionImage],
    work: &mut Work<'_>,
) -> Vec<PullJob> {
    let Some(node) = input.node else { return Vec::new() };
    if c.eligibility != Eligibility::Workable || cache.spec.suspend || input.removing {
        return Vec::new();
    }
    if let Some(rejection) = input.rejections.get(&c.claim.uid) {
        let seed = backoff::seed(&[&node.uid, &c.claim.uid]);
        let delay =
            backoff::delay(&cache.spec.retry, None, rejection.attempts, seed).min(MAX_REJECTION_DELAY);
        let until = saturating(
            rejection.at,
            SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX),
        );
        if input.now < until {
            work.wake_at = earliest(work.wake_at, until);
            return Vec::new();
        }
    }
    let mut candidates = Vec::new();
    for image in images {
        if work.ready.contains(&key(image)) || work.active.contains(image.image.as_str()) {
            continue;
        }
        let failed = work.failed.get(image.image.as_str());
        match failed {
            Some(f) if f.state == ImageState::Skipped => continue,
            Some(f) => {
                let until = retry_at(&cache.spec.retry, node, c.claim, f);
                if input.now < until {
                    work.wake_at = earliest(work.wake_at, until);
                    continue;
                }
            }
            None => {}
        }
        let unresolved = image.digest.is_none() && cache.spec.resolve == Resolve::Central;
        candidates.push(Candidate {
            image,
            bytes: bytes(image, node),
            suspect: failed.is_some() || unresolved,
        });
    }
    let limit = usize::try_from(cache.spec.rollout.images_per_node).unwrap_or(1);
    let attempt = signed(cache.spec.timeouts.attempt).as_secs();
    batches(candidates, limit.saturating_sub(work.pods))
        .into_iter()
        .map(|batch| {
            let images: Vec<String> = batch.iter().map(|i| i.image.clone()).collect();
            PullJob {
                namespace: c.claim.namespace.clone(),
                name: name(input, c, work, &batch),
                cache: c.claim.name.clone(),
                cache_uid: c.claim.uid.clone(),
                revision: c.claim.revision.clone(),
                node: node.name.clone(),
                node_uid: node.uid.clone(),
                deadline_seconds: attempt.saturating_mul(batch.len() as i64).saturating_add(600),
                images,
            }
        })
        .collect()
}

/// When a failed image is tried again.
fn retry_at(retry: &RetrySpec, node: &NodeFacts, claim: &CacheClaim, failed: &ImageOnNode) -> Timestamp {
    let seed = backoff::seed(&[&node.uid, &claim.uid, &failed.image]);
    let delay = backoff::delay(retry, failed.reason, failed.attempts.max(1), seed);
    let since = failed.since.as_ref().map_or(Timestamp::MIN, |t| t.0);
    saturating(
        since,
        SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX),
    )
}

/// A hash of all that makes the Job what it is, so that the same decision made twice creates one Job.
fn name(input: &PullInput<'_>, c: &ClaimInput<'_>, work: &Work<'_>, batch: &[&RevisionImage]) -> String {
    let mut parts = vec![
        input.node_uid.to_owned(),
        c.claim.uid.clone(),
        c.claim.revision.clone(),
        c.claim.assigned_at.0.to_string(),
        c.claim
            .verify_after
            .as_ref()
            .map(|t| t.0.to_string())
            .unwrap_or_default(),
        input
            .rejections
            .get(&c.claim.uid)
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

/// Compressed bytes of the image on the node's platform; zero where unknown.
fn bytes(image: &RevisionImage, node: &NodeFacts) -> i64 {
    image
        .platforms
        .iter()
        .filter(|p| p.os == node.os && p.architecture == node.architecture)
        .map(|p| p.size_bytes)
        .max()
        .unwrap_or(0)
}

#[allow(
    clippy::too_many_arguments,
    reason = "one call site's worth of context, spelled out"
)]
fn report(
    input: &PullInput<'_>,
    c: &ClaimInput<'_>,
    cache: &ImageCache,
    cache_key: &str,
    images: &[RevisionImage],
    previous: Option<&CacheOnNode>,
    verifying: bool,
    work: Work<'_>,
    create: Vec<PullJob>,
) -> ClaimDecision {
    let claim = c.claim;
    let mut list = Vec::new();
    let (mut ready, mut skipped, mut failed, mut outstanding, mut total_bytes) = (0, 0, 0, 0, 0);
    for image in images {
        if work.ready.contains(&key(image)) {
            ready += 1;
            total_bytes += input.node.map_or(0, |n| bytes(image, n));
            continue;
        }
        if let Some(f) = work.failed.get(image.image.as_str()) {
            if f.state == ImageState::Skipped {
                skipped += 1;
            } else {
                failed += 1;
            }
            list.push(f.clone());
            continue;
        }
        outstanding += 1;
        list.push(ImageOnNode {
            cache: cache_key.to_owned(),
            image: image.image.clone(),
            digest: image.digest.clone(),
            ..ImageOnNode::default()
        });
    }
    let whole = failed == 0 && outstanding == 0;
    let rejection = input.rejections.get(&claim.uid);
    let (state, reason, message) = if whole {
        (NodeState::Ready, None, String::new())
    } else if let Some(rejection) = rejection {
        (
            NodeState::Failed,
            Some(Reason::PodRejected),
            rejection.message.clone(),
        )
    } else if let Some((reason, message)) = work.blocked.clone() {
        let state = if reason.is_some() {
            NodeState::Failed
        } else {
            NodeState::Pulling
        };
        (state, reason, message)
    } else if failed > 0 && outstanding == 0 {
        let noun = if failed == 1 { "image" } else { "images" };
        (NodeState::Failed, None, format!("{failed} {noun} failed"))
    } else if cache.spec.suspend {
        (NodeState::Waiting, None, "suspended".to_owned())
    } else {
        (NodeState::Pulling, None, String::new())
    };
    let same_revision = previous.is_some_and(|p| p.revision == claim.revision);
    let since = previous
        .filter(|p| p.state == state && same_revision)
        .and_then(|p| p.since.clone());
    let checked_at = if whole {
        let was_ready = previous.is_some_and(|p| p.state == NodeState::Ready);
        let settled_before = (same_revision && was_ready && !verifying)
            || (!same_revision && previous.is_some_and(|p| p.held.contains(&claim.revision)));
        previous
            .and_then(|p| p.checked_at.clone())
            .filter(|_| settled_before)
            .or(Some(Time(input.now)))
    } else if verifying {
        None
    } else {
        previous
            .and_then(|p| p.checked_at.clone())
            .filter(|_| same_revision)
    };
    let mut held: Vec<String> = previous.map(|p| p.held.clone()).unwrap_or_default();
    if verifying && !whole {
        held.clear();
    }
    if whole {
        held.retain(|r| *r != claim.revision);
        held.insert(0, claim.revision.clone());
        held.truncate(MAX_HELD);
    }
    let undigested: BTreeSet<&str> = images
        .iter()
        .filter(|i| i.digest.is_none())
        .map(|i| i.image.as_str())
        .collect();
    ClaimDecision {
        on_node: CacheOnNode {
            namespace: claim.namespace.clone(),
            name: claim.name.clone(),
            uid: claim.uid.clone(),
            revision: claim.revision.clone(),
            held,
            state,
            reason,
            message,
            since: since.or(Some(Time(input.now))),
            ready,
            total: images.len() as i32 - skipped,
            skipped,
            bytes: total_bytes,
            checked_at,
            removed_revisions: previous
                .iter()
                .flat_map(|p| &p.removed_revisions)
                .filter(|r| claim.remove_revisions.contains(r))
                .cloned()
                .collect(),
            removed: previous.map_or(0, |p| p.removed),
            in_use: previous.map_or(0, |p| p.in_use),
            foreign: previous.map_or(0, |p| p.foreign),
            shared: previous.map_or(0, |p| p.shared),
            reported: work
                .reported
                .into_iter()
                .filter(|r| undigested.contains(r.image.as_str()))
                .collect(),
            ..previous.map(removal_failure).unwrap_or_default()
        },
        images: list,
        create,
        delete: work.delete,
        resolve_again: work.resolve_again,
        wake_at: work.wake_at,
    }
}

fn removal_failure(previous: &CacheOnNode) -> CacheOnNode {
    CacheOnNode {
        removal_error: previous.removal_error.clone(),
        removal_error_at: previous.removal_error_at.clone(),
        ..CacheOnNode::default()
    }
}
