//! One node with a simulated kubelet: it pulls the containers of pull pods one after another, fails some, hangs on some,
//! loses pods, and carries out purges. Whatever happens, what is decided for the node keeps its promises.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Pod, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use larder_api::image_cache::{ImageEntry, PrivateImages, Puller, Removal};
use larder_api::names::{
    IMAGES_ANNOTATION, NODE_UID_ANNOTATION, REVISION_ANNOTATION, Reason, WORK_ANNOTATION,
};
use larder_api::node_image_cache::{CacheClaim, CacheOnNode, Desired, ImageState, NodeState, PullerStatus};
use larder_api::revision::{ImageCacheRevisionSpec, PlatformManifest, RevisionBody, RevisionImage};
use larder_api::{ImageCache, ImageCacheRevision, ImageCacheSpec};
use larder_core::choose::is_for_agent;
use larder_core::facts::NodeFacts;
use larder_core::merge::{Agent, Blocks};
use larder_core::node::{NodeDecision, Write, decide};
use larder_core::plan::Revisions;
use larder_core::pull::{ClaimInput, JobView, PullInput, Rejection};
use larder_core::purge::PurgeJobView;
use larder_core::removal::{PurgeEntry, PurgeReport};
use larder_core::select::Eligibility;
use proptest::prelude::*;

/// How the registry behaves for an image.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Fine,
    /// Fails this many times.
    Fails(u32),
    /// Never answers.
    Hangs,
    /// Has no manifest for the node.
    NoPlatform,
    /// Arrives, and the kubelet calls it this.
    Named(&'static str),
}

struct Node {
    now: Timestamp,
    facts: NodeFacts,
    caches: Vec<ImageCache>,
    revisions: Vec<ImageCacheRevision>,
    claims: Vec<CacheClaim>,
    status: Option<PullerStatus>,
    jobs: BTreeMap<String, (Job, Option<Pod>)>,
    purges: BTreeMap<String, (PurgeJobView, Vec<PurgeEntry>)>,
    rejections: BTreeMap<String, Rejection>,
    fates: BTreeMap<String, Fate>,
    store: BTreeSet<String>,
    removed: Vec<String>,
    most_pods: usize,
    writes: usize,
    agent: Agent,
    pulled_by_agent: Vec<String>,
    /// What the agent wrote last.
    agent_status: Option<PullerStatus>,
}

const LIMIT: i32 = 3;
/// Of the node's object, which here stays the same.
const GENERATION: i64 = 1;

fn waiting(message: &str) -> ContainerState {
    let waiting = ContainerStateWaiting {
        reason: Some("ErrImagePull".into()),
        message: Some(message.into()),
    };
    ContainerState {
        waiting: Some(waiting),
        ..ContainerState::default()
    }
}

impl Node {
    fn new() -> Self {
        Self {
            now: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(100),
            facts: NodeFacts {
                name: "n".into(),
                uid: "node-uid".into(),
                ready: true,
                os: "linux".into(),
                architecture: "amd64".into(),
                ..NodeFacts::default()
            },
            caches: vec![],
            revisions: vec![],
            claims: vec![],
            status: None,
            jobs: BTreeMap::new(),
            purges: BTreeMap::new(),
            rejections: BTreeMap::new(),
            fates: BTreeMap::new(),
            store: BTreeSet::new(),
            removed: vec![],
            most_pods: 0,
            writes: 0,
            agent: Agent::Absent,
            pulled_by_agent: vec![],
            agent_status: None,
        }
    }

