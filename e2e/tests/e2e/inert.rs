//! A command inside an image reference, where one arrives in spite of the schema.

use std::path::Path;

use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use larder_api::node_image_cache::CacheOnNode;
use larder_api::{ImageCacheRevision, NodeImageCache};
use larder_e2e::cluster::registry::RegistryKind;
use serde_json::json;

use crate::support::{Cache, Env, eventually};

/// Creates a revision of the cache in the operator's name: nobody else may.
async fn smuggle(operator: &Client, cache: &Cache, reference: &str) -> Api<ImageCacheRevision> {
    let owner = cache.get().await.controller_owner_ref(&()).unwrap();
    let revision: ImageCacheRevision = serde_json::from_value(json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "ImageCacheRevision",
        "metadata": {"name": "web-evil", "namespace": cache.namespace, "ownerReferences": [owner]},
        "number": 1,
        "spec": {"images": [{"image": reference, "platforms": [], "priority": 0, "private": false}]},
    }))
    .unwrap();
    let revisions: Api<ImageCacheRevision> = Api::namespaced(operator.clone(), &cache.namespace);
    revisions.create(&PostParams::default(), &revision).await.unwrap();
    revisions
}

/// Asks a node, in the operator's name, to remove what that revision lists.
async fn ask_for_removal(objects: &Api<NodeImageCache>, node: &str, cache_uid: &str) {
    eventually("the removal is asked for", 10, || async {
        let object = objects.get(node).await.unwrap();
        let mut claims = object.spec.caches.clone();
        let claim = claims.iter_mut().find(|c| c.uid == cache_uid).ok_or("no claim")?;
        claim.remove_revisions = vec!["web-evil".into()];
        let patch = Patch::Merge(json!({
            "metadata": {"resourceVersion": object.resource_version()}, "spec": {"caches": claims},
        }));
        let written = objects.patch(node, &PatchParams::default(), &patch).await;
        written.map(drop).map_err(|e| e.to_string())
    })
    .await;
}

fn on_node(object: &NodeImageCache, cache_uid: &str) -> Option<CacheOnNode> {
    let kubelet = object.status.as_ref()?.kubelet.as_ref()?;
    kubelet.caches.iter().find(|c| c.uid == cache_uid).cloned()
}

/// The reference reaches the purge program of a real node; a shell on the way would leave a file.
#[tokio::test]
async fn a_command_inside_a_reference_is_inert_where_it_arrives() {
    let env = Env::shared().await;
    let namespace = env.namespace("inert").await;
    let good = namespace.image(&env, RegistryKind::Open, "good").await;
    let cache = namespace
        .cache("web", json!({"images": [{"image": good}], "removal": "Purge"}))
        .await;
    let newest = cache.ready(60).await.revision.unwrap();
    let uid = cache.get().await.uid().unwrap();
    let node = env.nodes().remove(0);
    let marker = format!("/run/larder-injected-{}", namespace.name);
    let nothing_ran = || {
        assert!(!env.node_file_exists(&node, &marker), "a shell has run on {node}");
        assert!(!Path::new(&marker).exists(), "a shell has run on this machine");
    };

    let operator = env
        .act_as("system:serviceaccount:larder-system:larder-operator")
        .await;
    let evil = format!("docker.io/library/x:1; touch {marker}; $(touch {marker}) `touch {marker}`");
    let revisions = smuggle(&operator, &cache, &evil).await;
    let objects: Api<NodeImageCache> = Api::all(operator);
    ask_for_removal(&objects, &node, &uid).await;
    // It ends one way or the other: the name is no image's.
    eventually("the purge program has answered", 60, || async {
        let object = objects.get(&node).await.unwrap();
        let on_node = on_node(&object, &uid).ok_or("no status")?;
        let claim = object
            .spec
            .caches
            .iter()
            .find(|c| c.uid == uid)
            .ok_or("no claim")?;
        let done = on_node.removed_revisions.iter().any(|r| r == "web-evil")
            || claim.remove_revisions.is_empty()
            || !on_node.removal_error.is_empty();
        done.then_some(()).ok_or_else(|| format!("{on_node:?}"))
    })
    .await;
    nothing_ran();
    assert!(env.node_has(&node, &good));

    // As the newest revision it may even be pulled for a moment; the operator puts the right one back.
    let raise = Patch::Merge(json!({"number": 99}));
    revisions
        .patch("web-evil", &PatchParams::default(), &raise)
        .await
        .unwrap();
    eventually("the right revision is the newest again", 30, || async {
        let number = revisions.get(&newest).await.unwrap().spec.number;
        if number > 99 {
            Ok(())
        } else {
            Err(format!("number {number}"))
        }
    })
    .await;
    cache.ready(60).await;
    nothing_ran();
    // A name that is none can never be removed; whoever does not want to wait for that says so.
    cache.patch(json!({"spec": {"removal": "Retain"}})).await;
    cache.delete().await;
    cache.gone(30).await;
    namespace.delete().await;
}
