//! Removing images from a node by one-shot Jobs: which entries, in which Jobs, and what their reports say.
//!
//! To remove are the images of claims that are Absent and of removed revisions, less everything that a claim on the
//! node still wants. What is foreign, in use or shared is decided on the node, at the moment of removal.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::ImageCacheRevision;
use larder_api::image_cache::Removal;
use larder_api::names::{NODE_UID_ANNOTATION, WORK_ANNOTATION};
use larder_api::node_image_cache::{CacheClaim, CacheOnNode, Desired, ImageOnNode, NodeState};

use crate::image_ref::ImageRef;
use crate::message::{redact, shorten};
use crate::plan::{Revisions, earliest, saturating};
use crate::pull::{JobKey, read_pod};
use crate::removal::{PurgeEntry, PurgeReport};

/// Entries of one Job.
pub const MAX_ENTRIES: usize = 100;
/// A removal that failed is repeated after this long.
pub const RETRY_AFTER: SignedDuration = SignedDuration::from_secs(30);
/// A Job that has not begun after this long is given up for a while, so that pulls are not held up by it.
pub const BEGIN_WITHIN: SignedDuration = SignedDuration::from_secs(30);
/// A Job that has not ended after this long is given up.
pub const END_WITHIN: SignedDuration = SignedDuration::from_secs(600);

/// A purge Job, as the decision sees it.
#[derive(Clone, Debug)]
pub struct PurgeJobView {
    /// Which.
    pub key: JobKey,
    /// What it carries out: [`PurgeJob::work`].
    pub work: String,
    /// UID of the node that it was made for.
    pub node_uid: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// It is being deleted.
    pub deleting: bool,
    /// Its container has started.
    pub begun: bool,
    /// What it reported.
    pub report: Option<PurgeReport>,
    /// Why it failed, or what keeps it from starting.
    pub error: Option<String>,
    /// It has ended.
    pub over: bool,
}

impl PurgeJobView {
    /// Reads a Job and the newest of its pods. None if it lacks what every purge Job carries.
    pub fn read(job: &Job, pods: &[&Pod]) -> Option<Self> {
        let annotation = |key: &str| job.metadata.annotations.as_ref()?.get(key).cloned();
        let created_at = job.metadata.creation_timestamp.as_ref()?.0;
        let pod = pods
            .iter()
            .max_by_key(|p| p.metadata.creation_timestamp.as_ref().map(|t| t.0));
        let status = pod.and_then(|p| p.status.as_ref());
        let container = status.and_then(|s| s.container_statuses.as_ref()?.first());
        let state = container.and_then(|c| c.state.as_ref());
        let ended = state.and_then(|s| s.terminated.as_ref());
        let words = ended.and_then(|t| t.message.as_deref()).unwrap_or_default();
        let report = ended
            .filter(|t| t.exit_code == 0)
            .and_then(|_| serde_json::from_str(words).ok());
        let failed_job = job
            .status
            .iter()
            .flat_map(|s| s.conditions.iter().flatten())
            .find(|c| c.type_ == "Failed" && c.status == "True");
        let over = ended.is_some() || failed_job.is_some();
        let error = if report.is_some() {
            None
        } else if let Some(ended) = ended {
            let reason = ended.reason.as_deref().unwrap_or("Error");
            Some(format!(
                "the purge pod ended with {} ({reason}): {}",
                ended.exit_code,
                error_words(words)
            ))
        } else if let Some(pod) = pod {
            let waiting = state
                .and_then(|s| s.waiting.as_ref())
                .and_then(|w| w.message.clone());
            let view = read_pod(pod, 0, created_at);
            waiting
                .or(view.blocked)
                .or(Some(view.message).filter(|m| !m.is_empty()))
        } else {
            failed_job.and_then(|c| c.message.clone())
        };
        Some(Self {
            key: JobKey {
                namespace: job.metadata.namespace.clone()?,
                name: job.metadata.name.clone()?,
                uid: job.metadata.uid.clone().unwrap_or_default(),
            },
            work: annotation(WORK_ANNOTATION)?,
            node_uid: annotation(NODE_UID_ANNOTATION)?,
            created_at,
            deleting: job.metadata.deletion_timestamp.is_some(),
            begun: state.is_some_and(|s| s.running.is_some()) || ended.is_some(),
            report,
            error: error.map(|e| shorten(&redact(&e), 256)),
            over,
        })
    }
}

/// The agent reports failures as `{"error": "…"}`.
fn error_words(message: &str) -> String {
    serde_json::from_str::<serde_json::Value>(message)
        .ok()
        .and_then(|v| v.get("error")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| message.to_owned())
}

/// A purge Job to create.
#[derive(Clone, Debug, PartialEq)]
pub struct PurgeJob {
    /// Name.
    pub name: String,
    /// Hash of all entries of the removal that this Job is a part of, and its number: kept in an annotation.
    pub work: String,
    /// Name of the node.
    pub node: String,
    /// UID of the node.
    pub node_uid: String,
    /// At most [`MAX_ENTRIES`].
    pub entries: Vec<PurgeEntry>,
    /// Normalised references that claims on the node want and that may share content with an entry: their names stay.
    pub keep: Vec<String>,
}

