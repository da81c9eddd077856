//! What the agent pulls, and when.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::image_cache::{ProtectSpec, TimeoutsSpec};
use larder_api::names::Reason;
use larder_api::node_image_cache::{Desired, ImageState, NodeLimits, NodeState};
use larder_core::agent::Action;

use super::world::{Fate, World, image};
use super::{filled, names, pulls};
use crate::parts::objects::{MIB, digest, id_of};

#[test]
fn fills_by_priority_and_size_within_the_limits_and_falls_silent() {
    let mut world = World::new();
    let mut all: Vec<_> = (0..9)
        .map(|i| image(&format!("a{i}:1"), &format!("{i}"), (20 - i) * MIB))
        .collect();
    all[4].priority = 5;
    world.revision("r1", all);
    world.claim("web", "r1");
    world.overrides("web").images_per_node = Some(4);
    let first = world.step();
    assert_eq!(names(&first), ["a4:1", "a8:1", "a7:1", "a6:1"]);
    world.settle();
    assert_eq!(world.most_pulls, 4);
    let entry = world.entry("web");
    assert_eq!((entry.state, entry.ready, entry.total), (NodeState::Ready, 9, 9));
    assert_eq!((entry.held, entry.missing.as_str()), (vec!["r1".to_owned()], ""));
    assert_eq!(entry.bytes, (12..=20).sum::<i64>() * MIB);
    assert!(
        world
            .runtime
            .images
            .values()
            .all(|s| s.pinned_by_us && s.pulled_by_us)
    );
    assert_eq!(world.condition("Protected"), "True Pinned");
    let (writes, begun) = (world.writes, world.begun.len());
    world.run(100);
    assert_eq!((world.writes, world.begun.len()), (writes, begun));
    assert!(writes <= 4, "{writes} writes");
    // The node's limit is lower than the caches'.
    let mut world = World::new();
    world.revision(
        "r1",
        (0..9)
            .map(|i| image(&format!("a{i}:1"), &format!("{i}"), MIB))
            .collect(),
    );
    world.claim("web", "r1");
    world.spec.limits = Some(NodeLimits {
        pulls: 2,
        report_seconds: 60,
    });
    world.settle();
    assert_eq!(world.most_pulls, 2);
}

#[test]
fn caches_that_share_an_image_share_the_pull() {
    let mut world = World::new();
    world.revision("r1", vec![image("a:1", "a", MIB), image("b:1", "b", MIB)]);
    let mut late = image("b:1", "b", MIB);
    late.priority = 9;
    world.revision("r2", vec![late]);
    world.claim("one", "r1");
    world.claim("two", "r2");
    world.overrides("one").protect = Some(ProtectSpec {
        pin: false,
        ..ProtectSpec::default()
    });
    let long = TimeoutsSpec {
        attempt: std::time::Duration::from_hours(9).into(),
        ..TimeoutsSpec::default()
    };
    world.overrides("two").timeouts = Some(long);
    let first = world.step();
    assert_eq!(names(&first), ["b:1", "a:1"]);
    let shared = pulls(&first)[0];
    assert!(shared.pin && !pulls(&first)[1].pin);
    assert_eq!(shared.attempt, std::time::Duration::from_hours(9));
    world.settle();
    assert_eq!(
        (world.state("one"), world.state("two")),
        (NodeState::Ready, NodeState::Ready)
    );
    assert_eq!(world.begun.len(), 2);
    // What the other still wants stays; its pin goes with the one that asked for it.
    world.claimed("two").desired = Desired::Absent;
    world.settle();
    assert_eq!(world.state("two"), NodeState::Purged);
    assert!(world.removed.is_empty());
    assert!(!world.held("b").unwrap().pinned);
}

#[test]
fn failures_are_repeated_ever_later_and_named_and_a_new_assignment_starts_afresh() {
    let mut world = World::new();
    world.revision("r1", vec![image("a:1", "a", MIB), image("b:1", "b", MIB)]);
    world.claim("web", "r1");
    world
        .fates
        .insert("r.example/a:1".into(), Fate::Always(Reason::RegistryUnreachable));
    world
        .fates
        .insert("r.example/b:1".into(), Fate::Always(Reason::NotFound));
    world.run(30);
    assert_eq!(
        (world.state("web"), world.entry("web").message.as_str()),
        (NodeState::Failed, "2 images failed")
    );
    let tries = |world: &World, name: &str| world.begun.iter().filter(|i| i.ends_with(name)).count();
    assert_eq!((tries(&world, "a:1"), tries(&world, "b:1")), (5, 1));
    let said = world.listed("b:1");
    assert_eq!(
        (said.state, said.reason, said.attempts),
        (ImageState::Failed, Some(Reason::NotFound), 1)
    );
    assert_eq!(said.message, "NotFound says the registry");
    // Another process knows what failed, and how often.
    world.restart();
    world.run(5);
    assert_eq!((tries(&world, "b:1"), world.listed("b:1").attempts), (1, 1));
    let asked = Time(world.now);
    world.claimed("web").verify_after = Some(asked);
    assert_eq!(names(&world.step()), ["a:1", "b:1"]);
    world.fates.clear();
    world.settle();
    assert_eq!(
        (world.state("web"), world.process.memory.failures.len()),
        (NodeState::Ready, 0)
    );
}

