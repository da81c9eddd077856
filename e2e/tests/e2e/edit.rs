//! A spec that changes while work runs ends as if it had been so from the start.

use larder_e2e::cluster::registry::RegistryKind::Open;
use larder_e2e::images::ImageSpec;
use serde_json::json;

use crate::support::{Env, condition};

#[tokio::test]
async fn edits_during_a_pull_count_as_if_made_at_once() {
    let env = Env::shared().await;
    let ns = env.namespace("edit").await;
    for i in 0..6 {
        env.push(
            Open,
            &ImageSpec::new(500 + i).layers(2, 3_000_000),
            &format!("edit/i{i}"),
            "1",
        )
        .await;
    }
    let image = |i: usize| format!("quay.io/edit/i{i}:1");
    let list = |all: &[usize]| {
        all.iter()
            .map(|i| json!({"image": image(*i)}))
            .collect::<Vec<_>>()
    };
    let cache = ns.cache("app", json!({"images": list(&[0, 1, 2])})).await;
    Env::sleep(1).await;
    cache.patch(json!({"spec": {"images": list(&[2, 3, 4])}})).await;
    Env::sleep(1).await;
    cache
        .patch(json!({"spec": {"images": list(&[3, 4, 5]), "rollout": {"imagesPerNode": 1}}}))
        .await;
    let status = cache
        .until("three images", 90, |s| {
            s.images.total == 3 && condition(s, "Ready") == Some("True")
        })
        .await;
    assert!(
        status.node_statuses.iter().all(|n| (n.ready, n.total) == (3, 3)),
        "{status:?}"
    );
    for node in env.nodes() {
        for i in [3, 4, 5] {
            assert!(env.node_has(&node, &image(i)), "{} on {node}", image(i));
        }
    }
    // Another selector: the cache leaves the other nodes' objects.
    let nodes = env.nodes();
    let here = json!({"selector": {"matchLabels": {"kubernetes.io/hostname": nodes[0]}}});
    cache.patch(json!({"spec": {"nodes": here}})).await;
    cache
        .until("one node", 30, |s| {
            s.nodes.selected == 1 && condition(s, "Ready") == Some("True")
        })
        .await;
    let claims = env
        .kubectl(&[
            "get",
            "nic",
            "-o",
            "jsonpath={range .items[*]}{.metadata.name}={.spec.caches[*].namespace}{\"\\n\"}{end}",
        ])
        .unwrap();
    let with: Vec<&str> = claims.lines().filter(|l| l.contains(&ns.name)).collect();
    assert_eq!(with.len(), 1, "{claims}");
    ns.delete().await;
}

#[tokio::test]
async fn to_b_and_back_to_a_ends_on_the_revision_of_a_without_a_pull() {
    let env = Env::shared().await;
    let ns = env.namespace("back").await;
    for i in 0..2 {
        env.push(
            Open,
            &ImageSpec::new(520 + i).layers(1, 30_000),
            &format!("back/i{i}"),
            "1",
        )
        .await;
    }
    let list = |i: usize| json!({"spec": {"images": [{"image": format!("quay.io/back/i{i}:1")}]}});
    let cache = ns.cache("app", list(0)["spec"].clone()).await;
    let a = cache.ready(60).await.revision.unwrap();
    cache.patch(list(1)).await;
    let status = cache
        .until("B is everywhere", 60, |s| {
            s.revision.as_ref() != Some(&a) && condition(s, "Ready") == Some("True")
        })
        .await;
    let b = status.revision.unwrap();
    let log = env.registry(Open).mark().unwrap();
    cache.patch(list(0)).await;
    cache
        .until("A is back", 60, |s| {
            s.revision.as_ref() == Some(&a) && condition(s, "Ready") == Some("True")
        })
        .await;
    let (requests, _) = env.registry(Open).requests_since(log).unwrap();
    let gets: Vec<_> = requests
        .iter()
        .filter(|r| r.path.contains("/back/") && r.method == "GET")
        .collect();
    assert!(gets.is_empty(), "something was pulled again: {gets:?}");
    assert_eq!(
        ns.revisions().await,
        [a, b],
        "two revisions, the first raised to the top"
    );
    ns.delete().await;
}
