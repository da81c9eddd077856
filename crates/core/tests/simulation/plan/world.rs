//! The nodes, their objects, and what is asked of them.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use larder_api::image_cache::{ImageEntry, Removal};
use larder_api::image_cache_status::RefreshStatus;
use larder_api::names::CLEANUP_FINALIZER;
use larder_api::node_image_cache::{
    AgentStatus, CacheOnNode, Desired, NodeImageCacheStatus, NodeState, PullerStatus,
};
use larder_api::revision::{ImageCacheRevisionSpec, RevisionBody, RevisionImage};
use larder_api::{ImageCache, ImageCacheRevision, ImageCacheSpec, NodeImageCache};
use larder_core::facts::NodeFacts;
use larder_core::merge::Agent;
use larder_core::plan::{NodeAction, Plan, Snapshot, plan};

#[derive(Clone, Debug)]
pub struct Cluster {
    pub now: Timestamp,
    pub nodes: BTreeMap<String, NodeFacts>,
    pub caches: Vec<ImageCache>,
    pub revisions: Vec<ImageCacheRevision>,
    pub objects: BTreeMap<String, NodeImageCache>,
    pub agents: BTreeMap<String, Agent>,
    pub writes: usize,
}

impl Cluster {
    pub fn new(nodes: usize) -> Self {
        let mut cluster = Self {
            now: Timestamp::UNIX_EPOCH,
            nodes: BTreeMap::new(),
            caches: Vec::new(),
            revisions: Vec::new(),
            objects: BTreeMap::new(),
            agents: BTreeMap::new(),
            writes: 0,
        };
        for i in 0..nodes {
            cluster.join(&format!("node-{i}"), "1");
        }
        cluster
    }

    pub fn join(&mut self, name: &str, incarnation: &str) {
        let facts = NodeFacts {
            name: name.into(),
            uid: format!("{name}-{incarnation}"),
            os: "linux".into(),
            architecture: "amd64".into(),
            ready: true,
            labels: BTreeMap::from([
                ("pool".into(), "web".into()),
                ("kubernetes.io/os".into(), "linux".into()),
            ]),
            ..NodeFacts::default()
        };
        self.nodes.insert(name.into(), facts);
    }

