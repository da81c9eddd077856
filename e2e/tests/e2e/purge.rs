//! Images that go: by annotation, by leaving the list, by deletion of the cache; and those that must not.

use larder_api::names::{KUBEFLEDGED_PURGE_ANNOTATION, PURGE_ANNOTATION, REFRESH_ANNOTATION};
use larder_e2e::cluster::registry::RegistryKind::Open;
use larder_e2e::images::ImageSpec;
use serde_json::json;

use crate::support::{Cache, Env, condition, eventually, reason};

fn on_all(env: &Env, reference: &str) -> bool {
    env.nodes().iter().all(|n| env.node_has(n, reference))
}

fn on_none(env: &Env, reference: &str) -> bool {
    !env.nodes().iter().any(|n| env.node_has(n, reference))
}

async fn goes(env: &Env, reference: &str, seconds: u64) {
    eventually(&format!("{reference} goes from every node"), seconds, || async {
        if on_none(env, reference) {
            Ok(())
        } else {
            Err("it is still there".into())
        }
    })
    .await;
}

async fn purged(cache: &Cache, token: &str) -> larder_api::ImageCacheStatus {
    cache
        .until(&format!("purge {token} is finished"), 90, |s| {
            s.last_purge
                .as_ref()
                .is_some_and(|p| p.finished_token.as_deref() == Some(token))
        })
        .await
}

#[tokio::test]
async fn a_purge_takes_what_is_larders_and_nothing_else() {
    let env = Env::shared().await;
    let ns = env.namespace("purge").await;
    let other = env.namespace("purge-other").await;
    let noop = Env::noop();
    for (i, name) in ["plain", "used", "wanted", "foreign"].iter().enumerate() {
        let spec = ImageSpec::new(400 + i as u64)
            .layers(1, 30_000)
            .runs(&noop, &["hold"]);
        env.push(Open, &spec, &format!("purge/{name}"), "1").await;
    }
    let image = |name: &str| format!("quay.io/purge/{name}:1");
    // There before Larder, by more than the minute that clocks may differ.
    for node in env.nodes() {
        env.pull_by_hand(&node, &image("foreign"));
    }
    Env::sleep(65).await;
    let all = ["plain", "used", "wanted", "foreign"].map(|n| json!({"image": image(n)}));
    let all = json!({"images": all});
    let cache = ns.cache("app", all).await;
    let keeper = other
        .cache("keeper", json!({"images": [{"image": image("wanted")}]}))
        .await;
    cache.ready(60).await;
    keeper.ready(60).await;
    let first = env.nodes()[0].clone();
    ns.pod("user", &first, &image("used"), "Never").await;
    eventually("the pod runs", 30, || async {
        let phase = env
            .kubectl(&[
                "get",
                "pod",
                "user",
                "-n",
                &ns.name,
                "-o",
                "jsonpath={.status.phase}",
            ])
            .unwrap();
        if phase == "Running" { Ok(()) } else { Err(phase) }
    })
    .await;

    env.kubectl(&[
        "annotate",
        "ic",
        "app",
        "-n",
        &ns.name,
        &format!("{PURGE_ANNOTATION}=P1"),
    ])
    .unwrap();
    let status = purged(&cache, "P1").await;
    assert_eq!(
        (condition(&status, "Ready"), reason(&status, "Ready")),
        (Some("False"), Some("Purged"))
    );
    let nodes = i32::try_from(env.nodes().len()).unwrap();
    let purge = status.last_purge.unwrap();
    assert_eq!(
        (purge.removed, purge.in_use, purge.foreign),
        (2 * nodes - 1, 1, nodes),
        "{purge:?}"
    );
    assert!(on_none(&env, &image("plain")));
    assert!(on_all(&env, &image("wanted")));
    assert!(on_all(&env, &image("foreign")));
    for node in env.nodes() {
        assert_eq!(
            env.node_has(&node, &image("used")),
            node == first,
            "used on {node}"
        );
    }
    assert!(
        cache
            .get()
            .await
            .metadata
            .annotations
            .unwrap_or_default()
            .is_empty()
    );

    // Nothing comes back until a refresh.
    Env::sleep(5).await;
    assert!(on_none(&env, &image("plain")));
    cache.annotate(REFRESH_ANNOTATION, "R1").await;
    cache
        .until("filled again", 60, |s| {
            condition(s, "Ready") == Some("True") && !s.last_purge.as_ref().unwrap().in_force
        })
        .await;
    assert!(on_all(&env, &image("plain")));

    // PurgeAll takes what was there before Larder, too.
    env.kubectl(&[
        "delete",
        "pod",
        "user",
        "-n",
        &ns.name,
        "--grace-period=0",
        "--force",
    ])
    .unwrap();
    cache.patch(json!({"spec": {"removal": "PurgeAll"}})).await;
    cache.annotate(KUBEFLEDGED_PURGE_ANNOTATION, "P2").await;
    purged(&cache, "P2").await;
    for name in ["plain", "used", "foreign"] {
        assert!(on_none(&env, &image(name)), "{name}");
    }
    assert!(on_all(&env, &image("wanted")));
    ns.delete().await;
    other.delete().await;
}

