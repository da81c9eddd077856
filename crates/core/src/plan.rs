//! Which node should hold which revision now: claims, rollout slots, removals. One snapshot in, all node objects out.
//!
//! A claim is only ever dropped or turned to Absent by labels, selector, affinity or the cache itself; a taint, a
//! cordon or a flap of readiness leaves it as it is.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use larder_api::image_cache::Removal;
use larder_api::names::CLEANUP_FINALIZER;
use larder_api::node_image_cache::{CacheClaim, CacheOnNode, Desired, NodeState};
use larder_api::{ImageCache, ImageCacheRevision, NodeImageCache, NodeImageCacheSpec};

use crate::facts::NodeFacts;
use crate::select::{Eligibility, eligibility};

/// Pending removals that a claim can carry; the oldest is dropped beyond that.
pub const MAX_REMOVE_REVISIONS: usize = 8;
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

/// What a cache as a whole wants of the nodes it matches.
#[derive(Clone, Copy, PartialEq)]
enum Intent {
    /// The newest revision everywhere.
    Hold,
    /// Nothing new; what is, stays.
    Rest,
    /// Everything gone, and the claims with it once that is done.
    Leave(Removal),
    /// Everything gone; the claims stay and say so.
    Purge(Removal),
    /// The claims go, the images stay.
    Drop,
}

fn intent(cache: &ImageCache) -> Intent {
    let purge_in_force = cache
        .status
        .as_ref()
        .and_then(|s| s.last_purge.as_ref())
        .is_some_and(|purge| purge.in_force);
    if cache.metadata.deletion_timestamp.is_some() {
        let cleans = cache
            .metadata
            .finalizers
            .iter()
            .flatten()
            .any(|f| f == CLEANUP_FINALIZER);
        return if cleans && cache.spec.removal != Removal::Retain {
            Intent::Leave(cache.spec.removal)
        } else {
            Intent::Drop
        };
    }
    if purge_in_force {
        // Asked for by hand: it removes what Larder pulled also where leaving images are retained.
        return Intent::Purge(cache.spec.removal.max(Removal::Purge));
    }
    if cache.spec.suspend {
        Intent::Rest
    } else {
        Intent::Hold
    }
}

fn plan_cache<'n>(
    snapshot: &Snapshot<'_>,
    nodes: &[&'n NodeFacts],
    cache: &ImageCache,
    newest: Option<&ImageCacheRevision>,
    claims: &mut BTreeMap<&'n str, Vec<CacheClaim>>,
    plan: &mut Plan,
) {
    let uid = cache.metadata.uid.as_deref().unwrap_or_default();
    let intent = intent(cache);
    let newest_name = newest.and_then(|r| r.metadata.name.as_deref());
    let overall = signed(cache.spec.timeouts.overall);

    let places: Vec<Place<'_>> = nodes
        .iter()
        .map(|node| {
            let object = snapshot
                .objects
                .get(node.name.as_str())
                .copied()
                .filter(|o| o.spec.node_uid == node.uid);
            Place {
                eligibility: eligibility(&cache.spec.nodes, node),
                claim: object.and_then(|o| o.spec.caches.iter().find(|c| c.uid == uid)),
                on_node: object.and_then(|o| on_node(o, uid)),
            }
        })
        .collect();

    let workable = places
        .iter()
        .filter(|p| p.eligibility == Eligibility::Workable)
        .count();
    let limit = slot_limit(&cache.spec.rollout.max_concurrent_nodes, workable);
    let mut in_use = 0;
    for place in &places {
        if let (Some(newest), Some(until)) = (newest_name, place.slot_until(newest_name, overall))
            && place.claim.is_some_and(|c| c.revision == newest)
            && until > snapshot.now
        {
            in_use += 1;
            plan.wake_at = earliest(plan.wake_at, until);
        }
    }

    for (node, place) in nodes.iter().zip(&places) {
        let next = match (intent, place.eligibility) {
            (Intent::Drop, _) => None,
            (Intent::Leave(removal), _) => place.absent(snapshot, removal, true),
            (Intent::Purge(removal), _) => {
                place.absent(snapshot, removal, place.eligibility == Eligibility::NotMatching)
            }
            (_, Eligibility::NotMatching) if cache.spec.removal == Removal::Retain => None,
            (_, Eligibility::NotMatching) => place.absent(snapshot, cache.spec.removal, true),
            (Intent::Rest, _) => place.claim.cloned(),
            (Intent::Hold, Eligibility::Workable) => match newest {
                None => place.claim.cloned(),
                Some(newest) => {
                    let takes_slot = place.takes_slot(newest_name);
                    if takes_slot && in_use >= limit {
                        place.claim.map(|c| place.upkeep(snapshot, cache, None, c))
                    } else {
                        if takes_slot {
                            in_use += 1;
                            plan.wake_at = earliest(plan.wake_at, saturating(snapshot.now, overall));
                        }
                        Some(place.present(snapshot, cache, newest))
                    }
                }
            },
            (Intent::Hold, _) => place.claim.map(|c| place.upkeep(snapshot, cache, None, c)),
        };
        if let Some(claim) = next {
            claims.entry(node.name.as_str()).or_default().push(claim);
        }
    }
    plan.slots_in_use += in_use;
}

