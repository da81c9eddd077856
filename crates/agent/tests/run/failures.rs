//! Pulls that fail, stall, or bring something else.

use std::time::Duration;

use larder_api::names::Reason;
use larder_api::node_image_cache::{AgentStatus, ImageState, NodeState};
use larder_testkit::runtime::{Call, FakeImage, Fault, Serves};
use tonic::Code;

use crate::node::{NODE, Node, claim, of, revision_image, revision_of, spec};

#[tokio::test]
async fn one_image_that_fails_costs_only_itself() {
    let mut node = Node::new(Serves::Containerd).await;
    let gone = revision_image("gone:1", &FakeImage::new("gone"));
    let full = FakeImage::new("full");
    let good = FakeImage::new("good");
    node.runtime.model().publish("full:1", &full);
    node.runtime.model().publish("good:1", &good);
    node.runtime
        .fault_pull("docker.io/library/full", 1000, Fault::no_space());
    let images = vec![
        gone,
        revision_image("full:1", &full),
        revision_image("good:1", &good),
    ];
    node.api.publish(revision_of("web-1", images));
    node.api.want(NODE, spec(vec![claim("web", "web-1")]));
    node.agent().await;
    let status = node
        .until("both failed and the third is there", |s| {
            let failed = s.puller.images.iter().filter(|i| i.state == ImageState::Failed);
            failed.count() == 2 && of(s, "web").is_some_and(|c| c.ready == 1)
        })
        .await;
    let mut reasons: Vec<(&str, Option<Reason>)> = status
        .puller
        .images
        .iter()
        .map(|i| (i.image.as_str(), i.reason))
        .collect();
    reasons.sort_unstable();
    assert_eq!(
        reasons,
        [
            ("docker.io/library/full:1", Some(Reason::InsufficientDisk)),
            ("docker.io/library/gone:1", Some(Reason::NotFound)),
        ]
    );
    node.runtime.heal();
    node.until("the disk has room again", |s| {
        of(s, "web").is_some_and(|c| c.ready == 2)
    })
    .await;
}

#[tokio::test]
async fn a_pull_that_stands_still_is_given_up_and_one_that_moves_is_not() {
    let mut node = Node::new(Serves::Containerd).await;
    let (stalled, slow) = (
        FakeImage::with_layers("stalled", &[4_000_000]),
        FakeImage::with_layers("slow", &[4_000_000]),
    );
    node.runtime.model().speed.step = 100_000;
    node.runtime.model().speed.every = Duration::from_millis(100);
    node.runtime
        .fault_pull("docker.io/library/stalled", 500_000, Fault::Hang);
    node.publish("web-1", &[("stalled:1", &stalled), ("slow:1", &slow)]);
    node.api.want(NODE, spec(vec![claim("web", "web-1")]));
    node.agent().await;
    let status = node
        .until("the one is given up", |s| {
            s.puller.images.iter().any(|i| i.reason == Some(Reason::Timeout))
        })
        .await;
    let image = status
        .puller
        .images
        .iter()
        .find(|i| i.reason == Some(Reason::Timeout))
        .unwrap();
    assert_eq!(image.image, "docker.io/library/stalled:1");
    assert!(image.message.contains("no progress for 2s"), "{}", image.message);
    // It takes twice as long as a pull may stand still.
    node.until("the other arrives", |s| {
        of(s, "web").is_some_and(|c| c.ready == 1)
    })
    .await;
    node.runtime.heal();
    node.until_state("web", NodeState::Ready).await;
}

#[tokio::test]
async fn through_cri_alone_images_come_by_tag_and_are_compared() {
    let mut node = Node::new(Serves::CriOnly).await;
    let (right, wanted, other) = (
        FakeImage::new("right"),
        FakeImage::new("wanted"),
        FakeImage::new("other"),
    );
    node.publish("web-1", &[("right:1", &right), ("moved:1", &wanted)]);
    node.runtime.model().publish("moved:1", &other);
    node.api.want(NODE, spec(vec![claim("web", "web-1")]));
    node.agent().await;
    let status = node
        .until("one is right and one is not", |s| {
            of(s, "web").is_some_and(|c| c.ready == 1)
                && s.puller
                    .images
                    .iter()
                    .any(|i| i.reason == Some(Reason::DigestMismatch))
        })
        .await;
    assert_eq!(status.capabilities, []);
    assert_eq!(status.puller.images[0].image, "docker.io/library/moved:1");
    assert!(
        node.runtime
            .model()
            .pulls
            .contains(&"docker.io/library/right:1".to_owned())
    );
}

