//! What is left to an agent, and what is done beside one or without.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::image_cache::{Puller, Removal};
use larder_api::node_image_cache::{Desired, NodeState};
use larder_core::merge::Agent;
use larder_core::node::Write;

use super::images;
use super::world::{GENERATION, Node};

#[test]
fn a_revision_without_images_is_whole_and_the_images_before_it_go() {
    for agent in [Agent::Absent, Agent::Alive] {
        let mut node = Node::new();
        node.agent = agent;
        node.revision("old", &images("a.io", 3));
        node.revision("none", &[]);
        node.claim("c", "old", Removal::Purge);
        node.claims[0].puller = Puller::Auto;
        node.run(60);
        assert_eq!(node.view("c").unwrap().state, NodeState::Ready, "{agent:?}");
        node.claims[0].revision = "none".into();
        node.claims[0].assigned_at = Time(node.now);
        node.claims[0].remove_revisions = vec!["old".into()];
        node.run(60);
        let told = node.view("c").unwrap();
        assert_eq!(
            (told.state, told.total, told.revision.as_str()),
            (NodeState::Ready, 0, "none"),
            "{agent:?}"
        );
        assert!(told.held.contains(&"none".to_owned()), "{:?}", told.held);
        if agent == Agent::Absent {
            assert_eq!(told.removed_revisions, ["old"]);
            assert!(
                node.runtime.images.is_empty() && node.jobs.is_empty(),
                "{:?}",
                node.runtime
            );
        }
    }
}

#[test]
fn with_an_agent_the_operator_says_nothing_of_public_images() {
    let mut node = Node::new();
    node.revision("r", &images("a.io", 30));
    node.claim("c", "r", Removal::Retain);
    node.claims[0].puller = Puller::Auto;
    node.agent = Agent::Alive;
    node.run(60);
    assert_eq!(
        node.view("c").map(|v| (v.state, v.ready)),
        Some((NodeState::Ready, 30))
    );
    assert_eq!((node.writes, node.most_pods), (0, 0));
}

#[test]
fn what_needs_credentials_is_pulled_by_jobs_beside_an_agent() {
    let mut node = Node::new();
    let mut all = images("a.io", 3);
    all.extend(images("private.io", 2));
    node.revision("r", &all);
    node.claim("c", "r", Removal::Purge);
    node.claims[0].puller = Puller::Auto;
    node.agent = Agent::Alive;
    node.run(30);
    assert_eq!(
        node.view("c").map(|v| (v.state, v.ready, v.total)),
        Some((NodeState::Ready, 5, 5))
    );
    assert_eq!(node.state("c"), (NodeState::Ready, 2, 2));
    assert_eq!(node.pulled_by_agent, images("a.io", 3));
    node.claims[0].desired = Desired::Absent;
    node.claims[0].assigned_at = Time(node.now);
    node.run(10);
    assert_eq!(
        node.view("c").map(|v| (v.state, v.removed)),
        Some((NodeState::Purged, 5))
    );
    assert!(
        node.runtime.images.is_empty() && node.removed.is_empty(),
        "no purge Job was made"
    );
}

#[test]
fn no_pod_pulls_while_the_agent_may_be_removing_by_an_older_spec() {
    let mut node = Node::new();
    node.revision("r", &images("private.io", 2));
    node.claim("c", "r", Removal::Purge);
    node.claims[0].puller = Puller::Auto;
    node.agent = Agent::Alive;
    node.agent();
    node.agent_status.as_mut().unwrap().observed_generation = GENERATION - 1;
    assert!(node.apply(false).pull.is_empty());
    node.agent();
    assert_eq!(node.apply(false).pull.len(), 1);
    // Of an agent that is gone nothing is to be waited for.
    node.jobs.clear();
    node.agent_status.as_mut().unwrap().observed_generation = GENERATION - 1;
    node.agent = Agent::Absent;
    assert_eq!(node.apply(false).pull.len(), 1);
}

#[test]
fn what_a_pod_showed_before_a_removal_is_not_believed_after_it() {
    for deleting in [false, true] {
        let mut node = Node::new();
        node.revision("r", &images("private.io", 2));
        node.claim("c", "r", Removal::Purge);
        node.claims[0].puller = Puller::Auto;
        node.agent = Agent::Alive;
        // All is there; the operator stopped before it deleted the Job.
        node.agent();
        node.apply(false);
        for _ in 0..5 {
            node.now += SignedDuration::from_secs(1);
            node.kubelet();
        }
        node.apply(true);
        assert_eq!((node.state("c").0, node.jobs.len()), (NodeState::Ready, 1));
        node.claims[0].desired = Desired::Absent;
        node.apply(true);
        assert_eq!(node.state("c"), (NodeState::Purging, 0, 0));
        node.agent();
        assert!(node.runtime.images.is_empty());
        if deleting {
            for pod in node.jobs.values_mut() {
                pod.job.metadata.deletion_timestamp = Some(Time(node.now));
            }
        }
        node.claims[0].desired = Desired::Present;
        node.claims[0].assigned_at = Time(node.now);
        for _ in 0..2 {
            node.apply(true);
            assert_ne!(node.state("c").0, NodeState::Ready, "deleting: {deleting}");
        }
        node.jobs
            .retain(|_, pod| pod.job.metadata.deletion_timestamp.is_none());
        node.run(30);
        assert_eq!(
            (node.state("c"), node.runtime.images.len()),
            ((NodeState::Ready, 2, 2), 2)
        );
    }
}

