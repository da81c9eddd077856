//! Agents, as their pods and what they wrote show them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use larder_api::NodeImageCache;
use larder_api::names::{AGENTS_NAMESPACE, PURPOSE_AGENT, PURPOSE_LABEL};
use larder_core::merge::{Agent, AgentFacts, AgentPod, GONE_FOR};

use super::{Change, World, node_of_pod};

/// When the last agent's pod of a node was seen to go.
#[derive(Debug, Default)]
pub struct Gone(Mutex<BTreeMap<String, Timestamp>>);

impl Gone {
    /// Takes note of a change. Returns the node if it changes what is known of its agent.
    pub fn note(&self, change: &Change<Pod>, now: Timestamp) -> Option<String> {
        let [old, new] = [&change.old, &change.new].map(|side| side.as_deref().filter(|p| is_agent(p)));
        let node = old.or(new).and_then(node_of_pod)?.to_owned();
        if old.map(read) == new.map(read) {
            return None;
        }
        if new.is_none() {
            let mut gone = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Older ones say nothing any more.
            gone.retain(|_, at| now.duration_since(*at) < GONE_FOR);
            gone.insert(node.clone(), now);
        }
        Some(node)
    }

    fn at(&self, node: &str) -> Option<Timestamp> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(node)
            .copied()
    }
}

impl World {
    /// Whether an agent works on the node.
    pub fn agent(&self, node: &str, now: Timestamp) -> Agent {
        self.agent_with(
            node,
            self.objects.get("", node).as_deref(),
            &self.pods.indexed(node),
            now,
        )
    }

    /// The same for every node that is known.
    pub fn agents(&self, now: Timestamp) -> BTreeMap<String, Agent> {
        let mut pods: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in self.agent_pods() {
            if let Some(node) = node_of_pod(&pod) {
                pods.entry(node.to_owned()).or_default().push(Arc::clone(&pod));
            }
        }
        let nodes = self.nodes.all();
        nodes
            .iter()
            .map(|node| {
                let object = self.objects.get("", &node.name);
                let of_node = pods.get(&node.name).map(Vec::as_slice).unwrap_or_default();
                let agent = self.agent_with(&node.name, object.as_deref(), of_node, now);
                (node.name.clone(), agent)
            })
            .collect()
    }

    /// Whether the node has this image because its agent runs from it, and got it without a pull secret: a kubelet lets
    /// other pods use what was pulled with one only if they have it, too (KEP-2535).
    pub fn agent_runs(&self, node: &str, image: &str) -> bool {
        let runs = |pod: &Pod| {
            let spec = pod.spec.as_ref();
            let mut containers = spec.into_iter().flat_map(|s| &s.containers);
            let secrets = spec.and_then(|s| s.image_pull_secrets.as_deref());
            read(pod).ready
                && secrets.unwrap_or_default().is_empty()
                && containers.any(|c| c.image.as_deref() == Some(image))
        };
        let pods = self.pods.indexed(node);
        pods.iter().any(|pod| is_agent(pod) && runs(pod))
    }

    fn agent_with(
        &self,
        node: &str,
        object: Option<&NodeImageCache>,
        pods: &[Arc<Pod>],
        now: Timestamp,
    ) -> Agent {
        let pods: Vec<AgentPod> = pods.iter().filter(|p| is_agent(p)).map(|p| read(p)).collect();
        let reported = object
            .filter(|o| {
                // What is said of another incarnation of the node is nobody's word.
                let agent = o.status.as_ref().and_then(|s| s.agent.as_ref());
                agent.is_some_and(|a| a.puller.node_uid == o.spec.node_uid)
            })
            .and_then(|o| o.status.as_ref()?.agent.as_ref())
            .map(|a| a.pod_uid.as_str());
        let facts = AgentFacts {
            pods: &pods,
            reported,
            asked_at: object
                .and_then(|o| o.metadata.creation_timestamp.as_ref())
                .map(|t| t.0),
            gone_at: self.gone.at(node),
            joined_at: self.nodes.get(node).and_then(|n| n.created_at),
            others: self.pods.has(ALL_AGENTS),
        };
        Agent::of(&facts, now)
    }

    /// Pods of agents, on whatever node.
    pub fn agent_pods(&self) -> Vec<Arc<Pod>> {
        self.pods.indexed(ALL_AGENTS)
    }
}

/// Group of the index of pods that holds all agents. No node is called so: names have no slash.
pub(super) const ALL_AGENTS: &str = "agents/";

