//! Any order of events.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use larder_api::NodeImageCache;
use larder_api::image_cache::Removal;
use larder_api::image_cache_status::{ImageCacheStatus, PurgeStatus};
use larder_api::node_image_cache::{Desired, NodeState};
use larder_core::plan::{NodeAction, Plan, plan, slot_limit};
use proptest::prelude::*;

use super::world::Cluster;

#[derive(Clone, Debug)]
enum Event {
    Work(usize, bool),
    Revise(usize),
    Ready(usize, bool),
    Cordon(usize, bool),
    Taint(usize, bool),
    Recreate(usize),
    Agent(usize, bool),
    Purge(usize, bool),
    Suspend(usize, bool),
    Wait,
    Plan,
}

fn event() -> impl Strategy<Value = Event> {
    let node = 0usize..4;
    let cache = 0usize..3;
    prop_oneof![
        6 => (node.clone(), any::<bool>()).prop_map(|(n, ok)| Event::Work(n, ok)),
        2 => cache.clone().prop_map(Event::Revise),
        1 => (node.clone(), any::<bool>()).prop_map(|(n, b)| Event::Ready(n, b)),
        1 => (node.clone(), any::<bool>()).prop_map(|(n, b)| Event::Cordon(n, b)),
        1 => (node.clone(), any::<bool>()).prop_map(|(n, b)| Event::Taint(n, b)),
        1 => node.clone().prop_map(Event::Recreate),
        2 => (node, any::<bool>()).prop_map(|(n, comes)| Event::Agent(n, comes)),
        1 => (cache.clone(), any::<bool>()).prop_map(|(c, b)| Event::Purge(c, b)),
        1 => (cache, any::<bool>()).prop_map(|(c, b)| Event::Suspend(c, b)),
        1 => Just(Event::Wait),
        6 => Just(Event::Plan),
    ]
}

fn happen(cluster: &mut Cluster, event: &Event, count: &mut usize) {
    let node = |i: usize| format!("node-{i}");
    *count += 1;
    cluster.now += SignedDuration::from_secs(1);
    match event {
        Event::Work(n, ok) => cluster.work(&node(*n), *ok),
        Event::Revise(c) => {
            let name = cluster.caches[*c].metadata.name.clone().unwrap();
            cluster.revise(&name, &format!("i{count}"));
        }
        Event::Ready(n, b) => cluster.nodes.get_mut(&node(*n)).unwrap().ready = *b,
        Event::Cordon(n, b) => cluster.nodes.get_mut(&node(*n)).unwrap().unschedulable = *b,
        Event::Taint(n, b) => {
            let taints = &mut cluster.nodes.get_mut(&node(*n)).unwrap().taints;
            taints.clear();
            if *b {
                taints.push(k8s_openapi::api::core::v1::Taint {
                    key: "gpu".into(),
                    effect: "NoSchedule".into(),
                    ..Default::default()
                });
            }
        }
        Event::Agent(n, comes) => cluster.agent(&node(*n), *comes),
        Event::Recreate(n) => cluster.join(&node(*n), &count.to_string()),
        Event::Purge(c, on) => {
            cluster.caches[*c].status = Some(ImageCacheStatus {
                last_purge: Some(PurgeStatus {
                    in_force: *on,
                    ..PurgeStatus::default()
                }),
                ..ImageCacheStatus::default()
            });
        }
        Event::Suspend(c, b) => cluster.caches[*c].spec.suspend = *b,
        Event::Wait => cluster.now += SignedDuration::from_hours(3),
        Event::Plan => {
            let before = cluster.objects.clone();
            let plan = cluster.step();
            check_step(cluster, &before, &plan);
        }
    }
}

