//! The state of each node, and counts of them.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::image_cache_status::{NodeCounts, NodeStatus};
use larder_api::node_image_cache::{CacheOnNode, Desired, NodeState};

use super::{NodeView, ReportInput, due, images, is_about, settled};
use crate::plan::{signed, whole_seconds};
use crate::revision;
use crate::select::Eligibility;

/// The nodes that the cache selects, judged.
pub(super) struct Overview<'a> {
    /// In the order of their names.
    pub(super) nodes: Vec<NodeReport<'a>>,
    /// Name of the newest revision.
    pub(super) newest: Option<&'a str>,
    /// The newest revision is the one that the spec asks for.
    pub(super) current: bool,
    /// A purge is in force, finished or not.
    pub(super) purged: bool,
}

/// One node, judged.
pub(super) struct NodeReport<'a> {
    pub(super) view: &'a NodeView<'a>,
    pub(super) state: NodeState,
    pub(super) message: String,
    /// Assigned to the newest revision.
    pub(super) at_newest: bool,
    /// It can get no further with the newest revision.
    pub(super) settled: bool,
    /// It took longer than `timeouts.overall`.
    pub(super) overdue: bool,
    /// What it reports, where that is about the revision assigned.
    pub(super) current: Option<&'a CacheOnNode>,
}

impl<'a> Overview<'a> {
    pub(super) fn of(input: &'a ReportInput<'a>) -> Self {
        let newest = input.revision.and_then(|r| r.metadata.name.as_deref());
        let purged = input.previous.last_purge.as_ref().is_some_and(|p| p.in_force);
        let overall = signed(input.cache.spec.timeouts.overall);
        let current = input.revision.is_some_and(|r| {
            revision::matches_spec(&r.spec.spec, input.wanted, &input.cache.spec.pull_secrets)
        });
        let mut nodes: Vec<_> = input
            .nodes
            .iter()
            .filter(|n| n.eligibility.is_selected())
            .map(|view| NodeReport::of(input, view, newest, purged, overall))
            .collect();
        nodes.sort_by(|a, b| a.view.facts.name.cmp(&b.view.facts.name));
        Self {
            nodes,
            newest,
            current,
            purged,
        }
    }

    pub(super) fn workable(&self) -> impl Iterator<Item = &NodeReport<'a>> {
        self.nodes
            .iter()
            .filter(|n| n.view.eligibility == Eligibility::Workable)
    }

    pub(super) fn counts(&self) -> NodeCounts {
        let count = |f: &dyn Fn(&NodeReport<'_>) -> bool| self.nodes.iter().filter(|n| f(n)).count() as i32;
        NodeCounts {
            selected: self.nodes.len() as i32,
            ready: count(&|n| n.holds(None)),
            updated: count(&|n| self.newest.is_some_and(|newest| n.holds(Some(newest)))),
            progressing: count(&|n| matches!(n.state, NodeState::Pulling | NodeState::Purging)),
            failed: count(&|n| n.state == NodeState::Failed),
            waiting: count(&|n| n.state == NodeState::Waiting),
            unreachable: count(&|n| n.state == NodeState::Unreachable),
        }
    }

    pub(super) fn statuses(&self, input: &ReportInput<'_>) -> Vec<NodeStatus> {
        let before: HashMap<&str, &NodeStatus> = input
            .previous
            .node_statuses
            .iter()
            .map(|s| (s.node.as_str(), s))
            .collect();
        let total = images::images(input).len() as i32;
        self.nodes
            .iter()
            .map(|n| {
                let claim = n.view.claim;
                let present = claim.filter(|c| c.desired == Desired::Present);
                let gone = matches!(n.state, NodeState::Purging | NodeState::Purged);
                let (ready, total, skipped) = match n.current {
                    Some(o) => (o.ready, o.total, o.skipped),
                    // Of another revision than the newest, the number of images is not known here.
                    None if !gone && (claim.is_none() || n.at_newest) => (0, total, 0),
                    None => (0, 0, 0),
                };
                NodeStatus {
                    node: n.view.facts.name.clone(),
                    state: n.state,
                    revision: claim.map(|c| c.revision.clone()).unwrap_or_default(),
                    ready,
                    total,
                    skipped,
                    puller: present.map(|_| n.pullers().to_owned()).unwrap_or_default(),
                    message: n.message.clone(),
                    since: Some(n.since(before.get(n.view.facts.name.as_str()).copied(), input.now)),
                }
            })
            .collect()
    }
}

