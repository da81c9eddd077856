use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use larder_api::ImageCacheStatus;
use larder_api::image_cache_status::{Failure, NodeStatus};
use larder_api::names::Reason;
use larder_api::node_image_cache::{
    CacheOnNode, ImageOnNode, ImageState, NodeState, PullerStatus, ReportedDigest,
};
use proptest::prelude::*;
use serde_json::json;

use super::{BUDGET, MAX_CONDITION_CHARS, MAX_FAILURES, MAX_IMAGES, MAX_NODES, size, trim, trim_node};
use crate::mutate::mutations;

const STATES: [NodeState; 7] = [
    NodeState::Waiting,
    NodeState::Pulling,
    NodeState::Ready,
    NodeState::Failed,
    NodeState::Unreachable,
    NodeState::Purging,
    NodeState::Purged,
];

fn node(i: usize, state: NodeState, message: &str) -> NodeStatus {
    NodeStatus {
        node: format!("node-{i:04}.a-rather-long-domain-of-a-cluster.example.com"),
        state,
        revision: "web-2456789bcdfgh".into(),
        ready: 9,
        total: 10,
        puller: "Job".into(),
        message: message.into(),
        since: Some(Time(Timestamp::UNIX_EPOCH)),
        ..NodeStatus::default()
    }
}

fn failure(i: usize, message: &str) -> Failure {
    Failure {
        image: format!("registry.example.com/team/application-{i:04}:v1.2.3"),
        reason: Reason::NotFound,
        message: message.into(),
        nodes: 5000,
        sample_nodes: (0..5)
            .map(|n| format!("node-{n:04}.a-rather-long-domain-of-a-cluster.example.com"))
            .collect(),
    }
}

fn condition(kind: &str, message: &str) -> Condition {
    Condition {
        type_: kind.into(),
        status: "True".into(),
        reason: "Reason".into(),
        message: message.into(),
        observed_generation: Some(3),
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    }
}

#[test]
fn five_thousand_failing_nodes_fit() {
    let words =
        "unexpected status from HEAD request to https://registry.example.com/v2/team/x/manifests/1: 503 "
            .repeat(3);
    let status = ImageCacheStatus {
        node_statuses: (0..5000).map(|i| node(i, NodeState::Failed, &words)).collect(),
        failures: (0..500).map(|i| failure(i, &words)).collect(),
        conditions: ["Accepted", "Resolved", "Ready", "Progressing", "Degraded"]
            .map(|kind| condition(kind, &words.repeat(20)))
            .to_vec(),
        ..ImageCacheStatus::default()
    };
    let trimmed = trim(status);
    assert!(size(&trimmed) <= BUDGET);
    // Nearly all of the budget is put to use.
    assert!(size(&trimmed) > BUDGET - 1024, "{}", size(&trimmed));
    assert_eq!(
        trimmed.node_statuses.len() + trimmed.node_statuses_omitted as usize,
        5000
    );
    assert!(
        trimmed.node_statuses.len() > 100,
        "{}",
        trimmed.node_statuses.len()
    );
    assert_eq!(
        (trimmed.failures.len(), trimmed.failures_omitted),
        (MAX_FAILURES, 480)
    );
    assert!(trimmed.failures.iter().all(|f| !f.message.is_empty()));
    assert!(
        trimmed
            .conditions
            .iter()
            .all(|c| c.message.chars().count() == MAX_CONDITION_CHARS)
    );
}

#[test]
fn what_fits_is_only_sorted() {
    let status = ImageCacheStatus {
        node_statuses: vec![
            node(1, NodeState::Ready, ""),
            node(3, NodeState::Waiting, "cordoned"),
            node(2, NodeState::Failed, "x"),
            node(0, NodeState::Ready, ""),
        ],
        failures: vec![failure(2, "b"), failure(1, "a")],
        ..ImageCacheStatus::default()
    };
    let trimmed = trim(status.clone());
    let order: Vec<_> = trimmed
        .node_statuses
        .iter()
        .map(|n| n.node[5..9].to_owned())
        .collect();
    assert_eq!(order, ["0002", "0003", "0000", "0001"]);
    assert_eq!((trimmed.node_statuses_omitted, trimmed.failures_omitted), (0, 0));
    assert_eq!(trimmed.failures, status.failures);
}

