//! Tags that move, and refreshes asked for by annotation.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use larder_api::image_cache_status::{RefreshResult, RefreshTrigger};
use larder_api::names::{KUBEFLEDGED_REFRESH_ANNOTATION, PURGE_ANNOTATION, REFRESH_ANNOTATION};
use larder_e2e::cluster::registry::RegistryKind::Open;
use larder_e2e::images::ImageSpec;
use serde_json::json;

use crate::support::{Cache, Env, eventually, reason};

fn holds(env: &Env, node: &str, reference: &str, digest: &str) -> bool {
    let listed = env
        .cluster
        .node(node)
        .unwrap()
        .ctr(&["images", "list", &format!("name=={reference}")])
        .unwrap();
    listed.contains(digest)
}

async fn finished(cache: &Cache, token: &str) -> larder_api::ImageCacheStatus {
    cache
        .until(&format!("refresh {token} is finished"), 60, |s| {
            s.last_refresh
                .as_ref()
                .is_some_and(|r| r.finished_token.as_deref() == Some(token))
        })
        .await
}

#[tokio::test]
async fn a_moved_tag_reaches_every_node_by_either_annotation() {
    let env = Env::shared().await;
    let ns = env.namespace("refresh").await;
    env.push(
        Open,
        &ImageSpec::new(300).layers(1, 50_000),
        "refresh/app",
        "latest",
    )
    .await;
    env.push(Open, &ImageSpec::new(301).layers(1, 50_000), "refresh/still", "1")
        .await;
    let reference = "quay.io/refresh/app:latest";
    let cache = ns
        .cache(
            "app",
            json!({"images": [{"image": reference}, {"image": "quay.io/refresh/still:1"}]}),
        )
        .await;
    let first = cache.ready(60).await.revision;

    for (seed, key, token) in [
        (302, REFRESH_ANNOTATION, "T1"),
        (303, KUBEFLEDGED_REFRESH_ANNOTATION, "T2"),
    ] {
        let moved = env
            .push(
                Open,
                &ImageSpec::new(seed).layers(1, 50_000),
                "refresh/app",
                "latest",
            )
            .await;
        env.kubectl(&[
            "annotate",
            "ic",
            "app",
            "--namespace",
            &ns.name,
            &format!("{key}={token}"),
        ])
        .unwrap();
        let wait = format!("--for=jsonpath={{.status.lastRefresh.finishedToken}}={token}");
        env.kubectl(&["wait", "ic/app", "--namespace", &ns.name, &wait, "--timeout=90s"])
            .unwrap();
        for node in env.nodes() {
            assert!(
                holds(&env, &node, reference, &moved.digest),
                "{node} does not hold {}",
                moved.digest
            );
        }
        let object = cache.get().await;
        assert!(
            !object.metadata.annotations.unwrap_or_default().contains_key(key),
            "the annotation is still there"
        );
        let refresh = object.status.unwrap().last_refresh.unwrap();
        assert_eq!(
            (refresh.changed, refresh.result),
            (1, Some(RefreshResult::Succeeded))
        );
        assert_eq!(refresh.trigger, RefreshTrigger::Annotation);
    }
    assert_ne!(cache.status().await.revision, first);
    ns.delete().await;
}

#[tokio::test]
async fn a_refresh_costs_one_head_an_image_and_pulls_only_what_moved() {
    let env = Env::exclusive().await;
    let ns = env.namespace("noop").await;
    let push = async |i: usize| {
        let spec = ImageSpec::new(rand::random()).layers(1, 10_000);
        env.push(Open, &spec, &format!("{}/i{i}", ns.name), "1").await;
    };
    let mut images = Vec::new();
    for i in 0..30 {
        push(i).await;
        images.push(json!({"image": format!("quay.io/{}/i{i}:1", ns.name)}));
    }
    let cache = ns.cache("many", json!({"images": images})).await;
    let before = cache.ready(90).await;
    Env::sleep(3).await;
    let registry = env.registry(Open);
    let log = registry.mark().unwrap();
    let audit = env.cluster.audit().mark().unwrap();
    let begun = Instant::now();
    cache.annotate(REFRESH_ANNOTATION, "nothing").await;
    let after = finished(&cache, "nothing").await;
    println!("30 tags were looked up again in {:?}", begun.elapsed());
    assert_eq!(after.last_refresh.unwrap().changed, 0);
    assert_eq!(after.revision, before.revision);
    Env::sleep(2).await;
    let of_ours = |log| {
        let (requests, log) = registry.requests_since(log).unwrap();
        let ours = requests
            .into_iter()
            .filter(|r| r.path.contains(&format!("/{}/", ns.name)));
        (ours.collect::<Vec<_>>(), log)
    };
    let (requests, log) = of_ours(log);
    let heads: BTreeSet<&str> = requests
        .iter()
        .filter(|r| r.method == "HEAD")
        .map(|r| r.path.as_str())
        .collect();
    assert_eq!((heads.len(), requests.len()), (30, 30), "{requests:?}");
    let writes = crate::support::writes_of_larder(&env, audit);
    assert!(writes.len() <= 3, "{writes:#?}");
    assert!(
        writes.iter().all(|w| w.resource.starts_with("imagecaches")),
        "{writes:#?}"
    );

    // One moves: each node pulls this one.
    push(7).await;
    cache.annotate(REFRESH_ANNOTATION, "one").await;
    let after = finished(&cache, "one").await;
    assert_eq!(after.last_refresh.unwrap().changed, 1);
    cache.ready(60).await;
    let (requests, _) = of_ours(log);
    let moved = format!("/{}/i7/blobs/", ns.name);
    // The operator reads the moved image's configuration, too.
    let nodes = env.cluster.nodes().unwrap();
    let nodes: BTreeSet<String> = nodes.iter().map(|n| n.address().to_string()).collect();
    let mut pulls: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for request in requests
        .iter()
        .filter(|r| nodes.contains(&r.client) && r.method == "GET" && r.path.contains("/blobs/"))
    {
        assert!(request.path.contains(&moved), "{request:?}");
        *pulls.entry((&request.client, &request.path)).or_default() += 1;
    }
    let clients: BTreeSet<&str> = pulls.keys().map(|(client, _)| *client).collect();
    assert_eq!(clients.len(), nodes.len(), "{pulls:#?}");
    assert!(pulls.values().all(|times| *times == 1), "{pulls:#?}");
    ns.delete().await;
}

