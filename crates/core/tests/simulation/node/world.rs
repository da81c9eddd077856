//! One node with a simulated kubelet, and the operator's decisions for it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use larder_api::image_cache::{Puller, Removal};
use larder_api::node_image_cache::{CacheClaim, CacheOnNode, NodeState, PullerStatus};
use larder_api::revision::RevisionImage;
use larder_api::{ImageCache, ImageCacheRevision};
use larder_core::facts::NodeFacts;
use larder_core::merge::{Agent, Blocks};
use larder_core::node::{NodeDecision, Write, decide};
use larder_core::plan::Revisions;
use larder_core::pull::{ClaimInput, PullInput, Rejection};
use larder_core::purge::PurgeJobView;
use larder_core::select::Eligibility;

use crate::parts::objects::{self, by_name, digest_at, facts, image, name_of, revision};
use crate::parts::pods::{Fates, PullPod, begun};
use crate::parts::removal::{Removal as Removing, Step};
use crate::parts::runtime::Runtime;

pub const LIMIT: i32 = 3;
/// Of the node's object, which here stays the same.
pub const GENERATION: i64 = 1;

pub struct Node {
    pub now: Timestamp,
    pub facts: NodeFacts,
    pub caches: Vec<ImageCache>,
    pub revisions: Vec<ImageCacheRevision>,
    pub claims: Vec<CacheClaim>,
    pub status: Option<PullerStatus>,
    pub jobs: BTreeMap<String, PullPod>,
    pub purges: BTreeMap<String, (PurgeJobView, Removing)>,
    pub rejections: BTreeMap<String, Rejection>,
    pub fates: Fates,
    pub runtime: Runtime,
    pub removed: Vec<String>,
    pub most_pods: usize,
    pub writes: usize,
    pub agent: Agent,
    pub pulled_by_agent: Vec<String>,
    /// What the agent wrote last.
    pub agent_status: Option<PullerStatus>,
}

impl Node {
    pub fn new() -> Self {
        Self {
            now: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(100) + SignedDuration::from_millis(347),
            facts: facts("node-uid"),
            caches: vec![],
            revisions: vec![],
            claims: vec![],
            status: None,
            jobs: BTreeMap::new(),
            purges: BTreeMap::new(),
            rejections: BTreeMap::new(),
            fates: Fates::new(),
            runtime: Runtime::new(),
            removed: vec![],
            most_pods: 0,
            writes: 0,
            agent: Agent::Absent,
            pulled_by_agent: vec![],
            agent_status: None,
        }
    }

    pub fn revision(&mut self, name: &str, images: &[String]) {
        let one = |reference: &String| RevisionImage {
            digest: Some(digest_at(reference)),
            private: reference.starts_with("private"),
            ..image(reference, reference, 0)
        };
        self.revisions
            .push(revision(name, images.iter().map(one).collect()));
    }

    pub fn claim(&mut self, cache: &str, revision: &str, removal: Removal) {
        let mut made = objects::cache(cache, cache, removal);
        made.spec.rollout.images_per_node = LIMIT;
        self.caches.push(made);
        self.claims.push(CacheClaim {
            removal,
            puller: Puller::Job,
            ..objects::claim(self.now, cache, revision)
        });
    }

