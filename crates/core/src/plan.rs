//! Which node should hold which revision now: claims, rollout slots, removals. One snapshot in, all node objects out.
//!
//! A claim is only ever dropped or turned to Absent by labels, selector, affinity or the cache itself; a taint, a
//! cordon or a flap of readiness leaves it as it is.

mod cache;
mod gone;
mod limits;
mod overrides;
mod place;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use larder_api::image_cache_status::RefreshStatus;
use larder_api::node_image_cache::CacheClaim;
use larder_api::{ImageCache, ImageCacheRevision, NodeImageCache, NodeImageCacheSpec};

use crate::facts::NodeFacts;
use crate::merge::{Agent, Blocks, ClaimView};
pub use overrides::ClaimSettings;

use cache::plan_cache;
use gone::{inherit, outlive};
use limits::limits;

/// Pending removals that a claim can carry; the oldest is dropped beyond that.
pub const MAX_REMOVE_REVISIONS: usize = 32;
/// An image confirmed longer ago than this is confirmed again at the next refresh.
pub const CONFIRM_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// Revisions by namespace and name.
pub type Revisions<'a> = BTreeMap<(&'a str, &'a str), &'a ImageCacheRevision>;

/// Everything that a plan is made from.
#[derive(Debug)]
pub struct Snapshot<'a> {
    /// The moment.
    pub now: Timestamp,
    /// Every node.
    pub nodes: Vec<&'a NodeFacts>,
    /// Every cache, with its newest revision.
    pub caches: Vec<(&'a ImageCache, Option<&'a ImageCacheRevision>)>,
    /// Every node object by node name.
    pub objects: BTreeMap<&'a str, &'a NodeImageCache>,
    /// Every revision.
    pub revisions: Revisions<'a>,
    /// Whether agents are there, by node name; a node without an entry has none.
    pub agents: BTreeMap<&'a str, Agent>,
    /// Images that an agent may pull at a time.
    pub pulls_per_node: i32,
}

impl<'a> Snapshot<'a> {
    /// What a node holds of a claim on it.
    pub fn view(&self, object: &'a NodeImageCache, claim: &CacheClaim) -> ClaimView<'a> {
        let node = object.metadata.name.as_deref().unwrap_or_default();
        let presence = self.agents.get(node).copied().unwrap_or_default();
        Blocks::of(object, presence).view(claim, &self.revisions)
    }
}

/// What is to be written.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// One at most for each node, sorted by node.
    pub actions: Vec<NodeAction>,
    /// When time alone changes the plan.
    pub wake_at: Option<Timestamp>,
    /// Rollout slots in use, over all caches.
    pub slots_in_use: usize,
}

/// A change of one node's object.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeAction {
    /// There is none yet.
    Create {
        /// Name of the node.
        node: String,
        /// What it should hold.
        spec: NodeImageCacheSpec,
    },
    /// Replace the spec.
    Update {
        /// Name of the node.
        node: String,
        /// What it should hold.
        spec: NodeImageCacheSpec,
    },
    /// It is about a node that is gone, or claims nothing more.
    Delete {
        /// Name of the node.
        node: String,
        /// UID of the object, as a precondition.
        uid: String,
        /// Version of the object, as a precondition.
        resource_version: String,
    },
}

/// Makes the plan. The same snapshot always gives the same plan, whatever the order of its lists.
pub fn plan(snapshot: &Snapshot<'_>) -> Plan {
    let mut nodes = snapshot.nodes.clone();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    let mut plan = Plan::default();
    let mut claims: BTreeMap<&str, Vec<CacheClaim>> = BTreeMap::new();
    for (cache, newest) in &snapshot.caches {
        plan_cache(snapshot, &nodes, cache, *newest, &mut claims, &mut plan);
    }
    let alive: BTreeSet<&str> = snapshot
        .caches
        .iter()
        .filter_map(|(c, _)| c.metadata.uid.as_deref())
        .collect();
    for node in &nodes {
        let object = snapshot.objects.get(node.name.as_str()).copied();
        let mut wanted = claims.remove(node.name.as_str()).unwrap_or_default();
        if let Some(object) = object
            && object.spec.node_uid != node.uid
        {
            // Another node under the old name: the object goes first, the next plan makes a new one.
            plan.actions.extend(delete(&node.name, object));
            continue;
        }
        let before: &[CacheClaim] = object.map_or(&[], |o| &o.spec.caches);
        wanted.extend(
            before
                .iter()
                .filter(|c| !alive.contains(c.uid.as_str()))
                .filter_map(|c| outlive(snapshot, object, c)),
        );
        inherit(snapshot, before, &mut wanted);
        wanted.sort_by(|a, b| (&a.namespace, &a.name, &a.uid).cmp(&(&b.namespace, &b.name, &b.uid)));
        let spec = NodeImageCacheSpec {
            node_uid: node.uid.clone(),
            limits: limits(snapshot, &wanted, object.and_then(|o| o.spec.limits.as_ref())),
            caches: wanted,
        };
        match object {
            None if spec.caches.is_empty() => {}
            None => plan.actions.push(NodeAction::Create {
                node: node.name.clone(),
                spec,
            }),
            Some(object) if spec.caches.is_empty() => plan.actions.extend(delete(&node.name, object)),
            Some(object) if object.spec == spec => {}
            Some(_) => plan.actions.push(NodeAction::Update {
                node: node.name.clone(),
                spec,
            }),
        }
    }
    for until in snapshot.agents.values().filter_map(|agent| agent.wake_at()) {
        plan.wake_at = earliest(plan.wake_at, until);
    }
    let known: BTreeSet<&str> = nodes.iter().map(|n| n.name.as_str()).collect();
    for (name, object) in &snapshot.objects {
        if !known.contains(name) {
            plan.actions.extend(delete(name, object));
        }
    }
    plan
}

fn delete(node: &str, object: &NodeImageCache) -> Option<NodeAction> {
    if object.metadata.deletion_timestamp.is_some() {
        return None;
    }
    Some(NodeAction::Delete {
        node: node.to_owned(),
        uid: object.metadata.uid.clone().unwrap_or_default(),
        resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
    })
}

/// Slots of a cache: a number, or a percentage of the workable nodes rounded up; at least one.
pub fn slot_limit(max_concurrent_nodes: &IntOrString, workable: usize) -> usize {
    match max_concurrent_nodes {
        IntOrString::Int(n) => usize::try_from(*n).unwrap_or(1).max(1),
        IntOrString::String(s) => {
            // The schema admits nothing else than a percentage; 25% is the default.
            let percent: usize = s.trim_end_matches('%').parse().unwrap_or(25);
            (workable * percent).div_ceil(100).max(1)
        }
    }
}

pub(crate) fn signed(duration: kube::core::Duration) -> SignedDuration {
    SignedDuration::try_from(std::time::Duration::from(duration)).unwrap_or(SignedDuration::MAX)
}

/// A `Time` in an object has no fractions of a second: a status with one would differ from what the API server returns.
pub(crate) fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// When a refresh was asked for, as nodes tell moments: in whole seconds. One of the same second may be before or after.
pub(crate) fn asked_at(refresh: &RefreshStatus) -> Option<Time> {
    let at = refresh.requested_at.as_ref()?.0;
    Some(Time(whole_seconds(at)))
}

pub(crate) fn saturating(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(if by.is_negative() {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

#[allow(
    clippy::unnecessary_wraps,
    reason = "callers assign the result to what they passed"
)]
pub(crate) fn earliest(a: Option<Timestamp>, b: Timestamp) -> Option<Timestamp> {
    Some(a.map_or(b, |a| a.min(b)))
}
