mod conditions;
mod drift;
mod failures;
mod nodes;
mod properties;
mod requests;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use larder_api::image_cache::{ImageEntry, Removal};
use larder_api::image_cache_status::SourceStatus;
use larder_api::names::Reason;
use larder_api::node_image_cache::{CacheClaim, CacheOnNode, Desired, ImageOnNode, ImageState, NodeState};
use larder_api::revision::{PlatformManifest, RevisionBody};
use larder_api::{ImageCache, ImageCacheRevision, ImageCacheSpec, ImageCacheStatus};

use super::{NodeView, ReportInput, ResolveFailure, report};
use crate::facts::NodeFacts;
use crate::images::{WantedImages, wanted};
use crate::revision::{Resolved, build};
use crate::select::Eligibility;

/// Minutes after the beginning.
fn at(minutes: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes)
}

fn digest(n: usize) -> String {
    format!("sha256:{n:064x}")
}

/// One node of a [`World`].
#[derive(Clone, Debug)]
struct Place {
    facts: NodeFacts,
    eligibility: Eligibility,
    claim: Option<CacheClaim>,
    on_node: Option<CacheOnNode>,
    images: Vec<ImageOnNode>,
}

impl Place {
    fn new(name: &str) -> Self {
        let facts = NodeFacts {
            name: name.into(),
            uid: format!("uid-{name}"),
            ready: true,
            os: "linux".into(),
            architecture: "amd64".into(),
            ..NodeFacts::default()
        };
        Self {
            facts,
            eligibility: Eligibility::Workable,
            claim: None,
            on_node: None,
            images: Vec::new(),
        }
    }

    fn is(mut self, eligibility: Eligibility) -> Self {
        self.facts.ready = eligibility != Eligibility::Unreachable;
        self.eligibility = eligibility;
        self
    }

    fn claims(mut self, revision: &str, minutes: i64) -> Self {
        self.claim = Some(CacheClaim {
            namespace: "team".into(),
            name: "web".into(),
            uid: "c1".into(),
            revision: revision.into(),
            desired: Desired::Present,
            remove_revisions: Vec::new(),
            claimed_at: Time(at(0)),
            assigned_at: Time(at(minutes)),
            removal: Removal::Retain,
            verify_after: None,
            puller: larder_api::image_cache::Puller::Job,
            private_images: larder_api::image_cache::PrivateImages::Kubelet,
            service_account: false,
            overrides: None,
        });
        self
    }

    fn absent(mut self) -> Self {
        self.claim.as_mut().unwrap().desired = Desired::Absent;
        self
    }

    fn verify_after(mut self, minutes: i64) -> Self {
        self.claim.as_mut().unwrap().verify_after = Some(Time(at(minutes)));
        self
    }

    /// Reports of the revision that is claimed.
    fn reports(mut self, state: NodeState) -> Self {
        let revision = self.claim.as_ref().unwrap().revision.clone();
        let whole = state == NodeState::Ready;
        self.on_node = Some(CacheOnNode {
            namespace: "team".into(),
            name: "web".into(),
            uid: "c1".into(),
            revision: revision.clone(),
            held: if whole { vec![revision] } else { Vec::new() },
            state,
            since: Some(Time(at(1))),
            ready: if whole { 2 } else { 1 },
            total: 2,
            bytes: if whole { 3 << 30 } else { 1 << 30 },
            checked_at: whole.then(|| Time(at(1))),
            ..CacheOnNode::default()
        });
        self
    }

    fn edit(mut self, change: impl FnOnce(&mut CacheOnNode)) -> Self {
        change(self.on_node.as_mut().unwrap());
        self
    }

    fn image(mut self, image: &str, state: ImageState, reason: Option<Reason>, message: &str) -> Self {
        self.images.push(ImageOnNode {
            cache: "team/web".into(),
            image: image.into(),
            digest: Some(digest(1)),
            state,
            reason,
            message: message.into(),
            attempts: 1,
            since: Some(Time(at(1))),
            ..ImageOnNode::default()
        });
        self
    }

