//! How many nodes change at a time.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use larder_api::image_cache::Removal;
use larder_core::plan::slot_limit;

use super::world::Cluster;

#[test]
fn the_first_fill_takes_no_slot_and_the_second_revision_goes_one_by_one() {
    let mut cluster = Cluster::new(3);
    cluster.cache("a", Removal::Retain, 1);
    cluster.revise("a", "one");
    cluster.step();
    assert_eq!(cluster.objects.len(), 3);
    cluster.settle();
    cluster.revise("a", "two");
    let made = cluster.step();
    assert_eq!((made.actions.len(), made.slots_in_use), (1, 1));
    // A node that fails frees its slot at once.
    cluster.work("node-0", false);
    assert_eq!(cluster.step().actions.len(), 1);
    // A node that hangs frees it after timeouts.overall, one that cannot be reached at once.
    cluster.now += SignedDuration::from_hours(2);
    assert_eq!(cluster.step().actions.len(), 1);
}

#[test]
fn a_refresh_that_confirms_goes_by_slots_too() {
    let mut cluster = Cluster::new(3);
    cluster.cache("a", Removal::Retain, 1);
    cluster.revise("a", "one");
    cluster.revisions[0].spec.spec.images[0].digest = None;
    cluster.settle();
    cluster.now += SignedDuration::from_mins(1);
    cluster.refresh("a");
    for node in ["node-0", "node-1", "node-2"] {
        cluster.now += SignedDuration::from_secs(1);
        let made = cluster.step();
        assert_eq!((made.actions.len(), made.slots_in_use), (1, 1));
        assert!(cluster.step().actions.is_empty(), "the slot is taken");
        cluster.work(node, true);
    }
    assert!(cluster.step().actions.is_empty());
    assert!(
        cluster
            .objects
            .values()
            .all(|o| o.spec.caches[0].verify_after.is_some())
    );
}

#[test]
fn agents_hear_of_a_refresh_where_they_failed_and_only_there() {
    let mut cluster = Cluster::new(2);
    cluster.cache("a", Removal::Retain, 1);
    cluster.revise("a", "one");
    cluster.step();
    for (node, works) in [("node-0", false), ("node-1", true)] {
        cluster.agent(node, true);
        cluster.work(node, works);
    }
    cluster.step();
    cluster.now += SignedDuration::from_mins(1);
    cluster.refresh("a");
    let asked = Some(Time(cluster.now));
    cluster.step();
    let told = |cluster: &Cluster, node: &str| cluster.objects[node].spec.caches[0].verify_after.clone();
    assert_eq!(
        (told(&cluster, "node-0"), told(&cluster, "node-1")),
        (asked.clone(), None)
    );
    // It fails again: the same refresh asks no second time.
    cluster.now += SignedDuration::from_mins(1);
    cluster.work("node-0", false);
    assert!(cluster.step().actions.is_empty());
    assert_eq!(told(&cluster, "node-0"), asked);
}

#[test]
fn percentages_are_of_workable_nodes_rounded_up() {
    for (percent, workable, slots) in [
        ("25%", 0, 1),
        ("25%", 3, 1),
        ("25%", 5, 2),
        ("100%", 7, 7),
        ("1%", 101, 2),
    ] {
        assert_eq!(
            slot_limit(&IntOrString::String(percent.into()), workable),
            slots,
            "{percent} of {workable}"
        );
    }
    assert_eq!(slot_limit(&IntOrString::Int(4), 2), 4);
}
