//! The turns that an agent takes: a look, a decision, what comes of it as time goes by.

use jiff::SignedDuration;
use larder_api::NodeImageCacheSpec;
use larder_api::node_image_cache::{CacheOnNode, Desired, NodeState, PullerStatus};
use larder_core::agent::{
    Action, AgentInput, Decision, Memory, Observed, PullFailure, PullResult, RunningPull, decide,
};
use larder_core::choose::kubelet_takes_part;
use larder_core::node::Write;
use larder_core::plan::Revisions;

use super::world::{Fate, World};
use crate::parts::agent::Process;
use crate::parts::objects;

impl World {
    /// One look, one decision, carried out. Promises are checked each time.
    pub fn step(&mut self) -> Decision {
        let spec = self.spec.clone();
        let revisions = self.revisions.clone();
        let mut readable = objects::by_name(&revisions);
        readable.retain(|(_, name), _| !self.unreadable.contains(*name));
        let observed = self.observe();
        if self.runtime_error.is_none() {
            self.process
                .memory
                .observe(self.now, "linux", "amd64", &spec, &readable, &observed);
        }
        let kubelet = self.kubelet.clone().unwrap_or_else(|| self.answer(&readable));
        let removing = self.process.orders();
        let ask = |spec: &NodeImageCacheSpec, observed: &Observed, pulls: &[RunningPull]| {
            decide(&AgentInput {
                now: self.now,
                os: "linux",
                architecture: "amd64",
                pod_uid: "pod",
                spec,
                generation: self.generation,
                revisions: &readable,
                previous: self.status.as_ref(),
                kubelet: Some(&kubelet),
                written_at: self.process.written_at,
                observed: match &self.runtime_error {
                    Some(words) => Err(words),
                    None => Ok(observed),
                },
                pulls,
                removing: &removing,
                watching: self.watching,
                memory: &self.process.memory,
            })
        };
        let decision = ask(&spec, &observed, &self.process.pulls);
        let (mut turned, mut seen, mut pulls) = (spec.clone(), observed.clone(), self.process.pulls.clone());
        turned.caches.reverse();
        seen.images.reverse();
        pulls.reverse();
        let other = ask(&turned, &seen, &pulls);
        let as_set = |d: &Decision| {
            let mut actions: Vec<String> = d.actions.iter().map(|a| format!("{a:?}")).collect();
            actions.sort();
            actions
        };
        assert_eq!(as_set(&decision), as_set(&other));
        assert_eq!(
            (&decision.status, decision.wake_at),
            (&other.status, other.wake_at)
        );
        self.check(&decision, &readable, &observed);
        self.carry_out(&decision);
        decision
    }

    /// What the operator says of the kubelet's part where nothing keeps it.
    fn answer(&self, revisions: &Revisions<'_>) -> PullerStatus {
        let claims = self.spec.caches.iter();
        let caches = claims.filter(|c| kubelet_takes_part(c, revisions));
        let caches = caches.map(|claim| CacheOnNode {
            uid: claim.uid.clone(),
            revision: claim.revision.clone(),
            state: match claim.desired {
                Desired::Present => NodeState::Ready,
                Desired::Absent => NodeState::Purged,
            },
            ..CacheOnNode::default()
        });
        PullerStatus {
            node_uid: self.spec.node_uid.clone(),
            caches: caches.collect(),
            ..PullerStatus::default()
        }
    }

    fn carry_out(&mut self, decision: &Decision) {
        if decision.write == Write::Now {
            self.status = Some(objects::stored(&decision.status));
            self.process.written_at = Some(self.now);
            self.writes += 1;
        }
        for action in &decision.actions {
            match action {
                Action::Pull(order) => {
                    self.begun.push(order.image.clone());
                    self.process.begin_pull(self.now, order);
                }
                Action::Cancel(reference) => self.process.pulls.retain(|p| p.order.image != *reference),
                Action::Tag { name, target } => {
                    assert!(self.runtime.has_target(target), "{target} is not there");
                    self.runtime.point(name, target);
                }
                Action::Pin { id, pin } => {
                    let stored = self.runtime.images.get_mut(id).unwrap();
                    assert!(*pin || stored.pinned_by_us);
                    (stored.pinned, stored.pinned_by_us) = (*pin, *pin);
                }
                Action::Remove(order) => {
                    assert!(self.process.removing.is_empty());
                    self.process.begin_removal(order, self.generation);
                }
            }
        }
        self.most_pulls = self.most_pulls.max(self.process.pulls.len());
    }

    /// A second or more goes by.
    pub fn pass(&mut self, time: SignedDuration) {
        self.now += time;
        self.fail();
        for pull in self.process.advance(time.as_secs().max(1)) {
            let by_tag = self.tags.get(&pull.order.image).cloned();
            let digest = pull.order.digest.clone().or(by_tag).unwrap();
            self.process.finish(self.now, pull, &digest, &mut self.runtime);
        }
        if let Some(words) = &self.removal_error {
            self.process.give_up(self.now, words);
        }
        while !self.process.removing.is_empty() {
            for went in self.process.remove(self.now, &mut self.runtime) {
                self.removed.extend(went.names);
            }
        }
    }

    /// Pulls that the registry refuses end.
    fn fail(&mut self) {
        for pull in std::mem::take(&mut self.process.pulls) {
            let reason = match self.fates.get_mut(&pull.order.image) {
                Some(Fate::Always(reason)) => *reason,
                Some(Fate::Fails(times, reason)) if *times > 0 => {
                    *times -= 1;
                    *reason
                }
                _ => {
                    self.process.pulls.push(pull);
                    continue;
                }
            };
            self.process.memory.pulled(&PullResult {
                order: pull.order,
                started_at: pull.started_at,
                ended_at: self.now,
                outcome: Err(PullFailure {
                    reason,
                    message: format!("{reason} says the registry"),
                }),
            });
        }
    }

    /// The process ends and another begins.
    pub fn restart(&mut self) {
        self.process = Process {
            memory: self.status.as_ref().map(Memory::from_status).unwrap_or_default(),
            ..Process::default()
        };
    }

    /// For so many seconds, a decision each.
    pub fn run(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.step();
            self.pass(SignedDuration::from_secs(1));
        }
    }

    /// Until nothing happens any more and time alone changes nothing. Whatever waits for time says so.
    pub fn settle(&mut self) {
        for _ in 0..3000 {
            let decision = self.step();
            let busy = !self.process.pulls.is_empty()
                || !self.process.removing.is_empty()
                || !decision.actions.is_empty();
            let wait = match decision.wake_at {
                _ if busy || decision.write == Write::Now => SignedDuration::from_secs(1),
                Some(at) => {
                    assert!(at > self.now, "{:?} has gone by: {:?}", at, decision.status);
                    at.duration_since(self.now)
                }
                None => {
                    assert_eq!(decision.write, Write::No);
                    return;
                }
            };
            self.pass(wait);
        }
        panic!("never comes to rest: {:?}", self.step());
    }
}