#[tokio::test]
async fn through_cri_alone_content_counts_under_whatever_index_its_tag_names() {
    let mut node = Node::new(Serves::CriOnly).await;
    let content = FakeImage::new("inner");
    let wanted = content.behind("wanted");
    node.publish("web-1", &[("registry.internal/app:1", &wanted)]);
    node.runtime.model().publish("mirror.internal/app:1", &wanted);
    node.runtime.model().pull("mirror.internal/app:1").unwrap();
    // The tag has moved since it was looked up, to the same content.
    node.runtime
        .model()
        .publish("registry.internal/app:1", &content.behind("moved"));
    node.api.want(NODE, spec(vec![claim("web", "web-1")]));
    node.agent().await;
    node.until_state("web", NodeState::Ready).await;
    assert!(node.has("registry.internal/app:1"));
}

#[tokio::test]
async fn what_was_never_resolved_is_pulled_by_tag_and_its_digest_reported() {
    for serves in [Serves::Containerd, Serves::CriOnly] {
        let mut node = Node::new(serves).await;
        let image = FakeImage::new("inner").behind("index of inner");
        node.runtime.model().publish("registry.internal/app:1", &image);
        let mut unresolved = revision_image("registry.internal/app:1", &image);
        unresolved.digest = None;
        unresolved.platforms.clear();
        unresolved.private = true;
        node.api.publish(revision_of("web-1", vec![unresolved]));
        node.api.want(NODE, spec(vec![claim("web", "web-1")]));
        node.agent().await;
        let web = node.until_state("web", NodeState::Ready).await;
        let reported: Vec<&str> = web.reported.iter().map(|r| r.digest.as_str()).collect();
        assert_eq!(reported, [image.manifest.as_str()], "{serves:?}");
        node.kill();
    }
}

/// CRI alone lists every digest by which a content is known, and does not say which of them a tag means.
#[tokio::test]
async fn a_digest_is_reported_only_while_the_tag_can_mean_no_other() {
    let mut node = Node::new(Serves::CriOnly).await;
    let content = FakeImage::new("inner");
    let (app, copy) = (content.behind("app"), content.behind("copy"));
    let names = ["registry.internal/app:1", "registry.internal/copy:1"];
    let mut images = Vec::new();
    for (name, image) in names.iter().zip([&app, &copy]) {
        node.runtime.model().publish(name, image);
        let mut unresolved = revision_image(name, image);
        unresolved.digest = None;
        unresolved.platforms.clear();
        images.push(unresolved);
    }
    node.api.publish(revision_of("web-1", images));
    node.api.want(NODE, spec(vec![claim("web", "web-1")]));
    node.agent().await;
    let reported = |status: &AgentStatus| -> Vec<(String, String)> {
        let all = of(status, "web").map(|web| web.reported.as_slice());
        let all = all.unwrap_or_default().iter();
        all.map(|r| (r.image.clone(), r.digest.clone())).collect()
    };
    let [of_app, of_copy] =
        [(names[0], &app), (names[1], &copy)].map(|(n, i)| (n.to_owned(), i.manifest.clone()));
    let both = [of_app, of_copy.clone()];
    node.until("both are told, each by its own repository", |s| {
        reported(s) == both
    })
    .await;
    // Somebody pulls the same content by another index of that repository, by this tag or by another.
    node.runtime
        .model()
        .publish("registry.internal/app:2", &content.behind("later"));
    node.runtime.model().pull("registry.internal/app:2").unwrap();
    node.until("what is in doubt is not told", |s| {
        reported(s) == [of_copy.clone()]
    })
    .await;
    let web = of(&node.api.status().unwrap(), "web").unwrap().clone();
    assert_eq!((web.state, web.ready), (NodeState::Ready, 2));
}

#[tokio::test]
async fn a_missing_revision_is_asked_for_again() {
    let mut node = Node::new(Serves::Containerd).await;
    node.api.want(NODE, spec(vec![claim("web", "web-1")]));
    node.agent().await;
    node.until("it is missed", |s| {
        of(s, "web").is_some_and(|c| c.reason == Some(Reason::RevisionMissing))
    })
    .await;
    node.publish("web-1", &[("a:1", &FakeImage::new("a"))]);
    node.until_state("web", NodeState::Ready).await;
}

#[tokio::test]
async fn the_registrys_words_reach_the_status_without_secrets() {
    let mut node = Node::new(Serves::Containerd).await;
    let words =
        "failed to pull: unexpected status from HEAD request to https://u:hunter2@quay.io/v2/: 403 Forbidden";
    node.runtime
        .fault(Call::PullImage, Fault::Fail(Code::Unknown, words.to_owned()));
    node.publish("web-1", &[("a:1", &FakeImage::new("a"))]);
    node.api.want(NODE, spec(vec![claim("web", "web-1")]));
    node.agent().await;
    let status = node
        .until("it fails", |s| {
            !s.puller.images.is_empty() && s.puller.images[0].attempts > 0
        })
        .await;
    let image = &status.puller.images[0];
    assert_eq!(image.reason, Some(Reason::Unauthorized));
    assert!(
        image.message.contains("403 Forbidden") && !image.message.contains("hunter2"),
        "{}",
        image.message
    );
    assert!(!node.get("/attempts").await.1.contains("hunter2"));
}