    fn revision(&mut self, name: &str, images: &[String]) {
        self.revisions.push(ImageCacheRevision {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some("ns".into()),
                ..ObjectMeta::default()
            },
            spec: RevisionBody {
                number: 1,
                spec: ImageCacheRevisionSpec {
                    images: images
                        .iter()
                        .map(|i| RevisionImage {
                            image: i.clone(),
                            digest: Some(format!("sha256:{i}")),
                            private: i.starts_with("private"),
                            platforms: vec![PlatformManifest {
                                os: "linux".into(),
                                architecture: "amd64".into(),
                                digest: format!("sha256:{i}"),
                                ..PlatformManifest::default()
                            }],
                            ..RevisionImage::default()
                        })
                        .collect(),
                    pull_secrets: vec![],
                },
            },
        });
    }

    fn claim(&mut self, cache: &str, revision: &str, removal: Removal) {
        let mut spec = ImageCacheSpec {
            images: vec![ImageEntry::default()],
            removal,
            ..ImageCacheSpec::default()
        };
        spec.rollout.images_per_node = LIMIT;
        self.caches.push(ImageCache {
            metadata: ObjectMeta {
                uid: Some(cache.into()),
                name: Some(cache.into()),
                ..ObjectMeta::default()
            },
            spec,
            status: None,
        });
        self.claims.push(CacheClaim {
            namespace: "ns".into(),
            name: cache.into(),
            uid: cache.into(),
            revision: revision.into(),
            desired: Desired::Present,
            remove_revisions: vec![],
            claimed_at: Time(self.now),
            assigned_at: Time(self.now),
            removal,
            verify_after: None,
            puller: Puller::Job,
            private_images: PrivateImages::Kubelet,
            service_account: false,
            overrides: None,
        });
    }

    fn blocks(&self) -> Blocks<'_> {
        Blocks {
            kubelet: self.status.as_ref(),
            agent: self.agent_status.as_ref(),
            presence: self.agent,
        }
    }

    fn by_name(&self) -> Revisions<'_> {
        self.revisions
            .iter()
            .map(|r| (("ns", r.metadata.name.as_deref().unwrap()), r))
            .collect()
    }

    fn decide(&self) -> NodeDecision {
        let revisions = self.by_name();
        let find = |name: &str| {
            self.revisions
                .iter()
                .find(|r| r.metadata.name.as_deref() == Some(name))
        };
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
            jobs: self
                .jobs
                .values()
                .map(|(job, pod)| JobView::read(job, &pod.iter().collect::<Vec<_>>()).unwrap())
                .collect(),
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
    fn apply(&mut self, crash: bool) -> NodeDecision {
        let decision = self.decide();
        if decision.write == Write::Now {
            self.status = Some(decision.status.clone());
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
            let annotations = BTreeMap::from([
                (
                    IMAGES_ANNOTATION.to_owned(),
                    serde_json::to_string(&job.images).unwrap(),
                ),
                (NODE_UID_ANNOTATION.to_owned(), job.node_uid.clone()),
                (REVISION_ANNOTATION.to_owned(), job.revision.clone()),
                (WORK_ANNOTATION.to_owned(), String::new()),
            ]);
            let owner = OwnerReference {
                uid: job.cache_uid.clone(),
                ..OwnerReference::default()
            };
            let metadata = ObjectMeta {
                name: Some(job.name.clone()),
                namespace: Some(job.namespace.clone()),
                uid: Some(format!("uid-{}", job.name)),
                annotations: Some(annotations),
                owner_references: Some(vec![owner]),
                creation_timestamp: Some(Time(self.now)),
                ..ObjectMeta::default()
            };
            let pod = Pod {
                metadata: ObjectMeta {
                    creation_timestamp: Some(Time(self.now)),
                    ..ObjectMeta::default()
                },
                status: Some(PodStatus {
                    phase: Some("Pending".into()),
                    start_time: Some(Time(self.now)),
                    container_statuses: Some(
                        job.images
                            .iter()
                            .enumerate()
                            .map(|(i, image)| ContainerStatus {
                                name: format!("i{i}"),
                                image: image.clone(),
                                ..ContainerStatus::default()
                            })
                            .collect(),
                    ),
                    ..PodStatus::default()
                }),
                ..Pod::default()
            };
            let job_object = Job {
                metadata,
                ..Job::default()
            };
            assert!(
                self.jobs
                    .insert(job.name.clone(), (job_object, Some(pod)))
                    .is_none(),
                "the same Job twice"
            );
        }
        for job in &decision.purge {
            let view = PurgeJobView {
                key: larder_core::pull::JobKey {
                    namespace: "agents".into(),
                    name: job.name.clone(),
                    uid: job.name.clone(),
                },
                work: job.work.clone(),
                node_uid: job.node_uid.clone(),
                created_at: self.now,
                deleting: false,
                begun: true,
                report: None,
                error: None,
                over: false,
            };
            self.purges.insert(job.name.clone(), (view, job.entries.clone()));
        }
        self.most_pods = self.most_pods.max(self.jobs.len());
        decision
    }

    /// The kubelet moves one step: each pod works on its first container that is not done.
    fn kubelet(&mut self) {
        for (_, pod) in self.jobs.values_mut() {
            let Some(statuses) = pod
                .as_mut()
                .and_then(|p| p.status.as_mut())
                .and_then(|s| s.container_statuses.as_mut())
            else {
                continue;
            };
            for status in statuses.iter_mut() {
                if status.state.is_some() {
                    continue;
                }
                let fate = self.fates.entry(status.image.clone()).or_insert(Fate::Fine);
                match fate {
                    Fate::Hangs => break,
                    Fate::NoPlatform => {
                        status.state = Some(waiting("no match for platform in manifest: not found"));
                    }
                    Fate::Fails(left) if *left > 0 => {
                        *left -= 1;
                        status.state = Some(waiting("failed to resolve reference: not found"));
                    }
                    Fate::Fine | Fate::Fails(_) | Fate::Named(_) => {
                        self.store.insert(status.image.clone());
                        status.image_id = match fate {
                            Fate::Named(id) => (*id).to_owned(),
                            _ => format!("{}@sha256:{}", status.image, status.image),
                        };
                        status.state = Some(ContainerState {
                            terminated: Some(ContainerStateTerminated {
                                finished_at: Some(Time(self.now)),
                                ..ContainerStateTerminated::default()
                            }),
                            ..ContainerState::default()
                        });
                        break;
                    }
                }
            }
        }
        for (view, entries) in self.purges.values_mut().filter(|(v, _)| v.report.is_none()) {
            let mut report = PurgeReport::default();
            for entry in entries {
                if self.store.remove(&entry.reference) {
                    self.removed.push(entry.reference.clone());
                    report.removed += 1;
                } else {
                    report.absent += 1;
                }
            }
            view.report = Some(report);
            view.over = true;
        }
    }

    /// The agent, where it is alive: pulls one image, removes what has to go, says what is there.
    fn agent(&mut self) {
        if self.agent != Agent::Alive {
            return;
        }
        let mut caches = Vec::new();
        let mut wanted = BTreeSet::new();
        for claim in self.claims.iter().filter(|c| c.desired == Desired::Present) {
            let revision = self
                .revisions
                .iter()
                .find(|r| r.metadata.name.as_deref() == Some(&claim.revision));
            wanted.extend(revision.unwrap().spec.spec.images.iter().map(|i| i.image.clone()));
        }
        for claim in &self.claims {
            let revision = self
                .revisions
                .iter()
                .find(|r| r.metadata.name.as_deref() == Some(&claim.revision));
            let spec = &revision.unwrap().spec.spec;
            let own = |i: &RevisionImage| is_for_agent(claim.into(), spec, i);
            let mut entry = CacheOnNode {
                namespace: "ns".into(),
                name: claim.name.clone(),
                uid: claim.uid.clone(),
                revision: claim.revision.clone(),
                since: Some(Time(self.now)),
                ..CacheOnNode::default()
            };
            if claim.desired == Desired::Absent {
                for image in spec.images.iter().filter(|i| !wanted.contains(&i.image)) {
                    entry.removed += i32::from(self.store.remove(&image.image));
                }
                let before = self
                    .agent_status
                    .iter()
                    .flat_map(|s| &s.caches)
                    .find(|c| c.uid == claim.uid);
                entry.removed += before.map_or(0, |b| b.removed);
                entry.state = NodeState::Purged;
                caches.push(entry);
                continue;
            }
            if let Some(next) = spec
                .images
                .iter()
                .find(|i| own(i) && !self.store.contains(&i.image))
            {
                self.store.insert(next.image.clone());
                self.pulled_by_agent.push(next.image.clone());
            }
            let missing: Vec<bool> = spec
                .images
                .iter()
                .map(|i| !own(i) || !self.store.contains(&i.image))
                .collect();
            entry.total = spec.images.iter().filter(|i| own(i)).count() as i32;
            entry.ready = missing.iter().filter(|m| !**m).count() as i32;
            entry.missing = hex(&missing);
            if entry.ready == entry.total {
                (entry.state, entry.held) = (NodeState::Ready, vec![claim.revision.clone()]);
                entry.checked_at = Some(Time(self.now));
            } else {
                entry.state = NodeState::Pulling;
            }
            if entry.total > 0 {
                caches.push(entry);
            }
        }
        self.agent_status = Some(PullerStatus {
            observed_generation: GENERATION,
            node_uid: self.facts.uid.clone(),
            caches,
            ..PullerStatus::default()
        });
    }

    /// What is said to be there, by both together.
    fn view(&self, cache: &str) -> Option<CacheOnNode> {
        let claim = self.claims.iter().find(|c| c.uid == cache).unwrap();
        self.blocks()
            .view(claim, &self.by_name())
            .on_node
            .map(std::borrow::Cow::into_owned)
    }

    /// Nothing is said to be there that is not.
    fn assert_true(&self, cache: &str) {
        let claim = self.claims.iter().find(|c| c.uid == cache).unwrap();
        let Some(view) = self
            .view(cache)
            .filter(|v| v.revision == claim.revision && v.total + v.skipped > 0)
        else {
            return;
        };
        let by_name = self.by_name();
        let images = &by_name[&("ns", claim.revision.as_str())].spec.spec.images;
        let there = images.iter().filter(|i| self.store.contains(&i.image)).count() as i32;
        assert!(
            view.ready <= there,
            "{} of {there} said to be there: {view:?}",
            view.ready
        );
        for held in &view.held {
            for image in &by_name[&("ns", held.as_str())].spec.spec.images {
                assert!(
                    self.store.contains(&image.image),
                    "{held} is said to be held without {}",
                    image.image
                );
            }
        }
    }

    fn run(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.now += SignedDuration::from_secs(1);
            self.kubelet();
            self.agent();
            self.apply(false);
        }
    }

    fn state(&self, cache: &str) -> (NodeState, i32, i32) {
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

/// A bit for each, as in `missing` of a cache on a node.
fn hex(bits: &[bool]) -> String {
    if !bits.contains(&true) {
        return String::new();
    }
    let digit = |four: &[bool]| {
        let value: u32 = four
            .iter()
            .enumerate()
            .map(|(i, set)| u32::from(*set) << (3 - i))
            .sum();
        char::from_digit(value, 16).unwrap()
    };
    bits.chunks(4).map(digit).collect()
}

fn images(host: &str, n: usize) -> Vec<String> {
    (0..n).map(|i| format!("{host}/r{i}:1")).collect()
}

#[test]
fn thirty_images_arrive_by_one_pod() {
    let mut node = Node::new();
    node.revision("r", &images("a.io", 30));
    node.claim("c", "r", Removal::Retain);
    node.run(60);
    assert_eq!(node.state("c"), (NodeState::Ready, 30, 30));
    assert!(node.jobs.is_empty());
    assert_eq!(node.most_pods, 1);
    let writes = node.writes;
    node.run(100);
    assert_eq!(node.writes, writes, "a converged node is silent");
}

#[test]
fn a_bad_image_is_told_at_once_and_holds_up_nobody() {
    let mut node = Node::new();
    node.revision("r", &images("a.io", 10));
    node.fates.insert("a.io/r3:1".into(), Fate::Fails(1000));
    node.claim("c", "r", Removal::Retain);
    node.run(6);
    let told = node.status.clone().unwrap();
    let failed: Vec<_> = told
        .images
        .iter()
        .filter(|i| i.state == ImageState::Failed)
        .collect();
    assert_eq!((failed.len(), failed[0].reason), (1, Some(Reason::NotFound)));
    node.run(20);
    assert_eq!(node.state("c"), (NodeState::Failed, 9, 10));
    assert!(
        node.jobs.is_empty(),
        "no pod is held for an image that waits for its next attempt"
    );
    let attempts = node.status.as_ref().unwrap().images[0].attempts;
    node.fates.insert("a.io/r3:1".into(), Fate::Fine);
    node.run(200);
    assert_eq!(node.state("c"), (NodeState::Ready, 10, 10));
    assert!(attempts >= 1);
}

#[test]
fn an_image_for_another_platform_is_never_said_to_be_held() {
    let mut node = Node::new();
    node.revision("r", &images("a.io", 2));
    node.fates.insert("a.io/r0:1".into(), Fate::NoPlatform);
    node.claim("c", "r", Removal::Retain);
    node.run(60);
    let told = node.status.clone().unwrap();
    let on_node = &told.caches[0];
    assert_eq!(
        (on_node.state, on_node.ready, on_node.total, on_node.skipped),
        (NodeState::Ready, 1, 1, 1)
    );
    assert_eq!(told.images[0].state, ImageState::Skipped);
    assert!(node.jobs.is_empty());
}

#[test]
fn only_a_cache_that_is_there_misses_its_revision() {
    let mut node = Node::new();
    node.revision("r", &images("a.io", 2));
    node.claim("c", "r", Removal::Retain);
    node.run(60);
    node.revisions.clear();
    node.run(5);
    let told = node.status.clone().unwrap().caches[0].clone();
    assert_eq!(
        (told.state, told.reason),
        (NodeState::Failed, Some(Reason::RevisionMissing))
    );
    // Deleted together with its revisions: that is no failure of anything.
    let mut node = Node::new();
    node.revision("r", &images("a.io", 2));
    node.claim("c", "r", Removal::Retain);
    node.run(60);
    node.revisions.clear();
    node.caches.clear();
    node.run(5);
    let told = node.status.clone().unwrap().caches[0].clone();
    assert_eq!((told.state, told.reason), (NodeState::Ready, None));
}

#[test]
fn a_digest_of_another_repository_says_nothing_of_a_tag() {
    let mut node = Node::new();
    let names = ["nginx:1", "a.io/own:1", "a.io/copied:1"].map(str::to_owned);
    node.revision("r1", &names);
    for image in &mut node.revisions[0].spec.spec.images {
        image.digest = None;
    }
    node.claim("web", "r1", Removal::Retain);
    let ids = [
        "docker.io/library/nginx@sha256:1",
        "a.io/own@sha256:2",
        "a.io/before@sha256:3",
    ];
    for (name, id) in names.iter().zip(ids) {
        node.fates.insert(name.clone(), Fate::Named(id));
    }
    node.apply(false);
    node.run(10);
    assert_eq!(node.state("web"), (NodeState::Ready, 3, 3));
    let reported = &node.view("web").unwrap().reported;
    let reported: Vec<_> = reported
        .iter()
        .map(|r| (r.image.as_str(), r.digest.as_str()))
        .collect();
    assert_eq!(reported, [("a.io/own:1", "sha256:2"), ("nginx:1", "sha256:1")]);
}

#[test]
fn what_a_pod_found_behind_a_tag_is_forgotten_once_the_agent_looks_at_it() {
    let mut node = Node::new();
    let names = ["private.io/a:1", "a.io/own:1"].map(str::to_owned);
    node.revision("r1", &names);
    for image in &mut node.revisions[0].spec.spec.images {
        image.digest = None;
    }
    node.claim("web", "r1", Removal::Retain);
    node.claims[0].puller = Puller::Auto;
    for (name, id) in names.iter().zip(["private.io/a@sha256:1", "a.io/own@sha256:2"]) {
        node.fates.insert(name.clone(), Fate::Named(id));
    }
    node.run(20);
    let told = |node: &Node| -> Vec<String> {
        let reported = &node.status.as_ref().unwrap().caches[0].reported;
        reported.iter().map(|r| r.image.clone()).collect()
    };
    assert_eq!(told(&node), ["a.io/own:1", "private.io/a:1"]);
    node.agent = Agent::Alive;
    node.agent();
    node.run(20);
    assert_eq!(told(&node), ["private.io/a:1"]);
}

#[test]
fn what_a_pod_found_before_a_refresh_does_not_answer_it() {
    let mut node = Node::new();
    node.revision("r", &images("a.io", 1));
    node.revisions[0].spec.spec.images[0].digest = None;
    node.claim("c", "r", Removal::Retain);
    // The first pod has found the image, its Job is not deleted yet.
    node.now += SignedDuration::from_secs(1);
    node.apply(false);
    node.kubelet();
    node.apply(true);
    assert_eq!(node.state("c").0, NodeState::Ready);
    node.now += SignedDuration::from_secs(5);
    node.claims[0].verify_after = Some(Time(node.now));
    let decision = node.apply(false);
    assert_eq!(decision.status.caches[0].state, NodeState::Pulling);
    assert_eq!(decision.pull.len(), 1);
    node.run(10);
    assert_eq!(node.state("c").0, NodeState::Ready);
}

#[test]
fn an_image_that_hangs_lets_the_others_pass_after_half_a_minute_and_times_out() {
    let mut node = Node::new();
    node.revision("r", &images("a.io", 5));
    node.fates.insert("a.io/r0:1".into(), Fate::Hangs);
    node.claim("c", "r", Removal::Retain);
    node.run(29);
    assert_eq!(node.jobs.len(), 1);
    node.run(40);
    assert_eq!(node.state("c").1, 4);
    node.run(3600);
    let told = node.status.clone().unwrap();
    assert_eq!(told.images[0].reason, Some(Reason::Timeout));
}

#[test]
fn a_refused_pod_is_the_caches_failure_and_heals() {
    let mut node = Node::new();
    node.revision("r", &images("a.io", 2));
    node.claim("c", "r", Removal::Retain);
    let rejection = Rejection {
        message: "exceeded quota".into(),
        at: node.now,
        attempts: 20,
    };
    node.rejections.insert("c".into(), rejection);
    node.run(30);
    let told = node.status.clone().unwrap().caches[0].clone();
    assert_eq!(
        (told.state, told.reason),
        (NodeState::Failed, Some(Reason::PodRejected))
    );
    assert_eq!(told.message, "exceeded quota");
    assert!(node.jobs.is_empty());
    node.run(31);
    assert_eq!(node.jobs.len(), 1, "tried again within a minute");
}

#[test]
fn a_purge_spares_what_another_cache_wants_and_tells_what_went() {
    let mut node = Node::new();
    node.revision("r1", &images("a.io", 4));
    node.revision("r2", &images("a.io", 2));
    node.claim("one", "r1", Removal::Purge);
    node.claim("two", "r2", Removal::Retain);
    node.run(30);
    node.claims[0].desired = Desired::Absent;
    node.run(10);
    assert_eq!(node.state("one").0, NodeState::Purged);
    assert_eq!(node.state("two"), (NodeState::Ready, 2, 2));
    assert_eq!(node.removed, ["a.io/r2:1", "a.io/r3:1"]);
    assert!(node.purges.is_empty());
    node.claims[0].desired = Desired::Present;
    node.claims[0].assigned_at = Time(node.now);
    node.run(30);
    assert_eq!(node.state("one"), (NodeState::Ready, 4, 4));
    assert!(node.store.contains("a.io/r3:1"));
}

#[test]
fn a_purge_is_told_which_names_of_the_same_repository_stay() {
    let mut node = Node::new();
    let tagged = vec!["a.io/app:1".to_owned()];
    let digested = vec![
        format!("a.io/app@sha256:{}", "a".repeat(64)),
        "b.io/else:1".to_owned(),
    ];
    node.revision("tagged", &tagged);
    node.revision("digested", &digested);
    node.claim("one", "tagged", Removal::Purge);
    node.claim("two", "digested", Removal::Retain);
    node.run(30);
    node.claims[0].desired = Desired::Absent;
    let decision = node.decide();
    assert_eq!(decision.purge.len(), 1);
    assert_eq!(decision.purge[0].keep, digested[..1]);
}

#[test]
fn images_that_left_go_once_the_new_revision_is_there() {
    let mut node = Node::new();
    let all = images("a.io", 4);
    node.revision("old", &all);
    node.revision("new", &all[..2]);
    node.claim("c", "old", Removal::Purge);
    node.run(30);
    node.claims[0].revision = "new".into();
    node.claims[0].assigned_at = Time(node.now);
    node.claims[0].remove_revisions = vec!["old".into()];
    node.run(10);
    assert_eq!(node.removed, ["a.io/r2:1", "a.io/r3:1"]);
    let told = node.status.clone().unwrap().caches[0].clone();
    assert_eq!(
        (told.removed_revisions, told.held),
        (vec!["old".to_owned()], vec!["new".to_owned()])
    );
}

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
            assert!(node.store.is_empty() && node.jobs.is_empty(), "{:?}", node.store);
        }
    }
}