#[tokio::test]
async fn images_that_leave_the_list_go_with_purge_and_stay_with_retain() {
    let env = Env::shared().await;
    let ns = env.namespace("shrink").await;
    for i in 0..3 {
        env.push(
            Open,
            &ImageSpec::new(420 + i).layers(1, 30_000),
            &format!("shrink/i{i}"),
            "1",
        )
        .await;
    }
    let image = |i: usize| format!("quay.io/shrink/i{i}:1");
    let list = |all: &[usize]| {
        all.iter()
            .map(|i| json!({"image": image(*i)}))
            .collect::<Vec<_>>()
    };
    let cache = ns.cache("app", json!({"images": list(&[0, 1, 2])})).await;
    cache.ready(60).await;
    // Retain: nothing goes.
    cache.patch(json!({"spec": {"images": list(&[0, 1])}})).await;
    cache
        .until("two images", 60, |s| {
            s.images.total == 2 && condition(s, "Ready") == Some("True")
        })
        .await;
    Env::sleep(3).await;
    assert!(on_all(&env, &image(2)));
    // Purge.
    cache
        .patch(json!({"spec": {"images": list(&[0]), "removal": "Purge"}}))
        .await;
    goes(&env, &image(1), 60).await;
    assert!(on_all(&env, &image(0)));
    assert!(on_all(&env, &image(2)), "it left while images were retained");
    cache.ready(30).await;
    cache.delete().await;
    cache.gone(60).await;
    assert!(on_none(&env, &image(0)));
    ns.delete().await;
}

#[tokio::test]
async fn deletion_cleans_up_in_the_foreground_in_the_background_and_for_orphans() {
    let env = Env::shared().await;
    let ns = env.namespace("delete").await;
    for (i, cascade) in ["foreground", "background", "orphan"].iter().enumerate() {
        let image = format!("quay.io/delete/{cascade}:1");
        env.push(
            Open,
            &ImageSpec::new(430 + i as u64).layers(1, 30_000),
            &format!("delete/{cascade}"),
            "1",
        )
        .await;
        let cache = ns
            .cache(cascade, json!({"images": [{"image": image}], "removal": "Purge"}))
            .await;
        cache.ready(60).await;
        let how = format!("--cascade={cascade}");
        env.kubectl(&["delete", "ic", cascade, "-n", &ns.name, &how, "--timeout=60s"])
            .unwrap();
        cache.gone(60).await;
        assert!(on_none(&env, &image), "{image} is still there after {cascade}");
    }
    // With Retain nothing is removed, and nothing is waited for.
    let image = "quay.io/delete/retain:1";
    env.push(Open, &ImageSpec::new(433).layers(1, 30_000), "delete/retain", "1")
        .await;
    let cache = ns.cache("retain", json!({"images": [{"image": image}]})).await;
    cache.ready(60).await;
    cache.delete().await;
    cache.gone(10).await;
    Env::sleep(3).await;
    assert!(on_all(&env, image));
    ns.delete().await;
}

#[tokio::test]
async fn deleting_the_namespace_does_not_hang_and_cleans_up() {
    let env = Env::shared().await;
    let ns = env.namespace("nsgone").await;
    let image = "quay.io/nsgone/app:1";
    env.push(Open, &ImageSpec::new(440).layers(1, 30_000), "nsgone/app", "1")
        .await;
    let cache = ns
        .cache("app", json!({"images": [{"image": image}], "removal": "Purge"}))
        .await;
    cache.ready(60).await;
    ns.delete().await;
    goes(&env, image, 30).await;
}

#[tokio::test]
async fn a_shared_image_goes_with_the_last_cache_that_wants_it() {
    let env = Env::shared().await;
    let ns = env.namespace("shared").await;
    let image = "quay.io/shared/app:1";
    env.push(Open, &ImageSpec::new(450).layers(1, 30_000), "shared/app", "1")
        .await;
    let one = ns.cache("one", json!({"images": [{"image": image}]})).await;
    one.ready(60).await;
    // Claimed a good while after the pull: without the first cache's claim it would look foreign.
    Env::sleep(65).await;
    let two = ns
        .cache("two", json!({"images": [{"image": image}], "removal": "Purge"}))
        .await;
    two.ready(60).await;
    one.delete().await;
    one.gone(20).await;
    Env::sleep(2).await;
    assert!(on_all(&env, image));
    two.delete().await;
    two.gone(60).await;
    assert!(on_none(&env, image));
    ns.delete().await;
}
