//! p5: a node that joins.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::Api;
use larder_api::ImageCache;
use larder_api::names::{NODE_ANNOTATION, PURPOSE_LABEL, PURPOSE_PULL};
use larder_e2e::cluster::NodeOptions;
use larder_e2e::cluster::registry::{LogMark, Registry};
use larder_e2e::progress::Progress;

use crate::bench::{Bench, PATIENCE, QUIET, ready, until};
use crate::images::FOLDER;
use crate::machine;
use crate::pulled::is_pull;
use crate::result::Sample;
use crate::watch::Watch;

/// The node that comes and goes.
const NODE: &str = "joins";

/// Adds a node, waits until it holds the images, and removes it, so many times.
///
/// A Job's first sign of work is its pod, an agent's the first request that the registry has from the node.
pub async fn run(bench: &Bench, by_agent: bool, runs: usize) -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for _ in 0..runs {
        samples.push(join(bench, by_agent).await?);
        // A pod that outlives its node is cleared away by the cluster a minute later.
        bench.settled().await?;
        bench.cluster.node_remove(NODE).await?;
        until("the cache forgets the node", async || {
            let caches = bench
                .api::<ImageCache>()
                .list(&kube::api::ListParams::default())
                .await?;
            Ok(caches.items.iter().all(|cache| {
                let status = cache.status.as_ref();
                status.is_some_and(|s| usize::try_from(s.nodes.selected).is_ok_and(|n| n == bench.nodes))
            }))
        })
        .await?;
        bench.settled().await?;
    }
    Ok(samples)
}

enum Seen {
    Node(Box<Node>),
    Pod(Box<Pod>),
    Event(Box<Event>),
    Cache(Box<ImageCache>),
}

/// Moments of a node's way.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    ready: Option<Instant>,
    pod: Option<Instant>,
    image: Option<Instant>,
    filled: Option<Instant>,
}

async fn join(bench: &Bench, by_agent: bool) -> anyhow::Result<Sample> {
    tokio::time::sleep(QUIET).await;
    let load = machine::load();
    let nodes: Api<Node> = Api::all(bench.client.clone());
    let pulls = format!("{PURPOSE_LABEL}={PURPOSE_PULL}");
    let mut watch = Watch::begin(&nodes, "", |node| Seen::Node(Box::new(node)))
        .await?
        .and(Watch::begin(&bench.api(), &pulls, |pod| Seen::Pod(Box::new(pod))).await?)
        .and(Watch::begin(&bench.api(), "", |event| Seen::Event(Box::new(event))).await?)
        .and(Watch::begin(&bench.api(), "", |cache| Seen::Cache(Box::new(cache))).await?);

    let options = NodeOptions {
        name: Some(NODE.into()),
        ..NodeOptions::default()
    };
    let mut moments = Moments::default();
    let looking = watch.until(PATIENCE, |at, seen| {
        match seen {
            Seen::Node(node) if is_ready(&node) => moments.ready = moments.ready.or(Some(at)),
            Seen::Pod(pod) if works_for_it(&pod) => moments.pod = moments.pod.or(Some(at)),
            Seen::Event(event) if is_pull(&event, Some(NODE)) => moments.image = moments.image.or(Some(at)),
            Seen::Cache(cache) if ready(&cache, bench.nodes + 1).is_ok() => moments.filled = Some(at),
            _ => {}
        }
        complete(by_agent, moments)
    });
    let registry = bench.registry.clone();
    let mark = registry.mark()?;
    let asking = tokio::spawn(async move { first_request(&registry, mark).await });
    let ((), moments) = tokio::try_join!(
        async {
            bench.cluster.node_add(options, &Silent).await?;
            Ok(())
        },
        looking
    )?;
    asking.abort();
    let asked = asking.await.ok();
    let (Some(ready), Some(filled)) = (moments.ready, moments.filled) else {
        bail!("the watch ended early: {moments:?}");
    };
    let began = if by_agent { asked } else { moments.pod };
    let began = began.context("nothing was pulled on the node")?;
    let after = |moment: Instant| moment.saturating_duration_since(ready).as_secs_f64();
    let mut detail = BTreeMap::from([
        ("load".to_owned(), load),
        ("all_images_s".to_owned(), after(filled)),
    ]);
    if let Some(image) = moments.image {
        detail.insert("first_image_s".to_owned(), after(image));
    }
    Ok(Sample {
        value: after(began),
        floor: None,
        writes: None,
        detail,
    })
}

fn complete(by_agent: bool, moments: Moments) -> Result<Moments, String> {
    let by_pod = moments.pod.is_some() && moments.image.is_some();
    if moments.ready.is_some() && moments.filled.is_some() && (by_agent || by_pod) {
        Ok(moments)
    } else {
        Err(format!("{moments:?}"))
    }
}

/// When somebody first asked for one of the images.
async fn first_request(registry: &Registry, mark: LogMark) -> Instant {
    loop {
        let (requests, _) = registry
            .requests_since(mark)
            .unwrap_or_else(|_| (Vec::new(), mark));
        let image = format!("/v2/{FOLDER}/");
        if requests.iter().any(|request| request.path.starts_with(&image)) {
            return Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    node.metadata.name.as_deref() == Some(NODE)
        && conditions
            .into_iter()
            .flatten()
            .any(|found| found.type_ == "Ready" && found.status == "True")
}

fn works_for_it(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(NODE_ANNOTATION))
        .is_some_and(|node| node == NODE)
}

/// The benchmark's own lines are enough.
struct Silent;

impl Progress for Silent {
    fn line(&self, _: &str) {}
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn only_the_joining_node_and_its_pods_count() {
        let node = |name: &str, ready: &str| -> Node {
            let conditions = json!([{"type": "Ready", "status": ready}]);
            from_value(json!({"metadata": {"name": name}, "status": {"conditions": conditions}})).unwrap()
        };
        assert!(is_ready(&node(NODE, "True")));
        assert!(!is_ready(&node(NODE, "False")) && !is_ready(&node("node-1", "True")));
        let pod = |node: &str| -> Pod {
            from_value(json!({"metadata": {"annotations": {NODE_ANNOTATION: node}}})).unwrap()
        };
        assert!(works_for_it(&pod(NODE)) && !works_for_it(&pod("node-1")));
    }
}
