//! Whether an agent works on a node.

use jiff::{SignedDuration, Timestamp};

use crate::plan::saturating;

/// An agent that is there but not Ready, or has not spoken yet, keeps its images for this long.
pub const NOT_READY_FOR: SignedDuration = SignedDuration::from_mins(2);
/// An agent whose pod is gone keeps its images for this long: a new pod takes its place at every update.
pub const GONE_FOR: SignedDuration = SignedDuration::from_secs(15);
/// A node that just joined a cluster with agents is given this long to get one.
pub const JOINED_FOR: SignedDuration = SignedDuration::from_secs(15);

/// Whether an agent works on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Agent {
    /// None does: the kubelet pulls what it may, Jobs remove.
    #[default]
    Absent,
    /// One is on its way, or was there a moment ago: its images wait.
    Waiting {
        /// It counts as absent from then on.
        until: Timestamp,
    },
    /// It is Ready and what the node's status says is its own word.
    Alive,
}

impl Agent {
    /// When time alone changes it.
    pub fn wake_at(self) -> Option<Timestamp> {
        match self {
            Self::Waiting { until } => Some(until),
            Self::Absent | Self::Alive => None,
        }
    }
}

/// The pod of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentPod {
    /// UID.
    pub uid: String,
    /// The condition `Ready` is True, and the pod is not being deleted.
    pub ready: bool,
    /// When that became so, else when the pod was created.
    pub since: Timestamp,
}

/// What the presence of an agent on a node is decided from.
#[derive(Clone, Debug, Default)]
pub struct AgentFacts<'a> {
    /// Pods of agents on the node: more than one while one takes the place of another.
    pub pods: &'a [AgentPod],
    /// `status.agent.podUid` of the node's object.
    pub reported: Option<&'a str>,
    /// When the node's object was made; none if there is none, and nothing for an agent to speak of.
    pub asked_at: Option<Timestamp>,
    /// When the last pod was seen to go, if this process knows.
    pub gone_at: Option<Timestamp>,
    /// When the node joined.
    pub joined_at: Option<Timestamp>,
    /// Other nodes have agents.
    pub others: bool,
}

impl Agent {
    /// Decides.
    pub fn of(facts: &AgentFacts<'_>, now: Timestamp) -> Self {
        let nothing_to_say = facts.asked_at.is_none();
        let own_word = |p: &AgentPod| p.ready && (nothing_to_say || facts.reported == Some(p.uid.as_str()));
        if facts.pods.iter().any(own_word) {
            return Self::Alive;
        }
        // A pod that is Ready has had nothing to say before the node's object was there.
        let since = |p: &AgentPod| p.since.max(facts.asked_at.filter(|_| p.ready).unwrap_or(p.since));
        let until = if let Some(since) = facts.pods.iter().map(since).max() {
            Some(saturating(since, NOT_READY_FOR))
        } else if let Some(gone_at) = facts.gone_at {
            Some(saturating(gone_at, GONE_FOR))
        } else {
            facts
                .joined_at
                .filter(|_| facts.others)
                .map(|joined| saturating(joined, JOINED_FOR))
        };
        until
            .filter(|until| now < *until)
            .map_or(Self::Absent, |until| Self::Waiting { until })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
    }

    fn pod(uid: &str, ready: bool, since: i64) -> AgentPod {
        AgentPod {
            uid: uid.into(),
            ready,
            since: at(since),
        }
    }

    type Case<'a> = (&'a [AgentPod], Option<&'a str>, Option<i64>, i64, Agent);

    #[test]
    fn an_agent_is_there_once_its_own_pod_has_spoken() {
        let waiting = |until| Agent::Waiting { until: at(until) };
        let cases: [Case<'_>; 10] = [
            (&[], None, None, 0, Agent::Absent),
            (&[], Some("a"), None, 0, Agent::Absent),
            (&[pod("a", true, 0)], Some("a"), None, 500, Agent::Alive),
            (&[pod("b", true, 10)], Some("a"), None, 20, waiting(130)),
            (&[pod("b", true, 10)], Some("a"), None, 130, Agent::Absent),
            (&[pod("a", false, 10)], Some("a"), None, 20, waiting(130)),
            (
                &[pod("a", false, 10), pod("b", true, 20)],
                Some("b"),
                None,
                20,
                Agent::Alive,
            ),
            (&[], Some("a"), Some(10), 20, waiting(25)),
            (&[], Some("a"), Some(10), 25, Agent::Absent),
            (&[pod("b", false, 12)], Some("a"), Some(10), 30, waiting(132)),
        ];
        for (pods, reported, gone_at, now, expected) in cases {
            let facts = AgentFacts {
                pods,
                reported,
                gone_at: gone_at.map(at),
                asked_at: Some(at(0)),
                ..AgentFacts::default()
            };
            assert_eq!(Agent::of(&facts, at(now)), expected, "{facts:?} at {now}");
        }
    }

    #[test]
    fn an_agent_has_time_to_see_a_new_object() {
        let pods = [pod("a", true, 0)];
        let facts = |asked_at: Option<i64>| AgentFacts {
            pods: &pods,
            asked_at: asked_at.map(at),
            ..AgentFacts::default()
        };
        assert_eq!(Agent::of(&facts(None), at(5000)), Agent::Alive);
        let waiting = Agent::Waiting { until: at(5120) };
        assert_eq!(Agent::of(&facts(Some(5000)), at(5000)), waiting);
        assert_eq!(Agent::of(&facts(Some(5000)), at(5120)), Agent::Absent);
    }

    #[test]
    fn a_node_that_joins_waits_only_where_others_have_agents() {
        let facts = |others| AgentFacts {
            joined_at: Some(at(100)),
            others,
            ..AgentFacts::default()
        };
        assert_eq!(
            Agent::of(&facts(true), at(110)),
            Agent::Waiting { until: at(115) }
        );
        assert_eq!(Agent::of(&facts(true), at(115)), Agent::Absent);
        assert_eq!(Agent::of(&facts(false), at(110)), Agent::Absent);
    }
}
