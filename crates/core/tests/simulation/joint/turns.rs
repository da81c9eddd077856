//! The turns of those who work on the node.

use jiff::SignedDuration;
use larder_api::node_image_cache::{Desired, NodeImageCacheStatus};
use larder_api::{NodeImageCache, NodeImageCacheSpec};
use larder_core::agent::{Action, AgentInput, Decision, Memory, decide as decide_for_agent};
use larder_core::merge::{AgentPod, Blocks};
use larder_core::node::{NodeDecision, Write, decide};
use larder_core::pull::{ClaimInput, JobView, PullInput};
use larder_core::select::Eligibility;

use super::world::World;
use crate::parts::agent::{Process, Went};
use crate::parts::objects::{by_name, name_of, stored};
use crate::parts::pods::{Fates, PullPod, begun};
use crate::parts::removal::{Removal, Step};

/// What goes wrong or late in one step. Zero is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delays(pub u16);

impl Delays {
    fn is(self, bit: u16) -> bool {
        self.0 & (1 << bit) != 0
    }

    fn both(self, first: u16, second: u16) -> bool {
        self.is(first) && self.is(second)
    }
}

impl World {
    /// A second goes by.
    pub fn step(&mut self, delays: Delays) {
        self.now += SignedDuration::from_secs(1);
        if !delays.is(0) {
            self.kubelet();
        }
        if !delays.is(1) {
            self.agent_works();
        }
        if !delays.is(2) {
            self.agent_sees = self.versions.len() - 1;
        }
        if !delays.both(3, 4) {
            self.operator_sees = self.versions.len() - 1;
        }
        if delays.is(5) {
            self.operator(delays);
            self.agent(delays);
        } else {
            self.agent(delays);
            self.operator(delays);
        }
        if !delays.is(6) {
            self.plan();
        }
        self.check();
    }

