//! What is, as far as the operator knows: every object it works with, in memory.
//!
//! Filled by the watches, and at once by what the operator itself writes, so that no decision is made on what we have
//! already changed.

mod agents;
mod nodes;
mod store;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::{Resource, ResourceExt};
use larder_api::names::NODE_ANNOTATION;
use larder_api::{ImageCache, ImageCacheRevision, NodeImageCache};

pub use agents::Gone;
pub use nodes::Nodes;
pub use store::{Change, Key, Store};

/// Every object that the operator works with.
#[derive(Debug)]
pub struct World {
    /// What users ask for.
    pub caches: Store<ImageCache>,
    /// By `namespace/cache`.
    pub revisions: Store<ImageCacheRevision>,
    /// By each `namespace/revision` that they name.
    pub objects: Store<NodeImageCache>,
    /// Nodes.
    pub nodes: Nodes,
    /// Larder's Jobs, by node.
    pub jobs: Store<Job>,
    /// Pods of Larder's Jobs and agents, by node.
    pub pods: Store<Pod>,
    /// Agents that went.
    pub gone: Gone,
}

impl Default for World {
    fn default() -> Self {
        Self {
            caches: Store::new(|_| Vec::new()),
            revisions: Store::new(|r| {
                owner_of(r)
                    .map(|name| pair(&namespace_of(r), name))
                    .into_iter()
                    .collect()
            }),
            objects: Store::new(|o| {
                revisions_of(o)
                    .iter()
                    .map(|(namespace, name)| pair(namespace, name))
                    .collect()
            }),
            nodes: Nodes::default(),
            jobs: Store::new(|j| node_of(j).map(str::to_owned).into_iter().collect()),
            pods: Store::new(|p| {
                let all_agents = agents::is_agent(p).then(|| agents::ALL_AGENTS.to_owned());
                node_of_pod(p)
                    .map(str::to_owned)
                    .into_iter()
                    .chain(all_agents)
                    .collect()
            }),
            gone: Gone::default(),
        }
    }
}

impl World {
    /// Whether every kind has been listed once.
    pub fn listed(&self) -> bool {
        self.caches.listed()
            && self.revisions.listed()
            && self.objects.listed()
            && self.nodes.listed()
            && self.jobs.listed()
            && self.pods.listed()
    }
}

/// `namespace/name`.
pub fn pair(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// The node that a Job or pod of Larder's works for.
pub fn node_of<K: Resource>(object: &K) -> Option<&str> {
    object
        .meta()
        .annotations
        .as_ref()?
        .get(NODE_ANNOTATION)
        .map(String::as_str)
}

/// The node that a pod of Larder's works on: what its Job says, else where it is or has to be.
pub fn node_of_pod(pod: &Pod) -> Option<&str> {
    node_of(pod).or_else(|| {
        let spec = pod.spec.as_ref()?;
        spec.node_name.as_deref().or_else(|| bound_to(spec))
    })
}

/// The node that a `DaemonSet`'s pod is for before it is scheduled.
fn bound_to(spec: &PodSpec) -> Option<&str> {
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    let mut fields = required
        .node_selector_terms
        .iter()
        .flat_map(|t| t.match_fields.iter().flatten());
    let name = fields.find(|f| f.key == "metadata.name" && f.operator == "In")?;
    name.values.as_ref()?.first().map(String::as_str)
}

/// Name of the first owner.
pub fn owner_of<K: Resource>(object: &K) -> Option<&str> {
    object
        .meta()
        .owner_references
        .as_ref()?
        .first()
        .map(|o| o.name.as_str())
}

/// The revisions that a node's object names.
pub fn revisions_of(object: &NodeImageCache) -> Vec<Key> {
    let claims = object.spec.caches.iter();
    claims
        .flat_map(|c| {
            std::iter::once(&c.revision)
                .chain(&c.remove_revisions)
                .map(|r| (c.namespace.clone(), r.clone()))
        })
        .collect()
}

fn namespace_of<K: Resource>(object: &K) -> String {
    object.namespace().unwrap_or_default()
}
