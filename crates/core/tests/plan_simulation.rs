//! The planner in a simulated cluster: nodes carry out their claims, flap, fail and leave; caches change, are purged and
//! deleted. Whatever the order of events, the promises of the planner hold.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, MicroTime, ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use larder_api::image_cache::{ImageEntry, PodTemplate, Removal};
use larder_api::image_cache_status::{ImageCacheStatus, PurgeStatus, RefreshStatus};
use larder_api::names::CLEANUP_FINALIZER;
use larder_api::node_image_cache::{
    AgentStatus, CacheOnNode, Desired, NodeImageCacheStatus, NodeState, PullerStatus,
};
use larder_api::revision::{ImageCacheRevisionSpec, RevisionBody, RevisionImage};
use larder_api::{ImageCache, ImageCacheRevision, ImageCacheSpec, NodeImageCache};
use larder_core::facts::NodeFacts;
use larder_core::merge::Agent;
use larder_core::plan::{NodeAction, Plan, Snapshot, plan, slot_limit};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Cluster {
    now: Timestamp,
    nodes: BTreeMap<String, NodeFacts>,
    caches: Vec<ImageCache>,
    revisions: Vec<ImageCacheRevision>,
    objects: BTreeMap<String, NodeImageCache>,
    agents: BTreeMap<String, Agent>,
    writes: usize,
}