#[test]
fn two_hundred_and_fifty_entries_go_in_three_jobs() {
    let mut node = Node::new();
    node.revision("r", &images("a.io", 250));
    node.claim("c", "r", Removal::Purge);
    node.run(400);
    assert_eq!(node.state("c").0, NodeState::Ready);
    node.claims[0].desired = Desired::Absent;
    node.run(20);
    let told = node.status.clone().unwrap().caches[0].clone();
    assert_eq!((told.state, told.removed), (NodeState::Purged, 250));
    assert!(node.store.is_empty());
}

#[test]
fn five_hundred_images_arrive_and_five_hundred_failures_do_not_hammer() {
    let mut node = Node::new();
    let all = images("a.io", 500);
    node.revision("r", &all);
    node.claim("c", "r", Removal::Retain);
    node.run(250);
    assert_eq!(node.state("c"), (NodeState::Ready, 500, 500));

    let mut node = Node::new();
    node.revision("r", &all);
    node.fates
        .extend(all.iter().map(|i| (i.clone(), Fate::Fails(1_000_000))));
    node.claim("c", "r", Removal::Retain);
    let mut pods = 0;
    for _ in 0..600 {
        node.now += SignedDuration::from_secs(1);
        node.kubelet();
        pods += node.apply(false).pull.len();
    }
    // 16 pods a round, and a round each minute, then each two minutes, …
    assert!(pods < 150, "{pods} pods in ten minutes");
    assert_eq!(node.state("c").0, NodeState::Failed);
}

