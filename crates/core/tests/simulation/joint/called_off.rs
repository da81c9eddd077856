//! Removals that are called off while some of those who know of them are away or late.

use larder_api::image_cache::{Puller, Removal};
use larder_api::node_image_cache::{NodeState, PullerStatus};
use larder_core::node::Write;

use super::world::World;
use crate::parts::objects::image;

/// A node that holds a cache of these images; private are those of that host.
fn filled(references: &[&str]) -> World {
    let mut world = World::new();
    world.start_agent();
    world.revision("r", images(references));
    world.cache("web", "r", Removal::Purge);
    world.settle();
    assert_eq!(state(&world), NodeState::Ready);
    world
}

fn images(references: &[&str]) -> Vec<larder_api::revision::RevisionImage> {
    let one = |reference: &&str| {
        let mut one = image(reference, reference, 0);
        one.private = reference.starts_with("private");
        one
    };
    references.iter().map(one).collect()
}

fn state(world: &World) -> NodeState {
    let claim = world.spec().caches[0].clone();
    world.view(&claim).unwrap().state
}

fn kubelet(world: &World) -> PullerStatus {
    let status = world.latest().unwrap().status.clone().unwrap();
    status.kubelet.unwrap_or_default()
}

#[test]
fn what_a_purge_job_takes_is_not_believed_to_be_there_on_the_word_of_an_agent_that_is_gone() {
    let mut world = filled(&["open.example/a:1", "open.example/b:1"]);
    world.stop_agent();
    // The Job begins as soon as nobody waits for the agent any more, and before mere progress would be written.
    world.run(8);
    world.purge("web", true);
    while world.purges.is_empty() {
        world.run(1);
    }
    assert_eq!(kubelet(&world).caches[0].state, NodeState::Purging);
    world.purge("web", false);
    world.settle();
    assert_eq!((state(&world), world.is_whole("r")), (NodeState::Ready, true));
}

#[test]
fn a_cache_that_only_agents_may_fill_waits_for_one_after_a_purge_without() {
    let mut world = filled(&["open.example/a:1", "private.example/b:1"]);
    world.cache_mut("web").unwrap().spec.puller = Puller::Agent;
    world.settle();
    world.stop_agent();
    world.purge("web", true);
    world.settle();
    assert_eq!(state(&world), NodeState::Purged);
    world.purge("web", false);
    world.settle();
    assert_eq!((state(&world), world.is_whole("r")), (NodeState::Waiting, false));
    world.start_agent();
    world.settle();
    assert_eq!((state(&world), world.is_whole("r")), (NodeState::Ready, true));
}

#[test]
fn a_purge_while_pods_pull_can_be_called_off_at_any_moment() {
    for seconds in 0..12 {
        let mut world = filled(&["private.example/a:1"]);
        world.grace = 5;
        world.revision("more", images(&["private.example/a:1", "private.example/b:1"]));
        world.newest.insert("web".into(), "more".into());
        while world.jobs.is_empty() {
            world.run(1);
        }
        world.purge("web", true);
        world.run(seconds);
        world.purge("web", false);
        world.settle();
        assert_eq!(
            (state(&world), world.is_whole("more")),
            (NodeState::Ready, true),
            "after {seconds} s"
        );
        world.purge("web", true);
        world.settle();
        assert_eq!(
            (state(&world), world.runtime.images.len()),
            (NodeState::Purged, 0)
        );
    }
}

#[test]
fn what_an_agent_removes_for_another_cache_is_not_held_by_an_old_revision() {
    let mut world = filled(&["private.example/a:1", "private.example/b:1"]);
    world.revision("less", images(&["private.example/a:1"]));
    world.cache("other", "r", Removal::Retain);
    world.settle();
    world.newest.insert("other".into(), "less".into());
    world.settle();
    world.purge("web", true);
    world.settle();
    assert!(!world.runtime.holds("private.example/b:1"));
    world.newest.insert("other".into(), "r".into());
    world.settle();
    assert!(world.is_whole("r"));
}

#[test]
fn a_purge_of_what_agent_and_kubelet_pulled_can_be_called_off_at_any_moment() {
    let references = ["open.example/a:1", "private.example/b:1", "private.example/c:1"];
    for seconds in 0..10 {
        let mut world = filled(&references);
        world.purge("web", true);
        world.run(seconds);
        world.purge("web", false);
        world.settle();
        assert_eq!(
            (state(&world), world.is_whole("r")),
            (NodeState::Ready, true),
            "after {seconds} s"
        );
    }
}

#[test]
fn what_an_agent_and_jobs_remove_for_one_cache_each_is_gone() {
    let mut world = filled(&["open.example/a:1"]);
    world.cache("other", "r", Removal::Purge).spec.puller = Puller::Job;
    world.settle();
    for cache in ["web", "other"] {
        world.purge(cache, true);
    }
    world.settle();
    assert!(world.runtime.images.is_empty());
    assert_eq!(world.ask_operator(world.latest()).write, Write::No);
}
