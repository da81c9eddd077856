//! The decision for all pull Jobs of one node.

use std::collections::BTreeMap;

use jiff::Timestamp;
use larder_api::node_image_cache::{CacheClaim, CacheOnNode, ImageOnNode};
use larder_api::{ImageCache, ImageCacheRevision};

use super::claim::decide_claim;
use super::job::{JobKey, JobView};
use crate::facts::NodeFacts;
use crate::merge::Blocks;
use crate::plan::{Revisions, earliest};
use crate::select::Eligibility;

/// What a node's pulls are decided from.
#[derive(Debug)]
pub struct PullInput<'a> {
    /// The moment.
    pub now: Timestamp,
    /// The node; none if it is gone.
    pub node: Option<&'a NodeFacts>,
    /// UID in the spec of the node's object; empty if there is no object.
    pub node_uid: &'a str,
    /// The status as last written, and whether an agent is there.
    pub blocks: Blocks<'a>,
    /// The claims on the node.
    pub claims: Vec<ClaimInput<'a>>,
    /// Every pull Job for the node, also of caches that claim nothing any more.
    pub jobs: Vec<JobView>,
    /// Pods that the API server refused, by UID of the cache.
    pub rejections: &'a BTreeMap<String, Rejection>,
    /// Every revision.
    pub revisions: &'a Revisions<'a>,
    /// A removal is at work on the node, or may be: no pull begins, lest it be undone.
    pub removing: bool,
}

/// One claim with what belongs to it.
#[derive(Debug)]
pub struct ClaimInput<'a> {
    /// The claim.
    pub claim: &'a CacheClaim,
    /// The cache; none if it is gone.
    pub cache: Option<&'a ImageCache>,
    /// The claimed revision; none if it cannot be read.
    pub revision: Option<&'a ImageCacheRevision>,
    /// What the cache may do with the node.
    pub eligibility: Eligibility,
}

/// The API server refused a pod of a cache.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    /// In the API server's words.
    pub message: String,
    /// When.
    pub at: Timestamp,
    /// How many times in a row.
    pub attempts: i32,
}

/// A pull Job to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullJob {
    /// Namespace of the cache.
    pub namespace: String,
    /// Name: a hash of all that makes this Job what it is.
    pub name: String,
    /// Name of the cache.
    pub cache: String,
    /// UID of the cache.
    pub cache_uid: String,
    /// The revision.
    pub revision: String,
    /// Name of the node.
    pub node: String,
    /// UID of the node.
    pub node_uid: String,
    /// Normalised references, in the order of the containers.
    pub images: Vec<String>,
    /// The Job ends by itself after this many seconds, should nobody be there to end it.
    pub deadline_seconds: i64,
}

/// What to do.
#[derive(Debug, Default)]
pub struct PullDecision {
    /// One entry for each claim that is to be present and has images for the kubelet.
    pub caches: Vec<CacheOnNode>,
    /// Images that are not ready.
    pub images: Vec<ImageOnNode>,
    /// Jobs to create, after the status has been written.
    pub create: Vec<PullJob>,
    /// Jobs to delete, after the status has been written.
    pub delete: Vec<JobKey>,
    /// References that a node found to be something else than the revision says, with the namespace and name of the
    /// cache and the moment: one newer resolution settles it.
    pub resolve_again: Vec<(String, String, String, Timestamp)>,
    /// When time alone changes the decision.
    pub wake_at: Option<Timestamp>,
}

/// Decides.
pub fn decide(input: &PullInput<'_>) -> PullDecision {
    let mut decision = PullDecision::default();
    for claim in &input.claims {
        if claim.claim.desired == larder_api::node_image_cache::Desired::Absent {
            continue;
        }
        let jobs: Vec<&JobView> = input
            .jobs
            .iter()
            .filter(|j| belongs(input, j, claim.claim))
            .collect();
        let part = decide_claim(input, claim, &jobs);
        decision.caches.extend(part.on_node);
        decision.images.extend(part.images);
        decision.create.extend(part.create);
        decision.delete.extend(part.delete);
        decision.resolve_again.extend(part.resolve_again);
        if let Some(at) = part.wake_at {
            decision.wake_at = earliest(decision.wake_at, at);
        }
    }
    // Jobs that no claim wants any more: of a cache or node that is gone, or that is to be absent.
    for job in input.jobs.iter().filter(|j| !j.deleting) {
        let wanted = input.claims.iter().any(|c| {
            c.claim.desired == larder_api::node_image_cache::Desired::Present && belongs(input, job, c.claim)
        });
        if !wanted {
            decision.delete.push(job.key.clone());
        }
    }
    decision
}

fn belongs(input: &PullInput<'_>, job: &JobView, claim: &CacheClaim) -> bool {
    job.cache_uid == claim.uid && job.node_uid == input.node_uid
}
