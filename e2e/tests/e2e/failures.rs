//! Images that cannot be had: each is named with its reason, and none holds up the rest.

use std::time::Duration;

use larder_api::image_cache_status::RefreshResult;
use larder_api::names::Reason;
use larder_e2e::cluster::registry::RegistryKind::{Auth, Open};
use larder_e2e::images::ImageSpec;
use serde_json::json;

use crate::support::{Env, condition, failure, reason};

#[tokio::test]
async fn every_bad_image_is_named_and_the_rest_is_in_place() {
    let env = Env::shared().await;
    let ns = env.namespace("bad").await;
    for i in 0..6 {
        env.push(
            Open,
            &ImageSpec::new(200 + i).layers(1, 50_000),
            &format!("bad/good-{i}"),
            "1",
        )
        .await;
    }
    env.push(Auth, &ImageSpec::new(210).layers(1, 50_000), "bad/secret", "1")
        .await;
    let auth = env.registry(Auth).host;
    let missing = "quay.io/bad/missing:1".to_owned();
    let refused = format!("{auth}/bad/secret:1");
    let closed = format!("{}/bad/closed:1", Env::closed_host());
    let silent = format!("{}/bad/silent:1", Env::silent_host());
    let mut images: Vec<String> = (0..6).map(|i| format!("quay.io/bad/good-{i}:1")).collect();
    images.extend([missing.clone(), refused.clone(), closed.clone(), silent.clone()]);
    let cache = ns
        .cache(
            "mixed",
            json!({
                "images": images.iter().map(|i| json!({"image": i})).collect::<Vec<_>>(),
                "retry": {"initialDelay": "1s", "maxDelay": "10s"},
            }),
        )
        .await;

    // The good ones first: nobody waits for a registry that does not answer.
    cache
        .until("the good images are in place", 90, |s| {
            !s.node_statuses.is_empty() && s.node_statuses.iter().all(|n| n.ready >= 6)
        })
        .await;
    for (image, reason) in [
        (&missing, Reason::NotFound),
        // Refused with 401, and no pull secret fits.
        (&refused, Reason::CredentialsMissing),
        (&closed, Reason::RegistryUnreachable),
    ] {
        cache
            .until(&format!("{image} is {reason}"), 60, |s| {
                failure(s, image).is_some_and(|f| f.reason == reason && f.nodes > 0 && !f.message.is_empty())
            })
            .await;
    }
    // The runtime itself notices after 30 s.
    let status = cache
        .until("the silent registry is told", 120, |s| {
            failure(s, &silent).is_some_and(|f| f.reason == Reason::RegistryUnreachable && f.nodes > 0)
        })
        .await;
    assert_eq!(condition(&status, "Degraded"), Some("True"));
    assert_eq!(condition(&status, "Ready"), Some("False"));
    assert_eq!(condition(&status, "Resolved"), Some("False"));

    // Pushing the missing image heals it without a touch.
    env.push(Open, &ImageSpec::new(211).layers(1, 50_000), "bad/missing", "1")
        .await;
    cache
        .until("the missing image arrived", 120, |s| {
            failure(s, &missing).is_none() && s.node_statuses.iter().all(|n| n.ready >= 7)
        })
        .await;
    ns.delete().await;
}

#[tokio::test]
async fn an_image_for_another_platform_is_skipped_or_fails_as_asked() {
    let env = Env::shared().await;
    let ns = env.namespace("platform").await;
    env.push(
        Open,
        &ImageSpec::new(220).layers(1, 50_000).architectures(&["arm64"]),
        "platform/arm",
        "1",
    )
    .await;
    env.push(Open, &ImageSpec::new(221).layers(1, 50_000), "platform/here", "1")
        .await;
    let images = json!([{"image": "quay.io/platform/arm:1"}, {"image": "quay.io/platform/here:1"}]);
    let skip = ns.cache("skip", json!({"images": images})).await;
    let fail = ns
        .cache("fail", json!({"images": images, "onMissingPlatform": "Fail"}))
        .await;

    let status = skip.ready(60).await;
    assert!(
        status
            .node_statuses
            .iter()
            .all(|n| (n.ready, n.total, n.skipped) == (1, 1, 1)),
        "{status:?}"
    );
    assert_eq!(
        failure(&status, "quay.io/platform/arm:1").unwrap().reason,
        Reason::NoMatchingPlatform
    );
    assert_eq!(condition(&status, "Degraded"), Some("False"));

    let status = fail
        .until("failed", 60, |s| {
            failure(s, "quay.io/platform/arm:1")
                .is_some_and(|f| f.reason == Reason::NoMatchingPlatform && f.nodes > 0)
        })
        .await;
    assert_eq!(condition(&status, "Degraded"), Some("True"));
    assert_eq!(condition(&status, "Ready"), Some("False"));
    // There is nothing to try, and so nothing to wait for.
    let refresh = fail.refresh("anyway").await.last_refresh.unwrap();
    assert_eq!(refresh.result, Some(RefreshResult::Failed));
    ns.delete().await;
}

#[tokio::test]
async fn a_refresh_tries_at_once_what_would_have_waited_for_long() {
    let env = Env::shared().await;
    let ns = env.namespace("again").await;
    let image = format!("quay.io/{}/late:1", ns.name);
    let spec = json!({
        "images": [{"image": image}],
        "resolve": "OnNode",
        "retry": {"initialDelay": "10m", "maxDelay": "1h"},
    });
    let cache = ns.cache("app", spec).await;
    cache
        .until("every node has failed", 60, |s| {
            failure(s, &image).is_some_and(|f| f.nodes == 3) && reason(s, "Ready") == Some("NodesFailed")
        })
        .await;
    let refresh = cache.refresh("too early").await.last_refresh.unwrap();
    assert_eq!(refresh.result, Some(RefreshResult::Failed));
    env.push(
        Open,
        &ImageSpec::new(rand::random()).layers(1, 50_000),
        &format!("{}/late", ns.name),
        "1",
    )
    .await;
    // Failures are told in whole seconds, and one of the same second counts as that of the refresh.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let refresh = cache.refresh("now").await.last_refresh.unwrap();
    assert_eq!(refresh.result, Some(RefreshResult::Succeeded));
    cache.ready(10).await;
    ns.delete().await;
}
