//! `larder-agent run` as a program.

use std::process::Stdio;
use std::time::{Duration, Instant};

use larder_api::node_image_cache::NodeState;
use larder_testkit::runtime::{FakeImage, Serves};
use serde_json::json;
use tokio::process::Command;

use crate::node::{NODE, Node, claim, spec};

#[tokio::test]
async fn it_works_by_its_flags_and_ends_soon_by_sigterm() {
    let node = Node::new(Serves::Containerd).await;
    let (quick, slow) = (
        FakeImage::new("quick"),
        FakeImage::with_layers("slow", &[900_000_000]),
    );
    node.publish("web-1", &[("quick:1", &quick)]);
    node.publish("slow-1", &[("slow:1", &slow)]);
    node.api.want(NODE, spec(vec![claim("web", "web-1")]));
    let kubeconfig = node.folder.path().join("kubeconfig");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": node.api.url}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_larder-agent"))
        .args(["run", "--listen", "127.0.0.1:0", "--host-run"])
        .arg(node.folder.path().join("run"))
        .env("NODE_NAME", NODE)
        .env("POD_UID", "pod-2")
        .env("KUBECONFIG", &kubeconfig)
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    node.until_state("web", NodeState::Ready).await;
    assert_eq!(node.api.status().unwrap().pod_uid, "pod-2");
    node.runtime.model().speed.step = 1000;
    node.runtime.model().speed.every = Duration::from_millis(100);
    node.api.want(NODE, spec(vec![claim("slow", "slow-1")]));
    node.until_runtime("a long pull begins", |r| r.model().pulls.len() == 2)
        .await;
    let begun = Instant::now();
    Command::new("kill")
        .arg(child.id().unwrap().to_string())
        .status()
        .await
        .unwrap();
    let ended = child.wait().await.unwrap();
    assert!(
        ended.success() && begun.elapsed() < Duration::from_secs(5),
        "{ended} {:?}",
        begun.elapsed()
    );
}
