//! Which keys a change concerns.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::{Resource, ResourceExt};
use larder_api::{ImageCache, ImageCacheRevision, NodeImageCache};
use larder_core::facts::NodeFacts;
use larder_core::select::{Eligibility, eligibility};

use crate::queue::Queue;
use crate::world::{Change, Key, World, node_of, owner_of, pair, revisions_of};

/// Shortest time between two runs for one `ImageCache`: its status sums up many nodes.
const CACHE_INTERVAL: Duration = Duration::from_millis(100);
/// Shortest time between two plans.
const PLAN_INTERVAL: Duration = Duration::from_millis(50);
/// Shortest time between two runs for one node.
const NODE_INTERVAL: Duration = Duration::from_millis(50);

/// The work queues.
#[derive(Clone, Debug)]
pub struct Queues {
    /// `ImageCaches` by namespace and name: resolve, make revisions, report.
    pub caches: Queue<Key>,
    /// The one plan over all nodes.
    pub plan: Queue<()>,
    /// Nodes by name: pulls and removals.
    pub nodes: Queue<String>,
    /// Revisions by namespace and name: those that are being deleted and wait for nodes.
    pub revisions: Queue<Key>,
}

impl Default for Queues {
    fn default() -> Self {
        Self {
            caches: Queue::new("caches", CACHE_INTERVAL),
            plan: Queue::new("plan", PLAN_INTERVAL),
            nodes: Queue::new("nodes", NODE_INTERVAL),
            revisions: Queue::new("revisions", NODE_INTERVAL),
        }
    }
}

impl Queues {
    /// Everything there is, once.
    pub fn mark_all(&self, world: &World) {
        for cache in world.caches.all() {
            self.caches.mark(key(&*cache));
        }
        self.plan.mark(());
        for revision in world.revisions.all() {
            self.revisions.mark(key(&*revision));
        }
        for node in world.nodes.all() {
            self.nodes.mark(node.name.clone());
        }
        for object in world.objects.all() {
            self.nodes.mark(object.name_any());
        }
        for node in world.jobs.all().iter().filter_map(|j| node_of(&**j)) {
            self.nodes.mark(node.to_owned());
        }
    }

    /// An `ImageCache` changed.
    pub fn cache_changed(&self, world: &World, change: &Change<ImageCache>) {
        for cache in change.sides() {
            self.caches.mark(key(&**cache));
        }
        self.plan.mark(());
        // What the pods of its Jobs look like, limits, time-outs: of interest to nodes that it claims.
        let spec_changed = match (&change.old, &change.new) {
            (Some(old), Some(new)) => old.spec != new.spec || old.uid() != new.uid(),
            _ => true,
        };
        if spec_changed {
            let uids: BTreeSet<String> = change.sides().filter_map(|c| c.uid()).collect();
            for object in world.objects.all() {
                if object.spec.caches.iter().any(|c| uids.contains(&c.uid)) {
                    self.nodes.mark(object.name_any());
                }
            }
        }
    }

    /// A revision changed.
    pub fn revision_changed(&self, world: &World, change: &Change<ImageCacheRevision>) {
        for revision in change.sides() {
            self.revisions.mark(key(&**revision));
            let namespace = revision.namespace().unwrap_or_default();
            for object in world.objects.indexed(&pair(&namespace, &revision.name_any())) {
                self.nodes.mark(object.name_any());
            }
            if let Some(owner) = owner_of(&**revision) {
                self.caches.mark((namespace, owner.to_owned()));
            }
        }
        self.plan.mark(());
    }

    /// A node's object changed.
    pub fn object_changed(&self, change: &Change<NodeImageCache>) {
        let mut caches = BTreeSet::new();
        for object in change.sides() {
            self.nodes.mark(object.name_any());
            caches.extend(
                object
                    .spec
                    .caches
                    .iter()
                    .map(|c| (c.namespace.clone(), c.name.clone())),
            );
            let blocks = object
                .status
                .iter()
                .flat_map(|s| [s.kubelet.as_ref(), s.agent.as_ref().map(|a| &a.puller)]);
            caches.extend(
                blocks
                    .flatten()
                    .flat_map(|block| &block.caches)
                    .map(|c| (c.namespace.clone(), c.name.clone())),
            );
        }
        for cache in caches {
            self.caches.mark(cache);
        }
        self.plan.mark(());
        let named: Vec<BTreeSet<Key>> = [&change.old, &change.new]
            .map(|side| side.iter().flat_map(|o| revisions_of(o)).collect())
            .into();
        for let_go in named[0].difference(&named[1]) {
            self.revisions.mark(let_go.clone());
        }
    }

    /// A node's facts changed.
    pub fn node_changed(&self, world: &World, change: &Change<NodeFacts>) {
        for node in change.sides() {
            self.nodes.mark(node.name.clone());
        }
        self.plan.mark(());
        for cache in world.caches.all() {
            let seen = |node: &NodeFacts| eligibility(&cache.spec.nodes, node);
            let before = change.old.as_deref().map_or(Eligibility::NotMatching, seen);
            let after = change.new.as_deref().map_or(Eligibility::NotMatching, seen);
            // A new platform may ask for further manifests.
            let platform = |n: &Option<std::sync::Arc<NodeFacts>>| {
                n.as_ref().map(|n| (n.os.clone(), n.architecture.clone()))
            };
            if before != after || platform(&change.old) != platform(&change.new) {
                self.caches.mark(key(&*cache));
            }
        }
    }

    /// An agent came, went, or became Ready or not: whoever claims something of its node looks again.
    pub fn agent_changed(&self, world: &World, node: &str) {
        self.nodes.mark(node.to_owned());
        self.plan.mark(());
        for claim in world.objects.get("", node).iter().flat_map(|o| &o.spec.caches) {
            self.caches.mark((claim.namespace.clone(), claim.name.clone()));
        }
    }

    /// A Job or pod of Larder's changed.
    pub fn work_changed<K: Resource>(&self, change: &Change<K>) {
        for object in change.sides() {
            if let Some(node) = node_of(&**object) {
                self.nodes.mark(node.to_owned());
            }
        }
    }
}

fn key<K: Resource>(object: &K) -> Key {
    (
        object.meta().namespace.clone().unwrap_or_default(),
        object.meta().name.clone().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests;