#[test]
fn a_purge_is_not_over_because_the_agent_that_was_to_remove_has_gone() {
    let mut node = Node::new();
    node.revision("r", &images("private.io", 2));
    node.claim("c", "r", Removal::Purge);
    node.claims[0].puller = Puller::Auto;
    node.agent = Agent::Alive;
    node.run(20);
    assert_eq!(node.runtime.images.len(), 2);
    node.agent = Agent::Waiting {
        until: Timestamp::MAX,
    };
    node.claims[0].desired = Desired::Absent;
    node.claims[0].assigned_at = Time(node.now);
    node.run(20);
    assert_eq!(
        (node.state("c").0, node.runtime.images.len()),
        (NodeState::Purging, 2)
    );
    node.agent = Agent::Absent;
    node.run(60);
    assert_eq!(
        (node.state("c").0, node.runtime.images.len()),
        (NodeState::Purged, 0)
    );
}

#[test]
fn that_a_removal_begins_or_is_called_off_is_told_at_once() {
    let mut node = Node::new();
    node.revision("r", &images("private.io", 2));
    node.claim("c", "r", Removal::Purge);
    node.claims[0].puller = Puller::Auto;
    node.agent = Agent::Alive;
    node.agent();
    node.apply(false);
    for (desired, state) in [
        (Desired::Absent, NodeState::Purging),
        (Desired::Present, NodeState::Pulling),
    ] {
        node.now += SignedDuration::from_secs(1);
        node.claims[0].desired = desired;
        node.claims[0].assigned_at = Time(node.now);
        let decision = node.apply(false);
        assert_eq!((decision.write, node.state("c").0), (Write::Now, state));
    }
    node.now += SignedDuration::from_secs(1);
    // What was begun after that is not from before the removal.
    assert!(node.apply(false).delete.is_empty());
    assert_eq!(node.jobs.len(), 1);
}

#[test]
fn an_entry_of_a_removal_proves_nothing_whatever_else_it_says() {
    let mut node = Node::new();
    node.revision("r", &images("private.io", 2));
    node.claim("c", "r", Removal::Purge);
    node.claims[0].puller = Puller::Auto;
    node.agent = Agent::Alive;
    node.run(20);
    assert_eq!(node.state("c"), (NodeState::Ready, 2, 2));
    node.runtime.images.clear();
    node.status.as_mut().unwrap().caches[0].state = NodeState::Purging;
    node.run(20);
    assert_eq!(
        (node.state("c"), node.runtime.images.len()),
        ((NodeState::Ready, 2, 2), 2)
    );
}

#[test]
fn beside_an_agent_that_removes_no_older_revision_is_held() {
    let mut node = Node::new();
    let all = images("private.io", 2);
    node.revision("both", &all);
    node.revision("one", &all[..1]);
    for cache in ["c", "d"] {
        node.claim(cache, "both", Removal::Purge);
    }
    for claim in &mut node.claims {
        claim.puller = Puller::Auto;
    }
    node.agent = Agent::Alive;
    node.run(20);
    for claim in &mut node.claims {
        claim.revision = "one".into();
    }
    node.run(20);
    let held = |node: &Node, cache: usize| node.status.as_ref().unwrap().caches[cache].held.clone();
    assert_eq!(held(&node, 0), ["one", "both"]);
    // Of a revision that is still awaited the one before is what a rollout counts on.
    node.revision("other", &images("private.example", 1));
    node.claims[0].revision = "other".into();
    node.claims[0].remove_revisions = vec!["both".into()];
    node.apply(false);
    assert_eq!(
        (held(&node, 0), held(&node, 1)),
        (
            vec!["one".into(), "both".into()],
            vec!["one".into(), "both".into()]
        )
    );
    node.run(20);
    // Not even by a cache that removes nothing: what goes may be what it counts on.
    assert_eq!(
        (held(&node, 0), held(&node, 1)),
        (vec!["other".into()], vec!["one".into()])
    );
}

#[test]
fn hand_overs_pull_nothing_twice() {
    let mut node = Node::new();
    node.revision("r", &images("a.io", 20));
    node.claim("c", "r", Removal::Retain);
    node.claims[0].puller = Puller::Auto;
    node.agent = Agent::Alive;
    node.run(5);
    node.agent = Agent::Absent;
    let decision = node.apply(false);
    let begun: Vec<String> = decision.pull.iter().flat_map(|j| j.images.clone()).collect();
    assert_eq!(begun.len(), 15);
    assert!(
        begun.iter().all(|i| !node.pulled_by_agent.contains(i)),
        "{begun:?}"
    );
    node.run(5);
    node.agent = Agent::Waiting {
        until: Timestamp::MAX,
    };
    node.run(20);
    assert_eq!(
        node.view("c").map(|v| v.state),
        Some(NodeState::Ready),
        "the running Job finishes"
    );
    assert!(node.jobs.is_empty());
    node.agent = Agent::Alive;
    node.run(5);
    assert_eq!(node.pulled_by_agent.len(), 5);
    assert_eq!(
        node.view("c").map(|v| (v.state, v.ready)),
        Some((NodeState::Ready, 20))
    );
}

#[test]
fn without_agents_what_only_they_may_pull_waits() {
    let mut node = Node::new();
    let mut all = images("a.io", 2);
    all.extend(images("private.io", 1));
    node.revision("r", &all);
    node.claim("c", "r", Removal::Retain);
    node.claims[0].puller = Puller::Agent;
    node.run(30);
    let view = node.view("c").unwrap();
    let said = (view.state, view.ready, view.total, view.message.as_str());
    assert_eq!(said, (NodeState::Waiting, 1, 3, "no agent runs on this node"));
    node.agent = Agent::Alive;
    node.run(10);
    assert_eq!(
        node.view("c").map(|v| (v.state, v.ready)),
        Some((NodeState::Ready, 3))
    );
}