#[tokio::test]
async fn the_edge_cases_of_annotations() {
    let env = Env::shared().await;
    let ns = env.namespace("edges").await;
    env.push(Open, &ImageSpec::new(330).layers(1, 2_000_000), "edges/app", "1")
        .await;
    let cache = ns
        .cache("app", json!({"images": [{"image": "quay.io/edges/app:1"}]}))
        .await;
    // Set while work runs: not lost.
    cache.annotate(REFRESH_ANNOTATION, "early").await;
    finished(&cache, "early").await;
    let first = cache.status().await.last_refresh.unwrap();

    // An equal token is a new request. Times in objects have whole seconds.
    Env::sleep(2).await;
    cache.annotate(REFRESH_ANNOTATION, "early").await;
    cache
        .until("the same token again", 30, |s| {
            s.last_refresh.as_ref().is_some_and(|r| {
                r.requested_at != first.requested_at && r.finished_token.as_deref() == Some("early")
            })
        })
        .await;

    // An empty value becomes the time of acceptance.
    cache.annotate(REFRESH_ANNOTATION, "").await;
    cache
        .until("a token of its own", 30, |s| {
            s.last_refresh.as_ref().is_some_and(|r| {
                r.token.starts_with("20")
                    && r.token.ends_with('Z')
                    && r.finished_token.as_ref() == Some(&r.token)
            })
        })
        .await;

    // A suspended cache lets a refresh wait.
    cache.patch(json!({"spec": {"suspend": true}})).await;
    cache.annotate(REFRESH_ANNOTATION, "later").await;
    Env::sleep(3).await;
    let object = cache.get().await;
    assert_eq!(
        object
            .metadata
            .annotations
            .unwrap_or_default()
            .get(REFRESH_ANNOTATION)
            .map(String::as_str),
        Some("later")
    );
    cache.patch(json!({"spec": {"suspend": false}})).await;
    finished(&cache, "later").await;

    // Both at once: the purge happens, the refresh is superseded.
    cache
        .patch(json!({"metadata": {"annotations": {REFRESH_ANNOTATION: "r", PURGE_ANNOTATION: "p"}}}))
        .await;
    let status = cache
        .until("purged", 60, |s| {
            s.last_purge
                .as_ref()
                .is_some_and(|p| p.finished_token.as_deref() == Some("p"))
        })
        .await;
    let refresh = status.last_refresh.clone().unwrap();
    assert_eq!(
        (refresh.result, refresh.finished_token.as_deref()),
        (Some(RefreshResult::Superseded), Some("r"))
    );
    assert_eq!(reason(&status, "Ready"), Some("Purged"));

    // A change that is not one of the images does not end the purge; a refresh does.
    cache
        .patch(json!({"spec": {"rollout": {"imagesPerNode": 2}}}))
        .await;
    Env::sleep(3).await;
    assert_eq!(reason(&cache.status().await, "Ready"), Some("Purged"));
    cache.annotate(REFRESH_ANNOTATION, "again").await;
    finished(&cache, "again").await;
    cache.ready(30).await;
    ns.delete().await;
}

#[tokio::test]
async fn references_that_nodes_resolve_are_reported_by_them() {
    let env = Env::shared().await;
    let ns = env.namespace("onnode").await;
    let first = env
        .push(Open, &ImageSpec::new(340).layers(1, 20_000), "onnode/app", "1")
        .await;
    let spec = json!({"images": [{"image": "quay.io/onnode/app:1"}], "resolve": "OnNode"});
    let cache = ns.cache("app", spec).await;
    cache.ready(60).await;
    let reported = |digest: String| {
        let (env, ns) = (&env, &ns.name);
        async move {
            eventually("nodes report the digest", 120, || async {
                let all = env.kubectl(&["get", "nic", "--output=json"]).unwrap();
                let all: serde_json::Value = serde_json::from_str(&all).unwrap();
                let caches = all["items"].as_array().unwrap().iter().flat_map(|n| {
                    let of = |block: &str| n["status"][block]["caches"].as_array().cloned();
                    [of("kubelet"), of("agent")].into_iter().flatten().flatten()
                });
                let ours: Vec<_> = caches.filter(|c| c["namespace"] == ns.as_str()).collect();
                let right = ours
                    .iter()
                    .filter(|c| c["reported"][0]["digest"] == digest.as_str())
                    .count();
                if right == env.nodes().len() {
                    Ok(())
                } else {
                    Err(format!("{ours:#?}"))
                }
            })
            .await;
        }
    };
    reported(first.digest).await;
    let moved = env
        .push(Open, &ImageSpec::new(341).layers(1, 20_000), "onnode/app", "1")
        .await;
    cache.annotate(REFRESH_ANNOTATION, "onnode").await;
    finished(&cache, "onnode").await;
    reported(moved.digest).await;
    ns.delete().await;
}
