//! What purge Jobs remove.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::image_cache::Removal;
use larder_api::node_image_cache::{CacheClaim, Desired, NodeState};

use super::images;
use super::world::Node;
use crate::parts::pods::Fate;

#[test]
fn a_purge_spares_what_another_cache_wants_and_tells_what_went() {
    let mut node = Node::new();
    node.revision("r1", &images("a.io", 4));
    node.revision("r2", &images("a.io", 2));
    node.claim("one", "r1", Removal::Purge);
    node.claim("two", "r2", Removal::Retain);
    node.run(30);
    node.claims[0].desired = Desired::Absent;
    node.run(10);
    assert_eq!(node.state("one").0, NodeState::Purged);
    assert_eq!(node.state("two"), (NodeState::Ready, 2, 2));
    assert_eq!(node.removed, ["a.io/r2:1", "a.io/r3:1"]);
    assert!(node.purges.is_empty());
    node.claims[0].desired = Desired::Present;
    node.claims[0].assigned_at = Time(node.now);
    node.run(30);
    assert_eq!(node.state("one"), (NodeState::Ready, 4, 4));
    assert!(node.runtime.holds("a.io/r3:1"));
}

#[test]
fn a_purge_is_told_which_names_of_the_same_repository_stay() {
    let mut node = Node::new();
    let tagged = vec!["a.io/app:1".to_owned()];
    let digested = vec![
        format!("a.io/app@sha256:{}", "a".repeat(64)),
        "b.io/else:1".to_owned(),
    ];
    node.revision("tagged", &tagged);
    node.revision("digested", &digested);
    node.claim("one", "tagged", Removal::Purge);
    node.claim("two", "digested", Removal::Retain);
    node.run(30);
    node.claims[0].desired = Desired::Absent;
    let decision = node.decide();
    assert_eq!(decision.purge.len(), 1);
    assert_eq!(decision.purge[0].keep, digested[..1]);
}

#[test]
fn images_that_left_go_once_the_new_revision_is_there() {
    let mut node = Node::new();
    let all = images("a.io", 4);
    node.revision("old", &all);
    node.revision("new", &all[..2]);
    node.claim("c", "old", Removal::Purge);
    node.run(30);
    node.claims[0].revision = "new".into();
    node.claims[0].assigned_at = Time(node.now);
    node.claims[0].remove_revisions = vec!["old".into()];
    node.run(10);
    assert_eq!(node.removed, ["a.io/r2:1", "a.io/r3:1"]);
    let told = node.status.clone().unwrap().caches[0].clone();
    assert_eq!(
        (told.removed_revisions, told.held),
        (vec!["old".to_owned()], vec!["new".to_owned()])
    );
}

#[test]
fn two_hundred_and_fifty_entries_go_in_three_jobs() {
    let mut node = Node::new();
    node.revision("r", &images("a.io", 250));
    node.claim("c", "r", Removal::Purge);
    node.run(400);
    assert_eq!(node.state("c").0, NodeState::Ready);
    node.claims[0].desired = Desired::Absent;
    node.run(20);
    let told = node.status.clone().unwrap().caches[0].clone();
    assert_eq!((told.state, told.removed), (NodeState::Purged, 250));
    assert!(node.runtime.images.is_empty());
}

/// Begins a removal, lets it go on for so many steps of the kubelet and of the operator, calls it off.
fn call_off(node: &mut Node, steps: usize, begin: impl Fn(&mut CacheClaim), end: impl Fn(&mut CacheClaim)) {
    let turn = |node: &mut Node, change: &dyn Fn(&mut CacheClaim)| {
        node.now += SignedDuration::from_secs(1);
        change(&mut node.claims[0]);
        node.claims[0].assigned_at = Time(node.now);
    };
    turn(node, &begin);
    for step in 0..steps {
        if step % 2 == 0 {
            node.apply(false);
        } else {
            node.kubelet();
        }
    }
    turn(node, &end);
    node.run(60);
}

