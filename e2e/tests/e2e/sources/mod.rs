//! Images from where they come from: ConfigMaps, lists behind URLs, app registries, workloads, tags.

mod app_registry;
mod lists;
mod resolve;
mod restart;
mod tags;
mod workloads;

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use larder_api::ImageCacheRevision;
use serde_json::json;

use crate::support::{Cache, Namespace, eventually};

impl Namespace {
    /// A ConfigMap that lists images.
    pub async fn apply_list(&self, name: &str, images: &[&str]) {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
            "data": {"images": format!("# of a test\n{}\n", images.join("\n"))},
        });
        let params = PatchParams::apply("test").force();
        self.api::<ConfigMap>()
            .patch(name, &params, &Patch::Apply(&object))
            .await
            .unwrap();
    }
}

/// The images of the newest revision, with the source of each.
pub async fn newest(ns: &Namespace, cache: &Cache) -> Vec<(String, Vec<String>)> {
    let Some(name) = cache.status().await.revision else {
        return Vec::new();
    };
    let revision = ns.api::<ImageCacheRevision>().get(&name).await.unwrap();
    let images = revision.spec.spec.images;
    images.into_iter().map(|i| (i.image, i.sources)).collect()
}

/// Waits until the newest revision has exactly these images; the time that it took.
pub async fn holds_exactly(ns: &Namespace, cache: &Cache, seconds: u64, images: &[&str]) -> Duration {
    let begun = Instant::now();
    let mut wanted: Vec<&str> = images.to_vec();
    wanted.sort_unstable();
    eventually(&format!("the newest revision is {wanted:?}"), seconds, || async {
        let now = newest(ns, cache).await;
        let names: Vec<&str> = now.iter().map(|(image, _)| image.as_str()).collect();
        if names == wanted {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    })
    .await;
    begun.elapsed()
}