#[test]
fn no_field_is_lost() {
    let time = "2026-11-21T07:00:00Z";
    let full = json!({
        "observedGeneration": 3,
        "revision": "web-2456789bcdfgh",
        "conditions": [{
            "type": "Accepted", "status": "True", "reason": "Valid", "message": "words", "observedGeneration": 3,
            "lastTransitionTime": time,
        }],
        "nodes": {
            "selected": 50, "ready": 50, "updated": 48, "progressing": 1, "failed": 1, "waiting": 0, "unreachable": 0,
        },
        "images": {"total": 10, "unresolved": 0, "bytes": 3_221_225_472_i64},
        "nodeStatuses": [{
            "node": "n1", "state": "Ready", "revision": "web-1", "ready": 9, "total": 10, "skipped": 1, "puller": "Pods",
            "message": "words", "since": time,
        }],
        "nodeStatusesOmitted": 1,
        "failures": [{"image": "nginx", "reason": "NotFound", "message": "words", "nodes": 3, "sampleNodes": ["n7"]}],
        "failuresOmitted": 2,
        "lastRefresh": {
            "token": "a", "requestedAt": "2026-11-21T07:00:00.250000Z", "finishedAt": "2026-11-21T07:00:01.000000Z",
            "finishedToken": "a", "trigger": "Annotation", "changed": 2, "result": "Succeeded",
        },
        "lastPurge": {
            "token": "b", "requestedAt": time, "finishedAt": time, "finishedToken": "b", "inForce": true,
            "imagesHash": "c", "removed": 480, "inUse": 3, "foreign": 2, "shared": 1,
        },
        "summary": {"ready": "48/50", "size": "3.0 GiB"},
    });
    let read = |value| serde_json::from_value::<ImageCacheStatus>(value).unwrap();
    let base = read(full.clone());
    // Whoever adds a field adds it here too.
    assert_eq!(serde_json::to_value(&base).unwrap(), full);
    for (path, changed) in mutations(&full) {
        let status = read(changed);
        assert_ne!(status, base, "{path}");
        assert_eq!(trim(status.clone()), status, "{path}");
    }
}

#[test]
fn all_of_two_hundred_and_fifty_nodes_are_listed() {
    let nodes = |n: usize| ImageCacheStatus {
        node_statuses: (0..n)
            .map(|i| NodeStatus {
                node: format!("node-{i}"),
                state: NodeState::Ready,
                ready: 10,
                total: 10,
                ..NodeStatus::default()
            })
            .collect(),
        ..ImageCacheStatus::default()
    };
    assert_eq!(trim(nodes(250)).node_statuses.len(), 250);
    let more = trim(nodes(251));
    assert_eq!((more.node_statuses.len(), more.node_statuses_omitted), (250, 1));
}

fn on_node(i: usize, message: &str, reported: usize) -> CacheOnNode {
    CacheOnNode {
        namespace: format!("team-{i}"),
        name: "cache".into(),
        uid: format!("{i:036}"),
        revision: "cache-2456789bcdfgh".into(),
        held: vec!["cache-2456789bcdfgh".into()],
        state: NodeState::Failed,
        message: message.into(),
        removal_error: message.into(),
        since: Some(Time(Timestamp::UNIX_EPOCH)),
        reported: (0..reported)
            .map(|i| ReportedDigest {
                image: format!("r.example/app-{i}:1"),
                digest: format!("sha256:{i:064}"),
            })
            .collect(),
        ..CacheOnNode::default()
    }
}

fn image(cache: usize, i: usize, state: ImageState, message: &str) -> ImageOnNode {
    ImageOnNode {
        cache: format!("team-{cache}/cache"),
        image: format!("registry.example.com/team/application-{i}:v1"),
        digest: Some(format!("sha256:{i:064}")),
        state,
        reason: (state == ImageState::Failed).then_some(Reason::NotFound),
        message: message.into(),
        attempts: 3,
        since: Some(Time(Timestamp::UNIX_EPOCH)),
        ..ImageOnNode::default()
    }
}

#[test]
fn fifty_caches_of_ten_failing_images_fit_on_a_node() {
    let words = "x".repeat(256);
    let status = PullerStatus {
        caches: (0..50).map(|i| on_node(i, &words, 0)).collect(),
        images: (0..500)
            .map(|i| image(i / 10, i, ImageState::Failed, &words))
            .collect(),
        ..PullerStatus::default()
    };
    let trimmed = trim_node(status);
    assert!(size(&trimmed) <= BUDGET);
    assert_eq!(trimmed.caches.len(), 50);
    assert_eq!(trimmed.images.len() + trimmed.images_omitted as usize, 500);
    assert!(trimmed.images.len() > 50, "{}", trimmed.images.len());
}

