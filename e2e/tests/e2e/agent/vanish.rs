//! Images that go behind the agent's back.

use std::time::{Duration, Instant};

use larder_e2e::cluster::NodeOptions;
use larder_e2e::cluster::registry::RegistryKind::Open;
use larder_e2e::images::ImageSpec;
use larder_e2e::progress::Stderr;
use larder_runtime::{Runtime as _, RuntimeClient, Timeouts};
use serde_json::json;

use super::{agent_is_there, told_of};
use crate::support::{Env, eventually};

/// Names and digests of an image's records on a node: each with its target.
fn records(env: &Env, node: &str, repository: &str) -> Vec<String> {
    let all = env.images_on(node);
    all.into_iter().filter(|name| name.contains(repository)).collect()
}

#[tokio::test]
async fn what_is_removed_by_hand_or_loses_its_content_comes_back_within_a_minute() {
    let env = Env::shared().await;
    let ns = env.namespace("vanish").await;
    let pushed = env
        .push(
            Open,
            &ImageSpec::new(rand::random())
                .layers(2, 200_000)
                .runs(&Env::noop(), &["hold"]),
            &format!("{}/app", ns.name),
            "1",
        )
        .await;
    let image = format!("quay.io/{}/app:1", ns.name);
    let cache = ns
        .cache("app", json!({"images": [{"image": image}], "puller": "Agent"}))
        .await;
    cache.ready(60).await;
    let name = env.nodes().remove(0);
    let node = env.cluster.node(&name).unwrap();

    // Every name at once, as `crictl rmi` does.
    let registry = env.registry(Open);
    let mark = registry.mark().unwrap();
    let socket = node.containerd_socket().unwrap();
    let runtime = RuntimeClient::connect(&socket, Timeouts::default())
        .await
        .unwrap();
    runtime.remove(&image).await.unwrap();
    let address = node.address().to_string();
    let path = format!("/v2/{}/app/", ns.name);
    eventually("it is pulled again", 60, || async {
        let (requests, _) = registry.requests_since(mark).unwrap();
        let asked = requests
            .iter()
            .any(|r| r.client == address && r.path.starts_with(&path));
        if asked && env.node_has(&name, &image) {
            Ok(())
        } else {
            Err(format!("asked: {asked}"))
        }
    })
    .await;
    cache.ready(60).await;

    // The content alone: CRI goes on to say that the image is present. On another node: what goes twice in a row is
    // brought back only after a minute.
    let name = env.nodes().remove(1);
    let node = env.cluster.node(&name).unwrap();
    node.ctr(&["content", "remove", &pushed.digest]).unwrap();
    eventually("its content is back", 60, || async {
        node.ctr(&["content", "get", &pushed.digest])
            .map(|_| ())
            .map_err(|e| e.to_string())
    })
    .await;
    cache.ready(60).await;
    ns.runs_without_pulling(&name, &image).await;
    ns.delete().await;
}

#[tokio::test]
async fn under_disk_pressure_it_does_not_fight_the_garbage_collector() {
    let env = Env::exclusive().await;
    let ns = env.namespace("brake").await;
    let options = NodeOptions {
        name: Some("full".into()),
        labels: [("full".to_owned(), "true".to_owned())].into(),
        image_disk: Some(600 << 20),
        ..NodeOptions::default()
    };
    let node = env.cluster.node_add(options, &Stderr).await.unwrap();
    agent_is_there(&env, "full").await;
    env.push(
        Open,
        &ImageSpec::new(rand::random()).layers(1, 20 << 20),
        &format!("{}/app", ns.name),
        "1",
    )
    .await;
    let image = format!("quay.io/{}/app:1", ns.name);
    let spec = json!({
        "images": [{"image": image}], "puller": "Agent",
        "nodes": {"selector": {"matchLabels": {"full": "true"}}},
        "protect": {"minFreeDisk": "40%"},
    });
    let cache = ns.cache("app", spec).await;
    cache.ready(60).await;

    // Somebody fills the disk, and the image is taken away again and again as a collector would.
    let filler = "/var/lib/containerd/filler";
    node.exec("fallocate", &["-l", "400M", filler]).unwrap();
    let registry = env.registry(Open);
    let mark = registry.mark().unwrap();
    let remove = || {
        for record in records(&env, "full", &ns.name) {
            node.ctr(&["images", "remove", "--sync", &record]).unwrap();
        }
        let listed = node.ctr(&["images", "list"]).unwrap();
        for line in listed.lines().filter(|l| l.contains("larder.dev/pulled")) {
            let id = line.split_whitespace().next().unwrap();
            node.ctr(&["images", "remove", "--sync", id]).unwrap();
        }
    };
    let until = Instant::now() + Duration::from_mins(1);
    while Instant::now() < until {
        remove();
        Env::sleep(5).await;
    }
    let (requests, _) = registry.requests_since(mark).unwrap();
    let blobs = requests
        .iter()
        .filter(|r| r.path.contains(&format!("/{}/app/blobs/", ns.name)) && r.method == "GET")
        .count();
    assert!(blobs <= 2, "{blobs} blobs were fetched in a minute");
    let said = told_of(&env, "full", &image).await.unwrap();
    assert_eq!(
        said.reason,
        Some(larder_api::names::Reason::InsufficientDisk),
        "{said:?}"
    );

    // With room again it comes back by itself.
    node.exec("rm", &[filler]).unwrap();
    cache.ready(120).await;
    env.cluster.node_remove("full").await.unwrap();
    ns.delete().await;
}