/// One cache on one node, as it is.
struct Place<'a> {
    eligibility: Eligibility,
    claim: Option<&'a CacheClaim>,
    on_node: Option<&'a CacheOnNode>,
}

impl Place<'_> {
    /// Until when this node holds a rollout slot for the newest revision, if it is the one it is assigned.
    fn slot_until(&self, newest: Option<&str>, overall: SignedDuration) -> Option<Timestamp> {
        let claim = self
            .claim
            .filter(|c| c.desired == Desired::Present && Some(c.revision.as_str()) == newest)?;
        if self.eligibility == Eligibility::Unreachable {
            return None;
        }
        // A node that holds nothing is being filled for the first time: that takes no slot.
        let on_node = self.on_node.filter(|s| !s.held.is_empty())?;
        let settled = on_node.revision == claim.revision
            && matches!(on_node.state, NodeState::Ready | NodeState::Failed);
        (!settled).then(|| saturating(claim.assigned_at.0, overall))
    }

    /// Whether assigning the newest revision now would take a slot.
    fn takes_slot(&self, newest: Option<&str>) -> bool {
        let moves = self
            .claim
            .is_some_and(|c| c.desired == Desired::Present && Some(c.revision.as_str()) != newest);
        moves && self.on_node.is_some_and(|s| !s.held.is_empty())
    }

    fn present(
        &self,
        snapshot: &Snapshot<'_>,
        cache: &ImageCache,
        newest: &ImageCacheRevision,
    ) -> CacheClaim {
        let name = newest.metadata.name.clone().unwrap_or_default();
        match self.claim {
            Some(claim) if claim.desired == Desired::Present && claim.revision == name => {
                self.upkeep(snapshot, cache, Some(newest), claim)
            }
            Some(claim) if claim.desired == Desired::Present => {
                let mut next = self.upkeep(snapshot, cache, Some(newest), claim);
                if cache.spec.removal != Removal::Retain {
                    next.remove_revisions.push(claim.revision.clone());
                }
                next.remove_revisions.retain(|r| *r != name);
                let surplus = next.remove_revisions.len().saturating_sub(MAX_REMOVE_REVISIONS);
                next.remove_revisions.drain(..surplus);
                next.revision = name;
                next.assigned_at = Time(snapshot.now);
                next
            }
            other => CacheClaim {
                namespace: cache.metadata.namespace.clone().unwrap_or_default(),
                name: cache.metadata.name.clone().unwrap_or_default(),
                uid: cache.metadata.uid.clone().unwrap_or_default(),
                revision: name,
                desired: Desired::Present,
                remove_revisions: Vec::new(),
                claimed_at: other.map_or(Time(snapshot.now), |c| c.claimed_at.clone()),
                assigned_at: Time(snapshot.now),
                removal: cache.spec.removal,
                verify_after: None,
            },
        }
    }

    /// A claim that stays on its revision: finished and unreadable removals leave, a refresh may ask for confirmation.
    fn upkeep(
        &self,
        snapshot: &Snapshot<'_>,
        cache: &ImageCache,
        newest: Option<&ImageCacheRevision>,
        claim: &CacheClaim,
    ) -> CacheClaim {
        let mut next = claim.clone();
        next.removal = cache.spec.removal;
        let done = self
            .on_node
            .map(|s| s.removed_revisions.as_slice())
            .unwrap_or_default();
        next.remove_revisions.retain(|r| {
            next.removal != Removal::Retain
                && !done.contains(r)
                && snapshot
                    .revisions
                    .contains_key(&(claim.namespace.as_str(), r.as_str()))
        });
        if let Some(newest) = newest
            && let Some(after) = self.verify_after(cache, newest)
        {
            next.verify_after = next.verify_after.max(Some(after));
        }
        next
    }

    /// A refresh confirms what is confirmed only by pulling: references without a digest always, others after a day.
    fn verify_after(&self, cache: &ImageCache, newest: &ImageCacheRevision) -> Option<Time> {
        let asked = cache
            .status
            .as_ref()?
            .last_refresh
            .as_ref()?
            .requested_at
            .clone()?;
        let checked = self.on_node?.checked_at.clone()?;
        let undigested = newest.spec.spec.images.iter().any(|i| i.digest.is_none());
        let limit = if undigested {
            asked.0
        } else {
            saturating(asked.0, -CONFIRM_AFTER)
        };
        (checked.0 < limit).then_some(asked)
    }

    /// The claim turned to removal; none once that is done, if `drop_when_done`.
    fn absent(&self, snapshot: &Snapshot<'_>, removal: Removal, drop_when_done: bool) -> Option<CacheClaim> {
        let claim = self.claim?;
        if claim.desired == Desired::Absent {
            let done = self.on_node.is_some_and(|s| s.state == NodeState::Purged);
            if done && drop_when_done {
                return None;
            }
            return Some(CacheClaim {
                removal: claim.removal.max(removal),
                ..claim.clone()
            });
        }
        let mut next = claim.clone();
        for held in self.on_node.map(|s| s.held.as_slice()).unwrap_or_default() {
            let readable = snapshot
                .revisions
                .contains_key(&(claim.namespace.as_str(), held.as_str()));
            if readable && *held != claim.revision && !next.remove_revisions.contains(held) {
                next.remove_revisions.push(held.clone());
            }
        }
        next.remove_revisions.truncate(MAX_REMOVE_REVISIONS);
        next.desired = Desired::Absent;
        next.removal = removal;
        next.assigned_at = Time(snapshot.now);
        next.verify_after = None;
        Some(next)
    }
}