/// Begins a removal, lets it go on for so many steps of the kubelet and of the operator, calls it off.
fn call_off(node: &mut Node, steps: usize, begin: impl Fn(&mut CacheClaim), end: impl Fn(&mut CacheClaim)) {
    let turn = |node: &mut Node, change: &dyn Fn(&mut CacheClaim)| {
        node.now += SignedDuration::from_secs(1);
        change(&mut node.claims[0]);
        node.claims[0].assigned_at = Time(node.now);
    };
    turn(node, &begin);
    for step in 0..steps {
        if step % 2 == 0 {
            node.apply(false);
        } else {
            node.kubelet();
        }
    }
    turn(node, &end);
    node.run(60);
}

#[test]
fn a_purge_that_is_called_off_never_leaves_ready_without_the_images() {
    for steps in 0..8 {
        let mut node = Node::new();
        let all = images("a.io", 120);
        node.revision("r", &all);
        node.claim("c", "r", Removal::Retain);
        node.run(200);
        call_off(
            &mut node,
            steps,
            |c| {
                c.desired = Desired::Absent;
            },
            |c| {
                c.desired = Desired::Present;
            },
        );
        assert_eq!(
            node.state("c"),
            (NodeState::Ready, 120, 120),
            "after {steps} steps"
        );
        assert_eq!(node.store.len(), 120, "after {steps} steps");
    }
}

