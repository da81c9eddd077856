//! What is there stays there, and pins go with the last claim.

use larder_api::names::PINNED_LABEL;
use larder_api::node_image_cache::NodeState;
use larder_testkit::runtime::{FakeImage, Serves};

use crate::node::{NODE, Node, claim, labels, of, spec};

#[tokio::test]
async fn what_vanishes_behind_the_agents_back_comes_again() {
    let mut node = Node::new(Serves::Containerd).await;
    let image = FakeImage::new("a");
    node.publish("web-1", &[("a:1", &image)]);
    node.api.want(NODE, spec(vec![claim("web", "web-1")]));
    node.agent().await;
    node.until_state("web", NodeState::Ready).await;
    node.runtime.model().remove("a:1");
    node.until_runtime("it is pulled again", |r| {
        r.model().has_content(&image.layers[0].digest)
    })
    .await;
    node.until_state("web", NodeState::Ready).await;
    let labels = labels(&node.runtime, &image);
    assert!(labels.contains_key(PINNED_LABEL), "{labels:?}");
}

#[tokio::test]
async fn content_that_is_lost_while_the_name_stays_is_noticed() {
    let mut node = Node::new(Serves::Containerd).await;
    let image = FakeImage::new("a");
    node.publish("web-1", &[("a:1", &image)]);
    node.api.want(NODE, spec(vec![claim("web", "web-1")]));
    node.agent().await;
    node.until_state("web", NodeState::Ready).await;
    node.runtime.model().lose_content(&image.manifest);
    node.until_runtime("it is pulled again", |r| {
        let model = r.model();
        model.pulls.len() > 1
            && model.has_content(&image.manifest)
            && model.has_content(&image.layers[0].digest)
    })
    .await;
    node.until_state("web", NodeState::Ready).await;
}

#[tokio::test]
async fn pins_go_with_the_last_claim_and_with_the_object() {
    let mut node = Node::new(Serves::Containerd).await;
    let (a, b) = (FakeImage::new("a"), FakeImage::new("b"));
    node.publish("web-1", &[("a:1", &a)]);
    node.publish("api-1", &[("a:1", &a), ("b:1", &b)]);
    node.api
        .want(NODE, spec(vec![claim("api", "api-1"), claim("web", "web-1")]));
    node.agent().await;
    node.until_state("web", NodeState::Ready).await;
    node.until_state("api", NodeState::Ready).await;
    node.api.want(NODE, spec(vec![claim("web", "web-1")]));
    let pinned = |image: &FakeImage| labels(&node.runtime, image).contains_key(PINNED_LABEL);
    node.until_runtime("the second is released", |_| !pinned(&b))
        .await;
    assert!(pinned(&a), "another cache wants it");
    node.until("the claim is forgotten", |s| of(s, "api").is_none())
        .await;
    node.api.delete();
    node.until_runtime("all are released", |_| !pinned(&a)).await;
    assert!(node.has("docker.io/library/a:1"), "a pin less is no removal");
}

#[tokio::test]
async fn a_tag_that_somebody_deletes_is_set_again_without_a_pull() {
    let mut node = Node::new(Serves::Containerd).await;
    let image = FakeImage::new("a");
    node.publish("web-1", &[("a:1", &image)]);
    node.api.want(NODE, spec(vec![claim("web", "web-1")]));
    node.agent().await;
    node.until_state("web", NodeState::Ready).await;
    let runtime =
        larder_runtime::RuntimeClient::connect(node.runtime.path(), larder_runtime::Timeouts::default())
            .await
            .unwrap();
    let records = larder_runtime::Runtime::records(&runtime).unwrap();
    records
        .delete("docker.io/library/a:1", &image.manifest, true)
        .await
        .unwrap();
    node.until_runtime("the tag is back", |_| node.has("docker.io/library/a:1"))
        .await;
    assert_eq!(node.runtime.model().pulls.len(), 1);
}
