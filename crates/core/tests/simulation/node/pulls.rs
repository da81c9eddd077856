//! What pods pull.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::image_cache::{Puller, Removal};
use larder_api::names::Reason;
use larder_api::node_image_cache::{ImageState, NodeState};
use larder_core::merge::Agent;
use larder_core::pull::Rejection;

use super::images;
use super::world::Node;
use crate::parts::pods::Fate;

#[test]
fn thirty_images_arrive_by_one_pod() {
    let mut node = Node::new();
    node.revision("r", &images("a.io", 30));
    node.claim("c", "r", Removal::Retain);
    node.run(60);
    assert_eq!(node.state("c"), (NodeState::Ready, 30, 30));
    assert!(node.jobs.is_empty());
    assert_eq!(node.most_pods, 1);
    let writes = node.writes;
    node.run(100);
    assert_eq!(node.writes, writes, "a converged node is silent");
}

#[test]
fn a_bad_image_is_told_at_once_and_holds_up_nobody() {
    let mut node = Node::new();
    node.revision("r", &images("a.io", 10));
    node.fates.insert("a.io/r3:1".into(), Fate::Fails(1000));
    node.claim("c", "r", Removal::Retain);
    node.run(6);
    let told = node.status.clone().unwrap();
    let failed: Vec<_> = told
        .images
        .iter()
        .filter(|i| i.state == ImageState::Failed)
        .collect();
    assert_eq!((failed.len(), failed[0].reason), (1, Some(Reason::NotFound)));
    node.run(20);
    assert_eq!(node.state("c"), (NodeState::Failed, 9, 10));
    assert!(
        node.jobs.is_empty(),
        "no pod is held for an image that waits for its next attempt"
    );
    let attempts = node.status.as_ref().unwrap().images[0].attempts;
    node.fates.insert("a.io/r3:1".into(), Fate::Fine);
    node.run(200);
    assert_eq!(node.state("c"), (NodeState::Ready, 10, 10));
    assert!(attempts >= 1);
}

#[test]
fn an_image_for_another_platform_is_never_said_to_be_held() {
    let mut node = Node::new();
    node.revision("r", &images("a.io", 2));
    node.fates.insert("a.io/r0:1".into(), Fate::NoPlatform);
    node.claim("c", "r", Removal::Retain);
    node.run(60);
    let told = node.status.clone().unwrap();
    let on_node = &told.caches[0];
    assert_eq!(
        (on_node.state, on_node.ready, on_node.total, on_node.skipped),
        (NodeState::Ready, 1, 1, 1)
    );
    assert_eq!(told.images[0].state, ImageState::Skipped);
    assert!(node.jobs.is_empty());
}

#[test]
fn only_a_cache_that_is_there_misses_its_revision() {
    let mut node = Node::new();
    node.revision("r", &images("a.io", 2));
    node.claim("c", "r", Removal::Retain);
    node.run(60);
    node.revisions.clear();
    node.run(5);
    let told = node.status.clone().unwrap().caches[0].clone();
    assert_eq!(
        (told.state, told.reason),
        (NodeState::Failed, Some(Reason::RevisionMissing))
    );
    // Deleted together with its revisions: that is no failure of anything.
    let mut node = Node::new();
    node.revision("r", &images("a.io", 2));
    node.claim("c", "r", Removal::Retain);
    node.run(60);
    node.revisions.clear();
    node.caches.clear();
    node.run(5);
    let told = node.status.clone().unwrap().caches[0].clone();
    assert_eq!((told.state, told.reason), (NodeState::Ready, None));
}

#[test]
fn a_digest_of_another_repository_says_nothing_of_a_tag() {
    let mut node = Node::new();
    let names = ["nginx:1", "a.io/own:1", "a.io/copied:1"].map(str::to_owned);
    node.revision("r1", &names);
    for image in &mut node.revisions[0].spec.spec.images {
        image.digest = None;
    }
    node.claim("web", "r1", Removal::Retain);
    let ids = [
        "docker.io/library/nginx@sha256:1",
        "a.io/own@sha256:2",
        "a.io/before@sha256:3",
    ];
    for (name, id) in names.iter().zip(ids) {
        node.fates.insert(name.clone(), Fate::Named(id));
    }
    node.apply(false);
    node.run(10);
    assert_eq!(node.state("web"), (NodeState::Ready, 3, 3));
    let reported = &node.view("web").unwrap().reported;
    let reported: Vec<_> = reported
        .iter()
        .map(|r| (r.image.as_str(), r.digest.as_str()))
        .collect();
    assert_eq!(reported, [("a.io/own:1", "sha256:2"), ("nginx:1", "sha256:1")]);
}

