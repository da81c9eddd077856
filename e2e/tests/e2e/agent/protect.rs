//! Pins and the kubelet's garbage collector.

use larder_e2e::cluster::NodeOptions;
use larder_e2e::cluster::registry::RegistryKind::Open;
use larder_e2e::images::ImageSpec;
use larder_e2e::progress::Stderr;
use serde_json::json;

use super::agent_is_there;
use crate::support::{Env, eventually};

const MIB: usize = 1 << 20;

/// The kubelet spares what it sees for the first time, and its next round comes five minutes after its start. So that one
/// shows all three: what is pinned, what never was, and what was until its cache went.
#[tokio::test]
async fn the_kubelets_garbage_collector_spares_what_is_pinned() {
    let env = Env::shared().await;
    let ns = env.namespace("gc").await;
    let options = NodeOptions {
        name: Some("collector".into()),
        // Out of the other tests' way.
        taints: vec!["collects=true:NoSchedule".into()],
        labels: [("collects".to_owned(), "true".to_owned())].into(),
        image_disk: Some(1 << 30),
        kubelet: json!({
            "imageGCHighThresholdPercent": 50, "imageGCLowThresholdPercent": 25, "imageMinimumGCAge": "1s",
        }),
    };
    let node = env.cluster.node_add(options, &Stderr).await.unwrap();
    agent_is_there(&env, "collector").await;

    let image = |name: &str| format!("quay.io/{}/{name}:1", ns.name);
    let (pinned, loose, released) = (image("pinned"), image("loose"), image("released"));
    for name in ["pinned", "loose", "released"] {
        let spec = ImageSpec::new(rand::random()).layers(2, 50 * MIB);
        env.push(Open, &spec, &format!("{}/{name}", ns.name), "1").await;
    }
    let cache = async |name: &str, image: &str| {
        let spec = json!({
            "images": [{"image": image}], "puller": "Agent",
            "nodes": {
                "selector": {"matchLabels": {"collects": "true"}},
                "tolerations": [{"key": "collects", "operator": "Exists"}],
            },
            "protect": {"pin": true, "minFreeDisk": "0%"},
        });
        let cache = ns.cache(name, spec).await;
        cache.ready(120).await;
        cache
    };
    let keeper = cache("keeper", &pinned).await;
    let leaver = cache("leaver", &released).await;
    // Pulled past Larder: nobody claims it.
    env.pull_by_hand("collector", &loose);

    let pins = || {
        let listed = node.ctr(&["images", "list"]).unwrap();
        let ours = listed.lines().filter(|l| l.contains("larder.dev/pinned=true"));
        ours.count()
    };
    assert_eq!(pins(), 2);
    // Nobody wants it any more, Retain: it stays, unpinned, and is the kubelet's to collect.
    leaver.delete().await;
    leaver.gone(60).await;
    eventually("the pin is gone", 60, || async {
        let left = pins();
        if left == 1 {
            Ok(())
        } else {
            Err(format!("{left} pins"))
        }
    })
    .await;
    for image in [&pinned, &loose, &released] {
        assert!(env.node_has("collector", image), "{image} is not there");
    }

    node.restart("kubelet").unwrap();
    eventually("what is not pinned is collected", 400, || async {
        let left = [&loose, &released]
            .into_iter()
            .find(|image| env.node_has("collector", image));
        match left {
            Some(image) => Err(format!("{image} is there")),
            None => Ok(()),
        }
    })
    .await;
    assert!(
        env.node_has("collector", &pinned),
        "the pinned image was collected"
    );
    keeper.ready(10).await;
    env.cluster.node_remove("collector").await.unwrap();
    ns.delete().await;
}