#[test]
fn a_purge_of_a_half_filled_node_that_is_called_off_forgets_the_half() {
    for steps in 0..8 {
        let mut node = Node::new();
        node.revision("r", &images("a.io", 3));
        node.fates.insert("a.io/r2:1".into(), Fate::Fails(2));
        node.claim("c", "r", Removal::Retain);
        node.run(6);
        call_off(
            &mut node,
            steps,
            |c| {
                c.desired = Desired::Absent;
            },
            |c| {
                c.desired = Desired::Present;
            },
        );
        node.run(200);
        assert_eq!(node.state("c"), (NodeState::Ready, 3, 3), "after {steps} steps");
        assert_eq!(node.store.len(), 3, "after {steps} steps");
    }
}

#[test]
fn a_list_put_back_while_its_images_go_is_whole_in_the_end() {
    for steps in 0..8 {
        let mut node = Node::new();
        let all = images("a.io", 4);
        node.revision("old", &all);
        node.revision("new", &all[..2]);
        node.claim("c", "old", Removal::Purge);
        node.run(30);
        let to = |revision: &'static str, remove: &'static str| {
            move |c: &mut CacheClaim| {
                c.revision = revision.into();
                c.remove_revisions = vec![remove.into()];
            }
        };
        call_off(&mut node, steps, to("new", "old"), to("old", "new"));
        assert_eq!(node.state("c"), (NodeState::Ready, 4, 4), "after {steps} steps");
        assert_eq!(node.store.len(), 4, "after {steps} steps");
    }
}

