//! One node with all that decides for it: the planner, the operator's pullers and the node's agent, each of which sees
//! the node's object as last written, or as written a little earlier.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::image_cache::Removal as RemovalMode;
use larder_api::image_cache_status::PurgeStatus;
use larder_api::names::CLEANUP_FINALIZER;
use larder_api::node_image_cache::{CacheClaim, CacheOnNode, Desired, NodeState};
use larder_api::revision::RevisionImage;
use larder_api::{ImageCache, ImageCacheRevision, NodeImageCache, NodeImageCacheSpec};
use larder_core::facts::NodeFacts;
use larder_core::merge::{Agent, AgentFacts, AgentPod, Blocks};
use larder_core::plan::{NodeAction, Snapshot, plan};

use crate::parts::agent::Process;
use crate::parts::objects::{by_name, cache, facts, name_of, revision};
use crate::parts::pods::PullPod;
use crate::parts::removal::Removal;
use crate::parts::runtime::Runtime;

/// A cache may be called Ready without being whole for so many steps: what was seen and written late is put right.
const PATIENCE: u32 = 15;

/// What the API server held of the node's object at one time.
#[derive(Clone, Debug, Default)]
pub struct Version {
    pub object: Option<NodeImageCache>,
    /// Counts the specs, over all objects of the node.
    pub spec: i64,
}

#[derive(Debug)]
pub struct World {
    pub now: Timestamp,
    pub facts: NodeFacts,
    pub caches: Vec<ImageCache>,
    /// The newest revision of each cache, by the cache's name.
    pub newest: BTreeMap<String, String>,
    pub revisions: Vec<ImageCacheRevision>,
    /// Oldest first.
    pub versions: Vec<Version>,
    objects_made: usize,

    /// Index of the version that the operator's pullers decide by.
    pub operator_sees: usize,
    pub jobs: BTreeMap<String, PullPod>,
    pub purges: BTreeMap<String, (larder_core::purge::PurgeJobView, Removal)>,
    /// Steps that the pod of a deleted Job goes on for.
    pub grace: u32,
    pub pods_made: usize,

    pub runtime: Runtime,
    pub agent: Option<Process>,
    pub agent_pod: Option<AgentPod>,
    pub gone_at: Option<Timestamp>,
    pub agents_made: usize,
    /// Index of the version that the agent decides by.
    pub agent_sees: usize,
    pub pulled_by_agent: Vec<String>,

    /// Some cache leaves its images behind.
    pub retains: bool,

    false_for: BTreeMap<String, u32>,
}

