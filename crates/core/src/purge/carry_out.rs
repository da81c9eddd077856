//! The Jobs of one removal, one after another, and what they come to.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::node_image_cache::{CacheClaim, CacheOnNode, Desired, NodeState};

use super::{
    BEGIN_WITHIN, Claims, END_WITHIN, MAX_ENTRIES, PurgeDecision, PurgeInput, PurgeJob, PurgeJobView,
    RETRY_AFTER,
};
use crate::message::{redact, shorten};
use crate::plan::{earliest, saturating};
use crate::pull::JobKey;
use crate::removal::{PurgeEntry, PurgeReport};

/// Goes on with the removal for one claim.
pub(super) fn carry_out(
    input: &PurgeInput<'_>,
    claims: &Claims<'_>,
    claim: &CacheClaim,
    entries: &[PurgeEntry],
    mut next: CacheOnNode,
    used: &mut BTreeSet<JobKey>,
    decision: &mut PurgeDecision,
) {
    let work = claims.work(claim, entries);
    let mut sum = PurgeReport::default();
    for (i, chunk) in entries.chunks(MAX_ENTRIES).enumerate() {
        let part = format!("{work}-{i}");
        let job = input
            .jobs
            .iter()
            .find(|j| j.work == part && j.node_uid == input.node_uid);
        if let Some(job) = job {
            used.insert(job.key.clone());
        }
        match job {
            Some(job) if job.report.is_some() && !job.deleting => {
                if let Some(report) = &job.report {
                    sum.add(report);
                }
            }
            Some(job) => {
                wait(input, job, &mut next, decision);
                decision.caches.push(next);
                return;
            }
            None => {
                begin(input, claims, part, chunk, &next, decision);
                decision.caches.push(next);
                return;
            }
        }
    }
    // Every part has reported.
    used.retain(|key| {
        !input
            .jobs
            .iter()
            .any(|j| j.key == *key && j.work.starts_with(&work))
    });
    if let Some(error) = failure(&sum) {
        next.removal_error = error;
        next.removal_error_at = Some(Time(input.now));
        decision.wake_at = earliest(decision.wake_at, saturating(input.now, RETRY_AFTER));
    } else {
        gone(&mut next, claim, &sum, input.now);
    }
    decision.caches.push(next);
}

/// In words what the runtime refused to remove; none if nothing.
pub(crate) fn failure(sum: &PurgeReport) -> Option<String> {
    if sum.failed == 0 {
        return None;
    }
    let words = sum
        .outcomes
        .first()
        .map(|o| format!(": {}: {}", o.reference, o.message))
        .unwrap_or_default();
    let text = format!("{} could not be removed{words}", sum.failed);
    Some(shorten(&redact(&text), 256))
}

/// The state of a claim after a removal that went through.
pub(crate) fn gone(next: &mut CacheOnNode, claim: &CacheClaim, sum: &PurgeReport, now: Timestamp) {
    next.removed = sum.removed;
    next.in_use = sum.in_use;
    next.foreign = sum.foreign;
    next.shared = sum.shared;
    next.removal_error.clear();
    next.removal_error_at = None;
    match claim.desired {
        Desired::Absent => {
            next.state = NodeState::Purged;
            next.since = Some(Time(now));
            next.reason = None;
            next.message = sum.summary();
            next.held.clear();
            next.reported.clear();
            (next.ready, next.total, next.skipped, next.bytes) = (0, 0, 0, 0);
            next.checked_at = None;
            next.removed_revisions.clear();
        }
        Desired::Present => {
            next.removed_revisions.clone_from(&claim.remove_revisions);
            next.held.retain(|r| !claim.remove_revisions.contains(r));
        }
    }
}

/// A part whose Job exists and has not reported.
fn wait(input: &PurgeInput<'_>, job: &PurgeJobView, next: &mut CacheOnNode, decision: &mut PurgeDecision) {
    if job.deleting {
        return;
    }
    let begin_by = saturating(job.created_at, BEGIN_WITHIN);
    let end_by = saturating(job.created_at, END_WITHIN);
    let late = (!job.begun && input.now >= begin_by) || input.now >= end_by;
    if job.over || (late && input.node_ready) {
        next.removal_error = job
            .error
            .clone()
            .unwrap_or_else(|| "the purge pod did not start or end in time".to_owned());
        next.removal_error_at = Some(Time(input.now));
        decision.delete.push(job.key.clone());
        decision.wake_at = earliest(decision.wake_at, saturating(input.now, RETRY_AFTER));
    } else if input.node_ready {
        decision.wake_at = earliest(decision.wake_at, if job.begun { end_by } else { begin_by });
    }
}

/// A part without a Job.
fn begin(
    input: &PurgeInput<'_>,
    claims: &Claims<'_>,
    work: String,
    entries: &[PurgeEntry],
    next: &CacheOnNode,
    decision: &mut PurgeDecision,
) {
    if !input.node_ready {
        return;
    }
    if let Some(failed) = &next.removal_error_at {
        let until = saturating(failed.0, RETRY_AFTER);
        if input.now < until {
            decision.wake_at = earliest(decision.wake_at, until);
            return;
        }
    }
    // One at a time: whether a name is shared is judged by the entries of the same Job.
    if input.jobs.iter().all(|j| j.report.is_some() || j.over) && decision.create.is_empty() {
        decision.create.push(PurgeJob {
            name: format!("larder-purge-{work}"),
            work,
            node: input.node.to_owned(),
            node_uid: input.node_uid.to_owned(),
            entries: entries.to_vec(),
            keep: claims.sharing(entries),
        });
    }
}
