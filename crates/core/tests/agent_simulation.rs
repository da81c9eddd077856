//! An agent on one node with a simulated runtime and registry: pulls that fail, images that vanish, restarts, moved tags,
//! removals called off, caches that share. Whatever happens, what is decided keeps its promises (see `World::check`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "agent/chaos.rs"]
mod chaos;
#[path = "agent/world.rs"]
mod world;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::image_cache::{OnMissingPlatform, ProtectSpec, Puller, TimeoutsSpec};
use larder_api::names::Reason;
use larder_api::node_image_cache::{
    CacheOnNode, Desired, ImageState, NodeLimits, NodeState, PullerStatus, ReportedDigest,
};
use larder_api::revision::RevisionImage;
use larder_core::agent::{Action, Decision, Failed, PullFailure, PullOrder};
use larder_core::node::Write;

use world::{Fate, MIB, World, digest, id_of, image};

fn pulls(decision: &Decision) -> Vec<&PullOrder> {
    let orders = decision.actions.iter().filter_map(|a| match a {
        Action::Pull(order) => Some(order),
        _ => None,
    });
    orders.collect()
}

fn names(decision: &Decision) -> Vec<&str> {
    let orders = pulls(decision).into_iter();
    orders.map(|o| o.image.trim_start_matches("r.example/")).collect()
}

fn filled(images: &[&str]) -> World {
    let mut world = World::new();
    let all = images.iter().map(|name| image(name, name, MIB)).collect();
    world.revision("r1", all);
    world.claim("web", "r1");
    world.settle();
    assert_eq!(world.state("web"), NodeState::Ready);
    world
}

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
    assert!(world.store.values().all(|s| s.pinned_by_us && s.pulled_by_us));
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
        (world.state("web"), world.memory.failures.len()),
        (NodeState::Ready, 0)
    );
}

