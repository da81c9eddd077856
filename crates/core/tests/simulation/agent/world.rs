//! One node with a simulated runtime and registry, and the process of its agent.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use larder_api::names::Reason;
use larder_api::node_image_cache::{
    AgentStatus, CacheClaim, CacheOnNode, ClaimOverrides, ImageOnNode, NodeState, PullerStatus,
};
use larder_api::revision::{PlatformManifest, RevisionImage};
use larder_api::{ImageCacheRevision, NodeImageCacheSpec};
use larder_core::agent::Observed;

use crate::parts::agent::Process;
use crate::parts::objects::{self, digest, id_of};
use crate::parts::runtime::{Runtime, Stored};

/// How the registry answers for a reference.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    Fails(u32, Reason),
    Always(Reason),
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
    pub process: Process,
    pub runtime: Runtime,
    pub fates: BTreeMap<String, Fate>,
    /// What a tag means at the registry where no revision says.
    pub tags: BTreeMap<String, String>,
    pub runtime_error: Option<String>,
    /// Changes of the object are heard of.
    pub watching: bool,
    /// Why removals cannot be carried out.
    pub removal_error: Option<String>,
    pub writes: usize,
    pub begun: Vec<String>,
    pub removed: Vec<String>,
    pub most_pulls: usize,
}

/// `app:1` of the registry, with content named by `content`.
pub fn image(name: &str, content: &str, bytes: i64) -> RevisionImage {
    objects::image(&format!("r.example/{name}"), content, bytes)
}

impl World {
    pub fn new() -> Self {
        Self {
            now: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1000) + SignedDuration::from_millis(347),
            spec: NodeImageCacheSpec {
                node_uid: "node".into(),
                ..NodeImageCacheSpec::default()
            },
            generation: 1,
            revisions: vec![],
            unreadable: BTreeSet::new(),
            status: None,
            kubelet: None,
            process: Process::default(),
            runtime: Runtime::new(),
            fates: BTreeMap::new(),
            tags: BTreeMap::new(),
            runtime_error: None,
            watching: true,
            removal_error: None,
            writes: 0,
            begun: vec![],
            removed: vec![],
            most_pulls: 0,
        }
    }

    pub fn revision(&mut self, name: &str, images: Vec<RevisionImage>) {
        self.revisions.push(objects::revision(name, images));
    }

    pub fn claim(&mut self, cache: &str, revision: &str) -> &mut CacheClaim {
        self.generation += 1;
        let claim = objects::claim(self.now, cache, revision);
        self.spec.caches.push(claim);
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
        self.runtime.images.get(&id_of(&digest(content)))
    }

    pub fn held_mut(&mut self, content: &str) -> &mut Stored {
        self.runtime.images.get_mut(&id_of(&digest(content))).unwrap()
    }

    /// Something else than Larder brings an image.
    pub fn bring(&mut self, name: &str, content: &str) {
        let reference = format!("r.example/{name}");
        let digest = digest(content);
        self.runtime.arrive(self.now, &reference, &digest, true, 0, false);
    }

    pub fn observe(&self) -> Observed {
        self.runtime.observe(self.process.arriving())
    }
}

pub fn is_offered(wanted: &RevisionImage) -> bool {
    let here = |p: &PlatformManifest| p.os == "linux" && p.architecture == "amd64";
    wanted.platforms.is_empty() || wanted.platforms.iter().any(here)
}