#[test]
fn failed_images_come_first_on_a_node() {
    let states = [ImageState::Skipped, ImageState::Waiting, ImageState::Failed];
    let images = (0..300).map(|i| image(0, i, states[i % 3], "")).collect();
    let trimmed = trim_node(PullerStatus {
        images,
        ..PullerStatus::default()
    });
    let count = |state| trimmed.images.iter().filter(|i| i.state == state).count();
    assert!(trimmed.images.len() <= MAX_IMAGES);
    assert_eq!(trimmed.images.len() + trimmed.images_omitted as usize, 300);
    assert_eq!(count(ImageState::Failed), 100);
    assert!(
        trimmed
            .images
            .iter()
            .take(100)
            .all(|i| i.state == ImageState::Failed)
    );
    assert_eq!(count(ImageState::Skipped), 0);
}

#[test]
fn reported_digests_give_way_before_caches_do() {
    let trimmed = trim_node(PullerStatus {
        caches: vec![on_node(0, "", 500)],
        ..PullerStatus::default()
    });
    assert!(size(&trimmed) <= BUDGET);
    assert_eq!(trimmed.caches.len(), 1);
    assert_eq!(trimmed.caches[0].reported.len(), 64);
}

/// Text of up to `chars` characters: plain, of several bytes, or longer as JSON than it is.
fn text(chars: usize) -> impl Strategy<Value = String> {
    (
        prop::sample::select(vec!["a", "é", "\"", "\\", "𝄞", "\u{1}"]),
        0..=chars,
    )
        .prop_map(|(c, n)| c.repeat(n))
}

prop_compose! {
    fn any_status()(
        nodes in prop::collection::vec((0_usize..9999, prop::sample::select(STATES.to_vec()), text(300)), 0..400),
        failures in prop::collection::vec((0_usize..99, text(400)), 0..40),
        messages in prop::collection::vec(text(1500), 0..6),
        (omitted, failures_omitted) in (0..100_000, 0..1000),
        padding in prop::sample::select(vec![0_usize, 30, 180]),
    ) -> ImageCacheStatus {
        ImageCacheStatus {
            node_statuses: nodes.iter().map(|(i, state, m)| {
                let mut n = node(*i, *state, m);
                n.node.push_str(&"n".repeat(padding));
                n
            }).collect(),
            node_statuses_omitted: omitted,
            failures: failures.iter().map(|(i, m)| {
                let mut f = failure(*i, m);
                f.image.push_str(&"i".repeat(padding * 2));
                f
            }).collect(),
            failures_omitted,
            conditions: messages.iter().map(|m| condition("Kind", m)).collect(),
            ..ImageCacheStatus::default()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn a_status_keeps_to_its_budget_and_counts_add_up(status in any_status()) {
        let before = (status.node_statuses.len() as i32, status.failures.len() as i32);
        let all = (status.node_statuses_omitted + before.0, status.failures_omitted + before.1);
        let trimmed = trim(status.clone());
        prop_assert!(size(&trimmed) <= BUDGET, "{}", size(&trimmed));
        prop_assert!(trimmed.node_statuses.len() <= MAX_NODES && trimmed.failures.len() <= MAX_FAILURES);
        let counted = (
            trimmed.node_statuses_omitted + trimmed.node_statuses.len() as i32,
            trimmed.failures_omitted + trimmed.failures.len() as i32,
        );
        prop_assert_eq!(counted, all);
        prop_assert_eq!(trim(trimmed.clone()), trimmed.clone());
        // A problem is never left out while a node without one is listed.
        let failed = |s: &ImageCacheStatus| s.node_statuses.iter().filter(|n| n.state == NodeState::Failed).count();
        let ready = trimmed.node_statuses.iter().any(|n| n.state == NodeState::Ready);
        prop_assert!(!ready || failed(&status) == failed(&trimmed));
    }

    #[test]
    fn the_status_of_a_node_keeps_to_its_budget(
        caches in prop::collection::vec((text(300), 0_usize..600), 0..60),
        images in prop::collection::vec((0_usize..9, 0_usize..999, 0_usize..3, text(300)), 0..300),
        before in 0..2000,
    ) {
        let states = [ImageState::Skipped, ImageState::Waiting, ImageState::Failed];
        let status = PullerStatus {
            caches: caches.iter().enumerate().map(|(i, (m, reported))| on_node(i, m, *reported)).collect(),
            images: images.iter().map(|(c, i, s, m)| image(*c, *i, states[*s], m)).collect(),
            images_omitted: before,
            ..PullerStatus::default()
        };
        let trimmed = trim_node(status);
        prop_assert!(size(&trimmed) <= BUDGET, "{}", size(&trimmed));
        prop_assert_eq!(trimmed.caches.len(), caches.len());
        prop_assert_eq!(trimmed.images.len() as i32 + trimmed.images_omitted, images.len() as i32 + before);
        prop_assert_eq!(trim_node(trimmed.clone()), trimmed);
    }
}