    fn fails(self, image: &str, reason: Reason, message: &str) -> Self {
        self.reports(NodeState::Failed)
            .image(image, ImageState::Failed, Some(reason), message)
    }
}

/// Everything that a report is made from, owned.
#[derive(Clone, Debug)]
struct World {
    cache: ImageCache,
    wanted: WantedImages,
    revision: Option<ImageCacheRevision>,
    unresolved: Vec<ResolveFailure>,
    sources: Vec<SourceStatus>,
    resolving: bool,
    places: Vec<Place>,
    previous: ImageCacheStatus,
    now: Timestamp,
}

/// `nginx` and `redis:7` at revision `web-2`, three nodes that hold it.
fn world() -> World {
    let images = ["nginx", "redis:7"]
        .map(|i| ImageEntry {
            image: i.into(),
            priority: 0,
        })
        .to_vec();
    let mut cache = ImageCache::new(
        "web",
        ImageCacheSpec {
            images,
            ..ImageCacheSpec::default()
        },
    );
    cache.metadata.namespace = Some("team".into());
    cache.metadata.uid = Some("c1".into());
    cache.metadata.generation = Some(7);
    let wanted = wanted(&cache.spec);
    let resolved: BTreeMap<String, Resolved> = wanted
        .images
        .iter()
        .enumerate()
        .map(|(i, image)| {
            let platform = |architecture: &str, gib: i64| PlatformManifest {
                os: "linux".into(),
                architecture: architecture.into(),
                size_bytes: gib << 30,
                ..PlatformManifest::default()
            };
            let resolved = Resolved {
                digest: Some(digest(1)),
                platforms: vec![platform("amd64", 1 + i as i64), platform("arm64", 1)],
                private: false,
            };
            (image.reference.normalized().to_owned(), resolved)
        })
        .collect();
    let spec = build(&wanted, &resolved, &[]);
    let revision = ImageCacheRevision::new("web-2", RevisionBody { number: 2, spec });
    World {
        cache,
        wanted,
        revision: Some(revision),
        unresolved: Vec::new(),
        sources: Vec::new(),
        resolving: false,
        places: ["n1", "n2", "n3"]
            .map(|n| Place::new(n).claims("web-2", 0).reports(NodeState::Ready))
            .to_vec(),
        previous: ImageCacheStatus::default(),
        now: at(10),
    }
}

impl World {
    fn with(places: Vec<Place>) -> Self {
        Self { places, ..world() }
    }

    fn respec(&mut self, change: impl FnOnce(&mut ImageCacheSpec)) {
        change(&mut self.cache.spec);
        self.wanted = wanted(&self.cache.spec);
    }

    fn input(&self) -> ReportInput<'_> {
        ReportInput {
            cache: &self.cache,
            wanted: &self.wanted,
            revision: self.revision.as_ref(),
            unresolved: &self.unresolved,
            sources: &self.sources,
            resolving: self.resolving,
            nodes: self
                .places
                .iter()
                .map(|p| NodeView {
                    facts: &p.facts,
                    eligibility: p.eligibility,
                    claim: p.claim.as_ref(),
                    on_node: p.on_node.as_ref().map(std::borrow::Cow::Borrowed),
                    images: p.images.iter().collect(),
                    agent: false,
                    kubelet: true,
                    watched: false,
                })
                .collect(),
            previous: &self.previous,
            now: self.now,
        }
    }

    fn report(&self) -> ImageCacheStatus {
        report(&self.input())
    }

    fn condition(&self, kind: &str) -> Condition {
        self.report()
            .conditions
            .into_iter()
            .find(|c| c.type_ == kind)
            .unwrap()
    }

    /// Status and reason, as `True/AllNodesReady`.
    fn verdict(&self, kind: &str) -> String {
        let condition = self.condition(kind);
        format!("{}/{}", condition.status, condition.reason)
    }
}

fn unresolved(image: &str, reason: Reason) -> ResolveFailure {
    ResolveFailure {
        image: image.into(),
        reason,
        message: "the registry's words".into(),
    }
}
