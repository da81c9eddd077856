//! What the agent removes, and when.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::names::Reason;
use larder_api::node_image_cache::{CacheOnNode, Desired, NodeState, PullerStatus};
use larder_api::revision::RevisionImage;
use larder_core::agent::Action;
use larder_core::node::Write;

use super::world::{World, image};
use super::{filled, pulls};
use crate::parts::objects::MIB;

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
        assert_eq!(
            (world.state("web"), world.runtime.images.len()),
            (NodeState::Purging, 1)
        );
    }
    world.kubelet = Some(purging);
    world.settle();
    assert_eq!(
        (world.state("web"), world.runtime.images.len()),
        (NodeState::Purged, 0)
    );
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
    assert!(world.runtime.images.values().all(|s| !s.pinned));
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
    assert_eq!(world.runtime.images.len(), 1);
    world.bring("a:1", "a");
    world.restart();
    world.settle();
    assert_eq!((world.runtime.images.len(), world.entry("web").removed), (1, 4));
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
    assert!(world.process.removing.is_empty() && decision.awaits_write);
    assert_eq!(
        (decision.write, world.state("web")),
        (Write::Now, NodeState::Purging)
    );
    world.step();
    assert!(!world.process.removing.is_empty());
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
    let order = world.process.orders().remove(0);
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
    assert!(!world.process.removing.is_empty());
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
fn an_agent_that_hears_of_no_changes_removes_nothing() {
    let mut world = filled(&["a:1"]);
    world.claimed("web").desired = Desired::Absent;
    world.watching = false;
    world.run(20);
    assert_eq!(
        (world.state("web"), world.held("a:1").is_some()),
        (NodeState::Purging, true)
    );
    world.watching = true;
    world.settle();
    assert_eq!(
        (world.state("web"), world.held("a:1").is_some()),
        (NodeState::Purged, false)
    );
}

#[test]
fn an_older_revision_is_no_longer_called_held_before_its_images_go() {
    let mut world = filled(&["a:1"]);
    world.revision("r2", vec![image("b:1", "b", MIB)]);
    world.bring("b:1", "b");
    let claim = world.claimed("web");
    (claim.revision, claim.remove_revisions) = ("r2".into(), vec!["r1".into()]);
    let told = world.step();
    assert!(told.awaits_write && told.write == Write::Now);
    assert!(!told.actions.iter().any(|a| matches!(a, Action::Remove(_))));
    assert_eq!(world.entry("web").held, ["r2"]);
    let begun = world.step();
    assert!(begun.actions.iter().any(|a| matches!(a, Action::Remove(_))));
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
    assert!(world.runtime.images.values().all(|s| s.pinned) && world.removed.is_empty());
    world.unreadable.clear();
    world.settle();
    assert_eq!(
        (world.state("web"), world.state("gone")),
        (NodeState::Ready, NodeState::Purged)
    );
    assert_eq!(world.entry("gone").message, "1 removed");
}
