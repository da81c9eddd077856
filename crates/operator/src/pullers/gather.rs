//! Everything that is about one node, taken from the world at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::{Resource, ResourceExt};
use larder_api::names::{PURPOSE_LABEL, PURPOSE_PULL, PURPOSE_PURGE};
use larder_api::node_image_cache::CacheClaim;
use larder_api::{ImageCache, ImageCacheRevision, NodeImageCache};
use larder_core::facts::NodeFacts;
use larder_core::merge::{Agent, Blocks};
use larder_core::plan::Revisions;
use larder_core::pull::{ClaimInput, JobView, PullInput, Rejection};
use larder_core::purge::PurgeJobView;
use larder_core::select::{Eligibility, eligibility};

use crate::world::{Key, World};

/// What is known of one node.
#[derive(Debug)]
pub struct Gathered {
    /// The node's object.
    pub object: Option<Arc<NodeImageCache>>,
    /// The node, if it is the one that the object is about.
    pub node: Option<Arc<NodeFacts>>,
    agent: Agent,
    caches: BTreeMap<String, Arc<ImageCache>>,
    revisions: BTreeMap<Key, Arc<ImageCacheRevision>>,
    pulls: Vec<JobView>,
    purges: Vec<PurgeJobView>,
}

impl Gathered {
    /// Looks at the world.
    pub fn of(world: &World, node: &str, now: Timestamp) -> Self {
        let object = world.objects.get("", node);
        let pods = world.pods.indexed(node);
        let jobs = world.jobs.indexed(node);
        let view = |purpose: &'static str| {
            jobs.iter()
                .filter(move |j| j.labels().get(PURPOSE_LABEL).is_some_and(|p| p == purpose))
        };
        let pulls: Vec<JobView> = view(PURPOSE_PULL)
            .filter_map(|j| JobView::read(j, &pods_of(j, &pods)))
            .collect();
        let purges = view(PURPOSE_PURGE)
            .filter_map(|j| PurgeJobView::read(j, &pods_of(j, &pods)))
            .collect();
        let mut gathered = Self {
            node: world
                .nodes
                .get(node)
                .filter(|n| object.as_ref().is_some_and(|o| o.spec.node_uid == n.uid)),
            object,
            agent: world.agent(node, now),
            caches: BTreeMap::new(),
            revisions: BTreeMap::new(),
            pulls,
            purges,
        };
        gathered.add_caches(world);
        gathered.add_revisions(world);
        gathered
    }

    fn add_caches(&mut self, world: &World) {
        let found = self.claims().iter().filter_map(|claim| {
            let cache = world.caches.get(&claim.namespace, &claim.name)?;
            (cache.uid().as_deref() == Some(&claim.uid)).then(|| (claim.uid.clone(), cache))
        });
        self.caches = found.collect();
    }

    /// Every revision that a claim, the status or a Job names.
    fn add_revisions(&mut self, world: &World) {
        let claims = self.claims().iter().flat_map(|c| {
            std::iter::once(&c.revision)
                .chain(&c.remove_revisions)
                .map(|r| (c.namespace.clone(), r.clone()))
        });
        let blocks = self.blocks();
        let blocks = blocks.kubelet.into_iter().chain(blocks.agent);
        let status = blocks.flat_map(|s| &s.caches).flat_map(|c| {
            std::iter::once(&c.revision)
                .chain(&c.held)
                .map(|r| (c.namespace.clone(), r.clone()))
        });
        let jobs = self
            .pulls
            .iter()
            .map(|j| (j.key.namespace.clone(), j.revision.clone()));
        let found = claims.chain(status).chain(jobs).filter_map(|key| {
            let revision = world.revisions.get(&key.0, &key.1)?;
            Some((key, revision))
        });
        self.revisions = found.collect();
    }

    /// Whether there is nothing about this node at all.
    pub fn is_empty(&self) -> bool {
        self.object.is_none() && self.pulls.is_empty() && self.purges.is_empty()
    }

    /// The claims on the node.
    pub fn claims(&self) -> &[CacheClaim] {
        self.object.as_ref().map_or(&[], |o| &o.spec.caches)
    }

    /// The cache with this UID, if it claims the node.
    pub fn cache(&self, uid: &str) -> Option<&ImageCache> {
        self.caches.get(uid).map(|c| &**c)
    }

    /// The status as last written, and whether an agent is there.
    pub fn blocks(&self) -> Blocks<'_> {
        let object = self.object.as_deref();
        object.map_or_else(Blocks::default, |o| Blocks::of(o, self.agent))
    }

    /// Generation of the node's object.
    pub fn generation(&self) -> i64 {
        self.object
            .as_ref()
            .and_then(|o| o.meta().generation)
            .unwrap_or_default()
    }

    /// The purge Jobs of the node.
    pub fn purges(&self) -> Vec<PurgeJobView> {
        self.purges.clone()
    }

    /// The gathered revisions, as the core takes them.
    pub fn revisions(&self) -> Revisions<'_> {
        self.revisions
            .iter()
            .map(|((ns, name), r)| ((ns.as_str(), name.as_str()), &**r))
            .collect()
    }

    /// What the core decides from.
    pub fn input<'a>(
        &'a self,
        now: Timestamp,
        rejections: &'a BTreeMap<String, Rejection>,
        revisions: &'a Revisions<'a>,
    ) -> PullInput<'a> {
        let claims = self.claims().iter().map(|claim| {
            let cache = self.cache(&claim.uid);
            let eligibility = match (cache, &self.node) {
                (Some(cache), Some(node)) => eligibility(&cache.spec.nodes, node),
                _ => Eligibility::NotMatching,
            };
            let revision = revisions
                .get(&(claim.namespace.as_str(), claim.revision.as_str()))
                .copied();
            ClaimInput {
                claim,
                cache,
                revision,
                eligibility,
            }
        });
        PullInput {
            now,
            node: self.node.as_deref(),
            node_uid: self.object.as_ref().map_or("", |o| o.spec.node_uid.as_str()),
            blocks: self.blocks(),
            claims: claims.collect(),
            jobs: self.pulls.clone(),
            rejections,
            revisions,
            removing: false,
        }
    }
}

fn pods_of<'a>(job: &Job, pods: &'a [Arc<Pod>]) -> Vec<&'a Pod> {
    let owned = |pod: &&Arc<Pod>| {
        pod.metadata
            .owner_references
            .iter()
            .flatten()
            .any(|o| Some(&o.uid) == job.metadata.uid.as_ref())
    };
    pods.iter().filter(owned).map(|p| &**p).collect()
}
