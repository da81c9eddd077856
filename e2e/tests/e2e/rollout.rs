//! A second revision goes through the nodes by slots; the first fill does not.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use larder_api::NodeImageCache;
use larder_api::node_image_cache::NodeState;
use larder_e2e::cluster::registry::RegistryKind::Open;
use larder_e2e::images::ImageSpec;
use serde_json::json;

use crate::support::{Env, condition, node};

#[tokio::test]
async fn never_two_nodes_hold_a_slot_and_the_first_fill_takes_none() {
    let env = Env::exclusive().await;
    let ns = env.namespace("slots").await;
    for i in 0..3 {
        env.push(
            Open,
            &ImageSpec::new(700 + i).layers(1, 2_000_000),
            &format!("slots/i{i}"),
            "1",
        )
        .await;
    }
    // From every node object, as they change: which nodes are on their way from one revision that they hold to another.
    let recorded: Arc<Mutex<Vec<NodeImageCache>>> = Arc::default();
    let record = Arc::clone(&recorded);
    let objects: Api<NodeImageCache> = Api::all(env.client.clone());
    let watching = tokio::spawn(async move {
        let stream = watcher(objects, watcher::Config::default()).applied_objects();
        futures::pin_mut!(stream);
        while let Some(Ok(object)) = stream.next().await {
            record.lock().unwrap().push(object);
        }
    });
    let list = |all: &[usize]| {
        all.iter()
            .map(|i| json!({"image": format!("quay.io/slots/i{i}:1")}))
            .collect::<Vec<_>>()
    };
    let cache = ns
        .cache(
            "app",
            json!({"images": list(&[0]), "rollout": {"maxConcurrentNodes": 1}}),
        )
        .await;
    let first = cache.ready(60).await.revision.unwrap();
    let n = env.nodes().len();
    let at_once: BTreeSet<String> = recorded
        .lock()
        .unwrap()
        .iter()
        .filter(|o| o.spec.caches.iter().any(|c| c.namespace == ns.name) && holds(o, &ns.name).is_empty())
        .filter_map(|o| o.metadata.name.clone())
        .collect();
    assert_eq!(at_once.len(), n, "every node is filled at once");

    recorded.lock().unwrap().clear();
    cache.patch(json!({"spec": {"images": list(&[1, 2])}})).await;
    cache
        .until("the second revision is everywhere", 120, |s| {
            s.revision.as_ref() != Some(&first) && usize::try_from(s.nodes.updated).unwrap() == n
        })
        .await;
    watching.abort();
    let mut moving: BTreeSet<String> = BTreeSet::new();
    let mut most = 0;
    for object in recorded.lock().unwrap().iter() {
        let name = object.metadata.name.clone().unwrap();
        let Some(claim) = object.spec.caches.iter().find(|c| c.namespace == ns.name) else {
            continue;
        };
        if claim.revision != first && !holds(object, &ns.name).contains(&claim.revision) {
            moving.insert(name);
        } else {
            moving.remove(&name);
        }
        most = most.max(moving.len());
    }
    assert_eq!(most, 1, "nodes holding a slot at a time");
    ns.delete().await;
}

fn holds(object: &NodeImageCache, namespace: &str) -> Vec<String> {
    let status = object.status.clone().unwrap_or_default();
    let blocks = [status.kubelet, status.agent.map(|a| a.puller)];
    let caches = blocks.into_iter().flatten().flat_map(|block| block.caches);
    caches
        .filter(|c| c.namespace == namespace)
        .flat_map(|c| c.held)
        .collect()
}

#[tokio::test]
async fn a_failing_or_unreachable_node_does_not_stop_the_others() {
    let env = Env::exclusive().await;
    let ns = env.namespace("stuck").await;
    for i in 0..2 {
        env.push(
            Open,
            &ImageSpec::new(710 + i).layers(1, 50_000),
            &format!("stuck/i{i}"),
            "1",
        )
        .await;
    }
    let cache = ns
        .cache(
            "app",
            json!({
                "images": [{"image": "quay.io/stuck/i0:1"}],
                "rollout": {"maxConcurrentNodes": 1},
                "retry": {"initialDelay": "1s", "maxDelay": "20s"},
            }),
        )
        .await;
    cache.ready(60).await;
    let nodes = env.nodes();
    // The first node in line gets a registry that is not there: its pulls fail.
    let broken = env.cluster.node(&nodes[0]).unwrap();
    let hosts = broken.registry_hosts().join("_default/hosts.toml");
    let good = std::fs::read_to_string(&hosts).unwrap();
    std::fs::write(&hosts, good.replace("10.77.0.2:5000", &Env::closed_host())).unwrap();
    cache
        .patch(json!({"spec": {"images": [{"image": "quay.io/stuck/i1:1"}]}}))
        .await;
    let others = i32::try_from(nodes.len()).unwrap() - 1;
    let status = cache
        .until("the others have it and the broken one failed", 90, |s| {
            s.nodes.updated == others && node(s, &nodes[0]).is_some_and(|n| n.state == NodeState::Failed)
        })
        .await;
    assert_eq!(condition(&status, "Degraded"), Some("True"));
    std::fs::write(&hosts, good).unwrap();
    cache.until("healed", 90, |s| s.nodes.updated == others + 1).await;
    ns.delete().await;
}
