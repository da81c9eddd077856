//! The cluster and what measures do in it.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use larder_api::{ImageCache, ImageCacheStatus};
use larder_e2e::cluster::Cluster;
use larder_e2e::cluster::registry::{Registry as ClusterRegistry, RegistryKind};
use larder_e2e::images::{Registry, RegistryTarget};
use serde_json::{Value, json};

use crate::floor::Runtimes;
use crate::images::ImageSet;

/// The namespace that everything happens in.
const NAMESPACE: &str = "larder-bench";

/// How long anything may take before the benchmark is given up.
pub const PATIENCE: Duration = Duration::from_mins(5);

/// How long nothing is done before something is measured.
pub const QUIET: Duration = Duration::from_secs(3);

/// A cluster made ready to be measured in.
pub struct Bench {
    pub cluster: Cluster,
    pub client: Client,
    pub runtimes: Runtimes,
    pub registry: ClusterRegistry,
    /// How many nodes there are.
    pub nodes: usize,
    pusher: Registry,
}

/// An `ImageCache`, and when it was applied.
pub struct Applied {
    pub name: String,
    pub at: Instant,
    /// The same moment by the clock that the audit log uses.
    pub at_clock: Timestamp,
}

impl Bench {
    /// Makes the namespace anew and connects to the nodes' runtimes.
    pub async fn prepare(cluster: Cluster) -> anyhow::Result<Self> {
        let client = cluster.client().await?;
        let nodes = cluster.nodes()?;
        let registry = cluster.registry(RegistryKind::Open)?;
        let pusher = Registry::connect(&RegistryTarget::open(&registry.url))?;
        let bench = Self {
            runtimes: Runtimes::of(&nodes).await?,
            nodes: nodes.len(),
            cluster,
            client,
            registry,
            pusher,
        };
        bench.finish().await?;
        let namespaces: Api<Namespace> = Api::all(bench.client.clone());
        let object = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
        namespaces.create(&PostParams::default(), &object).await?;
        Ok(bench)
    }

    /// Removes the namespace and the images.
    pub async fn finish(&self) -> anyhow::Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        if namespaces.get_opt(NAMESPACE).await?.is_some() {
            namespaces.delete(NAMESPACE, &DeleteParams::default()).await?;
            until("the namespace goes", async || {
                Ok(namespaces.get_opt(NAMESPACE).await?.is_none())
            })
            .await?;
        }
        self.runtimes.clean(&self.registry.host).await
    }

    /// Objects of the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Makes images of these sizes in MB and pushes them.
    pub async fn images(&self, megabytes: &[usize]) -> anyhow::Result<ImageSet> {
        ImageSet::push(&self.pusher, &self.registry.host, megabytes).await
    }

    /// Applies an `ImageCache` of these images.
    pub async fn apply(&self, name: &str, references: &[String], puller: &str) -> anyhow::Result<Applied> {
        let images: Vec<_> = references.iter().map(|image| json!({"image": image})).collect();
        self.apply_spec(name, &json!({"images": images, "puller": puller}))
            .await
    }

    /// Applies an `ImageCache` with this spec.
    pub async fn apply_spec(&self, name: &str, spec: &Value) -> anyhow::Result<Applied> {
        let object: ImageCache = serde_json::from_value(json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": "ImageCache",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": spec,
        }))?;
        let applied = Applied {
            name: name.to_owned(),
            at: Instant::now(),
            at_clock: Timestamp::now(),
        };
        self.api::<ImageCache>()
            .create(&PostParams::default(), &object)
            .await?;
        Ok(applied)
    }

    /// Waits until Larder has cleared its Jobs and their pods away.
    pub async fn settled(&self) -> anyhow::Result<()> {
        let (jobs, pods): (Api<Job>, Api<Pod>) = (self.api(), self.api());
        until("Jobs and pods go", async || {
            let left = jobs.list_metadata(&ListParams::default()).await?.items.len()
                + pods.list_metadata(&ListParams::default()).await?.items.len();
            Ok(left == 0)
        })
        .await
    }

    /// Deletes an `ImageCache` and makes the nodes cold again.
    pub async fn clear(&self, name: &str) -> anyhow::Result<()> {
        let caches: Api<ImageCache> = self.api();
        caches.delete(name, &DeleteParams::default()).await?;
        until("the ImageCache goes", async || {
            Ok(caches.get_opt(name).await?.is_none())
        })
        .await?;
        self.settled().await?;
        self.runtimes.clean(&self.registry.host).await
    }
}

/// Whether an `ImageCache` is Ready, as its status says of the present spec, on so many nodes; else what is amiss.
pub fn ready(cache: &ImageCache, nodes: usize) -> Result<(), String> {
    let status = current(cache)?;
    let ready = status
        .conditions
        .iter()
        .any(|found| found.type_ == "Ready" && found.status == "True");
    if ready && usize::try_from(status.nodes.updated).is_ok_and(|updated| updated == nodes) {
        return Ok(());
    }
    Err(serde_json::to_string(status).unwrap_or_default())
}

/// The status, if it is about the present spec.
pub fn current(cache: &ImageCache) -> Result<&ImageCacheStatus, String> {
    let status = cache.status.as_ref().ok_or("there is no status yet")?;
    if Some(status.observed_generation) == cache.metadata.generation {
        Ok(status)
    } else {
        Err("the status is about an older spec".into())
    }
}

/// Looks every tenth of a second.
pub async fn until(what: &str, look: impl AsyncFn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let looking = async {
        while !look().await? {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::Ok(())
    };
    let seen = tokio::time::timeout(PATIENCE, looking).await;
    seen.with_context(|| format!("not within {} s: {what}", PATIENCE.as_secs()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(generation: i64, ready: &str, updated: i32) -> ImageCache {
        serde_json::from_value(json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": "ImageCache",
            "metadata": {"name": "x", "generation": generation},
            "spec": {"images": [{"image": "x"}]},
            "status": {
                "observedGeneration": 2, "nodes": {"updated": updated},
                "conditions": [{
                    "type": "Ready", "status": ready, "reason": "r", "message": "",
                    "lastTransitionTime": "2026-11-21T07:00:00Z",
                }],
            },
        }))
        .unwrap()
    }

    #[test]
    fn ready_counts_only_for_this_spec_and_on_all_nodes() {
        assert!(ready(&cache(2, "True", 2), 2).is_ok());
        assert!(ready(&cache(3, "True", 2), 2).unwrap_err().contains("older spec"));
        assert!(ready(&cache(2, "False", 2), 2).is_err());
        assert!(ready(&cache(2, "True", 0), 2).is_err());
    }
}
