//! Whatever crashes, hangs, comes or goes.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::image_cache::{PrivateImages, Puller, Removal};
use larder_api::node_image_cache::NodeState;
use larder_core::choose::is_for_agent;
use larder_core::merge::Agent;
use proptest::prelude::*;

use super::world::{LIMIT, Node};
use crate::parts::pods::Fate;

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![6 => Just(Fate::Fine), 2 => (1u32..4).prop_map(Fate::Fails), 1 => Just(Fate::Hangs)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_image_that_can_come_comes_whatever_crashes(
        fates in proptest::collection::vec(fate(), 1..40),
        hosts in 1usize..4,
        crashes in proptest::collection::vec(any::<bool>(), 0..60),
        lost in proptest::collection::vec(0usize..60, 0..3),
        switch in proptest::option::of(0usize..40),
    ) {
        let mut node = Node::new();
        let all: Vec<String> =
            (0..fates.len()).map(|i| format!("h{}.io/r{i}:1", i % hosts)).collect();
        for (image, fate) in all.iter().zip(&fates) {
            node.fates.insert(image.clone(), *fate);
        }
        node.revision("r", &all);
        node.revision("half", &all[..all.len().div_ceil(2)]);
        node.claim("c", "r", Removal::Retain);
        node.caches[0].spec.retry.max_delay = std::time::Duration::from_secs(20).into();
        node.caches[0].spec.timeouts.attempt = std::time::Duration::from_secs(90).into();
        for second in 0..60 {
            node.now += SignedDuration::from_secs(1);
            node.kubelet();
            if lost.contains(&second) && let Some(job) = node.jobs.values_mut().next() {
                job.pod = None;
            }
            if switch == Some(second) {
                node.claims[0].revision = "half".into();
                node.claims[0].assigned_at = Time(node.now);
            }
            node.apply(crashes.get(second).copied().unwrap_or_default());
            let active = node.jobs.len();
            prop_assert!(active <= 2 * LIMIT as usize, "{active} pods");
        }
        for fate in node.fates.values_mut().filter(|f| **f == Fate::Hangs) {
            *fate = Fate::Fine;
        }
        node.run(600);
        let wanted = node.revisions.iter().find(|r| r.metadata.name.as_deref() == Some(&node.claims[0].revision)).unwrap();
        for image in &wanted.spec.spec.images {
            prop_assert!(node.runtime.holds(&image.image));
        }
        prop_assert_eq!(node.state("c").0, NodeState::Ready);
        prop_assert!(node.jobs.is_empty());
        let writes = node.writes;
        node.run(50);
        prop_assert_eq!(node.writes, writes);
    }

    #[test]
    fn agents_that_come_and_go_leave_every_node_whole_and_no_claim_false(
        kinds in proptest::collection::vec(any::<bool>(), 1..12),
        changes in proptest::collection::vec((1i64..12, 0usize..3, any::<bool>()), 0..12),
        last in 0usize..3,
        by_agent in any::<bool>(),
    ) {
        let mut node = Node::new();
        let all: Vec<String> = kinds
            .iter()
            .enumerate()
            .map(|(i, private)| format!("{}.io/r{i}:1", if *private { "private" } else { "a" }))
            .collect();
        node.revision("r", &all);
        node.revision("half", &all[..all.len().div_ceil(2)]);
        node.claim("c", "r", Removal::Retain);
        node.claims[0].puller = Puller::Auto;
        if by_agent {
            node.claims[0].private_images = PrivateImages::Agent;
        }
        let presences = [Agent::Absent, Agent::Waiting { until: Timestamp::MAX }, Agent::Alive];
        for (seconds, presence, switch) in changes {
            node.agent = presences[presence];
            // An agent that is Alive has spoken.
            node.agent();
            if switch {
                let other = if node.claims[0].revision == "r" { "half" } else { "r" };
                node.claims[0].revision = other.into();
                node.claims[0].assigned_at = Time(node.now);
            }
            for _ in 0..seconds {
                node.run(1);
                node.assert_true("c");
                if node.agent != Agent::Absent {
                    let spec = &node.by_name()[&("ns", node.claims[0].revision.as_str())].spec.spec;
                    let begun: Vec<String> = node.decide().pull.into_iter().flat_map(|j| j.images).collect();
                    let agents = spec.images.iter().filter(|i| is_for_agent((&node.claims[0]).into(), spec, i));
                    for image in agents {
                        prop_assert!(!begun.contains(&image.image), "{} is the agent's", image.image);
                    }
                }
            }
        }
        // Waiting ends one way or the other.
        node.agent = if last == 0 { Agent::Absent } else { Agent::Alive };
        node.run(60);
        let view = node.view("c").unwrap();
        let wanted = node.by_name()[&("ns", node.claims[0].revision.as_str())].spec.spec.images.len();
        prop_assert_eq!((view.state, view.ready as usize, view.total as usize), (NodeState::Ready, wanted, wanted));
        prop_assert!(node.jobs.is_empty());
        let writes = node.writes;
        node.run(50);
        prop_assert_eq!(node.writes, writes);
    }
}