impl<'a> NodeReport<'a> {
    fn of(
        input: &ReportInput<'_>,
        view: &'a NodeView<'a>,
        newest: Option<&str>,
        purged: bool,
        overall: SignedDuration,
    ) -> Self {
        let claim = view.claim.filter(|c| c.desired == Desired::Present);
        let at_newest = claim.is_some_and(|c| Some(c.revision.as_str()) == newest);
        let current = claim.and_then(|claim| {
            // Left from a purge, it says nothing about what came after.
            let stale = |o: &CacheOnNode| matches!(o.state, NodeState::Purged | NodeState::Purging);
            view.on_node
                .as_deref()
                .filter(|o| is_about(claim, o) && !stale(o))
        });
        let mut node = Self {
            view,
            state: NodeState::Waiting,
            message: String::new(),
            at_newest,
            settled: newest.is_some_and(|newest| settled(newest, view.claim, current, overall, input.now)),
            overdue: false,
            current,
        };
        node.judge(input, newest, purged, overall);
        node
    }

    fn judge(
        &mut self,
        input: &ReportInput<'_>,
        newest: Option<&str>,
        purged: bool,
        overall: SignedDuration,
    ) {
        let view = self.view;
        let (state, message) = match view.claim {
            _ if view.eligibility == Eligibility::Unreachable => {
                (NodeState::Unreachable, "the node is not Ready".to_owned())
            }
            None if purged => (NodeState::Purged, "not filled after the purge".to_owned()),
            None => (
                NodeState::Waiting,
                self.obstacle(input, newest)
                    .unwrap_or("waits for its assignment")
                    .to_owned(),
            ),
            Some(claim) if claim.desired == Desired::Absent => match &view.on_node {
                Some(o) if o.state == NodeState::Purged => (NodeState::Purged, o.message.clone()),
                Some(o) => (NodeState::Purging, o.removal_error.clone()),
                None => (NodeState::Purging, String::new()),
            },
            Some(claim) => {
                let (state, message) = self
                    .current
                    .map_or((NodeState::Pulling, ""), |o| (o.state, o.message.as_str()));
                let late = view.eligibility == Eligibility::Workable && input.now >= due(claim, overall);
                self.overdue = late && state == NodeState::Pulling;
                if self.overdue {
                    (NodeState::Failed, overdue_words(overall, message))
                } else {
                    self.held_up(input, newest, state, message)
                }
            }
        };
        self.state = state;
        self.message = message;
    }

    /// What keeps a node that has a claim from getting on with it.
    fn held_up(
        &self,
        input: &ReportInput<'_>,
        newest: Option<&str>,
        state: NodeState,
        message: &str,
    ) -> (NodeState, String) {
        let workable = self.view.eligibility == Eligibility::Workable;
        let behind = !self.at_newest && newest.is_some();
        let obstacle = match state {
            NodeState::Pulling | NodeState::Waiting if !workable => self.obstacle(input, newest),
            NodeState::Ready | NodeState::Waiting if behind => {
                Some(self.obstacle(input, newest).unwrap_or("waits for a rollout slot"))
            }
            _ => None,
        };
        obstacle.map_or_else(
            || (state, message.to_owned()),
            |words| (NodeState::Waiting, words.to_owned()),
        )
    }

    fn obstacle(&self, input: &ReportInput<'_>, newest: Option<&str>) -> Option<&'static str> {
        match self.view.eligibility {
            Eligibility::Cordoned => Some("cordoned"),
            Eligibility::DiskPressure => Some("disk pressure"),
            _ if input.cache.spec.suspend => Some("suspended"),
            _ if newest.is_none() => Some("waits for the references to be resolved"),
            _ => None,
        }
    }

    /// Who pulls the cache's images there.
    fn pullers(&self) -> &'static str {
        match (self.view.agent, self.view.kubelet) {
            (true, true) => "Agent, Job",
            (true, false) => "Agent",
            (false, _) => "Job",
        }
    }

    /// Whether it holds this revision whole, or any. What is being removed is not held.
    pub(super) fn holds(&self, revision: Option<&str>) -> bool {
        let present = self.view.claim.is_some_and(|c| c.desired == Desired::Present);
        present
            && self.view.on_node.as_ref().is_some_and(|o| match revision {
                Some(name) => o.held.iter().any(|r| r == name),
                None => !o.held.is_empty(),
            })
    }

    /// Holds the newest revision whole and has nothing left to do.
    pub(super) fn is_ready(&self) -> bool {
        self.at_newest && self.state == NodeState::Ready
    }

    fn since(&self, before: Option<&NodeStatus>, now: Timestamp) -> Time {
        let reported = self
            .view
            .on_node
            .as_ref()
            .filter(|o| o.state == self.state)
            .and_then(|o| o.since.clone());
        let kept = || {
            before
                .filter(|b| b.state == self.state)
                .and_then(|b| b.since.clone())
        };
        reported.or_else(kept).unwrap_or_else(|| Time(whole_seconds(now)))
    }
}

pub(super) fn overdue_words(overall: SignedDuration, message: &str) -> String {
    let time = crate::format::duration(overall.unsigned_abs());
    let words = format!("not done within timeouts.overall ({time})");
    if message.is_empty() {
        words
    } else {
        format!("{words}: {message}")
    }
}
