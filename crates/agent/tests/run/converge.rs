//! The ordinary way: what is wanted comes, is reported once, and goes when it should.

use std::time::Duration;

use larder_api::names::{PINNED_LABEL, PULLED_LABEL};
use larder_api::node_image_cache::{Capability, Desired, NodeState};
use larder_testkit::runtime::{FakeImage, Serves};

use crate::node::{NODE, Node, claim, labels, of, spec, until};

#[tokio::test]
async fn what_is_wanted_comes_verified_tagged_and_pinned_and_then_nothing_happens() {
    let mut node = Node::new(Serves::Containerd).await;
    let (a, b) = (FakeImage::new("a").behind("index of a"), FakeImage::new("b"));
    let before = FakeImage::new("before");
    node.runtime.model().publish("before:1", &before);
    node.runtime.model().pull("before:1").unwrap();
    node.publish(
        "web-1",
        &[("a:1", &a), ("quay.io/x/b:2", &b), ("before:1", &before)],
    );
    node.api.want(NODE, spec(vec![claim("web", "web-1")]));
    node.agent().await;
    let web = node.until_state("web", NodeState::Ready).await;
    assert_eq!(
        (web.ready, web.total, web.held.as_slice()),
        (3, 3, &["web-1".to_owned()][..])
    );
    let status = node.api.status().unwrap();
    assert_eq!(status.pod_uid, "pod-1");
    assert!(status.capabilities.contains(&Capability::Pin));
    assert!(node.has("docker.io/library/a:1") && node.has("quay.io/x/b:2"));
    for image in [&a, &b] {
        let labels = labels(&node.runtime, image);
        assert!(
            labels.contains_key(PULLED_LABEL) && labels.contains_key(PINNED_LABEL),
            "{labels:?}"
        );
        assert_eq!(labels["io.cri-containerd.pinned"], "pinned");
    }
    let before = labels(&node.runtime, &before);
    assert!(!before.contains_key(PULLED_LABEL), "it was there before");
    assert!(before.contains_key(PINNED_LABEL));
    // A few more looks at the runtime change nothing, so nothing is written.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let writes = node.api.written().len();
    let pulls = node.runtime.model().pulls.len();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(node.api.written().len(), writes);
    assert_eq!(node.runtime.model().pulls.len(), pulls);
    assert!(writes <= 3, "{writes} writes: {:#?}", node.api.written());
    for asked in node.api.asked() {
        let allowed = [
            "GET /apis/larder.dev/v1alpha1/nodeimagecaches own",
            "WATCH /apis/larder.dev/v1alpha1/nodeimagecaches own",
            "GET /apis/larder.dev/v1alpha1/namespaces/team/imagecacherevisions/web-1",
            "PATCH /apis/larder.dev/v1alpha1/nodeimagecaches/node-1/status",
        ];
        assert!(allowed.contains(&asked.as_str()), "{asked}");
    }
}

#[tokio::test]
async fn an_agent_that_begins_anew_pulls_nothing_again() {
    let mut node = Node::new(Serves::Containerd).await;
    let a = FakeImage::new("a");
    node.publish("web-1", &[("a:1", &a)]);
    node.api.want(NODE, spec(vec![claim("web", "web-1")]));
    node.agent().await;
    node.until_state("web", NodeState::Ready).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let writes = node.api.written().len();
    node.agent().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(node.runtime.model().pulls.len(), 1);
    assert_eq!(node.api.written().len(), writes, "{:#?}", node.api.written());
}

#[tokio::test]
async fn a_new_revision_moves_the_tag_and_a_purge_takes_everything_away() {
    let mut node = Node::new(Serves::Containerd).await;
    let (old, new) = (FakeImage::new("old"), FakeImage::new("new"));
    node.publish("web-1", &[("a:1", &old)]);
    node.api.want(NODE, spec(vec![claim("web", "web-1")]));
    node.agent().await;
    node.until_state("web", NodeState::Ready).await;
    node.publish("web-2", &[("a:1", &new)]);
    let mut second = claim("web", "web-2");
    second.remove_revisions = vec!["web-1".to_owned()];
    node.api.want(NODE, spec(vec![second.clone()]));
    let status = node
        .until("the old revision is removed", |s| {
            of(s, "web").is_some_and(|c| c.state == NodeState::Ready && c.removed_revisions == ["web-1"])
        })
        .await;
    assert_eq!(of(&status, "web").unwrap().held, ["web-2"]);
    assert!(!node.runtime.model().has_content(&old.layers[0].digest));
    assert!(node.runtime.model().has_content(&new.layers[0].digest));
    second.desired = Desired::Absent;
    second.remove_revisions.clear();
    node.api.want(NODE, spec(vec![second]));
    let web = node.until_state("web", NodeState::Purged).await;
    assert_eq!((web.removed, web.ready), (1, 0));
    assert_eq!(node.runtime.model().names(), Vec::<String>::new());
}

