//! Reads one pull Job: what arrived, what failed, and whether the Job has anything left to do.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::image_cache::OnMissingPlatform;
use larder_api::names::Reason;
use larder_api::node_image_cache::{ImageOnNode, ImageState, ReportedDigest};
use larder_api::revision::RevisionImage;

use super::claim::{Scope, Work};
use super::job::JobView;
use super::known::key;
use super::pod::ContainerState;
use super::{NO_POD_AFTER, STUCK_AFTER};
use crate::image_ref::ImageRef;
use crate::plan::{earliest, saturating, signed};

/// What of a Job is still to come.
struct Rest<'a> {
    /// Wanted images of which nothing is known yet, in the order of the containers.
    pending: Vec<&'a str>,
    /// It would go on to pull what nobody wants any more.
    obsolete: bool,
    moved_at: Timestamp,
}

/// Reads a Job and says what becomes of it.
pub(super) fn read_job<'a>(scope: &Scope<'a>, job: &JobView, work: &mut Work<'a>) {
    let rest = read_containers(scope, job, work);
    if job.deleting {
        // Its pod may still be pulling: until it is gone nothing else begins on the same images.
        work.active.extend(rest.pending);
    } else if is_over(scope, job, &rest, work) {
        work.delete.push(job.key.clone());
    } else {
        keep(scope, job, rest, work);
    }
}

fn read_containers<'a>(scope: &Scope<'a>, job: &JobView, work: &mut Work<'a>) -> Rest<'a> {
    let of_job = scope
        .input
        .revisions
        .get(&(scope.claim.namespace.as_str(), job.revision.as_str()));
    let mut rest = Rest {
        pending: Vec::new(),
        obsolete: false,
        moved_at: job.pod.as_ref().map_or(job.created_at, |p| p.moved_at),
    };
    for (name, state) in job.states() {
        let Some(pulled) = of_job.and_then(|r| r.spec.spec.images.iter().find(|i| i.image == name)) else {
            continue;
        };
        let wanted = scope.by_name.get(name).copied().filter(|i| key(i) == key(pulled));
        match (state, wanted) {
            // What it showed was written before it was deleted, and may have been removed since.
            (ContainerState::Held { .. }, _) if job.deleting => {}
            // A tag that only nodes resolve: what was found before a refresh asked says nothing about now.
            (ContainerState::Held { .. }, _) if pulled.digest.is_none() && is_outdated(scope, job) => {}
            (ContainerState::Held { digest, repository }, _) => {
                work.ready.insert(key(pulled));
                if let Some(digest) = digest {
                    compare(scope, job, pulled, (repository.as_deref(), digest), work);
                }
            }
            (ContainerState::Failed { reason, message }, Some(image)) => {
                let since = fail(scope, job, image, *reason, message, work);
                rest.moved_at = rest.moved_at.max(since);
            }
            (ContainerState::Pending, Some(image)) if !work.ready.contains(&key(image)) => {
                rest.pending.push(image.image.as_str());
            }
            (ContainerState::Pending, None) => rest.obsolete = true,
            (ContainerState::Failed { .. }, None) | (ContainerState::Pending, Some(_)) => {}
        }
    }
    rest
}

fn is_outdated(scope: &Scope<'_>, job: &JobView) -> bool {
    scope
        .claim
        .verify_after
        .as_ref()
        .is_some_and(|after| job.created_at < after.0)
}

