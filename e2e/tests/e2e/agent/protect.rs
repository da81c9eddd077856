//! Pins and the kubelet's garbage collector.

use larder_e2e::cluster::NodeOptions;
use larder_e2e::cluster::registry::RegistryKind::Open;
use larder_e2e::images::ImageSpec;
use larder_e2e::progress::Stderr;
use serde_json::json;

use super::agent_is_there;
use crate::support::{Env, eventually};

const MIB: usize = 1 << 20;

/// The kubelet collects every unused image that is not pinned when the image file system has less than this free. Its
/// own round by thresholds comes only every five minutes.
const PRESSURE: &str = "40%";

#[tokio::test]
async fn the_kubelets_garbage_collector_spares_what_is_pinned() {
    let env = Env::exclusive().await;
    let ns = env.namespace("gc").await;
    let options = NodeOptions {
        name: Some("collector".into()),
        labels: [("collects".to_owned(), "true".to_owned())].into(),
        image_disk: Some(1 << 30),
        kubelet: json!({
            "evictionHard": {"imagefs.available": PRESSURE}, "evictionPressureTransitionPeriod": "1s",
        }),
        ..NodeOptions::default()
    };
    let node = env.cluster.node_add(options, &Stderr).await.unwrap();
    agent_is_there(&env, "collector").await;

    let image = |name: &str| format!("quay.io/{}/{name}:1", ns.name);
    let (pinned, loose) = (image("pinned"), image("loose"));
    for name in ["pinned", "loose"] {
        let spec = ImageSpec::new(rand::random()).layers(2, 50 * MIB);
        env.push(Open, &spec, &format!("{}/{name}", ns.name), "1").await;
    }
    let spec = json!({
        "images": [{"image": pinned}], "puller": "Agent",
        "nodes": {"selector": {"matchLabels": {"collects": "true"}}},
        "protect": {"pin": true, "minFreeDisk": "0%"},
    });
    let keeper = ns.cache("keeper", spec).await;
    keeper.ready(120).await;
    // Pulled past Larder: nobody claims it.
    env.pull_by_hand("collector", &loose);
    assert!(env.node_has("collector", &pinned) && env.node_has("collector", &loose));

    // 400 of 1,000 MiB are images now.
    node.exec("fallocate", &["-l", "260M", "/var/lib/containerd/first"])
        .unwrap();
    eventually("the unpinned image is collected", 120, || async {
        if env.node_has("collector", &loose) {
            Err("it is there".to_owned())
        } else {
            Ok(())
        }
    })
    .await;
    assert!(
        env.node_has("collector", &pinned),
        "the pinned image was collected"
    );
    keeper.ready(60).await;

    // Nobody wants it any more, Retain: it stays, unpinned, and is the kubelet's to collect.
    keeper.delete().await;
    keeper.gone(60).await;
    eventually("the pin is gone", 60, || async {
        let listed = node.ctr(&["images", "list"]).unwrap();
        let ours: Vec<&str> = listed
            .lines()
            .filter(|l| l.contains("larder.dev/pinned=true"))
            .collect();
        if ours.is_empty() {
            Ok(())
        } else {
            Err(format!("{ours:?}"))
        }
    })
    .await;
    assert!(env.node_has("collector", &pinned), "Retain keeps the image");
    node.exec("fallocate", &["-l", "200M", "/var/lib/containerd/second"])
        .unwrap();
    eventually("what was pinned is collected", 120, || async {
        if env.node_has("collector", &pinned) {
            Err("it is there".to_owned())
        } else {
            Ok(())
        }
    })
    .await;
    env.cluster.node_remove("collector").await.unwrap();
    ns.delete().await;
}