/// Whether the pod is an agent's: what is labelled so elsewhere does not count.
pub(super) fn is_agent(pod: &Pod) -> bool {
    pod.namespace().as_deref() == Some(AGENTS_NAMESPACE)
        && pod
            .labels()
            .get(PURPOSE_LABEL)
            .is_some_and(|p| p == PURPOSE_AGENT)
}

fn read(pod: &Pod) -> AgentPod {
    let created = pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let condition = conditions.into_iter().find(|c| c.type_ == "Ready");
    let changed = condition
        .and_then(|c| c.last_transition_time.as_ref())
        .map(|t| t.0);
    let deleting = pod.metadata.deletion_timestamp.is_some();
    AgentPod {
        uid: pod.uid().unwrap_or_default(),
        ready: condition.is_some_and(|c| c.status == "True") && !deleting,
        since: changed.max(created).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use jiff::SignedDuration;
    use k8s_openapi::api::core::v1::LocalObjectReference;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;
    use crate::testing::{node, object};

    fn pod(uid: &str, namespace: &str, ready: bool) -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": uid, "namespace": namespace, "uid": uid, "resourceVersion": "100",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"larder.dev/purpose": "agent"},
            },
            "spec": {"containers": [{"name": "agent", "image": "agent:1"}], "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchFields": [
                    {"key": "metadata.name", "operator": "In", "values": ["node-1"]}]}]}}}},
            "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" },
                "lastTransitionTime": "2026-01-01T00:00:10Z"}]},
        }))
        .unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
    }

    #[test]
    fn a_pod_in_the_agents_namespace_that_has_spoken_is_an_agent() {
        let world = World::default();
        world.nodes.apply(&node());
        assert!(world.pods.apply(pod("elsewhere", "default", true)).is_some());
        assert_eq!(world.agent("node-1", at(20)), Agent::Absent);
        let change = world.pods.apply(pod("a", "larder-agents", true)).unwrap();
        assert_eq!(world.gone.note(&change, at(20)).as_deref(), Some("node-1"));
        // Nobody has asked anything of it.
        assert_eq!(world.agent("node-1", at(20)), Agent::Alive);
        let mut said = object();
        said.metadata.creation_timestamp = Some(Time(at(15)));
        world.objects.apply(said.clone());
        assert_eq!(world.agent("node-1", at(20)), Agent::Waiting { until: at(135) });
        said.metadata.resource_version = Some("13".into());
        let agent = said.status.get_or_insert_default().agent.get_or_insert_default();
        agent.pod_uid = "a".into();
        agent.puller.node_uid = "node-uid".into();
        world.objects.apply(said);
        assert_eq!(world.agent("node-1", at(20)), Agent::Alive);
        assert_eq!(world.agents(at(20)), [("node-1".to_owned(), Agent::Alive)].into());

        let change = world.pods.gone("larder-agents", "a", "a").unwrap();
        assert_eq!(world.gone.note(&change, at(50)).as_deref(), Some("node-1"));
        assert_eq!(world.agent("node-1", at(60)), Agent::Waiting { until: at(65) });
        assert_eq!(world.agent("node-1", at(65)), Agent::Absent);
    }

    #[test]
    fn a_node_has_the_image_that_its_ready_agent_runs_from() {
        let world = World::default();
        world.pods.apply(pod("elsewhere", "default", true)).unwrap();
        world.pods.apply(pod("a", "larder-agents", false)).unwrap();
        assert!(!world.agent_runs("node-1", "agent:1"));
        let mut with_secret = pod("b", "larder-agents", true);
        with_secret.spec.as_mut().unwrap().image_pull_secrets = Some(vec![LocalObjectReference {
            name: "regcred".into(),
        }]);
        world.pods.apply(with_secret).unwrap();
        assert!(!world.agent_runs("node-1", "agent:1"));
        world.pods.apply(pod("c", "larder-agents", true)).unwrap();
        assert!(world.agent_runs("node-1", "agent:1"));
        assert!(!world.agent_runs("node-1", "agent:2"));
        assert!(!world.agent_runs("node-2", "agent:1"));
    }

    #[test]
    fn a_heartbeat_of_an_agents_pod_is_no_news() {
        let world = World::default();
        world.pods.apply(pod("a", "larder-agents", true)).unwrap();
        let mut again = pod("a", "larder-agents", true);
        again.metadata.resource_version = Some("101".into());
        let change = world.pods.apply(again).unwrap();
        assert_eq!(world.gone.note(&change, at(20)), None);
    }
}
