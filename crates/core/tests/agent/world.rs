//! One node with a simulated runtime, registry and kubelet, and an agent that does what is decided.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use larder_api::image_cache::{PrivateImages, Puller, Removal};
use larder_api::names::Reason;
use larder_api::node_image_cache::{
    AgentStatus, CacheClaim, CacheOnNode, Capability, ClaimOverrides, Desired, ImageOnNode, ImageState,
    NodeState, PullerStatus, RuntimeOnNode,
};
use larder_api::revision::{ImageCacheRevisionSpec, PlatformManifest, RevisionBody, RevisionImage};
use larder_api::{ImageCacheRevision, NodeImageCacheSpec};
use larder_core::agent::{
    Action, AgentInput, Decision, Disk, ImageObserved, Memory, Observed, PullFailure, PullOrder, PullResult,
    RemoveOrder, RunningPull, decide,
};
use larder_core::choose::{is_for_agent, kubelet_takes_part};
use larder_core::image_ref::ImageRef;
use larder_core::node::Write;
use larder_core::plan::{ClaimSettings, Revisions};
use larder_core::removal::{
    HeldContainer, HeldImage, HeldRecord, NodeContents, PurgeReport, RemovalAct, decide as plan_removal,
};

pub const MIB: i64 = 1 << 20;
/// What one pull brings in a second.
const SPEED: i64 = 10 * MIB;

/// How the registry answers for a reference.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    Fails(u32, Reason),
    Always(Reason),
}

/// An image in the runtime.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Stored {
    /// What the record of its id points at.
    pub target: String,
    /// Name to target.
    pub names: BTreeMap<String, String>,
    pub complete: bool,
    pub pinned: bool,
    pub pinned_by_us: bool,
    pub pulled_by_us: bool,
    pub used: bool,
    pub created_at: Timestamp,
    pub bytes: i64,
}

pub struct World {
    pub now: Timestamp,
    pub spec: NodeImageCacheSpec,
    pub generation: i64,
    pub revisions: Vec<ImageCacheRevision>,
    /// Names of revisions that cannot be read.
    pub unreadable: BTreeSet<String>,
    pub status: Option<AgentStatus>,
    /// What the operator says of the kubelet's part; none where it answers at once, and all is as wanted.
    pub kubelet: Option<PullerStatus>,
    pub memory: Memory,
    pub pulls: Vec<RunningPull>,
    pub removing: Option<RemoveOrder>,
    /// By image id.
    pub store: BTreeMap<String, Stored>,
    pub fates: BTreeMap<String, Fate>,
    /// What a tag means at the registry where no revision says.
    pub tags: BTreeMap<String, String>,
    pub capabilities: Vec<Capability>,
    pub disk_total: u64,
    pub runtime_error: Option<String>,
    /// Why removals cannot be carried out.
    pub removal_error: Option<String>,
    pub written_at: Option<Timestamp>,
    pub writes: usize,
    pub begun: Vec<String>,
    pub removed: Vec<String>,
    pub most_pulls: usize,
}

pub fn digest(of: &str) -> String {
    let hash = of.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("sha256:{hash:064x}")
}

pub fn id_of(digest_: &str) -> String {
    digest(&format!("config of {digest_}"))
}

/// `app:1` of the registry, with content named by `content`.
pub fn image(name: &str, content: &str, bytes: i64) -> RevisionImage {
    RevisionImage {
        image: format!("r.example/{name}"),
        digest: Some(digest(content)),
        platforms: vec![PlatformManifest {
            os: "linux".into(),
            architecture: "amd64".into(),
            variant: None,
            digest: digest(content),
            size_bytes: bytes,
        }],
        ..RevisionImage::default()
    }
}

