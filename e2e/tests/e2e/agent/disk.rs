//! A node's small image file system.

use larder_api::names::Reason;
use larder_e2e::cluster::NodeOptions;
use larder_e2e::cluster::registry::RegistryKind::Open;
use larder_e2e::images::ImageSpec;
use larder_e2e::progress::Stderr;
use serde_json::json;

use super::{agent_is_there, told};
use crate::support::{Env, condition, failure, node};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn too_big_an_image_is_refused_with_numbers_and_the_others_arrive() {
    let env = Env::exclusive().await;
    let ns = env.namespace("disk").await;
    let options = NodeOptions {
        name: Some("small".into()),
        labels: [("small".to_owned(), "true".to_owned())].into(),
        image_disk: Some(400 << 20),
        ..NodeOptions::default()
    };
    env.cluster.node_add(options, &Stderr).await.unwrap();
    agent_is_there(&env, "small").await;
    let mut images = Vec::new();
    for (name, size) in [("big", 200 * MIB), ("one", MIB), ("two", 2 * MIB)] {
        env.push(
            Open,
            &ImageSpec::new(rand::random()).layers(1, size),
            &format!("{}/{name}", ns.name),
            "1",
        )
        .await;
        // The big one goes first, and must not keep the others waiting.
        let priority = i32::from(name == "big");
        images.push(json!({"image": format!("quay.io/{}/{name}:1", ns.name), "priority": priority}));
    }
    let spec = json!({
        "images": images, "puller": "Agent",
        "nodes": {"selector": {"matchLabels": {"small": "true"}}},
        "protect": {"minFreeDisk": "10%"},
    });
    let cache = ns.cache("app", spec).await;
    let big = format!("quay.io/{}/big:1", ns.name);
    let status = cache
        .until("the big one is refused, the others are there", 60, |s| {
            failure(s, &big).is_some() && node(s, "small").is_some_and(|n| n.ready == 2)
        })
        .await;
    let refused = failure(&status, &big).unwrap();
    assert_eq!(refused.reason, Reason::InsufficientDisk);
    for number in ["MiB", "10%"] {
        assert!(refused.message.contains(number), "{}", refused.message);
    }
    assert_eq!(condition(&status, "Degraded"), Some("True"));
    let disk = told(&env, "small").await.disk.unwrap();
    assert!(
        disk.total_bytes > 300 << 20 && disk.total_bytes < 400 << 20,
        "{disk:?}"
    );
    assert!(!env.node_has("small", &big));
    env.cluster.node_remove("small").await.unwrap();
    ns.delete().await;
}
