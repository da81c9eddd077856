//! Aggregates what is known of a cache and of its nodes into the status of the `ImageCache`.

mod conditions;
mod drift;
mod failures;
mod images;
mod nodes;
mod requests;

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};
use larder_api::image_cache_status::SourceStatus;
use larder_api::names::Reason;
use larder_api::node_image_cache::{CacheClaim, CacheOnNode, Desired, ImageOnNode, NodeState};
use larder_api::{ImageCache, ImageCacheRevision, ImageCacheStatus};

use crate::facts::NodeFacts;
use crate::images::WantedImages;
use crate::plan::{saturating, signed};
use crate::select::Eligibility;
use nodes::Overview;

pub use drift::DIGESTS_DIFFER;

/// A reference that the operator could not resolve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolveFailure {
    /// The reference as the user wrote it.
    pub image: String,
    /// Why.
    pub reason: Reason,
    /// The registry's words, credentials redacted.
    pub message: String,
}

/// Everything known of one node in view of one cache.
#[derive(Clone, Debug)]
pub struct NodeView<'a> {
    /// The node.
    pub facts: &'a NodeFacts,
    /// What it is to the cache.
    pub eligibility: Eligibility,
    /// The cache's claim on it.
    pub claim: Option<&'a CacheClaim>,
    /// What it reports of the cache: only of this cache by UID, and of this node by UID.
    pub on_node: Option<Cow<'a, CacheOnNode>>,
    /// Images of this cache that it reports as not ready.
    pub images: Vec<&'a ImageOnNode>,
    /// Some images of the cache are the agent's to pull there.
    pub agent: bool,
    /// Some are the kubelet's.
    pub kubelet: bool,
    /// An agent looks at all of them all the time.
    pub watched: bool,
}

/// What a report is made from.
#[derive(Debug)]
pub struct ReportInput<'a> {
    /// The cache.
    pub cache: &'a ImageCache,
    /// Its images.
    pub wanted: &'a WantedImages,
    /// Its newest revision.
    pub revision: Option<&'a ImageCacheRevision>,
    /// References that could not be resolved when last asked for.
    pub unresolved: &'a [ResolveFailure],
    /// What is known of the sources, in the order of the spec.
    pub sources: &'a [SourceStatus],
    /// References or sources are still being asked for: until the answers are in, a refresh is not finished.
    pub resolving: bool,
    /// Every node, in any order.
    pub nodes: Vec<NodeView<'a>>,
    /// The status before, with `lastRefresh` and `lastPurge` as they are to be now.
    pub previous: &'a ImageCacheStatus,
    /// The moment.
    pub now: Timestamp,
}

/// The status. The same input gives the same status whatever the order of nodes, and a report on its own result changes
/// nothing. To be trimmed before it is written.
pub fn report(input: &ReportInput<'_>) -> ImageCacheStatus {
    let overview = Overview::of(input);
    let (failures, failures_omitted) = failures::group(input, &overview);
    let last_refresh = requests::refresh(input, &overview);
    let last_purge = requests::purge(input);
    let images = images::count(input);
    let nodes = overview.counts();
    let summary = larder_api::image_cache_status::Summary {
        ready: format!("{}/{}", nodes.ready, nodes.selected),
        size: if images.bytes > 0 {
            crate::format::bytes(images.bytes)
        } else {
            String::new()
        },
    };
    let mut status = ImageCacheStatus {
        observed_generation: input.cache.metadata.generation.unwrap_or_default(),
        revision: input.revision.and_then(|r| r.metadata.name.clone()),
        conditions: Vec::new(),
        nodes,
        images,
        sources: input.sources.to_vec(),
        node_statuses: overview.statuses(input),
        node_statuses_omitted: 0,
        failures,
        failures_omitted,
        last_refresh,
        last_purge,
        summary,
    };
    status.conditions = conditions::all(input, &overview, &status);
    status
}

/// When the report changes by time alone: the next moment at which a node exceeds `timeouts.overall`.
pub fn next_wake(input: &ReportInput<'_>) -> Option<Timestamp> {
    let overall = signed(input.cache.spec.timeouts.overall);
    input
        .nodes
        .iter()
        .filter(|n| n.eligibility == Eligibility::Workable)
        .filter_map(|n| {
            let claim = n.claim.filter(|c| c.desired == Desired::Present)?;
            let done = n.on_node.as_ref().is_some_and(|o| is_done(claim, o));
            (!done).then(|| due(claim, overall))
        })
        .filter(|due| *due > input.now)
        .min()
}

/// Whether a node has done what it can for the newest revision: it is Ready, with everything confirmed that a refresh
/// asked to be confirmed, or Failed, or out of time.
pub fn settled(
    newest: &str,
    claim: Option<&CacheClaim>,
    on_node: Option<&CacheOnNode>,
    overall: SignedDuration,
    now: Timestamp,
) -> bool {
    let Some(claim) = claim.filter(|c| c.desired == Desired::Present && c.revision == newest) else {
        return false;
    };
    on_node.is_some_and(|o| is_done(claim, o)) || now >= due(claim, overall)
}

/// Ready or Failed at the claimed revision, nothing left to confirm.
fn is_done(claim: &CacheClaim, on_node: &CacheOnNode) -> bool {
    if !is_about(claim, on_node) {
        return false;
    }
    match on_node.state {
        NodeState::Ready => claim
            .verify_after
            .as_ref()
            .is_none_or(|after| on_node.checked_at.as_ref().is_some_and(|c| c >= after)),
        NodeState::Failed => true,
        _ => false,
    }
}

/// Whether what the node reports is about the revision that it is assigned. One that cannot be read is reported under
/// the name of the one before.
fn is_about(claim: &CacheClaim, on_node: &CacheOnNode) -> bool {
    on_node.revision == claim.revision || on_node.reason == Some(Reason::RevisionMissing)
}

/// The end of the time that a node has for its revision, or for confirming it.
fn due(claim: &CacheClaim, overall: SignedDuration) -> Timestamp {
    let begun = claim
        .verify_after
        .as_ref()
        .map_or(claim.assigned_at.0, |v| v.0.max(claim.assigned_at.0));
    saturating(begun, overall)
}

#[cfg(test)]
mod tests;
