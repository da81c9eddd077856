//! The runtime or the API server goes and comes back.

use std::time::Duration;

use larder_api::names::condition::RUNTIME_READY;
use larder_api::node_image_cache::{AgentStatus, NodeState};
use larder_testkit::runtime::{FakeImage, Serves};

use crate::node::{NODE, Node, claim, of, spec, until};

fn runtime_ready(status: &AgentStatus) -> bool {
    status
        .conditions
        .iter()
        .any(|c| c.type_ == RUNTIME_READY && c.status == "True")
}

#[tokio::test]
async fn a_lost_runtime_is_said_and_found_again() {
    let mut node = Node::new(Serves::Containerd).await;
    node.publish("web-1", &[("a:1", &FakeImage::new("a"))]);
    node.api.want(NODE, spec(vec![claim("web", "web-1")]));
    node.agent().await;
    node.until_state("web", NodeState::Ready).await;
    node.runtime.stop().await.unwrap();
    let status = node.until("the loss is said", |s| !runtime_ready(s)).await;
    assert_eq!(
        of(&status, "web").unwrap().state,
        NodeState::Ready,
        "what was known last is kept"
    );
    assert_eq!(node.get("/readyz").await.0, 200, "it still is the node's agent");
    node.publish("web-2", &[("b:1", &FakeImage::new("b"))]);
    node.api.want(NODE, spec(vec![claim("web", "web-2")]));
    node.runtime.serve().await.unwrap();
    node.until("it works again", |s| {
        runtime_ready(s) && of(s, "web").is_some_and(|c| c.revision == "web-2" && c.state == NodeState::Ready)
    })
    .await;
}

#[tokio::test]
async fn a_runtime_that_comes_later_is_found() {
    let mut node = Node::new(Serves::Containerd).await;
    node.runtime.stop().await.unwrap();
    node.publish("web-1", &[("a:1", &FakeImage::new("a"))]);
    node.api.want(NODE, spec(vec![claim("web", "web-1")]));
    node.agent().await;
    let status = node.until("the agent is alive", |s| s.pod_uid == "pod-1").await;
    assert!(!runtime_ready(&status));
    node.runtime.serve().await.unwrap();
    node.until_state("web", NodeState::Ready).await;
}

#[tokio::test]
async fn without_the_api_server_pulls_go_on_and_are_reported_later() {
    let mut node = Node::new(Serves::Containerd).await;
    let slow = FakeImage::with_layers("slow", &[2_000_000]);
    node.runtime.model().speed.step = 100_000;
    node.runtime.model().speed.every = Duration::from_millis(100);
    node.publish("web-1", &[("slow:1", &slow)]);
    node.api.want(NODE, spec(vec![claim("web", "web-1")]));
    node.agent().await;
    node.until_runtime("the pull begins", |r| !r.model().pulls.is_empty())
        .await;
    node.api.down(true);
    node.until_runtime("the image arrives", |r| {
        r.model().has_content(&slow.layers[0].digest)
    })
    .await;
    let unready = until("unready", async || {
        (node.get("/readyz").await.0 == 503).then_some(())
    })
    .await;
    assert!(unready.is_some(), "nobody tells of changes");
    node.api.down(false);
    node.until_state("web", NodeState::Ready).await;
    assert_eq!(node.runtime.model().pulls.len(), 1);
}