#[tokio::test]
async fn pulls_that_are_no_longer_wanted_end() {
    let mut node = Node::new(Serves::Containerd).await;
    let slow = FakeImage::with_layers("slow", &[50_000_000]);
    node.runtime.model().speed.step = 100_000;
    node.runtime.model().speed.every = Duration::from_millis(100);
    node.publish("web-1", &[("slow:1", &slow)]);
    node.api.want(NODE, spec(vec![claim("web", "web-1")]));
    node.agent().await;
    node.until_runtime("the pull begins", |r| !r.model().pulls.is_empty())
        .await;
    let begun = until("a pull is counted", async || {
        (running(&node).await == 1).then_some(())
    })
    .await;
    assert!(begun.is_some());
    node.api.want(NODE, spec(Vec::new()));
    let ended = until("the pull ends", async || {
        (running(&node).await == 0).then_some(())
    })
    .await;
    assert!(ended.is_some());
    let status = node
        .until("the claim is forgotten", |s| s.puller.caches.is_empty())
        .await;
    assert!(status.puller.images.is_empty());
    assert_eq!(
        node.get("/attempts").await.1,
        "[]",
        "what was called off is no attempt"
    );
}

async fn running(node: &Node) -> i64 {
    let (_, metrics) = node.get("/metrics").await;
    let line = metrics
        .lines()
        .find_map(|l| l.strip_prefix("larder_agent_pulls_running "));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn attempts_metrics_and_readiness_are_served() {
    let mut node = Node::new(Serves::Containerd).await;
    let a = FakeImage::new("a");
    node.publish("web-1", &[("a:1", &a), ("b:1", &FakeImage::new("b"))]);
    node.api.publish(crate::node::revision_of(
        "web-2",
        vec![crate::node::revision_image("gone:1", &FakeImage::new("gone"))],
    ));
    node.api
        .want(NODE, spec(vec![claim("web", "web-1"), claim("web2", "web-2")]));
    node.agent().await;
    node.until_state("web", NodeState::Ready).await;
    node.until_state("web2", NodeState::Failed).await;
    assert_eq!(node.get("/healthz").await.0, 200);
    assert_eq!(node.get("/readyz").await.0, 200);
    assert_eq!(node.get("/other").await.0, 404);
    let attempts = until("every attempt is told", async || {
        let all: Vec<larder_agent::Attempt> = serde_json::from_str(&node.get("/attempts").await.1).unwrap();
        (all.len() == 3).then_some(all)
    });
    let attempts = attempts.await.unwrap();
    let failed: Vec<&str> = attempts
        .iter()
        .filter(|a| !a.error.is_empty())
        .map(|a| a.image.as_str())
        .collect();
    assert_eq!(failed, ["docker.io/library/gone:1"]);
    let done = attempts
        .iter()
        .find(|a| a.image == "docker.io/library/a:1")
        .unwrap();
    assert_eq!((done.node.as_str(), done.size_bytes), (NODE, 1_000_000));
    let (code, metrics) = node.get("/metrics").await;
    assert_eq!(code, 200);
    for line in [
        "larder_agent_pulls_total{reason=\"\",result=\"success\"} 2",
        "larder_agent_pulls_total{reason=\"NotFound\",result=\"failure\"} 1",
        "larder_agent_pull_duration_seconds_count 2",
        "larder_agent_images{state=\"wanted\"} 3",
        "larder_agent_images{state=\"ready\"} 2",
        "larder_agent_runtime_up 1",
        "larder_agent_disk_bytes{of=\"total\"} ",
        "larder_agent_status_writes_total{result=\"success\"} ",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}