impl World {
    pub fn new() -> Self {
        Self {
            now: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1000) + SignedDuration::from_millis(347),
            facts: facts("node"),
            caches: vec![],
            newest: BTreeMap::new(),
            revisions: vec![],
            versions: vec![Version::default()],
            objects_made: 0,
            operator_sees: 0,
            jobs: BTreeMap::new(),
            purges: BTreeMap::new(),
            grace: 0,
            pods_made: 0,
            runtime: Runtime::new(),
            agent: None,
            agent_pod: None,
            gone_at: None,
            agents_made: 0,
            agent_sees: 0,
            pulled_by_agent: vec![],
            retains: false,
            false_for: BTreeMap::new(),
        }
    }

    pub fn revision(&mut self, name: &str, images: Vec<RevisionImage>) {
        self.revisions.push(revision(name, images));
    }

    /// A cache comes, or one of that name comes again.
    pub fn cache(&mut self, name: &str, newest: &str, removal: RemovalMode) -> &mut ImageCache {
        self.newest.insert(name.into(), newest.into());
        self.objects_made += 1;
        self.retains |= removal == RemovalMode::Retain;
        let mut made = cache(&format!("{name}-{}", self.objects_made), name, removal);
        made.metadata.finalizers =
            (removal != RemovalMode::Retain).then(|| vec![CLEANUP_FINALIZER.to_owned()]);
        self.caches.push(made);
        self.caches.last_mut().unwrap()
    }

    pub fn cache_mut(&mut self, name: &str) -> Option<&mut ImageCache> {
        let named = |c: &&mut ImageCache| c.metadata.name.as_deref() == Some(name);
        self.caches.iter_mut().find(named)
    }

    /// A purge is asked for, or called off.
    pub fn purge(&mut self, name: &str, in_force: bool) {
        if let Some(cache) = self.cache_mut(name) {
            cache.status.get_or_insert_default().last_purge = Some(PurgeStatus {
                in_force,
                ..PurgeStatus::default()
            });
        }
    }

    pub fn delete_cache(&mut self, name: &str) {
        let now = self.now;
        let Some(cache) = self.cache_mut(name) else {
            return;
        };
        if cache.metadata.finalizers.is_some() {
            cache.metadata.deletion_timestamp.get_or_insert(Time(now));
        } else {
            let uid = cache.metadata.uid.clone();
            self.caches.retain(|c| c.metadata.uid != uid);
        }
    }

    pub fn latest(&self) -> Option<&NodeImageCache> {
        self.versions.last().unwrap().object.as_ref()
    }

    pub fn spec(&self) -> NodeImageCacheSpec {
        self.latest().map(|o| o.spec.clone()).unwrap_or_default()
    }

    fn push(&mut self, object: Option<NodeImageCache>, new_spec: bool) {
        let spec = self.versions.last().unwrap().spec + i64::from(new_spec);
        self.versions.push(Version { object, spec });
    }

    /// Changes the status of the object of this UID; false if it is gone.
    pub fn write(&mut self, uid: Option<&str>, change: impl FnOnce(&mut NodeImageCache)) -> bool {
        let Some(mut object) = self
            .latest()
            .filter(|o| o.metadata.uid.as_deref() == uid)
            .cloned()
        else {
            return false;
        };
        change(&mut object);
        self.push(Some(object), false);
        true
    }

    pub fn presence(&self, object: Option<&NodeImageCache>) -> Agent {
        let pods: Vec<AgentPod> = self.agent_pod.iter().cloned().collect();
        let agent = object.and_then(|o| o.status.as_ref()?.agent.as_ref());
        let facts = AgentFacts {
            pods: &pods,
            reported: agent.map(|a| a.pod_uid.as_str()),
            asked_at: object
                .and_then(|o| o.metadata.creation_timestamp.as_ref())
                .map(|t| t.0),
            gone_at: self.gone_at,
            joined_at: None,
            others: true,
        };
        Agent::of(&facts, self.now)
    }

    /// The planner: caches in, the node's spec out.
    pub fn plan(&mut self) {
        let object = self.latest().cloned();
        let presence = self.presence(object.as_ref());
        let find = |name: &str| self.revisions.iter().find(|r| name_of(r) == name);
        let caches = self.caches.iter().map(|c| {
            let newest = self.newest.get(c.metadata.name.as_deref().unwrap());
            (c, newest.and_then(|n| find(n)))
        });
        let snapshot = Snapshot {
            now: self.now,
            nodes: vec![&self.facts],
            caches: caches.collect(),
            objects: object.iter().map(|o| ("n", o)).collect(),
            revisions: by_name(&self.revisions),
            agents: BTreeMap::from([("n", presence)]),
            pulls_per_node: 5,
        };
        let actions = plan(&snapshot).actions;
        for action in actions {
            match action {
                NodeAction::Create { spec, .. } => self.create_object(spec),
                NodeAction::Update { spec, .. } => {
                    let mut object = object.clone().unwrap();
                    object.spec = spec;
                    object.metadata.generation = object.metadata.generation.map(|g| g + 1);
                    self.push(Some(object), true);
                }
                NodeAction::Delete { .. } => {
                    // Which owns the purge Jobs.
                    self.purges.clear();
                    self.push(None, true);
                }
            }
        }
        self.finalize();
    }

    fn create_object(&mut self, spec: NodeImageCacheSpec) {
        self.objects_made += 1;
        let mut object = NodeImageCache::new("n", spec);
        object.metadata.uid = Some(format!("object-{}", self.objects_made));
        object.metadata.generation = Some(1);
        object.metadata.creation_timestamp = Some(Time(self.now));
        self.push(Some(object), true);
    }

    /// A cache that is being deleted goes with its last claim, and its Jobs with it.
    fn finalize(&mut self) {
        let claims = self.spec().caches;
        self.caches.retain(|c| {
            let claimed = claims.iter().any(|k| Some(&k.uid) == c.metadata.uid.as_ref());
            c.metadata.deletion_timestamp.is_none() || claimed
        });
        let alive: Vec<String> = self
            .caches
            .iter()
            .filter_map(|c| c.metadata.uid.clone())
            .collect();
        for job in self.jobs.values_mut() {
            if !alive.contains(&job.view().cache_uid) {
                job.ending.get_or_insert(self.grace);
            }
        }
    }

    pub fn images(&self, revision: &str) -> &[RevisionImage] {
        let found = self.revisions.iter().find(|r| name_of(r) == revision);
        found.map_or(&[], |r| r.spec.spec.images.as_slice())
    }

    pub fn view(&self, claim: &CacheClaim) -> Option<CacheOnNode> {
        let object = self.latest()?;
        let blocks = Blocks::of(object, self.presence(Some(object)));
        let view = blocks.view(claim, &by_name(&self.revisions));
        view.on_node.map(std::borrow::Cow::into_owned)
    }

    pub fn is_whole(&self, revision: &str) -> bool {
        self.images(revision).iter().all(|i| self.runtime.has(i))
    }

    /// Nothing is called Ready for long that is not there.
    pub fn check(&mut self) {
        let mut wrong = BTreeMap::new();
        for claim in self.spec().caches {
            if claim.desired == Desired::Absent || self.is_whole(&claim.revision) {
                continue;
            }
            let view = self.view(&claim);
            if view.is_some_and(|v| v.state == NodeState::Ready && v.revision == claim.revision) {
                let steps = self.false_for.get(&claim.uid).copied().unwrap_or(0) + 1;
                assert!(
                    steps <= PATIENCE,
                    "{} is called Ready without all of {}",
                    claim.uid,
                    claim.revision
                );
                wrong.insert(claim.uid, steps);
            }
        }
        self.false_for = wrong;
    }
}