/// What a node's removals are decided from.
#[derive(Debug)]
pub struct PurgeInput<'a> {
    /// The moment.
    pub now: Timestamp,
    /// Name of the node.
    pub node: &'a str,
    /// UID in the spec of the node's object.
    pub node_uid: &'a str,
    /// The node is Ready.
    pub node_ready: bool,
    /// Every claim on the node.
    pub claims: &'a [CacheClaim],
    /// State of every claim as decided so far: of Present ones by the pulls, of others as last written.
    pub on_node: &'a [CacheOnNode],
    /// Images that are not ready.
    pub not_ready: &'a [ImageOnNode],
    /// UIDs of the caches whose pull pods still exist on the node.
    pub pulling: BTreeSet<String>,
    /// Every purge Job for the node.
    pub jobs: Vec<PurgeJobView>,
    /// Every revision.
    pub revisions: &'a Revisions<'a>,
}

/// What to do.
#[derive(Debug, Default)]
pub struct PurgeDecision {
    /// New state of the claims that have something to remove or had.
    pub caches: Vec<CacheOnNode>,
    /// Jobs to create, after the status has been written.
    pub create: Vec<PurgeJob>,
    /// Jobs to delete, after the status has been written.
    pub delete: Vec<JobKey>,
    /// When time alone changes the decision.
    pub wake_at: Option<Timestamp>,
}

/// Decides.
pub fn decide(input: &PurgeInput<'_>) -> PurgeDecision {
    let mut decision = PurgeDecision::default();
    let mut used = BTreeSet::new();
    for claim in input.claims {
        let current = input.on_node.iter().find(|o| o.uid == claim.uid);
        let Some(entries) = due(input, claim, current) else {
            continue;
        };
        let mut next = current.cloned().unwrap_or_default();
        next.namespace.clone_from(&claim.namespace);
        next.name.clone_from(&claim.name);
        next.uid.clone_from(&claim.uid);
        if claim.desired == Desired::Absent && next.state != NodeState::Purging {
            next = CacheOnNode {
                state: NodeState::Purging,
                since: Some(Time(input.now)),
                ..next
            };
            (next.reason, next.ready, next.total, next.skipped, next.bytes) = (None, 0, 0, 0, 0);
            // From here on nothing proves anything: a Job may remove images whose report nobody waits for.
            (next.checked_at, next.held) = (None, Vec::new());
            next.missing.clear();
            next.message.clear();
            next.revision.clone_from(&claim.revision);
        }
        if input.pulling.contains(&claim.uid) {
            // Its pull pods end first, else the kubelet may bring back what goes.
            decision.caches.push(next);
            continue;
        }
        carry_out(input, claim, &entries, next, &mut used, &mut decision);
    }
    forget(input, &mut decision);
    for job in input
        .jobs
        .iter()
        .filter(|j| !j.deleting && !used.contains(&j.key))
    {
        if !decision.delete.contains(&job.key) {
            decision.delete.push(job.key.clone());
        }
    }
    decision
}

/// Before a Job is created: no cache of the node goes on to count on a revision that the Job takes images from.
fn forget(input: &PurgeInput<'_>, decision: &mut PurgeDecision) {
    let going: BTreeSet<&str> = decision
        .create
        .iter()
        .flat_map(|j| &j.entries)
        .map(|e| e.reference.as_str())
        .collect();
    if going.is_empty() {
        return;
    }
    for claim in input.claims {
        let known = decision.caches.iter().find(|c| c.uid == claim.uid);
        let Some(current) = known.or_else(|| input.on_node.iter().find(|c| c.uid == claim.uid)) else {
            continue;
        };
        let mut next = current.clone();
        next.held.retain(|held| {
            let wanted = claim.desired == Desired::Present && *held == claim.revision;
            let revision = input.revisions.get(&(claim.namespace.as_str(), held.as_str()));
            let loses = |r: &&ImageCacheRevision| {
                r.spec
                    .spec
                    .images
                    .iter()
                    .any(|i| going.contains(i.image.as_str()))
            };
            wanted || !revision.is_none_or(loses)
        });
        if next.held != current.held {
            decision.caches.retain(|c| c.uid != claim.uid);
            decision.caches.push(next);
        }
    }
}