#[test]
fn what_another_cache_removed_is_not_held_by_an_old_revision() {
    let mut node = Node::new();
    let all = images("a.io", 4);
    node.revision("old", &all);
    node.revision("new", &all[..2]);
    node.revision("theirs", &all[2..]);
    node.claim("c", "old", Removal::Retain);
    node.claim("other", "theirs", Removal::Purge);
    node.run(60);
    node.claims[0].revision = "new".into();
    node.run(10);
    node.claims[1].desired = Desired::Absent;
    node.run(10);
    assert_eq!(node.removed, ["a.io/r2:1", "a.io/r3:1"]);
    node.claims[0].revision = "old".into();
    node.claims[0].assigned_at = Time(node.now);
    node.run(60);
    assert_eq!(node.state("c"), (NodeState::Ready, 4, 4));
    assert_eq!(node.store.len(), 4);
}

#[test]
fn a_removal_that_failed_is_no_complaint_once_it_is_called_off() {
    let mut node = Node::new();
    node.revision("r", &images("a.io", 1));
    node.claim("c", "r", Removal::Purge);
    node.run(20);
    node.claims[0].desired = Desired::Absent;
    node.apply(false);
    let view = &mut node.purges.values_mut().next().unwrap().0;
    (view.over, view.error) = (true, Some("no such socket".into()));
    node.apply(false);
    let told = node.status.clone().unwrap().caches[0].clone();
    assert_eq!(told.removal_error, "no such socket");
    node.claims[0].desired = Desired::Present;
    node.run(30);
    let told = node.status.clone().unwrap().caches[0].clone();
    assert_eq!((told.state, told.removal_error.as_str()), (NodeState::Ready, ""));
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
        node.store.is_empty() && node.removed.is_empty(),
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
        assert!(node.store.is_empty());
        if deleting {
            for (job, _) in node.jobs.values_mut() {
                job.metadata.deletion_timestamp = Some(Time(node.now));
            }
        }
        node.claims[0].desired = Desired::Present;
        node.claims[0].assigned_at = Time(node.now);
        for _ in 0..2 {
            node.apply(true);
            assert_ne!(node.state("c").0, NodeState::Ready, "deleting: {deleting}");
        }
        node.jobs
            .retain(|_, (job, _)| job.metadata.deletion_timestamp.is_none());
        node.run(30);
        assert_eq!((node.state("c"), node.store.len()), ((NodeState::Ready, 2, 2), 2));
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
    assert_eq!(node.store.len(), 2);
    node.agent = Agent::Waiting {
        until: Timestamp::MAX,
    };
    node.claims[0].desired = Desired::Absent;
    node.claims[0].assigned_at = Time(node.now);
    node.run(20);
    assert_eq!((node.state("c").0, node.store.len()), (NodeState::Purging, 2));
    node.agent = Agent::Absent;
    node.run(60);
    assert_eq!((node.state("c").0, node.store.len()), (NodeState::Purged, 0));
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
            if lost.contains(&second) && let Some((_, pod)) = node.jobs.values_mut().next() {
                *pod = None;
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
            prop_assert!(node.store.contains(&image.image));
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