fn check_step(cluster: &Cluster, before: &BTreeMap<String, NodeImageCache>, made: &Plan) {
    for cache in &cluster.caches {
        let spec = &cache.spec.rollout.max_concurrent_nodes;
        let IntOrString::Int(_) = spec else { unreachable!() };
        let limit = slot_limit(spec, cluster.nodes.len());
        // A node that comes back from NotReady may find the slots taken: it is above the limit by no act of ours.
        let assigned_now = made.actions.iter().any(|a| matches!(a, NodeAction::Update { node, spec } if {
            let uid = cache.metadata.uid.as_deref().unwrap();
            let old = before.get(node).and_then(|o| o.spec.caches.iter().find(|c| c.uid == uid));
            let new = spec.caches.iter().find(|c| c.uid == uid);
            matches!((old, new), (Some(o), Some(n)) if o.desired == Desired::Present
                && n.desired == Desired::Present && o.revision != n.revision
                && before.get(node).and_then(|b| cluster.on_node(b, uid)).is_some_and(|s| !s.held.is_empty()))
        }));
        if assigned_now {
            assert!(cluster.slot_holders(cache) <= limit, "slots above the limit");
        }
    }
    // Only labels, the cache itself or another incarnation of the node end a claim.
    for (node, object) in before {
        for claim in &object.spec.caches {
            let same_node = cluster
                .nodes
                .get(node)
                .is_some_and(|n| n.uid == object.spec.node_uid);
            let after = cluster
                .objects
                .get(node)
                .and_then(|o| o.spec.caches.iter().find(|c| c.uid == claim.uid));
            if same_node {
                let after = after.expect("a claim vanished");
                assert_eq!(after.claimed_at, claim.claimed_at);
            }
        }
    }
    // Idempotent: the same plan again changes nothing.
    let again = plan(&cluster.snapshot());
    let deleted = made
        .actions
        .iter()
        .any(|a| matches!(a, NodeAction::Delete { .. }));
    assert!(deleted || again.actions.is_empty(), "not idempotent: {again:?}");
}

/// Both times the purge was called off before the plan had seen which older removals were done, and asked for them again.
#[test]
fn a_purge_called_off_does_not_forget_older_removals_whoever_did_them() {
    let stays = [
        Event::Agent(2, true),
        Event::Purge(0, true),
        Event::Work(2, false),
        Event::Purge(0, false),
    ];
    let goes = [
        Event::Agent(2, true),
        Event::Purge(0, true),
        Event::Work(2, false),
        Event::Purge(0, false),
        Event::Agent(2, false),
    ];
    for events in [stays.as_slice(), goes.as_slice()] {
        let mut cluster = Cluster::new(4);
        cluster.cache("a", Removal::Purge, 1);
        cluster.revise("a", "first");
        let mut count = 0;
        happen(&mut cluster, &Event::Plan, &mut count);
        for event in events {
            // The newer revision is assigned before the purge begins.
            if matches!(event, Event::Purge(_, true)) {
                happen(&mut cluster, &Event::Revise(0), &mut count);
                happen(&mut cluster, &Event::Plan, &mut count);
            }
            happen(&mut cluster, event, &mut count);
            if matches!(event, Event::Work(..)) {
                happen(&mut cluster, &Event::Plan, &mut count);
            }
        }
        happen(&mut cluster, &Event::Plan, &mut count);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold_in_any_order(events in proptest::collection::vec(event(), 1..80)) {
        let mut cluster = Cluster::new(4);
        cluster.cache("a", Removal::Retain, 1);
        cluster.cache("b", Removal::Purge, 2);
        cluster.cache("c", Removal::PurgeAll, 1);
        for cache in ["a", "b", "c"] {
            cluster.revise(cache, "first");
        }
        let mut count = 0;
        for event in &events {
            happen(&mut cluster, event, &mut count);
        }
        // Whatever happened: once nodes are well and pulls succeed, every node ends on the newest revision.
        for node in cluster.nodes.values_mut() {
            node.ready = true;
            node.unschedulable = false;
            node.taints.clear();
        }
        for cache in &mut cluster.caches {
            cache.status = None;
            cache.spec.suspend = false;
        }
        cluster.settle();
        for cache in &cluster.caches {
            let name = cache.metadata.name.as_deref().unwrap();
            let newest = cluster.newest(name).unwrap().metadata.name.clone().unwrap();
            for object in cluster.objects.values() {
                let state = cluster.on_node(object, cache.metadata.uid.as_deref().unwrap()).unwrap();
                prop_assert_eq!(&state.revision, &newest);
                prop_assert_eq!(state.state, NodeState::Ready);
            }
            prop_assert_eq!(cluster.objects.len(), 4);
        }
        let writes = cluster.writes;
        cluster.step();
        prop_assert_eq!(cluster.writes, writes);
    }

    #[test]
    fn the_order_of_lists_does_not_matter(events in proptest::collection::vec(event(), 1..40)) {
        let mut cluster = Cluster::new(4);
        for (name, slots) in [("a", 1), ("b", 2), ("c", 3)] {
            cluster.cache(name, Removal::Purge, slots);
            cluster.revise(name, "first");
        }
        let mut count = 0;
        for event in &events {
            happen(&mut cluster, event, &mut count);
        }
        let straight = plan(&cluster.snapshot());
        let mut snapshot = cluster.snapshot();
        snapshot.nodes.reverse();
        snapshot.caches.reverse();
        prop_assert_eq!(plan(&snapshot), straight);
    }
}
