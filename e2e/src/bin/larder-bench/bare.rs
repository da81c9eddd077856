//! The very pods that pulled, once more and without Larder: what kubelets take for them by themselves.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::Api;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};

use crate::bench::{Bench, PATIENCE};
use crate::images::ImageSet;
use crate::timeline::ended;
use crate::watch::Watch;

/// Creates pods like these, for the images of `bare` in the place of those of `ours`, on nodes that hold none of them.
/// Returns how long it took until the last of them told that all of its containers have ended.
pub async fn run(
    bench: &Bench,
    pods: &BTreeMap<String, PodSpec>,
    ours: &ImageSet,
    bare: &ImageSet,
) -> anyhow::Result<Duration> {
    ensure!(!pods.is_empty(), "no pod was seen to pull");
    let api: Api<Pod> = bench.api();
    let wanted: Vec<Pod> = pods
        .values()
        .enumerate()
        .map(|(number, spec)| Pod {
            metadata: ObjectMeta {
                name: Some(format!("bare-{number}")),
                ..ObjectMeta::default()
            },
            spec: Some(like(spec, &ours.prefix, &bare.prefix)),
            status: None,
        })
        .collect();
    let mut watch = Watch::begin(&api, "", |pod: Pod| pod).await?;
    let began = Instant::now();
    let params = PostParams::default();
    try_join_all(wanted.iter().map(|pod| api.create(&params, pod))).await?;
    let mut done: BTreeMap<String, bool> = BTreeMap::new();
    let at = watch
        .until(PATIENCE, |at, pod| {
            let (ended, all) = ended(&pod);
            done.insert(pod.metadata.name.unwrap_or_default(), ended == all);
            if done.len() == wanted.len() && done.values().all(|done| *done) {
                return Ok(at);
            }
            Err(format!("containers have not ended: {done:?}"))
        })
        .await?;
    bench.runtimes.must_hold(&bare.references).await?;
    api.delete_collection(&DeleteParams::default(), &ListParams::default())
        .await?;
    bench.settled().await?;
    bench.runtimes.clean(&bench.registry.host).await?;
    Ok(at.duration_since(began))
}

/// The same pod for images whose repositories begin otherwise, to be scheduled anew.
fn like(spec: &PodSpec, prefix: &str, other: &str) -> PodSpec {
    let mut spec = spec.clone();
    spec.node_name = None;
    for image in spec.containers.iter_mut().filter_map(|c| c.image.as_mut()) {
        *image = image.replace(prefix, other);
    }
    spec
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn only_images_of_the_set_are_replaced() {
        let spec: PodSpec = from_value(json!({
            "nodeName": "n1",
            "containers": [{"name": "noop", "image": "a/noop:1"}, {"name": "i0", "image": "r/bench/s1/i00:1"}],
        }))
        .unwrap();
        let like = like(&spec, "bench/s1/", "bench/s2/");
        assert_eq!(like.node_name, None);
        let images: Vec<&str> = like
            .containers
            .iter()
            .filter_map(|c| c.image.as_deref())
            .collect();
        assert_eq!(images, ["a/noop:1", "r/bench/s2/i00:1"]);
    }
}
