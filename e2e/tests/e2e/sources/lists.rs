//! ConfigMaps, and lists behind URLs.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::DeleteParams;
use larder_e2e::cluster::registry::RegistryKind::Open;
use serde_json::json;

use super::{holds_exactly, newest};
use crate::support::{Env, Pages, reason};

#[tokio::test]
async fn a_config_map_is_followed() {
    let env = Env::shared().await;
    let ns = env.namespace("source-map").await;
    let (a, b) = (ns.image(&env, Open, "a").await, ns.image(&env, Open, "b").await);
    ns.apply_list("images", &[&a]).await;
    let source = json!({"name": "list", "configMap": {"name": "images", "key": "images"}});
    let cache = ns.cache("followed", json!({"sources": [source]})).await;
    cache.ready(60).await;
    assert_eq!(newest(&ns, &cache).await, [(a.clone(), vec!["list".to_owned()])]);

    ns.apply_list("images", &[&a, &b]).await;
    // Nothing but the change itself asks for another look.
    let took = holds_exactly(&ns, &cache, 10, &[&a, &b]).await;
    println!("the new revision was there after {took:?}");
    let status = cache.ready(60).await;
    assert_eq!((status.sources[0].ready, status.sources[0].images), (true, 2));
    for node in env.nodes() {
        assert!(env.node_has(&node, &b));
    }

    // Without its ConfigMap the cache keeps what it has, and says so.
    ns.api::<ConfigMap>()
        .delete("images", &DeleteParams::default())
        .await
        .unwrap();
    let status = cache
        .until("the source is missed", 10, |s| s.sources.iter().any(|s| !s.ready))
        .await;
    assert_eq!(status.sources[0].reason, "NotFound");
    assert_eq!(reason(&status, "Resolved"), Some("NotFound"));
    holds_exactly(&ns, &cache, 5, &[&a, &b]).await;
    ns.delete().await;
}

#[tokio::test]
async fn a_list_behind_a_url_costs_nothing_while_it_stays_and_keeps_its_images_while_it_fails() {
    let env = Env::shared().await;
    let ns = env.namespace("source-http").await;
    let pages = Pages::serve(&env);
    let (a, b) = (ns.image(&env, Open, "a").await, ns.image(&env, Open, "b").await);
    pages.put("/list", &json!({"items": [{"image": a}]}).to_string());
    let http = json!({"url": pages.url("/list"), "format": "Json", "jsonPath": "{.items[*].image}"});
    let cache = ns
        .cache("listed", json!({"sources": [{"name": "page", "http": http}]}))
        .await;
    let first = cache.ready(60).await.revision;
    assert_eq!(pages.answers("/list"), [200]);

    let status = cache.refresh("T1").await;
    assert_eq!(pages.answers("/list"), [200, 304]);
    assert_eq!(status.revision, first);

    pages.fail(Some(503));
    cache.refresh("T2").await;
    let status = cache
        .until("the failure is said", 10, |s| s.sources.iter().any(|s| !s.ready))
        .await;
    let source = &status.sources[0];
    assert_eq!((source.reason.as_str(), source.images), ("Unreachable", 1));
    assert!(
        source.message.contains("503") && source.last_success_time.is_some(),
        "{source:?}"
    );
    assert_eq!(status.revision, first, "what it said last stays");

    // It comes back by itself.
    pages.put(
        "/list",
        &json!({"items": [{"image": a}, {"image": b}]}).to_string(),
    );
    pages.fail(None);
    holds_exactly(&ns, &cache, 60, &[&a, &b]).await;
    let status = cache.ready(60).await;
    assert!(status.sources[0].ready, "{:?}", status.sources);
    ns.delete().await;
}

#[tokio::test]
async fn what_a_source_loses_at_once_is_purged_only_when_it_says_so_twice() {
    let env = Env::shared().await;
    let ns = env.namespace("source-lost").await;
    let mut images = Vec::new();
    for name in ["a", "b", "c"] {
        images.push(ns.image(&env, Open, name).await);
    }
    let all: Vec<&str> = images.iter().map(String::as_str).collect();
    ns.apply_list("images", &all).await;
    let source = json!({"name": "list", "configMap": {"name": "images", "key": "images"}});
    let cache = ns
        .cache("lost", json!({"sources": [source], "removal": "Purge"}))
        .await;
    cache.ready(60).await;
    ns.apply_list("images", &all[..1]).await;
    let status = cache
        .until("the loss is said", 5, |s| {
            s.sources.iter().any(|s| s.reason == "Shrunk")
        })
        .await;
    assert_eq!(status.sources[0].images, 3);
    // Somebody puts them back in time.
    ns.apply_list("images", &all).await;
    cache
        .until("the loss is no more", 5, |s| {
            s.sources.iter().all(|s| s.reason.is_empty())
        })
        .await;
    holds_exactly(&ns, &cache, 1, &all).await;
    // This time it is meant.
    ns.apply_list("images", &all[..1]).await;
    let took = holds_exactly(&ns, &cache, 30, &all[..1]).await;
    assert!(took > Duration::from_secs(5), "{took:?}");
    ns.delete().await;
}