#[test]
fn what_vanishes_comes_back_at_once_and_then_with_a_brake() {
    let mut world = filled(&["a:1"]);
    for (times, pause) in [(1, 0), (2, 60), (3, 120), (4, 240)] {
        world.store.clear();
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
fn nothing_goes_while_the_kubelets_part_counts_on_it() {
    let mut world = filled(&["a:1"]);
    let believed = |state, held: &[&str]| PullerStatus {
        node_uid: "node".into(),
        caches: vec![CacheOnNode {
            state,
            held: held.iter().map(|&name| name.into()).collect(),
            ..world.entry("web").clone()
        }],
        ..PullerStatus::default()
    };
    let counting = [
        believed(NodeState::Ready, &["r1"]),
        believed(NodeState::Pulling, &[]),
        believed(NodeState::Purging, &["r1"]),
    ];
    let purging = believed(NodeState::Purging, &[]);
    world.claimed("web").desired = Desired::Absent;
    for counts in counting {
        world.kubelet = Some(counts);
        world.run(20);
        assert_eq!((world.state("web"), world.store.len()), (NodeState::Purging, 1));
    }
    world.kubelet = Some(purging);
    world.settle();
    assert_eq!((world.state("web"), world.store.len()), (NodeState::Purged, 0));
}

#[test]
fn older_revisions_go_once_the_kubelets_part_of_the_newest_has_come_too() {
    let mut world = World::new();
    let private = |name| RevisionImage {
        private: true,
        ..image(name, name, MIB)
    };
    world.revision("r1", vec![private("old:1")]);
    world.revision("r2", vec![private("new:1")]);
    world.bring("old:1", "old:1");
    world.claim("web", "r1");
    world.settle();
    let claim = world.claimed("web");
    (claim.revision, claim.remove_revisions) = ("r2".into(), vec!["r1".into()]);
    let says = |revision: &str, state, held: &[&str]| PullerStatus {
        node_uid: "node".into(),
        caches: vec![CacheOnNode {
            uid: "web".into(),
            revision: revision.into(),
            state,
            held: held.iter().map(|&name| name.into()).collect(),
            ..CacheOnNode::default()
        }],
        ..PullerStatus::default()
    };
    for kubelet in [
        PullerStatus::default(),
        says("r1", NodeState::Ready, &[]),
        says("r2", NodeState::Pulling, &[]),
        says("r2", NodeState::Ready, &["r2", "r1"]),
    ] {
        world.kubelet = Some(kubelet);
        world.run(5);
        assert!(world.held("old:1").is_some());
    }
    world.kubelet = Some(says("r2", NodeState::Ready, &["r2"]));
    world.settle();
    assert!(world.held("old:1").is_none());
}

#[test]
fn a_removal_takes_what_is_ours_and_unused_and_keeps_at_it() {
    let mut world = World::new();
    world.bring("foreign:1", "foreign");
    world.pass(SignedDuration::from_hours(1));
    world.revision(
        "r1",
        vec![
            image("a:1", "a", MIB),
            image("used:1", "used", MIB),
            image("foreign:1", "foreign", MIB),
        ],
    );
    world.claim("web", "r1");
    world.settle();
    assert_eq!(world.begun.len(), 2);
    world.held_mut("used").used = true;
    world.claimed("web").desired = Desired::Absent;
    world.step();
    assert_eq!(world.state("web"), NodeState::Purging);
    world.settle();
    let entry = world.entry("web");
    assert_eq!(
        (entry.state, entry.removed, entry.in_use, entry.foreign),
        (NodeState::Purged, 1, 1, 1)
    );
    assert_eq!(entry.message, "1 removed, 1 in use, 1 foreign");
    // What Larder pinned and nobody wants any more is unpinned, also what was there before.
    assert!(world.store.values().all(|s| !s.pinned));
    let writes = world.writes;
    world.restart();
    world.run(100);
    assert_eq!(world.writes, writes, "{:?}", world.status);
    // The container ends, and something brings back what went.
    world.held_mut("used").used = false;
    world.bring("a:1", "a");
    world.settle();
    let entry = world.entry("web");
    assert_eq!(
        (entry.state, entry.removed, entry.in_use, entry.foreign),
        (NodeState::Purged, 3, 0, 1)
    );
    assert_eq!(world.store.len(), 1);
    world.bring("a:1", "a");
    world.restart();
    world.settle();
    assert_eq!((world.store.len(), world.entry("web").removed), (1, 4));
}

#[test]
fn a_removal_that_cannot_be_carried_out_says_why_and_is_repeated() {
    let mut world = filled(&["a:1"]);
    world.removal_error = Some("the runtime is busy".into());
    world.claimed("web").desired = Desired::Absent;
    world.run(20);
    let entry = world.entry("web");
    assert_eq!(
        (entry.state, entry.removal_error.as_str()),
        (NodeState::Purging, "the runtime is busy")
    );
    world.removal_error = None;
    world.settle();
    let entry = world.entry("web");
    assert_eq!(
        (entry.state, entry.removal_error.as_str(), entry.removed),
        (NodeState::Purged, "", 1)
    );
}

#[test]
fn a_removal_that_is_called_off_midway_leaves_the_cache_whole() {
    let mut world = filled(&["a:1", "b:1", "c:1"]);
    world.claimed("web").desired = Desired::Absent;
    // Told before it begins: what is written is believed should the agent not speak again.
    let decision = world.step();
    assert!(world.removing.is_none() && decision.awaits_write);
    assert_eq!(
        (decision.write, world.state("web")),
        (Write::Now, NodeState::Purging)
    );
    world.step();
    assert!(world.removing.is_some());
    let now = Time(world.now);
    let claim = world.claimed("web");
    (claim.desired, claim.assigned_at) = (Desired::Present, now);
    world.step();
    world.settle();
    assert_eq!(
        (world.state("web"), world.entry("web").ready),
        (NodeState::Ready, 3)
    );
}

#[test]
fn a_newer_spec_is_not_acknowledged_while_a_removal_by_an_older_one_is_at_work() {
    let mut world = World::new();
    let mut private = image("p:1", "p", MIB);
    private.private = true;
    world.revision("r1", vec![image("a:1", "a", MIB), private]);
    world.claim("web", "r1");
    world.bring("p:1", "p");
    world.settle();
    let observed = |world: &World| world.status.as_ref().unwrap().puller.observed_generation;
    assert_eq!(observed(&world), world.generation);
    world.claimed("web").desired = Desired::Absent;
    world.step();
    world.step();
    let order = world.removing.clone().unwrap();
    assert_eq!((order.entries.len(), order.generation), (2, world.generation));
    world.claimed("web").desired = Desired::Present;
    // What goes is there still, and is not called so.
    let decision = world.step();
    let said = &decision.status.puller;
    assert_eq!(
        (
            said.observed_generation,
            said.caches[0].state,
            said.caches[0].ready
        ),
        (order.generation, NodeState::Pulling, 0)
    );
    assert!(pulls(&decision).is_empty());
    world.pass(SignedDuration::from_secs(1));
    // Told although nothing else changed: pods wait for it.
    world.step();
    assert_eq!(observed(&world), world.generation);
    assert!(world.held("p").is_none());
}

#[test]
fn a_removal_that_another_object_asked_for_is_older_than_any_spec_of_this_one() {
    let mut world = filled(&["a:1"]);
    world.generation = 50;
    world.claimed("web").desired = Desired::Absent;
    world.run(1);
    world.step();
    assert!(world.removing.is_some());
    (world.generation, world.status) = (1, None);
    assert_eq!(world.step().status.puller.observed_generation, 0);
    world.settle();
    assert_eq!(world.status.unwrap().puller.observed_generation, 1);
}

#[test]
fn a_newer_spec_that_changes_nothing_is_acknowledged_only_where_pods_pull() {
    let mut world = filled(&["a:1"]);
    let writes = world.writes;
    world.claimed("web");
    world.settle();
    assert_eq!(world.writes, writes);
    let mut private = image("p:1", "p", MIB);
    private.private = true;
    world.revision("r2", vec![private]);
    world.claim("other", "r2");
    world.settle();
    assert_eq!(world.writes, writes + 1);
    world.claimed("web");
    world.settle();
    assert_eq!(world.writes, writes + 2);
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
fn old_revisions_go_once_the_new_one_has_come() {
    let mut world = filled(&["a:1", "b:1"]);
    world.revision("r2", vec![image("a:1", "a2", 50 * MIB), image("b:1", "b:1", MIB)]);
    let claim = world.claimed("web");
    (claim.revision, claim.remove_revisions) = ("r2".into(), vec!["r1".into()]);
    world.step();
    // A rollout counts on the revision before until the next one has come.
    assert_eq!(world.entry("web").held, ["r1"]);
    world.run(2);
    assert!(world.held("a:1").is_some());
    // Pods of the old revision are still there when the new one is.
    world.held_mut("a:1").used = true;
    world.settle();
    let entry = world.entry("web");
    assert_eq!(
        (entry.state, entry.in_use, entry.removed_revisions.len()),
        (NodeState::Ready, 1, 0)
    );
    assert_eq!(entry.held, ["r2"]);
    world.restart();
    world.settle();
    world.held_mut("a:1").used = false;
    world.settle();
    let entry = world.entry("web");
    assert_eq!(
        (entry.state, entry.removed, entry.removed_revisions),
        (NodeState::Ready, 1, vec!["r1".to_owned()])
    );
    assert_eq!(entry.held, ["r2"]);
    assert!(world.held("a:1").is_none() && world.held("b:1").is_some());
}

#[test]
fn the_disk_is_not_filled_and_small_images_pass_large_ones() {
    let mut world = World::new();
    world.disk_total = 1000 * MIB as u64;
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
    world.store.remove(&id_of(&digest("a")));
    world.disk_total = 4 * MIB as u64;
    world.settle();
    assert_eq!(world.listed("a:1").reason, Some(Reason::InsufficientDisk));
    world.disk_total = 10_000 * MIB as u64;
    world.settle();
    assert_eq!((world.state("web"), world.begun.len()), (NodeState::Ready, 4));
}

#[test]
fn a_runtime_that_does_not_answer_changes_nothing_but_its_condition() {
    let mut world = filled(&["a:1"]);
    world.runtime_error = Some("connection refused".into());
    let decision = world.step();
    assert!(decision.actions.is_empty());
    assert_eq!(
        (decision.write, world.state("web")),
        (Write::Now, NodeState::Ready)
    );
    assert_eq!(
        world.condition("RuntimeReady"),
        "False Unreachable connection refused"
    );
    world.revision("r2", vec![image("b:1", "b", MIB)]);
    world.claim("new", "r2");
    world.run(20);
    assert_eq!(
        (world.state("web"), world.state("new")),
        (NodeState::Ready, NodeState::Waiting)
    );
    world.runtime_error = None;
    world.settle();
    assert_eq!(
        (world.condition("RuntimeReady").as_str(), world.state("new")),
        ("True Answers", NodeState::Ready)
    );
}

#[test]
fn what_an_unreadable_revision_may_want_is_left_alone() {
    let mut world = filled(&["a:1"]);
    world.revision("r2", vec![image("b:1", "b", MIB)]);
    world.claim("gone", "r2");
    world.settle();
    world.claimed("gone").desired = Desired::Absent;
    world.unreadable.insert("r1".into());
    world.run(100);
    let entry = world.entry("web");
    assert_eq!(
        (entry.state, entry.reason),
        (NodeState::Failed, Some(Reason::RevisionMissing))
    );
    assert_eq!(world.state("gone"), NodeState::Purging);
    assert!(world.store.values().all(|s| s.pinned) && world.removed.is_empty());
    world.unreadable.clear();
    world.settle();
    assert_eq!(
        (world.state("web"), world.state("gone")),
        (NodeState::Ready, NodeState::Purged)
    );
    assert_eq!(world.entry("gone").message, "1 removed");
}

#[test]
fn progress_is_written_at_its_pace() {
    let mut world = World::new();
    world.revision("r1", vec![image("a:1", "a", 300 * MIB)]);
    world.claim("web", "r1");
    world.spec.limits = Some(NodeLimits {
        pulls: 5,
        report_seconds: 8,
    });
    world.step();
    let mut written = vec![];
    for second in 1..=31 {
        world.pass(SignedDuration::from_secs(1));
        if world.step().write == Write::Now {
            written.push((
                second,
                world.listed("a:1").bytes_done / MIB,
                world.entry("web").message,
            ));
        }
    }
    let said = |s: i64, done: i64, text: &str| (s, done, text.to_owned());
    assert_eq!(
        written,
        [
            said(10, 100, "0 of 1 images, 100 of 300 MiB"),
            said(18, 180, "0 of 1 images, 180 of 300 MiB"),
            said(26, 260, "0 of 1 images, 260 of 300 MiB"),
            said(30, 0, ""),
        ]
    );
    assert_eq!(world.listed("a:1").bytes_total, 0);
}

#[test]
fn what_was_never_resolved_is_pulled_by_tag_reported_and_asked_for_again() {
    let mut world = World::new();
    let mut unknown = image("a:1", "a", 0);
    (unknown.digest, unknown.private) = (None, true);
    unknown.platforms.clear();
    world.revision("r1", vec![unknown]);
    world.claim("web", "r1").puller = Puller::Agent;
    world.tags.insert("r.example/a:1".into(), digest("first"));
    world.settle();
    let reported = |content: &str| {
        vec![ReportedDigest {
            image: "r.example/a:1".into(),
            digest: digest(content),
        }]
    };
    assert_eq!(
        (world.state("web"), world.entry("web").reported),
        (NodeState::Ready, reported("first"))
    );
    world.tags.insert("r.example/a:1".into(), digest("second"));
    world.settle();
    assert_eq!(world.begun.len(), 1);
    world.pass(SignedDuration::from_hours(1));
    let asked = Time(world.now);
    world.claimed("web").verify_after = Some(asked.clone());
    world.settle();
    assert_eq!(
        (world.begun.len(), world.entry("web").reported),
        (2, reported("second"))
    );
    assert!(world.entry("web").checked_at.unwrap().0 >= asked.0);
}

#[test]
fn a_refresh_of_what_is_there_confirms_it_even_if_its_clock_is_ahead() {
    let mut world = filled(&["a:1"]);
    let asked = Time(world.now + SignedDuration::from_mins(3));
    world.claimed("web").verify_after = Some(asked.clone());
    world.settle();
    assert_eq!(
        (world.begun.len(), world.entry("web").checked_at),
        (1, Some(asked))
    );
}

#[test]
fn an_image_for_other_platforms_is_left_out_or_failed_as_the_cache_says() {
    let mut world = World::new();
    let mut foreign = image("arm:1", "arm", MIB);
    foreign.platforms[0].architecture = "arm64".into();
    let mut told = image("late:1", "late", 0);
    told.platforms.clear();
    world.revision("r1", vec![image("a:1", "a", MIB), foreign, told]);
    world.claim("web", "r1");
    world.fates.insert(
        "r.example/late:1".into(),
        Fate::Always(Reason::NoMatchingPlatform),
    );
    world.settle();
    let entry = world.entry("web");
    assert_eq!(
        (entry.state, entry.ready, entry.total, entry.skipped),
        (NodeState::Ready, 1, 1, 2)
    );
    assert_eq!(entry.missing, "6");
    assert_eq!(world.listed("late:1").state, ImageState::Skipped);
    world.restart();
    world.run(100);
    assert_eq!(world.begun.len(), 2);
    world.overrides("web").on_missing_platform = Some(OnMissingPlatform::Fail);
    world.run(3);
    assert_eq!(
        (world.state("web"), world.entry("web").message.as_str()),
        (NodeState::Failed, "2 images failed")
    );
}

#[test]
fn without_containerds_api_names_are_believed_and_nothing_is_pinned() {
    let mut world = World::new();
    world.capabilities.clear();
    world.revision("r1", vec![image("a:1", "a", MIB), image("b:1", "a", MIB)]);
    world.claim("web", "r1");
    world.settle();
    assert_eq!((world.state("web"), world.begun.len()), (NodeState::Ready, 2));
    assert!(world.store.values().all(|s| !s.pinned));
    assert!(world.condition("Protected").starts_with("False NotSupported"));
    world.bring("a:1", "other");
    world.settle();
    assert_eq!((world.state("web"), world.begun.len()), (NodeState::Ready, 3));
    world.claimed("web").desired = Desired::Absent;
    world.settle();
    assert_eq!(
        (world.state("web"), world.entry("web").foreign),
        (NodeState::Purged, 2)
    );
}

#[test]
fn what_needs_credentials_is_left_to_the_kubelet_but_protected_and_removed() {
    let mut world = World::new();
    let mut private = image("p:1", "p", MIB);
    private.private = true;
    world.revision("r1", vec![private.clone()]);
    world.revision("r2", vec![private, image("a:1", "a", MIB)]);
    world.claim("all", "r1");
    world.settle();
    assert_eq!(world.status.as_ref().unwrap().puller.caches, []);
    world.bring("p:1", "p");
    world.settle();
    assert!(world.held("p").unwrap().pinned_by_us);
    world.claim("some", "r2");
    world.settle();
    let entry = world.entry("some");
    assert_eq!((entry.ready, entry.total, entry.missing.as_str()), (1, 1, "8"));
    for cache in ["all", "some"] {
        world.claimed(cache).desired = Desired::Absent;
    }
    world.settle();
    assert_eq!(
        (world.state("all"), world.state("some"), world.store.len()),
        (NodeState::Purged, NodeState::Purged, 0)
    );
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

#[test]
fn two_thousand_failures_fit_into_the_status() {
    let mut world = World::new();
    for cache in 0..40 {
        let name = format!("a-cache-with-a-rather-long-name-{cache:02}");
        let images: Vec<_> = (0..50)
            .map(|i| {
                image(
                    &format!("some/rather/long/repository/name-{cache}-{i}:1"),
                    &format!("{cache}-{i}"),
                    MIB,
                )
            })
            .collect();
        for image in &images {
            let failed = Failed {
                attempts: 3,
                at: world.now,
                asked_at: world.now,
                failure: PullFailure {
                    reason: Reason::NotFound,
                    message: "not found ".repeat(100),
                },
            };
            world
                .memory
                .failures
                .insert((image.image.clone(), image.digest.clone()), failed);
        }
        world.revision(&name, images);
        world.claim(&name, &name);
    }
    let status = world.step().status;
    let bytes = serde_json::to_vec(&status).unwrap().len();
    assert!((30 * 1024..=48 * 1024).contains(&bytes), "{bytes}");
    assert_eq!(status.puller.caches.len(), 40);
    assert_eq!(
        status.puller.images.len() as i32 + status.puller.images_omitted,
        2000
    );
    assert!(status.puller.images.iter().all(|i| i.state == ImageState::Failed));
}
