//! Agents that go and come back: who pulls then.

use k8s_openapi::api::batch::v1::Job;
use kube::api::ListParams;
use larder_api::node_image_cache::NodeState;
use larder_e2e::cluster::registry::RegistryKind::Open;
use larder_e2e::images::ImageSpec;
use serde_json::json;

use super::{agent_is_there, pod_on};
use crate::support::{Env, eventually, node};

/// Sends the agents away by a node selector that no node fits, or lets them come back.
async fn agents(env: &Env, present: bool) {
    let selector = if present { json!(null) } else { json!("none") };
    let patch =
        json!({"spec": {"template": {"spec": {"nodeSelector": {"larder.dev/test": selector}}}}}).to_string();
    env.kubectl(&[
        "patch",
        "daemonset",
        "larder-agent",
        "-n",
        "larder-agents",
        "--type=merge",
        "-p",
        &patch,
    ])
    .unwrap();
    if present {
        for node in env.nodes() {
            agent_is_there(env, &node).await;
        }
    } else {
        eventually("the agents are gone", 60, || async {
            for node in env.nodes() {
                if pod_on(env, &node).await.is_some() {
                    return Err(format!("there is one on {node}"));
                }
            }
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn jobs_take_over_from_agents_that_go_and_nothing_is_pulled_twice_when_they_return() {
    let env = Env::exclusive().await;
    let ns = env.namespace("handover").await;
    for i in 0..4 {
        env.push(
            Open,
            &ImageSpec::new(rand::random()).layers(1, 30 << 20),
            &format!("{}/i{i}", ns.name),
            "1",
        )
        .await;
    }
    let images: Vec<_> = (0..4)
        .map(|i| json!({"image": format!("quay.io/{}/i{i}:1", ns.name)}))
        .collect();
    let only_agents = ns.cache(
        "only",
        json!({"images": [{"image": format!("quay.io/{}/only:1", ns.name)}], "puller": "Agent"}),
    );
    env.push(
        Open,
        &ImageSpec::new(rand::random()).layers(1, 10_000),
        &format!("{}/only", ns.name),
        "1",
    )
    .await;
    for node in env.nodes() {
        agent_is_there(&env, &node).await;
        env.cluster
            .node(&node)
            .unwrap()
            .limit_bandwidth(Some(10_000_000))
            .unwrap();
    }
    let cache = ns
        .cache(
            "app",
            json!({"images": images, "puller": "Auto", "protect": {"minFreeDisk": "0%"}}),
        )
        .await;
    Env::sleep(3).await;
    agents(&env, false).await;
    for node in env.nodes() {
        env.cluster.node(&node).unwrap().limit_bandwidth(None).unwrap();
    }
    cache.ready(240).await;
    eventually("Jobs have come and gone", 60, || async {
        let jobs = ns.api::<Job>().list(&ListParams::default()).await.unwrap().items;
        if jobs.is_empty() {
            Ok(())
        } else {
            Err(format!("{} are there", jobs.len()))
        }
    })
    .await;

    // What is the agent's alone waits and says so.
    let only_agents = only_agents.await;
    let first = env.nodes().remove(0);
    let status = only_agents
        .until("it waits for an agent", 60, |s| {
            node(s, &first).is_some_and(|n| n.message.contains("no agent"))
        })
        .await;
    assert_eq!(node(&status, &first).unwrap().state, NodeState::Waiting);

    let registry = env.registry(Open);
    let mark = registry.mark().unwrap();
    agents(&env, true).await;
    only_agents.ready(120).await;
    cache.ready(120).await;
    let (requests, _) = registry.requests_since(mark).unwrap();
    let again: Vec<_> = requests
        .iter()
        .filter(|r| {
            r.method == "GET" && r.path.contains("/blobs/") && r.path.contains(&format!("{}/i", ns.name))
        })
        .collect();
    assert!(again.is_empty(), "pulled again: {again:?}");
    let jobs = ns.api::<Job>().list(&ListParams::default()).await.unwrap().items;
    assert!(jobs.is_empty(), "Jobs beside agents");
    ns.delete().await;
}