impl Cluster {
    fn new(nodes: usize) -> Self {
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

    fn join(&mut self, name: &str, incarnation: &str) {
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

    fn cache(&mut self, name: &str, removal: Removal, slots: i32) {
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

    fn revise(&mut self, cache: &str, image: &str) {
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

    fn newest(&self, cache: &str) -> Option<&ImageCacheRevision> {
        let prefix = format!("{cache}-");
        self.revisions
            .iter()
            .filter(|r| r.metadata.name.as_deref().is_some_and(|n| n.starts_with(&prefix)))
            .max_by_key(|r| r.spec.number)
    }

    fn snapshot(&self) -> Snapshot<'_> {
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

    fn step(&mut self) -> Plan {
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

    /// What the node holds of the cache, by the word of whoever pulls there.
    fn on_node(&self, object: &NodeImageCache, uid: &str) -> Option<CacheOnNode> {
        let claim = object.spec.caches.iter().find(|c| c.uid == uid)?;
        self.snapshot()
            .view(object, claim)
            .on_node
            .map(std::borrow::Cow::into_owned)
    }

    /// An agent comes, looks at what is there and says so; or goes, and leaves what it said.
    fn agent(&mut self, node: &str, comes: bool) {
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
    fn work(&mut self, node: &str, ok: bool) {
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

    fn settle(&mut self) {
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
    fn slot_holders(&self, cache: &ImageCache) -> usize {
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
                let Some(facts) = self
                    .nodes
                    .get(*node)
                    .filter(|n| n.ready && n.uid == object.spec.node_uid)
                else {
                    return false;
                };
                let _ = facts;
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

#[derive(Clone, Debug)]
enum Event {
    Work(usize, bool),
    Revise(usize),
    Ready(usize, bool),
    Cordon(usize, bool),
    Taint(usize, bool),
    Recreate(usize),
    Agent(usize, bool),
    Purge(usize, bool),
    Suspend(usize, bool),
    Wait,
    Plan,
}

fn event() -> impl Strategy<Value = Event> {
    let node = 0usize..4;
    let cache = 0usize..3;
    prop_oneof![
        6 => (node.clone(), any::<bool>()).prop_map(|(n, ok)| Event::Work(n, ok)),
        2 => cache.clone().prop_map(Event::Revise),
        1 => (node.clone(), any::<bool>()).prop_map(|(n, b)| Event::Ready(n, b)),
        1 => (node.clone(), any::<bool>()).prop_map(|(n, b)| Event::Cordon(n, b)),
        1 => (node.clone(), any::<bool>()).prop_map(|(n, b)| Event::Taint(n, b)),
        1 => node.clone().prop_map(Event::Recreate),
        2 => (node, any::<bool>()).prop_map(|(n, comes)| Event::Agent(n, comes)),
        1 => (cache.clone(), any::<bool>()).prop_map(|(c, b)| Event::Purge(c, b)),
        1 => (cache, any::<bool>()).prop_map(|(c, b)| Event::Suspend(c, b)),
        1 => Just(Event::Wait),
        6 => Just(Event::Plan),
    ]
}

fn happen(cluster: &mut Cluster, event: &Event, count: &mut usize) {
    let node = |i: usize| format!("node-{i}");
    *count += 1;
    cluster.now += SignedDuration::from_secs(1);
    match event {
        Event::Work(n, ok) => cluster.work(&node(*n), *ok),
        Event::Revise(c) => {
            let name = cluster.caches[*c].metadata.name.clone().unwrap();
            cluster.revise(&name, &format!("i{count}"));
        }
        Event::Ready(n, b) => cluster.nodes.get_mut(&node(*n)).unwrap().ready = *b,
        Event::Cordon(n, b) => cluster.nodes.get_mut(&node(*n)).unwrap().unschedulable = *b,
        Event::Taint(n, b) => {
            let taints = &mut cluster.nodes.get_mut(&node(*n)).unwrap().taints;
            taints.clear();
            if *b {
                taints.push(k8s_openapi::api::core::v1::Taint {
                    key: "gpu".into(),
                    effect: "NoSchedule".into(),
                    ..Default::default()
                });
            }
        }
        Event::Agent(n, comes) => cluster.agent(&node(*n), *comes),
        Event::Recreate(n) => cluster.join(&node(*n), &count.to_string()),
        Event::Purge(c, on) => {
            cluster.caches[*c].status = Some(ImageCacheStatus {
                last_purge: Some(PurgeStatus {
                    in_force: *on,
                    ..PurgeStatus::default()
                }),
                ..ImageCacheStatus::default()
            });
        }
        Event::Suspend(c, b) => cluster.caches[*c].spec.suspend = *b,
        Event::Wait => cluster.now += SignedDuration::from_hours(3),
        Event::Plan => {
            let before = cluster.objects.clone();
            let plan = cluster.step();
            check_step(cluster, &before, &plan);
        }
    }
}

fn check_step(cluster: &Cluster, before: &BTreeMap<String, NodeImageCache>, made: &Plan) {
    for cache in &cluster.caches {
        let spec = &cache.spec.rollout.max_concurrent_nodes;
        let IntOrString::Int(_) = spec else { unreachable!() };
        let limit = slot_limit(spec, cluster.nodes.len());
        // A node that comes back from NotReady may find the slots taken: it is above the limit by no act of ours.
        let assigned_now = made.actions.iter().any(|a| matches!(a, NodeAction::Update { node, spec } if {
            let uid = cache.metadata.uid.as_deref().unwrap();
            let old = before.get(node).and_then(|o| o.spec.caches.iter().find(|c| c.uid == uid));
            let new = spec.caches.iter().find(|c| c.uid == uid);
            matches!((old, new), (Some(o), Some(n)) if o.desired == Desired::Present
                && n.desired == Desired::Present && o.revision != n.revision
                && before.get(node).and_then(|b| cluster.on_node(b, uid)).is_some_and(|s| !s.held.is_empty()))
        }));
        if assigned_now {
            assert!(cluster.slot_holders(cache) <= limit, "slots above the limit");
        }
    }
    // Only labels, the cache itself or another incarnation of the node end a claim.
    for (node, object) in before {
        for claim in &object.spec.caches {
            let same_node = cluster
                .nodes
                .get(node)
                .is_some_and(|n| n.uid == object.spec.node_uid);
            let after = cluster
                .objects
                .get(node)
                .and_then(|o| o.spec.caches.iter().find(|c| c.uid == claim.uid));
            if same_node {
                let after = after.expect("a claim vanished");
                assert_eq!(after.claimed_at, claim.claimed_at);
            }
        }
    }
    // Idempotent: the same plan again changes nothing.
    let again = plan(&cluster.snapshot());
    let deleted = made
        .actions
        .iter()
        .any(|a| matches!(a, NodeAction::Delete { .. }));
    assert!(deleted || again.actions.is_empty(), "not idempotent: {again:?}");
}

/// Both times the purge was called off before the plan had seen which older removals were done, and asked for them again.
#[test]
fn a_purge_called_off_does_not_forget_older_removals_whoever_did_them() {
    let stays = [
        Event::Agent(2, true),
        Event::Purge(0, true),
        Event::Work(2, false),
        Event::Purge(0, false),
    ];
    let goes = [
        Event::Agent(2, true),
        Event::Purge(0, true),
        Event::Work(2, false),
        Event::Purge(0, false),
        Event::Agent(2, false),
    ];
    for events in [stays.as_slice(), goes.as_slice()] {
        let mut cluster = Cluster::new(4);
        cluster.cache("a", Removal::Purge, 1);
        cluster.revise("a", "first");
        let mut count = 0;
        happen(&mut cluster, &Event::Plan, &mut count);
        for event in events {
            // The newer revision is assigned before the purge begins.
            if matches!(event, Event::Purge(_, true)) {
                happen(&mut cluster, &Event::Revise(0), &mut count);
                happen(&mut cluster, &Event::Plan, &mut count);
            }
            happen(&mut cluster, event, &mut count);
            if matches!(event, Event::Work(..)) {
                happen(&mut cluster, &Event::Plan, &mut count);
            }
        }
        happen(&mut cluster, &Event::Plan, &mut count);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold_in_any_order(events in proptest::collection::vec(event(), 1..80)) {
        let mut cluster = Cluster::new(4);
        cluster.cache("a", Removal::Retain, 1);
        cluster.cache("b", Removal::Purge, 2);
        cluster.cache("c", Removal::PurgeAll, 1);
        for cache in ["a", "b", "c"] {
            cluster.revise(cache, "first");
        }
        let mut count = 0;
        for event in &events {
            happen(&mut cluster, event, &mut count);
        }
        // Whatever happened: once nodes are well and pulls succeed, every node ends on the newest revision.
        for node in cluster.nodes.values_mut() {
            node.ready = true;
            node.unschedulable = false;
            node.taints.clear();
        }
        for cache in &mut cluster.caches {
            cache.status = None;
            cache.spec.suspend = false;
        }
        cluster.settle();
        for cache in &cluster.caches {
            let name = cache.metadata.name.as_deref().unwrap();
            let newest = cluster.newest(name).unwrap().metadata.name.clone().unwrap();
            for object in cluster.objects.values() {
                let state = cluster.on_node(object, cache.metadata.uid.as_deref().unwrap()).unwrap();
                prop_assert_eq!(&state.revision, &newest);
                prop_assert_eq!(state.state, NodeState::Ready);
            }
            prop_assert_eq!(cluster.objects.len(), 4);
        }
        let writes = cluster.writes;
        cluster.step();
        prop_assert_eq!(cluster.writes, writes);
    }

    #[test]
    fn the_order_of_lists_does_not_matter(events in proptest::collection::vec(event(), 1..40)) {
        let mut cluster = Cluster::new(4);
        for (name, slots) in [("a", 1), ("b", 2), ("c", 3)] {
            cluster.cache(name, Removal::Purge, slots);
            cluster.revise(name, "first");
        }
        let mut count = 0;
        for event in &events {
            happen(&mut cluster, event, &mut count);
        }
        let straight = plan(&cluster.snapshot());
        let mut snapshot = cluster.snapshot();
        snapshot.nodes.reverse();
        snapshot.caches.reverse();
        prop_assert_eq!(plan(&snapshot), straight);
    }
}

#[test]
fn a_deleted_cache_that_purges_leaves_every_node_and_then_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.cache("b", Removal::Purge, 1);
    cluster.revise("b", "first");
    cluster.settle();
    cluster.caches[0].metadata.deletion_timestamp = Some(Time(cluster.now));
    cluster.step();
    assert!(
        cluster
            .objects
            .values()
            .all(|o| o.spec.caches[0].desired == Desired::Absent)
    );
    cluster.settle();
    assert!(cluster.objects.is_empty());
}

#[test]
fn a_suspended_cache_keeps_its_claims_whatever_becomes_of_labels() {
    let mut cluster = Cluster::new(2);
    cluster.cache("b", Removal::Purge, 1);
    cluster.caches[0].spec.nodes.selector = Some(LabelSelector {
        match_labels: Some([("pool".to_owned(), "web".to_owned())].into()),
        ..LabelSelector::default()
    });
    for node in cluster.nodes.values_mut() {
        node.labels.insert("pool".into(), "web".into());
    }
    cluster.revise("b", "first");
    cluster.settle();
    cluster.caches[0].spec.suspend = true;
    cluster.step();
    if let Some(node) = cluster.nodes.get_mut("node-0") {
        node.labels.clear();
    }
    assert_eq!(cluster.step().actions, []);
    assert_eq!(cluster.objects["node-0"].spec.caches[0].desired, Desired::Present);
    cluster.caches[0].spec.suspend = false;
    cluster.step();
    assert_eq!(cluster.objects["node-0"].spec.caches[0].desired, Desired::Absent);
}

#[test]
fn claims_say_whether_a_service_account_may_bring_secrets() {
    let mut cluster = Cluster::new(1);
    cluster.cache("a", Removal::Retain, 1);
    cluster.revise("a", "one");
    let mut said = Vec::new();
    for name in [None, Some("puller"), Some("")] {
        cluster.caches[0].spec.pod_template = Some(PodTemplate {
            service_account_name: name.map(str::to_owned),
            ..PodTemplate::default()
        });
        cluster.settle();
        said.push(cluster.objects["node-0"].spec.caches[0].service_account);
    }
    assert_eq!(said, [false, true, false]);
    assert_eq!(cluster.objects["node-0"].spec.caches[0].revision, "a-1");
    // A node that comes later is told so at once.
    cluster.caches[0]
        .spec
        .pod_template
        .as_mut()
        .unwrap()
        .service_account_name = Some("puller".into());
    cluster.join("node-1", "1");
    cluster.step();
    assert!(cluster.objects["node-1"].spec.caches[0].service_account);
}

#[test]
fn a_removal_outlives_its_cache_but_not_its_revision() {
    let mut cluster = Cluster::new(1);
    cluster.cache("b", Removal::Purge, 1);
    cluster.revise("b", "first");
    cluster.settle();
    cluster.caches[0].metadata.deletion_timestamp = Some(Time(cluster.now));
    cluster.step();
    cluster.caches.clear();
    cluster.step();
    assert_eq!(cluster.objects["node-0"].spec.caches.len(), 1);
    cluster.revisions.clear();
    cluster.step();
    assert!(cluster.objects.is_empty());
}

#[test]
fn a_claim_that_goes_leaves_its_age_to_those_that_share_its_images() {
    let mut cluster = Cluster::new(1);
    cluster.cache("a", Removal::Retain, 1);
    cluster.revise("a", "shared");
    cluster.settle();
    let first = cluster.objects["node-0"].spec.caches[0].claimed_at.clone();
    cluster.now += SignedDuration::from_hours(1);
    cluster.cache("b", Removal::Purge, 1);
    cluster.revise("b", "shared");
    cluster.settle();
    let claims = &cluster.objects["node-0"].spec.caches;
    assert_eq!(claims.len(), 2);
    assert!(claims[1].claimed_at.0 > first.0);
    cluster.caches.remove(0);
    cluster.step();
    assert_eq!(cluster.objects["node-0"].spec.caches[0].claimed_at, first);
}

#[test]
fn the_first_fill_takes_no_slot_and_the_second_revision_goes_one_by_one() {
    let mut cluster = Cluster::new(3);
    cluster.cache("a", Removal::Retain, 1);
    cluster.revise("a", "one");
    cluster.step();
    assert_eq!(cluster.objects.len(), 3);
    cluster.settle();
    cluster.revise("a", "two");
    let made = cluster.step();
    assert_eq!((made.actions.len(), made.slots_in_use), (1, 1));
    // A node that fails frees its slot at once.
    cluster.work("node-0", false);
    assert_eq!(cluster.step().actions.len(), 1);
    // A node that hangs frees it after timeouts.overall, one that cannot be reached at once.
    cluster.now += SignedDuration::from_hours(2);
    assert_eq!(cluster.step().actions.len(), 1);
}

#[test]
fn a_refresh_that_confirms_goes_by_slots_too() {
    let mut cluster = Cluster::new(3);
    cluster.cache("a", Removal::Retain, 1);
    cluster.revise("a", "one");
    cluster.revisions[0].spec.spec.images[0].digest = None;
    cluster.settle();
    cluster.now += SignedDuration::from_mins(1);
    let refresh = RefreshStatus {
        requested_at: Some(MicroTime(cluster.now)),
        ..RefreshStatus::default()
    };
    cluster.caches[0].status = Some(ImageCacheStatus {
        last_refresh: Some(refresh),
        ..ImageCacheStatus::default()
    });
    for node in ["node-0", "node-1", "node-2"] {
        cluster.now += SignedDuration::from_secs(1);
        let made = cluster.step();
        assert_eq!((made.actions.len(), made.slots_in_use), (1, 1));
        assert!(cluster.step().actions.is_empty(), "the slot is taken");
        cluster.work(node, true);
    }
    assert!(cluster.step().actions.is_empty());
    assert!(
        cluster
            .objects
            .values()
            .all(|o| o.spec.caches[0].verify_after.is_some())
    );
}

#[test]
fn a_removal_that_is_called_off_is_taken_up_again() {
    let mut cluster = Cluster::new(1);
    cluster.cache("b", Removal::Purge, 1);
    cluster.revise("b", "one");
    cluster.settle();
    let purge = PurgeStatus {
        in_force: true,
        ..PurgeStatus::default()
    };
    cluster.caches[0].status = Some(ImageCacheStatus {
        last_purge: Some(purge),
        ..ImageCacheStatus::default()
    });
    cluster.step();
    cluster.caches[0].status = None;
    cluster.revise("b", "two");
    cluster.step();
    let claim = &cluster.objects["node-0"].spec.caches[0];
    assert_eq!(
        (claim.revision.as_str(), claim.remove_revisions.as_slice()),
        ("b-2", &["b-1".to_owned()][..])
    );
}

#[test]
fn percentages_are_of_workable_nodes_rounded_up() {
    for (percent, workable, slots) in [
        ("25%", 0, 1),
        ("25%", 3, 1),
        ("25%", 5, 2),
        ("100%", 7, 7),
        ("1%", 101, 2),
    ] {
        assert_eq!(
            slot_limit(&IntOrString::String(percent.into()), workable),
            slots,
            "{percent} of {workable}"
        );
    }
    assert_eq!(slot_limit(&IntOrString::Int(4), 2), 4);
}
