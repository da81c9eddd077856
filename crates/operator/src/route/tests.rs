#![allow(clippy::unwrap_used)]

use k8s_openapi::api::batch::v1::Job;
use larder_api::names::NODE_ANNOTATION;
use larder_api::node_image_cache::CacheOnNode;

use super::*;
use crate::testing::{cache, node, object, revision};

/// What is marked: caches, revisions, nodes, and whether a plan is.
#[derive(Debug, Default, PartialEq)]
struct Marked {
    caches: Vec<&'static str>,
    revisions: Vec<&'static str>,
    nodes: Vec<&'static str>,
    plan: bool,
}

fn take(queues: &Queues) -> Marked {
    let leak = |text: String| -> &'static str { text.leak() };
    let pairs = |queue: &Queue<Key>| -> Vec<&'static str> {
        queue
            .take_marked()
            .into_iter()
            .map(|(a, b)| leak(pair(&a, &b)))
            .collect()
    };
    Marked {
        caches: pairs(&queues.caches),
        revisions: pairs(&queues.revisions),
        nodes: queues.nodes.take_marked().into_iter().map(leak).collect(),
        plan: !queues.plan.take_marked().is_empty(),
    }
}

fn world() -> World {
    let world = World::default();
    world.nodes.apply(&node());
    world.caches.apply(cache());
    world.revisions.apply(revision());
    world.objects.apply(object());
    world
}

#[tokio::test]
async fn a_cache_concerns_itself_the_plan_and_with_its_spec_the_nodes_it_claims() {
    let (world, queues) = (world(), Queues::default());
    let mut status_only = cache();
    status_only.metadata.resource_version = Some("20".into());
    status_only.status = Some(larder_api::ImageCacheStatus::default());
    queues.cache_changed(&world, &world.caches.apply(status_only.clone()).unwrap());
    assert_eq!(
        take(&queues),
        Marked {
            caches: vec!["team/web"],
            plan: true,
            ..Marked::default()
        }
    );
    let mut spec = status_only;
    spec.metadata.resource_version = Some("21".into());
    spec.spec.rollout.images_per_node = 9;
    queues.cache_changed(&world, &world.caches.apply(spec).unwrap());
    let all = Marked {
        caches: vec!["team/web"],
        nodes: vec!["node-1"],
        plan: true,
        ..Marked::default()
    };
    assert_eq!(take(&queues), all);
    queues.cache_changed(&world, &world.caches.gone("team", "web", "cache-uid").unwrap());
    assert_eq!(take(&queues), all, "also when it goes");
}

#[tokio::test]
async fn a_revision_concerns_its_cache_and_the_nodes_that_name_it() {
    let (world, queues) = (world(), Queues::default());
    queues.revision_changed(
        &world,
        &world.revisions.gone("team", "web-1", "revision-uid").unwrap(),
    );
    let expected = Marked {
        caches: vec!["team/web"],
        revisions: vec!["team/web-1"],
        nodes: vec!["node-1"],
        plan: true,
    };
    assert_eq!(take(&queues), expected);
}

#[tokio::test]
async fn a_nodes_object_concerns_its_caches_and_the_revisions_that_it_lets_go() {
    let (world, queues) = (world(), Queues::default());
    let mut next = object();
    next.metadata.resource_version = Some("20".into());
    next.spec.caches[0].revision = "web-2".into();
    let change = world.objects.apply(next.clone()).unwrap();
    queues.object_changed(&change);
    let expected = Marked {
        caches: vec!["team/web"],
        revisions: vec!["team/web-1"],
        nodes: vec!["node-1"],
        plan: true,
    };
    assert_eq!(take(&queues), expected);
    // A claim that is gone, but whose cache is still spoken of.
    next.metadata.resource_version = Some("21".into());
    next.spec.caches.clear();
    let kubelet = next
        .status
        .get_or_insert_default()
        .kubelet
        .get_or_insert_default();
    kubelet.caches = vec![CacheOnNode {
        namespace: "team".into(),
        name: "old".into(),
        ..CacheOnNode::default()
    }];
    queues.object_changed(&world.objects.apply(next).unwrap());
    let marked = take(&queues);
    assert_eq!(
        (marked.caches, marked.revisions),
        (vec!["team/old", "team/web"], vec!["team/web-2"])
    );
}

#[tokio::test]
async fn a_node_concerns_caches_only_where_it_becomes_something_else_to_them() {
    let (world, queues) = (world(), Queues::default());
    let mut labelled = node();
    labelled.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    queues.node_changed(&world, &world.nodes.apply(&labelled).unwrap());
    assert_eq!(
        take(&queues),
        Marked {
            nodes: vec!["node-1"],
            plan: true,
            ..Marked::default()
        }
    );
    labelled.spec.get_or_insert_default().unschedulable = Some(true);
    queues.node_changed(&world, &world.nodes.apply(&labelled).unwrap());
    let all = Marked {
        caches: vec!["team/web"],
        nodes: vec!["node-1"],
        plan: true,
        ..Marked::default()
    };
    assert_eq!(take(&queues), all);
    queues.node_changed(&world, &world.nodes.remove("node-1").unwrap());
    assert_eq!(take(&queues), all);
}

#[tokio::test]
async fn jobs_and_pods_concern_the_node_they_work_for() {
    let (world, queues) = (World::default(), Queues::default());
    let mut job = Job::default();
    job.metadata.name = Some("x".into());
    job.metadata.annotations = Some([(NODE_ANNOTATION.to_owned(), "node-9".to_owned())].into());
    job.metadata.resource_version = Some("1".into());
    queues.work_changed(&world.jobs.apply(job).unwrap());
    assert_eq!(
        take(&queues),
        Marked {
            nodes: vec!["node-9"],
            ..Marked::default()
        }
    );
}

#[tokio::test]
async fn an_agent_concerns_its_node_the_plan_and_the_caches_on_the_node() {
    let (world, queues) = (world(), Queues::default());
    queues.agent_changed(&world, "node-1");
    let expected = Marked {
        caches: vec!["team/web"],
        nodes: vec!["node-1"],
        plan: true,
        ..Marked::default()
    };
    assert_eq!(take(&queues), expected);
}

#[tokio::test]
async fn everything_is_looked_at_after_the_first_lists() {
    let (world, queues) = (world(), Queues::default());
    queues.mark_all(&world);
    let expected = Marked {
        caches: vec!["team/web"],
        revisions: vec!["team/web-1"],
        nodes: vec!["node-1"],
        plan: true,
    };
    assert_eq!(take(&queues), expected);
}
