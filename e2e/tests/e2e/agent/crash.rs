//! Agent and containerd die at random moments.

use std::collections::BTreeMap;
use std::time::Duration;

use larder_e2e::cluster::registry::RegistryKind::Open;
use larder_e2e::images::ImageSpec;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::{agent_is_there, kill};
use crate::support::{Env, Namespace, eventually};

const MIB: usize = 1 << 20;

/// Four caches one after another, each of six images, while `harm` is done to the first node five times a cache.
async fn survive(env: &Env, ns: &Namespace, mut harm: impl AsyncFnMut(&str)) {
    let node = env.nodes().remove(0);
    let registry = env.registry(Open);
    let mut random = rand::rngs::StdRng::seed_from_u64(20_261_121);
    let mut wounds = 0;
    for round in 0..4 {
        let mut images = Vec::new();
        for i in 0..6 {
            let repository = format!("{}/r{round}-{i}", ns.name);
            env.push(
                Open,
                &ImageSpec::new(rand::random()).layers(2, 4 * MIB),
                &repository,
                "1",
            )
            .await;
            images.push(format!("quay.io/{repository}:1"));
        }
        let list: Vec<_> = images.iter().map(|i| json!({"image": i})).collect();
        let cache = ns
            .cache(
                &format!("round-{round}"),
                json!({
                    "images": list, "puller": "Agent",
                    "nodes": {"selector": {"matchLabels": {"kubernetes.io/hostname": node}}},
                    "protect": {"minFreeDisk": "0%"},
                    "retry": {"initialDelay": "1s", "maxDelay": "3s"},
                }),
            )
            .await;
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..1500))).await;
            harm(&node).await;
            wounds += 1;
        }
        cache.ready(240).await;
        eventually(&format!("round {round}: all is there"), 30, || async {
            // The runtime may be on its way back.
            let node = env.cluster.node(&node).unwrap();
            let listed = node
                .ctr(&["images", "list", "--quiet"])
                .map_err(|e| e.to_string())?;
            match images
                .iter()
                .find(|image| !listed.lines().any(|l| l == image.as_str()))
            {
                None => Ok(()),
                Some(image) => Err(format!("{image} is not there")),
            }
        })
        .await;
        // From here on it was said to be Ready: nothing of it is fetched again, also after one more wound.
        let mark = registry.mark().unwrap();
        harm(&node).await;
        Env::sleep(8).await;
        cache.ready(120).await;
        let (requests, _) = registry.requests_since(mark).unwrap();
        let mut fetched: BTreeMap<String, usize> = BTreeMap::new();
        for request in requests
            .iter()
            .filter(|r| r.method == "GET" && r.path.contains("/blobs/"))
        {
            if request.path.contains(&ns.name) {
                *fetched.entry(request.path.clone()).or_default() += 1;
            }
        }
        assert!(fetched.is_empty(), "round {round}: fetched again: {fetched:?}");
    }
    assert_eq!(wounds, 20);
}

#[tokio::test]
async fn an_agent_killed_at_twenty_moments_converges_and_fetches_nothing_twice() {
    let env = Env::exclusive().await;
    let ns = env.namespace("agentkill").await;
    let node = env.nodes().remove(0);
    agent_is_there(&env, &node).await;
    survive(&env, &ns, async |node| {
        // Between two lives there is nothing to kill: wait for the next.
        eventually("the agent runs and is killed", 60, || async {
            if kill(&env, node).await {
                Ok(())
            } else {
                Err("it does not run".to_owned())
            }
        })
        .await;
    })
    .await;
    ns.delete().await;
}

#[tokio::test]
async fn a_containerd_killed_at_twenty_moments_converges_and_fetches_nothing_twice() {
    let env = Env::exclusive().await;
    let ns = env.namespace("runtimekill").await;
    let node = env.nodes().remove(0);
    agent_is_there(&env, &node).await;
    survive(&env, &ns, async |node| {
        env.cluster.node(node).unwrap().restart("containerd").unwrap();
    })
    .await;
    ns.delete().await;
}