/// Whether the Job has nothing left to do. What it leaves undone is noted as failed where that is its own fault.
fn is_over<'a>(scope: &Scope<'a>, job: &JobView, rest: &Rest<'a>, work: &mut Work<'a>) -> bool {
    if rest.pending.is_empty() || rest.obsolete {
        return true;
    }
    let pending = rest
        .pending
        .iter()
        .filter_map(|name| scope.by_name.get(name).copied());
    if job.finished || job.pod.as_ref().is_some_and(|p| p.over) {
        let of_pod = job
            .pod
            .as_ref()
            .map(|p| p.message.as_str())
            .filter(|m| !m.is_empty());
        let words = of_pod.unwrap_or(&job.message);
        let reason = if words.to_ascii_lowercase().contains("deadline") {
            Reason::Timeout
        } else {
            Reason::RuntimeError
        };
        let words = if words.is_empty() {
            "the pull pod ended early"
        } else {
            words
        };
        for image in pending {
            fail(scope, job, image, reason, words, work);
        }
        return true;
    }
    if !scope.node_ready() {
        return false;
    }
    if job.pod.is_none() {
        // Refused: the next dry run brings the API server's words.
        let until = saturating(job.created_at, NO_POD_AFTER);
        work.wake_at = earliest(work.wake_at, until);
        return scope.input.now >= until;
    }
    let until = saturating(rest.moved_at, signed(scope.cache.spec.timeouts.attempt));
    if scope.input.now < until {
        work.wake_at = earliest(work.wake_at, until);
        return false;
    }
    // Containers are pulled one after another, so the first is the one that did not end.
    for image in pending.take(1) {
        fail(
            scope,
            job,
            image,
            Reason::Timeout,
            "no end of the pull within timeouts.attempt",
            work,
        );
    }
    true
}

/// The Job goes on. Where its first image hangs, the images behind it may begin in another pod.
fn keep<'a>(scope: &Scope<'a>, job: &JobView, rest: Rest<'a>, work: &mut Work<'a>) {
    work.pods += 1;
    if let Some(blocked) = job.pod.as_ref().and_then(|p| p.blocked.clone()) {
        work.blocked = Some(blocked);
    } else if rest.pending.len() > 1 && scope.node_ready() && job.pod.is_some() {
        let stuck_at = saturating(rest.moved_at, STUCK_AFTER);
        if scope.input.now >= stuck_at {
            work.active.extend(rest.pending.first());
            return;
        }
        work.wake_at = earliest(work.wake_at, stuck_at);
    }
    work.active.extend(rest.pending);
}

/// Notes a failure, counted once for each Job; returns when it was first seen.
fn fail<'a>(
    scope: &Scope<'a>,
    job: &JobView,
    image: &'a RevisionImage,
    reason: Reason,
    message: &str,
    work: &mut Work<'a>,
) -> Timestamp {
    let skip = reason == Reason::NoMatchingPlatform
        && scope.cache.spec.on_missing_platform == OnMissingPlatform::Skip;
    let old = work.failed.get(image.image.as_str());
    let counted = old
        .and_then(|o| o.since.as_ref())
        .map(|t| t.0)
        .filter(|since| *since >= job.created_at);
    let attempts = old.map_or(0, |o| o.attempts) + i32::from(counted.is_none());
    let since = counted.unwrap_or(scope.input.now);
    let failure = ImageOnNode {
        cache: scope.cache_key(),
        image: image.image.clone(),
        digest: image.digest.clone(),
        state: if skip {
            ImageState::Skipped
        } else {
            ImageState::Failed
        },
        reason: Some(reason),
        message: message.to_owned(),
        attempts,
        since: Some(Time(since)),
        ..ImageOnNode::default()
    };
    work.failed.insert(image.image.as_str(), failure);
    since
}

/// Compares what the kubelet names with what the revision says.
fn compare(
    scope: &Scope<'_>,
    job: &JobView,
    image: &RevisionImage,
    (repository, digest): (Option<&str>, &str),
    work: &mut Work<'_>,
) {
    let Some(wanted) = &image.digest else {
        work.reported.retain(|r| r.image != image.image);
        let reference = image.image.parse::<ImageRef>();
        // Another repository may have another digest for the same content, so this one says nothing of the tag.
        if reference.is_ok_and(|r| Some(r.name()) == repository) {
            work.reported.insert(ReportedDigest {
                image: image.image.clone(),
                digest: digest.to_owned(),
            });
        }
        return;
    };
    let fits = wanted == digest || image.platforms.iter().any(|p| p.digest == digest);
    // The kubelet names the first of all digests that the runtime knows for the same configuration, so another one
    // proves nothing; but a tag may have moved, and one newer resolution tells.
    if !fits && !image.image.contains('@') {
        let claim = scope.claim;
        // Jobs tell their moment in whole seconds, and what was known in that second was known before.
        let made_by = saturating(job.created_at, SignedDuration::from_secs(1));
        let again = (
            claim.namespace.clone(),
            claim.name.clone(),
            image.image.clone(),
            made_by,
        );
        work.resolve_again.push(again);
    }
}