#[test]
fn what_a_pod_found_behind_a_tag_is_forgotten_once_the_agent_looks_at_it() {
    let mut node = Node::new();
    let names = ["private.io/a:1", "a.io/own:1"].map(str::to_owned);
    node.revision("r1", &names);
    for image in &mut node.revisions[0].spec.spec.images {
        image.digest = None;
    }
    node.claim("web", "r1", Removal::Retain);
    node.claims[0].puller = Puller::Auto;
    for (name, id) in names.iter().zip(["private.io/a@sha256:1", "a.io/own@sha256:2"]) {
        node.fates.insert(name.clone(), Fate::Named(id));
    }
    node.run(20);
    let told = |node: &Node| -> Vec<String> {
        let reported = &node.status.as_ref().unwrap().caches[0].reported;
        reported.iter().map(|r| r.image.clone()).collect()
    };
    assert_eq!(told(&node), ["a.io/own:1", "private.io/a:1"]);
    node.agent = Agent::Alive;
    node.agent();
    node.run(20);
    assert_eq!(told(&node), ["private.io/a:1"]);
}

#[test]
fn what_a_pod_found_before_a_refresh_does_not_answer_it() {
    let mut node = Node::new();
    node.revision("r", &images("a.io", 1));
    node.revisions[0].spec.spec.images[0].digest = None;
    node.claim("c", "r", Removal::Retain);
    // The first pod has found the image, its Job is not deleted yet.
    node.now += SignedDuration::from_secs(1);
    node.apply(false);
    node.kubelet();
    node.apply(true);
    assert_eq!(node.state("c").0, NodeState::Ready);
    node.now += SignedDuration::from_secs(5);
    node.claims[0].verify_after = Some(Time(node.now));
    let decision = node.apply(false);
    assert_eq!(decision.status.caches[0].state, NodeState::Pulling);
    assert_eq!(decision.pull.len(), 1);
    node.run(10);
    assert_eq!(node.state("c").0, NodeState::Ready);
}

#[test]
fn no_retry_begins_in_the_second_of_the_failure() {
    // The delays are of 0.8 to 1 s, by image.
    for image in images("a.io", 5) {
        let mut node = Node::new();
        node.revision("r", std::slice::from_ref(&image));
        node.fates.insert(image, Fate::Fails(9));
        node.claim("c", "r", Removal::Retain);
        node.caches[0].spec.retry.max_delay = std::time::Duration::from_secs(1).into();
        while node.status.as_ref().is_none_or(|s| s.images.is_empty()) {
            node.run(1);
        }
        let failed = &node.status.as_ref().unwrap().images[0];
        let since = failed.since.as_ref().unwrap().0;
        let again = node.decide().wake_at.unwrap();
        assert!(
            again >= since + SignedDuration::from_secs(1),
            "{failed:?}: {again}"
        );
    }
}

#[test]
fn an_image_that_hangs_lets_the_others_pass_after_half_a_minute_and_times_out() {
    let mut node = Node::new();
    node.revision("r", &images("a.io", 5));
    node.fates.insert("a.io/r0:1".into(), Fate::Hangs);
    node.claim("c", "r", Removal::Retain);
    node.run(29);
    assert_eq!(node.jobs.len(), 1);
    node.run(40);
    assert_eq!(node.state("c").1, 4);
    node.run(3600);
    let told = node.status.clone().unwrap();
    assert_eq!(told.images[0].reason, Some(Reason::Timeout));
}

#[test]
fn a_refused_pod_is_the_caches_failure_and_heals() {
    let mut node = Node::new();
    node.revision("r", &images("a.io", 2));
    node.claim("c", "r", Removal::Retain);
    let rejection = Rejection {
        message: "exceeded quota".into(),
        at: node.now,
        attempts: 20,
    };
    node.rejections.insert("c".into(), rejection);
    node.run(30);
    let told = node.status.clone().unwrap().caches[0].clone();
    assert_eq!(
        (told.state, told.reason),
        (NodeState::Failed, Some(Reason::PodRejected))
    );
    assert_eq!(told.message, "exceeded quota");
    assert!(node.jobs.is_empty());
    node.run(31);
    assert_eq!(node.jobs.len(), 1, "tried again within a minute");
}

#[test]
fn five_hundred_images_arrive_and_five_hundred_failures_do_not_hammer() {
    let mut node = Node::new();
    let all = images("a.io", 500);
    node.revision("r", &all);
    node.claim("c", "r", Removal::Retain);
    node.run(250);
    assert_eq!(node.state("c"), (NodeState::Ready, 500, 500));

    let mut node = Node::new();
    node.revision("r", &all);
    node.fates
        .extend(all.iter().map(|i| (i.clone(), Fate::Fails(1_000_000))));
    node.claim("c", "r", Removal::Retain);
    let mut pods = 0;
    for _ in 0..600 {
        node.now += SignedDuration::from_secs(1);
        node.kubelet();
        pods += node.apply(false).pull.len();
    }
    // 16 pods a round, and a round each minute, then each two minutes, …
    assert!(pods < 150, "{pods} pods in ten minutes");
    assert_eq!(node.state("c").0, NodeState::Failed);
}
