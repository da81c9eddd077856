//! A converged cluster is silent.

use larder_e2e::cluster::registry::RegistryKind::Open;
use larder_e2e::images::ImageSpec;
use serde_json::json;

use crate::support::{Env, writes_of_larder};

#[tokio::test]
async fn two_minutes_without_a_write() {
    let env = Env::exclusive().await;
    let ns = env.namespace("quiet").await;
    let mut caches = Vec::new();
    for i in 0..5 {
        env.push(
            Open,
            &ImageSpec::new(850 + i).layers(1, 10_000),
            &format!("quiet/i{i}"),
            "1",
        )
        .await;
        let spec = json!({"images": [{"image": format!("quay.io/quiet/i{i}:1")}], "removal": "Purge"});
        caches.push(ns.cache(&format!("c{i}"), spec).await);
    }
    for cache in &caches {
        cache.ready(60).await;
    }
    Env::sleep(5).await;
    let mark = env.cluster.audit().mark().unwrap();
    let seconds = if std::env::var_os("LARDER_SOAK").is_some() {
        1800
    } else {
        120
    };
    Env::sleep(seconds).await;
    let writes = writes_of_larder(&env, mark);
    assert!(writes.is_empty(), "{writes:#?}");
    ns.delete().await;
}
