//! Several caches at once: of one name, with shared images, by the dozen; and one image under two names.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use kube::api::ListParams;
use larder_api::NodeImageCache;
use larder_e2e::cluster::registry::RegistryKind;
use larder_e2e::images::ImageSpec;
use serde_json::json;

use crate::support::{Env, condition, eventually, reason};

/// Waits until every node has, or has not, the image.
async fn on_every_node(env: &Env, image: &str, present: bool) {
    for node in env.nodes() {
        eventually(&format!("{node} has {image}: {present}"), 30, || async {
            if env.node_has(&node, image) == present {
                Ok(())
            } else {
                Err(format!("{:?}", env.images_on(&node)))
            }
        })
        .await;
    }
}

#[tokio::test]
async fn two_caches_of_one_name_in_two_namespaces_are_strangers() {
    let env = Env::shared().await;
    let (one, two) = (env.namespace("one").await, env.namespace("two").await);
    let a = one.image(&env, RegistryKind::Open, "a").await;
    let b = two.image(&env, RegistryKind::Open, "b").await;
    let first = one
        .cache("web", json!({"images": [{"image": a}], "removal": "Purge"}))
        .await;
    let second = two
        .cache("web", json!({"images": [{"image": b}], "removal": "Purge"}))
        .await;
    let (of_first, of_second) = (first.ready(60).await, second.ready(60).await);
    assert_eq!((of_first.images.total, of_second.images.total), (1, 1));
    assert_ne!(of_first.revision, of_second.revision);
    assert_eq!(one.revisions().await, [of_first.revision.unwrap()]);
    assert_eq!(two.revisions().await, [of_second.revision.clone().unwrap()]);

    first.delete().await;
    first.gone(60).await;
    on_every_node(&env, &a, false).await;
    on_every_node(&env, &b, true).await;
    let left = second.ready(10).await;
    assert_eq!(left.revision, of_second.revision);
    assert_eq!(left.nodes.ready, i32::try_from(env.nodes().len()).unwrap());
    second.delete().await;
    second.gone(60).await;
    on_every_node(&env, &b, false).await;
    one.delete().await;
    two.delete().await;
}

#[tokio::test]
async fn a_shared_image_stays_until_the_last_cache_lets_go() {
    let env = Env::shared().await;
    let (one, two) = (env.namespace("share").await, env.namespace("share").await);
    let shared = one.image(&env, RegistryKind::Open, "shared").await;
    let own = one.image(&env, RegistryKind::Open, "own").await;
    let first = one
        .cache(
            "web",
            json!({"images": [{"image": shared}, {"image": own}], "removal": "Purge"}),
        )
        .await;
    first.ready(60).await;
    // The second finds the image there and still counts it as Larder's.
    let second = two
        .cache("web", json!({"images": [{"image": shared}], "removal": "Purge"}))
        .await;
    second.ready(60).await;
    first.delete().await;
    first.gone(60).await;
    on_every_node(&env, &own, false).await;
    on_every_node(&env, &shared, true).await;
    assert_eq!(condition(&second.status().await, "Ready"), Some("True"));
    second.delete().await;
    second.gone(60).await;
    on_every_node(&env, &shared, false).await;
    one.delete().await;
    two.delete().await;
}

/// Alone: its 150 pods would hold up every other test's.
#[tokio::test]
async fn fifty_caches_at_once_become_ready_and_go_without_a_trace() {
    let env = Env::exclusive().await;
    let namespace = env.namespace("fifty").await;
    let shared = namespace.image(&env, RegistryKind::Open, "shared").await;
    let mut own = Vec::new();
    for i in 0..10 {
        own.push(
            namespace
                .image(&env, RegistryKind::Open, &format!("own-{i}"))
                .await,
        );
    }
    let mut caches = Vec::new();
    for i in 0..50 {
        let own = &own[i % own.len()];
        let spec = json!({"images": [{"image": shared}, {"image": own, "priority": 1}], "removal": "Purge"});
        caches.push(namespace.cache(&format!("cache-{i}"), spec).await);
    }
    let nodes = i32::try_from(env.nodes().len()).unwrap();
    for cache in &caches {
        let status = cache.ready(240).await;
        assert_eq!(
            (status.nodes.ready, status.nodes.selected, status.images.total),
            (nodes, nodes, 2)
        );
        assert!(status.failures.is_empty(), "{:?}", status.failures);
    }
    let jobs = namespace.api::<Job>();
    eventually("no Job is left", 240, || async {
        let left = jobs.list(&ListParams::default()).await.unwrap().items;
        left.is_empty()
            .then_some(())
            .ok_or_else(|| format!("{} Jobs", left.len()))
    })
    .await;
    let names: BTreeSet<String> = namespace.revisions().await.into_iter().collect();
    assert_eq!(names.len(), 50, "one revision each: {names:?}");
    for cache in &caches {
        cache.delete().await;
    }
    for cache in &caches {
        cache.gone(180).await;
    }
    on_every_node(&env, &shared, false).await;
    let objects: Api<NodeImageCache> = Api::all(env.client.clone());
    eventually("no node object claims anything of them", 30, || async {
        let all = objects.list(&ListParams::default()).await.unwrap().items;
        let left = all
            .iter()
            .flat_map(|o| &o.spec.caches)
            .filter(|c| c.namespace == namespace.name)
            .count();
        if left == 0 {
            Ok(())
        } else {
            Err(format!("{left} claims"))
        }
    })
    .await;
    namespace.delete().await;
}

#[tokio::test]
async fn two_spellings_of_one_image_are_folded_and_accepted_says_so() {
    let env = Env::exclusive().await;
    let namespace = env.namespace("spelling").await;
    // Public names are served by the open registry.
    env.push(
        RegistryKind::Open,
        &ImageSpec::new(8_086).layers(1, 10_000),
        "library/larder-spelling",
        "1",
    )
    .await;
    let cache = namespace
        .cache(
            "web",
            json!({"images": [
                {"image": "larder-spelling:1", "priority": 1},
                {"image": "docker.io/library/larder-spelling:1", "priority": 7},
                {"image": "index.docker.io/library/larder-spelling:1"},
            ]}),
        )
        .await;
    let status = cache.ready(60).await;
    assert_eq!(status.images.total, 1);
    assert_eq!(condition(&status, "Accepted"), Some("True"));
    assert_eq!(reason(&status, "Accepted"), Some("DuplicateReferences"));
    let message = &status
        .conditions
        .iter()
        .find(|c| c.type_ == "Accepted")
        .unwrap()
        .message;
    assert!(
        message.contains("docker.io/library/larder-spelling:1"),
        "{message}"
    );
    assert!(
        status.node_statuses.iter().all(|n| (n.ready, n.total) == (1, 1)),
        "{:?}",
        status.node_statuses
    );
    let revisions = namespace.api::<larder_api::ImageCacheRevision>();
    let revision = revisions.get(&status.revision.unwrap()).await.unwrap();
    let images = &revision.spec.spec.images;
    assert_eq!(images.len(), 1, "{images:?}");
    assert_eq!(
        (images[0].image.as_str(), images[0].priority),
        ("docker.io/library/larder-spelling:1", 7)
    );
    on_every_node(&env, "docker.io/library/larder-spelling:1", true).await;

    // Another spelling of the same list is the same list.
    cache
        .patch(json!({"spec": {"images": [{"image": "library/larder-spelling:1", "priority": 7}]}}))
        .await;
    let status = cache
        .until("one spelling", 20, |s| reason(s, "Accepted") == Some("Valid"))
        .await;
    assert_eq!(status.revision, revision.metadata.name);
    namespace.delete().await;
}