impl World {
    pub fn new() -> Self {
        Self {
            now: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1000),
            spec: NodeImageCacheSpec {
                node_uid: "node".into(),
                ..NodeImageCacheSpec::default()
            },
            generation: 1,
            revisions: vec![],
            unreadable: BTreeSet::new(),
            status: None,
            kubelet: None,
            memory: Memory::default(),
            pulls: vec![],
            removing: None,
            store: BTreeMap::new(),
            fates: BTreeMap::new(),
            tags: BTreeMap::new(),
            capabilities: vec![Capability::Content, Capability::Pin, Capability::Progress],
            disk_total: 1 << 40,
            runtime_error: None,
            removal_error: None,
            written_at: None,
            writes: 0,
            begun: vec![],
            removed: vec![],
            most_pulls: 0,
        }
    }

    pub fn revision(&mut self, name: &str, images: Vec<RevisionImage>) {
        self.revisions.push(ImageCacheRevision {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some("ns".into()),
                ..ObjectMeta::default()
            },
            spec: RevisionBody {
                number: 1,
                spec: ImageCacheRevisionSpec {
                    images,
                    pull_secrets: vec![],
                },
            },
        });
    }

    pub fn claim(&mut self, cache: &str, revision: &str) -> &mut CacheClaim {
        self.generation += 1;
        self.spec.caches.push(CacheClaim {
            namespace: "ns".into(),
            name: cache.into(),
            uid: cache.into(),
            revision: revision.into(),
            desired: Desired::Present,
            remove_revisions: vec![],
            claimed_at: Time(self.now),
            assigned_at: Time(self.now),
            removal: Removal::Purge,
            verify_after: None,
            puller: Puller::Auto,
            private_images: PrivateImages::Kubelet,
            service_account: false,
            overrides: None,
        });
        self.spec.caches.last_mut().unwrap()
    }

    pub fn claimed(&mut self, cache: &str) -> &mut CacheClaim {
        self.generation += 1;
        self.spec.caches.iter_mut().find(|c| c.uid == cache).unwrap()
    }

    pub fn overrides(&mut self, cache: &str) -> &mut ClaimOverrides {
        self.claimed(cache).overrides.get_or_insert_default()
    }

    pub fn entry(&self, cache: &str) -> CacheOnNode {
        let caches = &self.status.as_ref().unwrap().puller.caches;
        caches
            .iter()
            .find(|c| c.uid == cache)
            .cloned()
            .unwrap_or_default()
    }

    pub fn state(&self, cache: &str) -> NodeState {
        self.entry(cache).state
    }

    pub fn listed(&self, name: &str) -> ImageOnNode {
        let images = &self.status.as_ref().unwrap().puller.images;
        let name = format!("r.example/{name}");
        images
            .iter()
            .find(|i| i.image == name)
            .cloned()
            .unwrap_or_default()
    }

    pub fn condition(&self, type_: &str) -> String {
        let conditions = &self.status.as_ref().unwrap().conditions;
        let found = conditions.iter().find(|c| c.type_ == type_).unwrap();
        format!("{} {} {}", found.status, found.reason, found.message)
            .trim()
            .to_owned()
    }

    pub fn held(&self, content: &str) -> Option<&Stored> {
        self.store.get(&id_of(&digest(content)))
    }

    pub fn held_mut(&mut self, content: &str) -> &mut Stored {
        self.store.get_mut(&id_of(&digest(content))).unwrap()
    }

    /// Something else than Larder brings an image.
    pub fn bring(&mut self, name: &str, content: &str) {
        self.arrive(&format!("r.example/{name}"), &digest(content), true, 0, false);
    }

    fn arrive(&mut self, reference: &str, digest: &str, tag: bool, bytes: i64, by_us: bool) {
        let now = self.now;
        let parsed = ImageRef::parse(reference).unwrap();
        let stored = self.store.entry(id_of(digest)).or_insert_with(|| Stored {
            target: digest.to_owned(),
            created_at: now,
            pulled_by_us: by_us,
            ..Stored::default()
        });
        stored
            .names
            .insert(format!("{}@{digest}", parsed.name()), digest.to_owned());
        stored.complete = true;
        stored.bytes = stored.bytes.max(bytes);
        if tag && parsed.digest().is_none() {
            self.point(reference, digest);
        }
    }

    fn point(&mut self, tag: &str, digest: &str) {
        for stored in self.store.values_mut() {
            stored.names.remove(tag);
        }
        let stored = self.store.get_mut(&id_of(digest)).unwrap();
        stored.names.insert(tag.to_owned(), digest.to_owned());
    }

    fn free(&self) -> u64 {
        let used: i64 = self.store.values().map(|s| s.bytes * 22 / 10).sum();
        let arriving: i64 = self.pulls.iter().map(|p| p.bytes_done).sum();
        self.disk_total.saturating_sub((used + arriving) as u64)
    }

    pub fn observe(&self) -> Observed {
        let knows = self.capabilities.contains(&Capability::Content);
        let images = self.store.iter().map(|(id, stored)| ImageObserved {
            id: id.clone(),
            tags: stored
                .names
                .iter()
                .filter(|(name, _)| !name.contains('@'))
                .map(|(name, target)| (name.clone(), knows.then(|| target.clone())))
                .collect(),
            targets: stored.names.values().chain([&stored.target]).cloned().collect(),
            complete: stored.complete || !knows,
            pinned: stored.pinned,
            pinned_by_us: stored.pinned_by_us,
            pulled_by_us: stored.pulled_by_us && knows,
            used: stored.used,
        });
        Observed {
            runtime: RuntimeOnNode {
                name: "fake".into(),
                version: "1".into(),
            },
            capabilities: self.capabilities.clone(),
            images: images.collect(),
            disk: Some(Disk {
                total: self.disk_total,
                free: self.free(),
            }),
        }
    }

    /// One look, one decision, carried out. Promises are checked each time.
    pub fn step(&mut self) -> Decision {
        let spec = self.spec.clone();
        let revisions = self.revisions.clone();
        let readable: Revisions<'_> = revisions
            .iter()
            .map(|r| (("ns", r.metadata.name.as_deref().unwrap()), r))
            .filter(|((_, name), _)| !self.unreadable.contains(*name))
            .collect();
        let observed = self.observe();
        if self.runtime_error.is_none() {
            self.memory
                .observe(self.now, "linux", "amd64", &spec, &readable, &observed);
        }
        let kubelet = self.kubelet.clone().unwrap_or_else(|| self.answer(&readable));
        let removing: Vec<RemoveOrder> = self.removing.iter().cloned().collect();
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
                written_at: self.written_at,
                observed: match &self.runtime_error {
                    Some(words) => Err(words),
                    None => Ok(observed),
                },
                pulls,
                removing: &removing,
                memory: &self.memory,
            })
        };
        let decision = ask(&spec, &observed, &self.pulls);
        let (mut turned, mut seen, mut pulls) = (spec.clone(), observed.clone(), self.pulls.clone());
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
            self.status = Some(decision.status.clone());
            self.written_at = Some(self.now);
            self.writes += 1;
        }
        for action in &decision.actions {
            match action {
                Action::Pull(order) => {
                    self.begun.push(order.image.clone());
                    self.pulls.push(RunningPull {
                        order: order.clone(),
                        started_at: self.now,
                        bytes_done: 0,
                        bytes_total: order.bytes,
                    });
                }
                Action::Cancel(reference) => self.pulls.retain(|p| p.order.image != *reference),
                Action::Tag { name, target } => {
                    assert!(self.held_by(target).is_some(), "{target} is not there");
                    self.point(name, target);
                }
                Action::Pin { id, pin } => {
                    let stored = self.store.get_mut(id).unwrap();
                    assert!(*pin || stored.pinned_by_us);
                    (stored.pinned, stored.pinned_by_us) = (*pin, *pin);
                }
                Action::Remove(order) => {
                    assert!(self.removing.is_none());
                    self.removing = Some(order.clone());
                }
            }
        }
        self.most_pulls = self.most_pulls.max(self.pulls.len());
    }

    fn held_by(&self, target: &str) -> Option<&Stored> {
        self.store
            .values()
            .find(|s| s.target == target || s.names.values().any(|t| t == target))
    }

    /// Nothing above the limits, nothing wanted or used gone, nothing called ready that is not there.
    fn check(&self, decision: &Decision, revisions: &Revisions<'_>, observed: &Observed) {
        let new = decision
            .actions
            .iter()
            .filter(|a| matches!(a, Action::Pull(_)))
            .count();
        let limit = self.spec.limits.as_ref().map_or(5, |l| l.pulls as usize);
        assert!(new == 0 || self.pulls.len() + new <= limit);
        assert!(serde_json::to_vec(&decision.status).unwrap().len() <= 48 * 1024);
        let present: Vec<&CacheClaim> = self
            .spec
            .caches
            .iter()
            .filter(|c| c.desired == Desired::Present)
            .collect();
        let per_cache: usize = present
            .iter()
            .map(|c| ClaimSettings::of(c.overrides.as_ref()).images_per_node)
            .sum();
        let wanted = |p: &RunningPull| {
            present.iter().any(|c| {
                let revision = revisions.get(&("ns", c.revision.as_str()));
                let mut images = revision.iter().flat_map(|r| &r.spec.spec.images);
                images.any(|i| i.image == p.order.image && i.digest == p.order.digest)
            })
        };
        let at_work = self.pulls.iter().filter(|p| wanted(p)).count();
        assert!(new == 0 || at_work + new <= per_cache);
        let blind = present
            .iter()
            .any(|c| !revisions.contains_key(&("ns", c.revision.as_str())));
        for claim in &present {
            let Some(revision) = revisions.get(&("ns", claim.revision.as_str())) else {
                continue;
            };
            let pins = ClaimSettings::of(claim.overrides.as_ref()).pin && claim.puller != Puller::Job;
            for wanted in &revision.spec.spec.images {
                for action in &decision.actions {
                    match action {
                        Action::Remove(order) => {
                            assert!(
                                !order
                                    .entries
                                    .iter()
                                    .any(|e| e.reference == wanted.image && e.digest == wanted.digest),
                                "{wanted:?} is wanted"
                            );
                        }
                        Action::Pin { id, pin: false } => {
                            let target = wanted.digest.clone().unwrap_or_default();
                            let image = observed.images.iter().find(|i| i.id == *id).unwrap();
                            let meant = image.targets.contains(&target)
                                || (wanted.digest.is_none() && image.tags.contains_key(&wanted.image));
                            assert!(!(pins && meant), "{wanted:?} is unpinned");
                        }
                        _ => {}
                    }
                }
            }
            let entry = decision.status.puller.caches.iter().find(|c| c.uid == claim.uid);
            if entry.is_some_and(|e| e.state == NodeState::Ready && e.revision == claim.revision)
                && self.runtime_error.is_none()
            {
                for wanted in &revision.spec.spec.images {
                    let ours = is_for_agent((*claim).into(), &revision.spec.spec, wanted);
                    let mut images = decision.status.puller.images.iter();
                    let skipped = images.any(|i| i.image == wanted.image && i.state == ImageState::Skipped);
                    assert!(
                        !ours || skipped || is_whole(observed, wanted),
                        "{wanted:?} is not there"
                    );
                }
            }
        }
        for action in &decision.actions {
            assert!(
                !blind
                    || !matches!(
                        action,
                        Action::Remove(_) | Action::Pin { pin: false, .. } | Action::Cancel(_)
                    ),
                "{action:?} on a guess"
            );
        }
    }

    /// A second or more goes by.
    pub fn pass(&mut self, time: SignedDuration) {
        self.now += time;
        let seconds = time.as_secs().max(1);
        for pull in std::mem::take(&mut self.pulls) {
            self.advance(pull, seconds);
        }
        if let Some(order) = self.removing.take() {
            let report = match self.removal_error.clone() {
                Some(words) => Err(words),
                None => Ok(self.remove(&order)),
            };
            self.memory
                .removed(&order.cache_uid, &order.work, self.now, report);
        }
    }

    fn advance(&mut self, mut pull: RunningPull, seconds: i64) {
        let order = pull.order.clone();
        let failure = match self.fates.get_mut(&order.image) {
            Some(Fate::Always(reason)) => Some(*reason),
            Some(Fate::Fails(times, reason)) if *times > 0 => {
                *times -= 1;
                Some(*reason)
            }
            _ => None,
        };
        let outcome = if let Some(reason) = failure {
            Err(PullFailure {
                reason,
                message: format!("{reason} says the registry"),
            })
        } else {
            pull.bytes_done = (pull.bytes_done + SPEED * seconds).min(pull.bytes_total);
            if pull.bytes_done < pull.bytes_total {
                self.pulls.push(pull);
                return;
            }
            self.finish(&order);
            Ok(())
        };
        self.memory.pulled(&PullResult {
            order,
            started_at: pull.started_at,
            ended_at: self.now,
            outcome,
        });
    }

    fn finish(&mut self, order: &PullOrder) {
        let by_tag = self.tags.get(&order.image).cloned();
        let digest = order.digest.clone().or(by_tag).unwrap();
        let new = !self.store.contains_key(&id_of(&digest));
        self.arrive(&order.image, &digest, order.tag.is_some(), order.bytes, new);
        if order.pin {
            let stored = self.store.get_mut(&id_of(&digest)).unwrap();
            (stored.pinned, stored.pinned_by_us) = (true, true);
        }
    }

    /// As the agent does it: by the decision that purge Jobs use too.
    fn remove(&mut self, order: &RemoveOrder) -> PurgeReport {
        let mut contents = NodeContents {
            records: self.capabilities.contains(&Capability::Content).then(Vec::new),
            ..NodeContents::default()
        };
        for (id, stored) in &self.store {
            contents.images.push(HeldImage {
                id: id.clone(),
                names: stored.names.keys().cloned().collect(),
                pinned: stored.pinned && !stored.pinned_by_us,
            });
            if stored.used {
                contents.containers.push(HeldContainer {
                    id: "c".into(),
                    image: vec![id.clone()],
                });
            }
            let Some(records) = &mut contents.records else {
                continue;
            };
            records.extend(stored.names.iter().map(|(name, target)| HeldRecord {
                name: name.clone(),
                target: target.clone(),
                created_at: Some(stored.created_at),
            }));
            records.push(HeldRecord {
                name: id.clone(),
                target: stored.target.clone(),
                created_at: Some(stored.created_at),
            });
        }
        let keep: Vec<ImageRef> = order.keep.iter().map(|k| ImageRef::parse(k).unwrap()).collect();
        let plan = plan_removal(&order.entries, &keep, &contents);
        for step in plan.steps {
            let stored = self.store.get_mut(&step.image).unwrap();
            assert!(!stored.used, "a container uses {}", step.image);
            match step.act {
                RemovalAct::RemoveImage => stored.names.clear(),
                RemovalAct::DeleteRecords { records, .. } => {
                    for (name, _) in records {
                        stored.names.remove(&name);
                    }
                }
            }
            if stored.names.is_empty() {
                self.store.remove(&step.image);
                self.removed.push(step.image);
            }
        }
        PurgeReport::of(plan.outcomes)
    }

    /// The process ends and another begins.
    pub fn restart(&mut self) {
        self.pulls.clear();
        self.removing = None;
        self.memory = self.status.as_ref().map(Memory::from_status).unwrap_or_default();
        self.written_at = None;
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
            let busy = !self.pulls.is_empty() || self.removing.is_some() || !decision.actions.is_empty();
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

pub fn is_offered(wanted: &RevisionImage) -> bool {
    let here = |p: &PlatformManifest| p.os == "linux" && p.architecture == "amd64";
    wanted.platforms.is_empty() || wanted.platforms.iter().any(here)
}

fn is_whole(observed: &Observed, wanted: &RevisionImage) -> bool {
    observed.images.iter().any(|i| {
        i.complete
            && match &wanted.digest {
                Some(digest) => i.targets.contains(digest),
                None => i.tags.contains_key(&wanted.image),
            }
    })
}