    pub fn cache(&mut self, name: &str, removal: Removal, slots: i32) {
        let mut spec = ImageCacheSpec {
            images: vec![ImageEntry {
                image: "a:1".into(),
                priority: 0,
            }],
            removal,
            ..ImageCacheSpec::default()
        };
        spec.rollout.max_concurrent_nodes = IntOrString::Int(slots);
        let finalizers = (removal != Removal::Retain).then(|| vec![CLEANUP_FINALIZER.to_owned()]);
        self.caches.push(ImageCache {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some("default".into()),
                uid: Some(format!("uid-{name}")),
                finalizers,
                ..ObjectMeta::default()
            },
            spec,
            status: None,
        });
    }

    pub fn revise(&mut self, cache: &str, image: &str) {
        let number = self.revisions.len() as i64 + 1;
        self.revisions.push(ImageCacheRevision {
            metadata: ObjectMeta {
                name: Some(format!("{cache}-{number}")),
                namespace: Some("default".into()),
                ..ObjectMeta::default()
            },
            spec: RevisionBody {
                number,
                spec: ImageCacheRevisionSpec {
                    images: vec![RevisionImage {
                        image: format!("docker.io/library/{image}"),
                        digest: Some(format!("sha256:{image}")),
                        ..RevisionImage::default()
                    }],
                    pull_secrets: vec![],
                },
            },
        });
    }

    pub fn newest(&self, cache: &str) -> Option<&ImageCacheRevision> {
        let prefix = format!("{cache}-");
        self.revisions
            .iter()
            .filter(|r| r.metadata.name.as_deref().is_some_and(|n| n.starts_with(&prefix)))
            .max_by_key(|r| r.spec.number)
    }

    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot {
            now: self.now,
            nodes: self.nodes.values().collect(),
            caches: self
                .caches
                .iter()
                .map(|c| (c, self.newest(c.metadata.name.as_deref().unwrap())))
                .collect(),
            objects: self.objects.iter().map(|(k, v)| (k.as_str(), v)).collect(),
            revisions: self
                .revisions
                .iter()
                .map(|r| (("default", r.metadata.name.as_deref().unwrap()), r))
                .collect(),
            agents: self
                .agents
                .iter()
                .map(|(node, agent)| (node.as_str(), *agent))
                .collect(),
            pulls_per_node: 5,
        }
    }

    pub fn step(&mut self) -> Plan {
        let plan = plan(&self.snapshot());
        for action in &plan.actions {
            self.writes += 1;
            match action.clone() {
                NodeAction::Create { node, spec } => {
                    let mut object = NodeImageCache::new(&node, spec);
                    object.metadata.uid = Some(format!("object-{node}"));
                    object.metadata.resource_version = Some("1".into());
                    assert!(self.objects.insert(node, object).is_none());
                }
                NodeAction::Update { node, spec } => self.objects.get_mut(&node).unwrap().spec = spec,
                NodeAction::Delete { node, .. } => {
                    self.objects.remove(&node).unwrap();
                }
            }
        }
        plan
    }

    /// Somebody asks for a refresh now.
    pub fn refresh(&mut self, cache: &str) {
        let now = Some(MicroTime(self.now));
        let mut caches = self.caches.iter_mut();
        let cache = caches
            .find(|c| c.metadata.name.as_deref() == Some(cache))
            .unwrap();
        cache.status.get_or_insert_default().last_refresh = Some(RefreshStatus {
            requested_at: now,
            ..RefreshStatus::default()
        });
    }

    /// What the node holds of the cache, by the word of whoever pulls there.
    pub fn on_node(&self, object: &NodeImageCache, uid: &str) -> Option<CacheOnNode> {
        let claim = object.spec.caches.iter().find(|c| c.uid == uid)?;
        self.snapshot()
            .view(object, claim)
            .on_node
            .map(std::borrow::Cow::into_owned)
    }

    /// An agent comes, looks at what is there and says so; or goes, and leaves what it said.
    pub fn agent(&mut self, node: &str, comes: bool) {
        if let Some(object) = self.objects.get(node).filter(|_| comes) {
            let seen = object
                .spec
                .caches
                .iter()
                .filter_map(|c| self.on_node(object, &c.uid))
                .collect();
            let mut status = object.status.clone().unwrap_or_default();
            status.agent = Some(AgentStatus {
                puller: PullerStatus {
                    node_uid: object.spec.node_uid.clone(),
                    caches: seen,
                    ..PullerStatus::default()
                },
                ..AgentStatus::default()
            });
            self.objects.get_mut(node).unwrap().status = Some(status);
        }
        let presence = if comes { Agent::Alive } else { Agent::Absent };
        self.agents.insert(node.to_owned(), presence);
    }

    /// The node carries out its claims; `ok` says whether pulls succeed.
    pub fn work(&mut self, node: &str, ok: bool) {
        let Some(object) = self.objects.get(node) else {
            return;
        };
        let old: Vec<CacheOnNode> = object
            .spec
            .caches
            .iter()
            .filter_map(|c| self.on_node(object, &c.uid))
            .collect();
        let object = self.objects.get_mut(node).unwrap();
        if !self
            .nodes
            .get(node)
            .is_some_and(|n| n.ready && n.uid == object.spec.node_uid)
        {
            return;
        }
        let caches = object
            .spec
            .caches
            .iter()
            .map(|claim| {
                let mut next = old
                    .iter()
                    .find(|c| c.uid == claim.uid)
                    .cloned()
                    .unwrap_or_default();
                next.uid.clone_from(&claim.uid);
                next.revision.clone_from(&claim.revision);
                (next.total, next.since) = (1, Some(Time(self.now)));
                if claim.desired == Desired::Absent {
                    next = CacheOnNode {
                        state: NodeState::Purged,
                        uid: claim.uid.clone(),
                        since: Some(Time(self.now)),
                        ..CacheOnNode::default()
                    };
                } else if ok {
                    next.state = NodeState::Ready;
                    next.held.retain(|r| *r != claim.revision);
                    next.held.insert(0, claim.revision.clone());
                    next.checked_at = Some(Time(self.now));
                } else if !next.held.contains(&claim.revision) {
                    next.state = NodeState::Failed;
                }
                if claim.desired == Desired::Present {
                    next.removed_revisions.clone_from(&claim.remove_revisions);
                    next.held.retain(|r| !claim.remove_revisions.contains(r));
                }
                next
            })
            .collect();
        let block = PullerStatus {
            node_uid: object.spec.node_uid.clone(),
            caches,
            ..PullerStatus::default()
        };
        let left = object.status.take().and_then(|s| s.agent);
        object.status = Some(if self.agents.get(node) == Some(&Agent::Alive) {
            NodeImageCacheStatus {
                kubelet: None,
                agent: Some(AgentStatus {
                    puller: block,
                    ..AgentStatus::default()
                }),
            }
        } else {
            NodeImageCacheStatus {
                kubelet: Some(block),
                agent: left,
            }
        });
    }

    pub fn settle(&mut self) {
        for _ in 0..200 {
            let plan = self.step();
            let before = self.objects.clone();
            let names: Vec<String> = self.nodes.keys().cloned().collect();
            for name in names {
                self.work(&name, true);
            }
            if plan.actions.is_empty() && before == self.objects {
                return;
            }
        }
        panic!("no fixed point");
    }

    /// Nodes that move from a revision that they hold to the newest one.
    pub fn slot_holders(&self, cache: &ImageCache) -> usize {
        let uid = cache.metadata.uid.as_deref().unwrap();
        let newest = self
            .newest(cache.metadata.name.as_deref().unwrap())
            .unwrap()
            .metadata
            .name
            .as_deref()
            .unwrap();
        self.objects
            .iter()
            .filter(|(node, object)| {
                let there = self.nodes.get(*node);
                if !there.is_some_and(|n| n.ready && n.uid == object.spec.node_uid) {
                    return false;
                }
                let Some(claim) = object.spec.caches.iter().find(|c| c.uid == uid) else {
                    return false;
                };
                let state = self.on_node(object, uid);
                claim.desired == Desired::Present
                    && claim.revision == newest
                    && state.is_some_and(|s| {
                        let settled = matches!(s.state, NodeState::Ready | NodeState::Failed);
                        !s.held.is_empty() && (s.revision != newest || !settled)
                    })
                    && self.now < claim.assigned_at.0 + SignedDuration::from_hours(2)
            })
            .count()
    }
}