#[test]
fn a_purge_that_is_called_off_never_leaves_ready_without_the_images() {
    for steps in 0..8 {
        let mut node = Node::new();
        let all = images("a.io", 120);
        node.revision("r", &all);
        node.claim("c", "r", Removal::Retain);
        node.run(200);
        call_off(
            &mut node,
            steps,
            |c| {
                c.desired = Desired::Absent;
            },
            |c| {
                c.desired = Desired::Present;
            },
        );
        assert_eq!(
            node.state("c"),
            (NodeState::Ready, 120, 120),
            "after {steps} steps"
        );
        assert_eq!(node.runtime.images.len(), 120, "after {steps} steps");
    }
}

#[test]
fn a_purge_of_a_half_filled_node_that_is_called_off_forgets_the_half() {
    for steps in 0..8 {
        let mut node = Node::new();
        node.revision("r", &images("a.io", 3));
        node.fates.insert("a.io/r2:1".into(), Fate::Fails(2));
        node.claim("c", "r", Removal::Retain);
        node.run(6);
        call_off(
            &mut node,
            steps,
            |c| {
                c.desired = Desired::Absent;
            },
            |c| {
                c.desired = Desired::Present;
            },
        );
        node.run(200);
        assert_eq!(node.state("c"), (NodeState::Ready, 3, 3), "after {steps} steps");
        assert_eq!(node.runtime.images.len(), 3, "after {steps} steps");
    }
}

#[test]
fn a_list_put_back_while_its_images_go_is_whole_in_the_end() {
    for steps in 0..8 {
        let mut node = Node::new();
        let all = images("a.io", 4);
        node.revision("old", &all);
        node.revision("new", &all[..2]);
        node.claim("c", "old", Removal::Purge);
        node.run(30);
        let to = |revision: &'static str, remove: &'static str| {
            move |c: &mut CacheClaim| {
                c.revision = revision.into();
                c.remove_revisions = vec![remove.into()];
            }
        };
        call_off(&mut node, steps, to("new", "old"), to("old", "new"));
        assert_eq!(node.state("c"), (NodeState::Ready, 4, 4), "after {steps} steps");
        assert_eq!(node.runtime.images.len(), 4, "after {steps} steps");
    }
}

#[test]
fn what_another_cache_removed_is_not_held_by_an_old_revision() {
    let mut node = Node::new();
    let all = images("a.io", 4);
    node.revision("old", &all);
    node.revision("new", &all[..2]);
    node.revision("theirs", &all[2..]);
    node.claim("c", "old", Removal::Retain);
    node.claim("other", "theirs", Removal::Purge);
    node.run(60);
    node.claims[0].revision = "new".into();
    node.run(10);
    node.claims[1].desired = Desired::Absent;
    node.run(10);
    assert_eq!(node.removed, ["a.io/r2:1", "a.io/r3:1"]);
    node.claims[0].revision = "old".into();
    node.claims[0].assigned_at = Time(node.now);
    node.run(60);
    assert_eq!(node.state("c"), (NodeState::Ready, 4, 4));
    assert_eq!(node.runtime.images.len(), 4);
}

#[test]
fn a_removal_that_failed_is_no_complaint_once_it_is_called_off() {
    let mut node = Node::new();
    node.revision("r", &images("a.io", 1));
    node.claim("c", "r", Removal::Purge);
    node.run(20);
    node.claims[0].desired = Desired::Absent;
    node.apply(false);
    let view = &mut node.purges.values_mut().next().unwrap().0;
    (view.over, view.error) = (true, Some("no such socket".into()));
    node.apply(false);
    let told = node.status.clone().unwrap().caches[0].clone();
    assert_eq!(told.removal_error, "no such socket");
    node.claims[0].desired = Desired::Present;
    node.run(30);
    let told = node.status.clone().unwrap().caches[0].clone();
    assert_eq!((told.state, told.removal_error.as_str()), (NodeState::Ready, ""));
}
