//! What every reconcile is handed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::batch::v1::Job;
use kube::{Client, ResourceExt};
use larder_api::{ImageCache, ImageCacheRevision, NodeImageCache};
use larder_core::images::{WantedImages, wanted};
use larder_core::revise::owned;
use larder_core::revision;

use crate::config::PodSettings;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::pullers::NodeMemory;
use crate::resolver::Resolver;
use crate::route::Queues;
use crate::sources::Sources;
use crate::world::{World, pair};

/// What every reconcile is handed.
#[allow(missing_debug_implementations, reason = "the client has none")]
pub struct Context {
    /// To the API server; its writes are counted.
    pub client: Client,
    /// What is.
    pub world: Arc<World>,
    /// What is to be looked at.
    pub queues: Queues,
    /// References to digests.
    pub resolver: Resolver,
    /// Sources to references.
    pub sources: Sources,
    /// What Larder's own pods are made of.
    pub pods: PodSettings,
    /// Images that an agent may pull at a time.
    pub pulls_per_node: i32,
    /// Bounds how fast pods are created.
    pub pod_pace: Pace,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Events.
    pub events: Events,
    /// What is remembered of nodes and is not worth an object: lost at a restart without harm.
    pub memory: Mutex<BTreeMap<String, NodeMemory>>,
}

impl Context {
    /// The images of a cache and of its sources, by what is known now.
    pub fn wanted(&self, cache: &ImageCache) -> WantedImages {
        if cache.spec.sources.is_empty() {
            return wanted(&cache.spec);
        }
        let of_cache = pair(&cache.namespace().unwrap_or_default(), &cache.name_any());
        let revisions = self.world.revisions.indexed(&of_cache);
        let uid = cache.metadata.uid.as_deref().unwrap_or_default();
        let ours: Vec<&ImageCacheRevision> =
            revisions.iter().map(|r| &**r).filter(|r| owned(r, uid)).collect();
        let newest = revision::newest(&ours).map(|r| &r.spec.spec);
        self.sources.wanted(cache, newest)
    }

    /// Reads and changes what is remembered of a node.
    pub fn with_memory<T>(&self, node: &str, change: impl FnOnce(&mut NodeMemory) -> T) -> T {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        change(memory.entry(node.to_owned()).or_default())
    }

    /// Forgets a node.
    pub fn forget(&self, node: &str) {
        self.memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(node);
    }

    /// We wrote this: the world knows at once, and what it concerns is looked at.
    pub fn wrote_cache(&self, object: ImageCache) {
        if let Some(change) = self.world.caches.apply(object) {
            self.queues.cache_changed(&self.world, &change);
        }
    }

    /// See [`Self::wrote_cache`].
    pub fn wrote_revision(&self, object: ImageCacheRevision) {
        if let Some(change) = self.world.revisions.apply(object) {
            self.queues.revision_changed(&self.world, &change);
        }
    }

    /// See [`Self::wrote_cache`].
    pub fn wrote_object(&self, object: NodeImageCache) {
        if let Some(change) = self.world.objects.apply(object) {
            self.queues.object_changed(&change);
        }
    }

    /// See [`Self::wrote_cache`].
    pub fn wrote_job(&self, object: Job) {
        if let Some(change) = self.world.jobs.apply(object) {
            self.queues.work_changed(&change);
        }
    }
}