#[test]
fn what_vanishes_comes_back_at_once_and_then_with_a_brake() {
    let mut world = filled(&["a:1"]);
    for (times, pause) in [(1, 0), (2, 60), (3, 120), (4, 240)] {
        world.runtime.images.clear();
        let decision = world.step();
        assert_ne!(world.state("web"), NodeState::Ready);
        assert_eq!(pulls(&decision).len(), usize::from(pause == 0), "{times}");
        if pause > 0 {
            let said = world.listed("a:1");
            assert_eq!(
                said.message,
                format!("went from the node {times} times without Larder's doing")
            );
            world.pass(SignedDuration::from_secs(pause));
            assert_eq!(names(&world.step()), ["a:1"]);
        }
        world.settle();
        assert_eq!(world.state("web"), NodeState::Ready);
    }
    world.pass(SignedDuration::from_hours(7));
    world.step();
    world.held_mut("a:1").complete = false;
    assert_eq!(names(&world.step()), ["a:1"]);
}

#[test]
fn a_moved_tag_is_set_back_without_a_pull_and_caches_do_not_fight_for_one() {
    let mut world = filled(&["a:1"]);
    world.bring("a:1", "other");
    let decision = world.step();
    assert!(
        matches!(&decision.actions[..], [Action::Tag { name, target }] if name == "r.example/a:1" && *target == digest("a:1"))
    );
    world.settle();
    assert_eq!((world.state("web"), world.begun.len()), (NodeState::Ready, 1));
    world.pass(SignedDuration::from_secs(60));
    world.revision("newer", vec![image("a:1", "newer", MIB)]);
    world.claim("other", "newer");
    world.settle();
    assert_eq!(
        (world.state("web"), world.state("other")),
        (NodeState::Ready, NodeState::Ready)
    );
    assert!(world.held("newer").unwrap().names.contains_key("r.example/a:1"));
    assert_eq!(world.begun.len(), 2);
    // The tag goes back to the one that is left.
    world.claimed("other").desired = Desired::Absent;
    world.settle();
    assert!(world.held("newer").is_none());
    assert!(world.held("a:1").unwrap().names.contains_key("r.example/a:1"));
}

#[test]
fn a_pull_for_several_caches_takes_no_room_of_the_one_that_has_little_whatever_the_order() {
    let mut world = World::new();
    let mut shared = image("y:1", "y", 90 * MIB);
    shared.priority = 1;
    let own = ["x:1", "z:1"].map(|name| image(name, name, 90 * MIB));
    world.revision("r1", [own.as_slice(), &[shared.clone()]].concat());
    world.revision("r2", vec![shared]);
    for (cache, revision) in [("a", "r1"), ("b", "r2")] {
        world.claim(cache, revision);
        world.overrides(cache).images_per_node = Some(2);
    }
    assert_eq!(names(&world.step()), ["y:1", "x:1"]);
    // Each step decides a second time with everything the other way round, and compares.
    assert_eq!(names(&world.step()), ["z:1"]);
}

#[test]
fn the_disk_is_not_filled_and_small_images_pass_large_ones() {
    let mut world = World::new();
    world.runtime.disk_total = 1000 * MIB as u64;
    let mut large = image("large:1", "large", 500 * MIB);
    large.priority = 9;
    world.revision("r1", vec![large, image("a:1", "a", MIB), image("b:1", "b", MIB)]);
    world.claim("web", "r1");
    world.settle();
    let said = world.listed("large:1");
    assert_eq!((said.reason, said.attempts), (Some(Reason::InsufficientDisk), 0));
    assert_eq!(
        said.message,
        "needs 1.1 GiB, 1000 MiB free of 1000 MiB, 20% must stay free"
    );
    assert_eq!(
        (world.state("web"), world.entry("web").ready),
        (NodeState::Failed, 2)
    );
    // Under pressure what vanishes stays away.
    world.runtime.images.remove(&id_of(&digest("a")));
    world.runtime.disk_total = 4 * MIB as u64;
    world.settle();
    assert_eq!(world.listed("a:1").reason, Some(Reason::InsufficientDisk));
    world.runtime.disk_total = 10_000 * MIB as u64;
    world.settle();
    assert_eq!((world.state("web"), world.begun.len()), (NodeState::Ready, 4));
}

#[test]
fn a_suspended_cache_begins_nothing_and_a_cache_that_leaves_ends_its_pulls() {
    let mut world = World::new();
    world.revision(
        "r1",
        vec![image("a:1", "a", 100 * MIB), image("b:1", "b", 100 * MIB)],
    );
    world.claim("web", "r1");
    world.overrides("web").images_per_node = Some(1);
    world.step();
    world.overrides("web").suspend = true;
    world.settle();
    assert_eq!(
        (world.begun.len(), world.state("web"), world.entry("web").ready),
        (1, NodeState::Waiting, 1)
    );
    world.overrides("web").suspend = false;
    world.step();
    world.spec.caches.clear();
    let decision = world.step();
    assert!(decision.actions.contains(&Action::Cancel("r.example/b:1".into())));
    world.settle();
    // Retained, but no longer kept from garbage collection.
    assert!(world.held("a").is_some_and(|s| !s.pinned));
}
