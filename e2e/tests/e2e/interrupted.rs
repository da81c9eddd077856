//! A removal that is called off while it is at work: whatever was removed by then is pulled again, and Ready never
//! speaks of images that are gone.

use std::time::Duration;

use larder_e2e::cluster::registry::RegistryKind;
use serde_json::{Value, json};

use crate::support::{Cache, Env, condition};

/// Milliseconds, spread over the time that a purge of two nodes takes, from the first write to the last report.
const DELAYS: [u64; 6] = [0, 300, 600, 900, 1200, 1600];

fn images(images: &[&str]) -> Value {
    images.iter().map(|image| json!({"image": image})).collect()
}

/// The images are on every node, and stay there: no late removal takes one away again.
async fn really_there(env: &Env, cache: &Cache, images: &[&str], when: &str) {
    for _ in 0..2 {
        assert_eq!(condition(&cache.status().await, "Ready"), Some("True"), "{when}");
        for node in env.nodes() {
            let there = env.images_on(&node);
            for image in images {
                assert!(
                    there.iter().any(|name| name == image),
                    "{when}: Ready, but {node} has no {image}: {there:?}"
                );
            }
        }
        Env::sleep(2).await;
    }
}

/// Purges, and asks for a refresh so many milliseconds after the purge was accepted: everything is there in the end.
async fn call_off(env: &Env, cache: &Cache, images: &[&str], delay: u64) {
    let token = format!("purge-{delay}");
    cache.annotate("larder.dev/purge", &token).await;
    // Both annotations seen at once would be another case: there the purge supersedes the refresh.
    cache
        .until("the purge is accepted", 10, |s| {
            s.last_purge.as_ref().is_some_and(|p| p.token == token)
        })
        .await;
    tokio::time::sleep(Duration::from_millis(delay)).await;
    let token = format!("refresh-{delay}");
    cache.annotate("larder.dev/refresh", &token).await;
    cache
        .until("the refresh is done", 60, |s| {
            let finished = s.last_refresh.as_ref().and_then(|r| r.finished_token.as_deref());
            finished == Some(token.as_str()) && condition(s, "Ready") == Some("True")
        })
        .await;
    really_there(env, cache, images, &format!("called off after {delay} ms")).await;
}

#[tokio::test]
async fn a_refresh_in_the_middle_of_a_purge_brings_everything_back() {
    let env = Env::shared().await;
    let namespace = env.namespace("interrupted").await;
    let a = namespace.image(&env, RegistryKind::Open, "a").await;
    let b = namespace.image(&env, RegistryKind::Open, "b").await;
    let cache = namespace.cache("web", json!({"images": images(&[&a, &b])})).await;
    cache.ready(60).await;
    for delay in DELAYS {
        call_off(&env, &cache, &[&a, &b], delay).await;
    }
    cache.delete().await;
    cache.gone(30).await;
    namespace.delete().await;
}

#[tokio::test]
async fn a_purge_of_what_agent_and_kubelet_pulled_takes_both_parts_and_can_be_called_off() {
    let env = Env::shared().await;
    let namespace = env.namespace("mixed").await;
    let public = namespace.image(&env, RegistryKind::Open, "public").await;
    let private = namespace.image(&env, RegistryKind::Auth, "private").await;
    let registry = env.registry(RegistryKind::Auth);
    let (user, password) = registry.credentials.unwrap();
    namespace
        .pull_secret("regcred", &registry.host, &user, &password)
        .await;
    let spec = json!({
        "images": images(&[&public, &private]), "puller": "Auto", "pullSecrets": [{"name": "regcred"}],
        "rollout": {"maxConcurrentNodes": "100%"},
    });
    let cache = namespace.cache("web", spec).await;
    cache.ready(60).await;
    for delay in [0, 400, 1200] {
        call_off(&env, &cache, &[&public, &private], delay).await;
    }
    cache.annotate("larder.dev/purge", "all").await;
    cache
        .until("the purge is done", 60, |s| {
            s.last_purge
                .as_ref()
                .is_some_and(|p| p.finished_token.as_deref() == Some("all"))
        })
        .await;
    for node in env.nodes() {
        for image in [&public, &private] {
            assert!(!env.node_has(&node, image), "{image} is still on {node}");
        }
    }
    cache.delete().await;
    cache.gone(30).await;
    namespace.delete().await;
}

#[tokio::test]
async fn an_image_put_back_while_it_is_being_removed_is_there_in_the_end() {
    let env = Env::shared().await;
    let namespace = env.namespace("interrupted").await;
    let a = namespace.image(&env, RegistryKind::Open, "a").await;
    let b = namespace.image(&env, RegistryKind::Open, "b").await;
    let spec =
        json!({"images": images(&[&a, &b]), "removal": "Purge", "rollout": {"maxConcurrentNodes": "100%"}});
    let cache = namespace.cache("web", spec).await;
    cache.ready(60).await;
    for delay in DELAYS {
        cache.patch(json!({"spec": {"images": images(&[&b])}})).await;
        tokio::time::sleep(Duration::from_millis(delay)).await;
        cache.patch(json!({"spec": {"images": images(&[&a, &b])}})).await;
        cache.ready(60).await;
        really_there(&env, &cache, &[&a, &b], &format!("put back after {delay} ms")).await;
    }
    cache.delete().await;
    cache.gone(60).await;
    namespace.delete().await;
}