    pub fn run(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.step(Delays::default());
        }
    }

    /// Until nothing has moved for a while.
    pub fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..1500 {
            if quiet > 3 {
                // Whatever waits for time gets it.
                self.now += SignedDuration::from_secs(9);
            }
            let before = (self.versions.len(), self.jobs.len(), self.purges.len());
            let busy = self
                .agent
                .as_ref()
                .map_or(0, |a| a.pulls.len() + a.removing.len());
            self.step(Delays::default());
            let same = before == (self.versions.len(), self.jobs.len(), self.purges.len());
            quiet = if same && busy == 0 { quiet + 1 } else { 0 };
            if quiet > 12 {
                return;
            }
        }
        panic!("never comes to rest: {:?} {:?}", self.latest(), self.jobs);
    }

    /// Pods and purge Jobs go on.
    fn kubelet(&mut self) {
        let mut over = Vec::new();
        for (name, job) in &mut self.jobs {
            // Here the registry has everything.
            job.step(self.now, &mut Fates::new(), &mut self.runtime);
            match &mut job.ending {
                Some(0) => over.push(name.clone()),
                Some(left) => *left -= 1,
                None => {}
            }
        }
        for name in over {
            self.jobs.remove(&name);
        }
        for (view, removal) in self.purges.values_mut().filter(|(v, _)| v.report.is_none()) {
            if let Step::Over(report) = removal.step(&mut self.runtime) {
                view.report = Some(report);
                view.over = true;
            }
        }
    }

    /// Pulls and removals of the agent go on.
    fn agent_works(&mut self) {
        let Some(process) = self.agent.as_mut() else {
            return;
        };
        for pull in process.advance(1) {
            self.pulled_by_agent.push(pull.order.image.clone());
            let digest = pull.order.digest.clone().unwrap();
            process.finish(self.now, pull, &digest, &mut self.runtime);
        }
        let went = process.remove(self.now, &mut self.runtime);
        for Went { spec, names } in went {
            for job in self.jobs.values().filter(|j| j.ending.is_none() && j.spec > spec) {
                let ordered = job.images();
                let taken = names.iter().find(|n| ordered.contains(n) && self.is_wanted(n));
                assert!(
                    taken.is_none(),
                    "a removal for spec {spec} took {taken:?}, which a pod for spec {} is to bring",
                    job.spec
                );
            }
        }
    }

    fn is_wanted(&self, reference: &str) -> bool {
        let claims = self.spec().caches;
        let present = claims.iter().filter(|c| c.desired == Desired::Present);
        let mut images = present.flat_map(|c| self.images(&c.revision));
        images.any(|i| i.image == reference)
    }

    pub fn start_agent(&mut self) {
        self.stop_agent();
        self.agents_made += 1;
        self.agent_pod = Some(AgentPod {
            uid: format!("agent-{}", self.agents_made),
            ready: true,
            since: self.now,
        });
        self.restart_agent();
    }

    pub fn stop_agent(&mut self) {
        if self.agent_pod.take().is_some() {
            self.gone_at = Some(self.now);
        }
        self.agent = None;
    }

    /// The process ends and another begins in the same pod.
    pub fn restart_agent(&mut self) {
        if self.agent_pod.is_none() {
            return;
        }
        self.agent_sees = self.versions.len() - 1;
        let status = self.latest().and_then(|o| o.status.as_ref()?.agent.as_ref());
        let memory = status.map(Memory::from_status).unwrap_or_default();
        self.agent = Some(Process {
            memory,
            ..Process::default()
        });
    }

    fn agent(&mut self, delays: Delays) {
        let (Some(mut process), Some(pod)) = (self.agent.take(), self.agent_pod.clone()) else {
            return;
        };
        let version = self.versions[self.agent_sees].clone();
        let decision = self.ask_agent(&mut process, &pod.uid, version.object.as_ref());
        for action in &decision.actions {
            match action {
                Action::Pull(order) => process.begin_pull(self.now, order),
                Action::Cancel(reference) => process.pulls.retain(|p| p.order.image != *reference),
                Action::Tag { name, target } => self.runtime.point(name, target),
                Action::Pin { id, pin } => {
                    let stored = self.runtime.images.get_mut(id).unwrap();
                    (stored.pinned, stored.pinned_by_us) = (*pin, *pin);
                }
                Action::Remove(order) => process.begin_removal(order, version.spec),
            }
        }
        self.agent = Some(process);
        if delays.both(7, 8) && delays.both(9, 10) {
            self.restart_agent();
            return;
        }
        let Some(object) = version
            .object
            .filter(|_| decision.write == Write::Now && !delays.both(11, 12))
        else {
            return;
        };
        let wrote = self.write(object.metadata.uid.as_deref(), |o| {
            o.status.get_or_insert_default().agent = Some(stored(&decision.status));
        });
        if wrote {
            self.agent_sees = self.versions.len() - 1;
            if let Some(process) = &mut self.agent {
                process.written_at = Some(self.now);
            }
        }
    }

    fn ask_agent(&self, process: &mut Process, pod_uid: &str, object: Option<&NodeImageCache>) -> Decision {
        let nothing = NodeImageCacheSpec::default();
        let spec = object.map_or(&nothing, |o| &o.spec);
        let status = object.and_then(|o| o.status.as_ref());
        let revisions = by_name(&self.revisions);
        let observed = self.runtime.observe(process.arriving());
        process
            .memory
            .observe(self.now, "linux", "amd64", spec, &revisions, &observed);
        decide_for_agent(&AgentInput {
            now: self.now,
            os: "linux",
            architecture: "amd64",
            pod_uid,
            spec,
            generation: object.and_then(|o| o.metadata.generation).unwrap_or(0),
            revisions: &revisions,
            previous: status.and_then(|s| s.agent.as_ref()),
            kubelet: status.and_then(|s| s.kubelet.as_ref()),
            written_at: process.written_at,
            observed: Ok(&observed),
            pulls: &process.pulls,
            removing: &process.orders(),
            watching: true,
            memory: &process.memory,
        })
    }

    /// Gathers and decides, then writes the status, deletes, creates.
    pub fn operator(&mut self, delays: Delays) {
        let version = self.versions[self.operator_sees].clone();
        let decision = self.ask_operator(version.object.as_ref());
        if decision.write == Write::Now
            && let Some(object) = &version.object
        {
            let wrote = self.write(object.metadata.uid.as_deref(), |o| {
                let status: &mut NodeImageCacheStatus = o.status.get_or_insert_default();
                status.kubelet = Some(stored(&decision.status));
            });
            if !wrote {
                return;
            }
            self.operator_sees = self.versions.len() - 1;
        }
        if delays.both(13, 14) {
            return;
        }
        for key in &decision.delete {
            self.purges.remove(&key.name);
            if let Some(job) = self.jobs.get_mut(&key.name) {
                job.ending.get_or_insert(self.grace);
                if self.grace == 0 {
                    self.jobs.remove(&key.name);
                }
            }
        }
        for wanted in &decision.pull {
            assert!(self.purges.is_empty(), "a pull begins while a removal is at work");
            self.pods_made += 1;
            let pod = PullPod::new(self.now, wanted, version.spec);
            let before = self.jobs.entry(wanted.name.clone()).or_insert(pod);
            assert!(before.ending.is_some() || before.spec == version.spec);
        }
        for wanted in &decision.purge {
            let removal = Removal::new(&wanted.entries, &wanted.keep);
            let view = begun(self.now, wanted);
            self.purges.insert(wanted.name.clone(), (view, removal));
        }
    }

    pub fn ask_operator(&self, object: Option<&NodeImageCache>) -> NodeDecision {
        let revisions = by_name(&self.revisions);
        let find = |name: &str| self.revisions.iter().find(|r| name_of(r) == name);
        let presence = self.presence(object);
        let claims = object.map_or(&[][..], |o| &o.spec.caches);
        let claims = claims.iter().map(|claim| ClaimInput {
            claim,
            cache: self
                .caches
                .iter()
                .find(|c| c.metadata.uid.as_ref() == Some(&claim.uid)),
            revision: find(&claim.revision),
            eligibility: Eligibility::Workable,
        });
        let rejections = std::collections::BTreeMap::new();
        let input = PullInput {
            now: self.now,
            node: Some(&self.facts),
            node_uid: object.map_or("", |o| &o.spec.node_uid),
            blocks: object.map_or_else(Blocks::default, |o| Blocks::of(o, presence)),
            claims: claims.collect(),
            jobs: self.jobs.values().map(view_of).collect(),
            rejections: &rejections,
            revisions: &revisions,
            removing: false,
        };
        let generation = object.and_then(|o| o.metadata.generation).unwrap_or(0);
        let purges = self.purges.values().map(|(view, _)| view.clone());
        decide(input, generation, purges.collect(), None)
    }
}

fn view_of(job: &PullPod) -> JobView {
    let mut view = job.view();
    view.deleting = job.ending.is_some();
    view
}