/// Entries to remove for a claim; none if there is nothing to do, an empty list if there is nothing left to remove.
fn due(input: &PurgeInput<'_>, claim: &CacheClaim, current: Option<&CacheOnNode>) -> Option<Vec<PurgeEntry>> {
    let mut names: Vec<&str> = claim.remove_revisions.iter().map(String::as_str).collect();
    match claim.desired {
        Desired::Absent => {
            if current.is_some_and(|c| c.state == NodeState::Purged) {
                return None;
            }
            names.push(&claim.revision);
        }
        Desired::Present => {
            let settled = current.is_some_and(|c| {
                c.revision == claim.revision && matches!(c.state, NodeState::Ready | NodeState::Failed)
            });
            let done = |name: &&str| current.is_some_and(|c| c.removed_revisions.iter().any(|r| r == name));
            if !settled || names.iter().all(done) {
                return None;
            }
        }
    }
    let mut entries: BTreeMap<(&str, Option<&str>), PurgeEntry> = BTreeMap::new();
    for name in names {
        let Some(revision) = input.revisions.get(&(claim.namespace.as_str(), name)) else {
            continue;
        };
        for image in &revision.spec.spec.images {
            if keeps(input, &image.image, image.digest.as_deref()) {
                continue;
            }
            entries
                .entry((&image.image, image.digest.as_deref()))
                .or_insert_with(|| PurgeEntry {
                    reference: image.image.clone(),
                    digest: image.digest.clone(),
                    claimed_at: claim.claimed_at.0,
                    all: claim.removal == Removal::PurgeAll,
                });
        }
    }
    Some(entries.into_values().collect())
}

/// Whether some claim on the node wants this image. Another digest under a wanted name is kept for as long as the
/// wanted one has not arrived.
fn keeps(input: &PurgeInput<'_>, reference: &str, digest: Option<&str>) -> bool {
    input
        .claims
        .iter()
        .filter(|c| c.desired == Desired::Present)
        .any(|claim| {
            let Some(revision) = input
                .revisions
                .get(&(claim.namespace.as_str(), claim.revision.as_str()))
            else {
                // What an unreadable revision wants is unknown: nothing it may want is removed.
                return true;
            };
            revision
                .spec
                .spec
                .images
                .iter()
                .filter(|i| i.image == reference)
                .any(|i| {
                    let cache = format!("{}/{}", claim.namespace, claim.name);
                    let arrived = !input
                        .not_ready
                        .iter()
                        .any(|n| n.cache == cache && n.image == reference);
                    match (i.digest.as_deref(), digest) {
                        (Some(wanted), Some(other)) if wanted != other => !arrived,
                        _ => true,
                    }
                })
        })
}

/// References that Present claims want, of an entry's content or repository: a wanted `app@sha256:…` must not lose its
/// record to the removal of `app:1`.
fn sharing(input: &PurgeInput<'_>, entries: &[PurgeEntry]) -> Vec<String> {
    let repository = |reference: &str| ImageRef::parse(reference).map(|r| r.name().to_owned()).ok();
    let repositories: BTreeSet<String> = entries.iter().filter_map(|e| repository(&e.reference)).collect();
    let digests: BTreeSet<&str> = entries.iter().filter_map(|e| e.digest.as_deref()).collect();
    let claims = input.claims.iter().filter(|c| c.desired == Desired::Present);
    let wanted = claims
        .filter_map(|c| input.revisions.get(&(c.namespace.as_str(), c.revision.as_str())))
        .flat_map(|r| &r.spec.spec.images)
        .filter(|i| {
            i.digest.as_deref().is_some_and(|d| digests.contains(d))
                || repository(&i.image).is_some_and(|r| repositories.contains(&r))
        })
        // Another digest under the very name of an entry: the name is the entry's to lose, see `keeps`.
        .filter(|i| !entries.iter().any(|e| e.reference == i.image))
        .map(|i| i.image.clone());
    wanted.collect::<BTreeSet<_>>().into_iter().collect()
}

fn carry_out(
    input: &PurgeInput<'_>,
    claim: &CacheClaim,
    entries: &[PurgeEntry],
    mut next: CacheOnNode,
    used: &mut BTreeSet<JobKey>,
    decision: &mut PurgeDecision,
) {
    let work = hash(input, claim, entries);
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
                begin(input, part, chunk, &next, decision);
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
    if sum.failed > 0 {
        let words = sum
            .outcomes
            .first()
            .map(|o| format!(": {}: {}", o.reference, o.message))
            .unwrap_or_default();
        next.removal_error = shorten(
            &redact(&format!("{} could not be removed{words}", sum.failed)),
            256,
        );
        next.removal_error_at = Some(Time(input.now));
        decision.wake_at = earliest(decision.wake_at, saturating(input.now, RETRY_AFTER));
        decision.caches.push(next);
        return;
    }
    next.removed = sum.removed;
    next.in_use = sum.in_use;
    next.foreign = sum.foreign;
    next.shared = sum.shared;
    next.removal_error.clear();
    next.removal_error_at = None;
    match claim.desired {
        Desired::Absent => {
            next.state = NodeState::Purged;
            next.since = Some(Time(input.now));
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
    decision.caches.push(next);
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
            keep: sharing(input, entries),
        });
    }
}

fn hash(input: &PurgeInput<'_>, claim: &CacheClaim, entries: &[PurgeEntry]) -> String {
    let mut parts = vec![
        input.node_uid.to_owned(),
        claim.uid.clone(),
        claim.assigned_at.0.to_string(),
    ];
    for entry in entries {
        parts.push(entry.reference.clone());
        parts.push(entry.digest.clone().unwrap_or_default());
        parts.push(if entry.all { "all" } else { "ours" }.to_owned());
        parts.push(entry.claimed_at.to_string());
    }
    crate::hash::short(parts.iter().map(String::as_str))
}
