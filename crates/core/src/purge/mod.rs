//! Removing images from a node by one-shot Jobs: which entries, in which Jobs, and what their reports say.
//!
//! To remove are the images of claims that are Absent and of removed revisions, less everything that a claim on the
//! node still wants. What is foreign, in use or shared is decided on the node, at the moment of removal.

mod carry_out;
mod entries;
mod view;

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use larder_api::node_image_cache::{CacheClaim, CacheOnNode, Desired, ImageOnNode, NodeState};

use crate::entry::{has_settled, loses};
use crate::plan::Revisions;
use crate::pull::JobKey;
use crate::removal::PurgeEntry;
use carry_out::carry_out;

pub(crate) use carry_out::{failure, gone};
pub(crate) use entries::{Claims, leaving};
pub use view::PurgeJobView;

/// Entries of one Job.
pub const MAX_ENTRIES: usize = 100;
/// A removal that failed is repeated after this long.
pub const RETRY_AFTER: SignedDuration = SignedDuration::from_secs(30);
/// A Job that has not begun after this long is given up for a while, so that pulls are not held up by it.
pub const BEGIN_WITHIN: SignedDuration = SignedDuration::from_secs(30);
/// A Job that has not ended after this long is given up.
pub const END_WITHIN: SignedDuration = SignedDuration::from_secs(600);

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
    let claims = Claims {
        node_uid: input.node_uid,
        all: input.claims,
        revisions: input.revisions,
        not_ready: input
            .not_ready
            .iter()
            .map(|i| (i.cache.clone(), i.image.clone()))
            .collect(),
    };
    for claim in input.claims {
        let current = input.on_node.iter().find(|o| o.uid == claim.uid);
        let Some(entries) = due(&claims, claim, current) else {
            continue;
        };
        let next = leaving(claim, current, input.now);
        if input.pulling.contains(&claim.uid) {
            // Its pull pods end first, else the kubelet may bring back what goes.
            decision.caches.push(next);
            continue;
        }
        carry_out(input, &claims, claim, &entries, next, &mut used, &mut decision);
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
            wanted || !loses(input.revisions, &claim.namespace, held, &going)
        });
        if next.held != current.held {
            decision.caches.retain(|c| c.uid != claim.uid);
            decision.caches.push(next);
        }
    }
}

/// Entries to remove for a claim; none if there is nothing to do, an empty list if there is nothing left to remove.
fn due(claims: &Claims<'_>, claim: &CacheClaim, current: Option<&CacheOnNode>) -> Option<Vec<PurgeEntry>> {
    let mut names: Vec<&str> = claim.remove_revisions.iter().map(String::as_str).collect();
    match claim.desired {
        Desired::Absent => {
            if current.is_some_and(|c| c.state == NodeState::Purged) {
                return None;
            }
            names.push(&claim.revision);
        }
        Desired::Present => {
            let settled = current.is_some_and(|c| has_settled(c, claim));
            let done = |name: &&str| current.is_some_and(|c| c.removed_revisions.iter().any(|r| r == name));
            if !settled || names.iter().all(done) {
                return None;
            }
        }
    }
    Some(claims.entries(claim, &names))
}
