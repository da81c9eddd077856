//! What sources said outlives the operator.

use larder_e2e::cluster::registry::RegistryKind::Open;
use serde_json::json;

use super::{holds_exactly, newest};
use crate::support::{Env, Pages, reason};

/// Images would be purged if they left: the operator that starts while a source is down knows them from the revision.
#[tokio::test]
async fn a_source_that_is_down_keeps_its_images_also_when_the_operator_starts_anew() {
    let env = Env::exclusive().await;
    let ns = env.namespace("source-restart").await;
    let pages = Pages::serve(&env);
    let (a, b) = (ns.image(&env, Open, "a").await, ns.image(&env, Open, "b").await);
    let (c, own) = (ns.image(&env, Open, "c").await, ns.image(&env, Open, "own").await);
    pages.put("/list", &format!("{a}\n{b}\n"));
    pages.put(
        "/apps/app-registry.yaml",
        "contexts: {brand: {apps: {c: {spec: c.yaml}}}}\n",
    );
    pages.put("/apps/c.yaml", &format!("services: {{c: {{image: '{c}'}}}}\n"));
    let spec = json!({
        "images": [{"image": own}],
        "sources": [
            {"name": "page", "http": {"url": pages.url("/list")}},
            {"name": "apps", "appRegistry": {"url": pages.url("/apps"), "brand": "brand"}},
        ],
        "removal": "Purge",
    });
    let cache = ns.cache("lasting", spec).await;
    let before = cache.ready(60).await;
    let images = newest(&ns, &cache).await;
    assert_eq!(images.len(), 4, "{images:?}");

    pages.fail(Some(502));
    env.restart_operator().await;
    let status = cache.refresh("down").await;
    assert_eq!(status.revision, before.revision);
    let status = cache
        .until("both sources are missed", 60, |s| {
            s.sources.iter().all(|s| s.reason == "Unreachable")
        })
        .await;
    assert_eq!(status.revision, before.revision);
    assert_eq!(reason(&status, "Resolved"), Some("Unreachable"));
    for (now, before) in status.sources.iter().zip(&before.sources) {
        assert_eq!((now.ready, now.images), (false, before.images), "{now:?}");
        assert!(now.message.contains("502"), "{now:?}");
        assert_eq!(
            now.last_success_time, before.last_success_time,
            "its age is known"
        );
    }
    assert_eq!(newest(&ns, &cache).await, images);
    for node in env.nodes() {
        for (image, _) in &images {
            assert!(env.node_has(&node, image), "{node} lost {image}");
        }
    }

    // They come back by themselves, with something new.
    let d = ns.image(&env, Open, "d").await;
    pages.put("/list", &format!("{a}\n{b}\n{d}\n"));
    pages.fail(None);
    holds_exactly(&ns, &cache, 120, &[&a, &b, &c, &d, &own]).await;
    let status = cache.ready(60).await;
    assert!(status.sources.iter().all(|s| s.ready), "{:?}", status.sources);
    ns.delete().await;
}