    pub fn blocks(&self) -> Blocks<'_> {
        Blocks {
            kubelet: self.status.as_ref(),
            agent: self.agent_status.as_ref(),
            presence: self.agent,
        }
    }

    pub fn by_name(&self) -> Revisions<'_> {
        by_name(&self.revisions)
    }

    pub fn decide(&self) -> NodeDecision {
        let revisions = self.by_name();
        let find = |name: &str| self.revisions.iter().find(|r| name_of(r) == name);
        let input = PullInput {
            now: self.now,
            node: Some(&self.facts),
            node_uid: &self.facts.uid,
            blocks: self.blocks(),
            claims: self
                .claims
                .iter()
                .map(|claim| ClaimInput {
                    claim,
                    cache: self
                        .caches
                        .iter()
                        .find(|c| c.metadata.uid.as_deref() == Some(&claim.uid)),
                    revision: find(&claim.revision),
                    eligibility: Eligibility::Workable,
                })
                .collect(),
            jobs: self.jobs.values().map(PullPod::view).collect(),
            rejections: &self.rejections,
            revisions: &revisions,
            removing: false,
        };
        decide(
            input,
            GENERATION,
            self.purges.values().map(|(view, _)| view.clone()).collect(),
            None,
        )
    }

    /// Carries the decision out; `crash` stops after the status has been written.
    pub fn apply(&mut self, crash: bool) -> NodeDecision {
        let decision = self.decide();
        if decision.write == Write::Now {
            self.status = Some(objects::stored(&decision.status));
            self.writes += 1;
        }
        if crash {
            return decision;
        }
        for key in &decision.delete {
            self.jobs.remove(&key.name);
            self.purges.remove(&key.name);
        }
        for job in &decision.pull {
            assert!(self.purges.is_empty(), "a pull begins while a removal is at work");
            let pod = PullPod::new(self.now, job, GENERATION);
            let before = self.jobs.insert(job.name.clone(), pod);
            assert!(before.is_none(), "the same Job twice");
        }
        for job in &decision.purge {
            let removal = Removing::new(&job.entries, &job.keep);
            self.purges
                .insert(job.name.clone(), (begun(self.now, job), removal));
        }
        self.most_pods = self.most_pods.max(self.jobs.len());
        decision
    }

    /// The kubelet moves one step: each pod works on its first container that is not done, purge Jobs are through.
    pub fn kubelet(&mut self) {
        for job in self.jobs.values_mut() {
            job.step(self.now, &mut self.fates, &mut self.runtime);
        }
        for (view, removal) in self.purges.values_mut().filter(|(v, _)| v.report.is_none()) {
            let named = removal.entries.iter().map(|e| e.reference.clone());
            let named: Vec<String> = named.filter(|n| self.runtime.holds(n)).collect();
            let report = loop {
                if let Step::Over(report) = removal.step(&mut self.runtime) {
                    break report;
                }
            };
            let gone = named.into_iter().filter(|n| !self.runtime.holds(n));
            self.removed.extend(gone);
            (view.report, view.over) = (Some(report), true);
        }
    }

    /// What is said to be there, by both together.
    pub fn view(&self, cache: &str) -> Option<CacheOnNode> {
        let claim = self.claims.iter().find(|c| c.uid == cache).unwrap();
        self.blocks()
            .view(claim, &self.by_name())
            .on_node
            .map(std::borrow::Cow::into_owned)
    }

    /// Nothing is said to be there that is not.
    pub fn assert_true(&self, cache: &str) {
        let claim = self.claims.iter().find(|c| c.uid == cache).unwrap();
        let Some(view) = self
            .view(cache)
            .filter(|v| v.revision == claim.revision && v.total + v.skipped > 0)
        else {
            return;
        };
        let by_name = self.by_name();
        let images = &by_name[&("ns", claim.revision.as_str())].spec.spec.images;
        let there = images.iter().filter(|i| self.runtime.holds(&i.image)).count() as i32;
        assert!(
            view.ready <= there,
            "{} of {there} said to be there: {view:?}",
            view.ready
        );
        for held in &view.held {
            for image in &by_name[&("ns", held.as_str())].spec.spec.images {
                assert!(
                    self.runtime.holds(&image.image),
                    "{held} is said to be held without {}",
                    image.image
                );
            }
        }
    }

    pub fn run(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.now += SignedDuration::from_secs(1);
            self.kubelet();
            self.agent();
            self.apply(false);
        }
    }

    pub fn state(&self, cache: &str) -> (NodeState, i32, i32) {
        let on_node = self
            .status
            .as_ref()
            .unwrap()
            .caches
            .iter()
            .find(|c| c.uid == cache)
            .unwrap();
        (on_node.state, on_node.ready, on_node.total)
    }
}