/// A claim whose cache is gone lives on only to finish a removal that it can still read.
fn outlive(
    snapshot: &Snapshot<'_>,
    object: Option<&NodeImageCache>,
    claim: &CacheClaim,
) -> Option<CacheClaim> {
    let done = object
        .and_then(|o| on_node(o, &claim.uid))
        .is_some_and(|s| s.state == NodeState::Purged);
    let readable = snapshot
        .revisions
        .contains_key(&(claim.namespace.as_str(), claim.revision.as_str()));
    (claim.desired == Desired::Absent && !done && readable).then(|| claim.clone())
}

/// What a vanished claim pulled stays Larder's for those that share images with it: they inherit its `claimedAt`.
fn inherit(snapshot: &Snapshot<'_>, before: &[CacheClaim], after: &mut [CacheClaim]) {
    for gone in before
        .iter()
        .filter(|b| !after.iter().any(|a| a.uid == b.uid))
        .collect::<Vec<_>>()
    {
        let theirs = references(snapshot, gone);
        for claim in after.iter_mut().filter(|c| c.claimed_at.0 > gone.claimed_at.0) {
            if !references(snapshot, claim).is_disjoint(&theirs) {
                claim.claimed_at = gone.claimed_at.clone();
            }
        }
    }
}

/// References and digests of a claim's revisions.
fn references<'a>(snapshot: &Snapshot<'a>, claim: &CacheClaim) -> BTreeSet<&'a str> {
    std::iter::once(&claim.revision)
        .chain(&claim.remove_revisions)
        .filter_map(|r| snapshot.revisions.get(&(claim.namespace.as_str(), r.as_str())))
        .flat_map(|r| &r.spec.spec.images)
        .flat_map(|i| std::iter::once(i.image.as_str()).chain(i.digest.as_deref()))
        .collect()
}

/// What the node's pullers say of the cache with this UID; nothing if it is about another incarnation of the node.
pub fn on_node<'a>(object: &'a NodeImageCache, cache_uid: &str) -> Option<&'a CacheOnNode> {
    let kubelet = object.status.as_ref()?.kubelet.as_ref()?;
    if kubelet.node_uid != object.spec.node_uid {
        return None;
    }
    kubelet.caches.iter().find(|c| c.uid == cache_uid)
}

/// Slots of a cache: a number, or a percentage of the workable nodes rounded up; at least one.
pub fn slot_limit(max_concurrent_nodes: &IntOrString, workable: usize) -> usize {
    match max_concurrent_nodes {
        IntOrString::Int(n) => usize::try_from(*n).unwrap_or(1).max(1),
        IntOrString::String(s) => {
            let percent: usize = s.trim_end_matches('%').parse().unwrap_or(25);
            (workable * percent).div_ceil(100).max(1)
        }
    }
}

pub(crate) fn signed(duration: kube::core::Duration) -> SignedDuration {
    SignedDuration::try_from(std::time::Duration::from(duration)).unwrap_or(SignedDuration::MAX)
}

pub(crate) fn saturating(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(if by.is_negative() {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

pub(crate) fn earliest(a: Option<Timestamp>, b: Timestamp) -> Option<Timestamp> {
    Some(a.map_or(b, |a| a.min(b)))
}
