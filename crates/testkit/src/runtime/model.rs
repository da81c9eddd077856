//! What the fake runtime holds, and how removals and records change it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use larder_core::image_ref::{ImageRef, is_digest};
use larder_runtime::Target;
use larder_runtime::proto::cri::ContainerState;

use super::download::{Download, Speed, StoredIngest, source};
use super::events::Subscribers;
use super::image::FakeImage;
use super::store::Store;

/// The label that CRI puts on records it knows.
const MANAGED: (&str, &str) = ("io.cri-containerd.image", "managed");
/// The label that keeps an image from the kubelet's garbage collection.
const PINNED: (&str, &str) = ("io.cri-containerd.pinned", "pinned");

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeContainer {
    /// Its id.
    pub id: String,
    /// Id of its image.
    pub image_id: String,
    /// Its state.
    pub state: ContainerState,
    /// Ids of images that it mounts as volumes.
    pub mounts: Vec<String>,
}

/// A record of the images service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredRecord {
    pub target: Target,
    pub labels: BTreeMap<String, String>,
    pub created_at: Timestamp,
}

/// Images, containers and the registry they come from.
#[derive(Debug, Default)]
pub struct Model {
    /// The runtime's clock.
    pub now: Timestamp,
    /// Containers, ended ones too.
    pub containers: Vec<FakeContainer>,
    /// Every reference that was pulled, in order, failed pulls too.
    pub pulls: Vec<String>,
    /// User and password of registries that want them, by host.
    pub logins: BTreeMap<String, (String, String)>,
    /// How fast layers arrive.
    pub speed: Speed,
    /// As containerd's setting: layers that are unpacked go at the next collection.
    pub discard_unpacked_layers: bool,
    pub(super) registry: BTreeMap<String, FakeImage>,
    /// Everything that was ever pulled, by index and by manifest.
    pub(super) known: BTreeMap<String, FakeImage>,
    pub(super) records: BTreeMap<String, StoredRecord>,
    pub(super) store: Store,
    pub(super) ingests: BTreeMap<String, StoredIngest>,
    pub(super) downloads: BTreeMap<u64, Download>,
    pub(super) last_pull: u64,
    /// Images that were being pulled when the runtime was stopped.
    pub(super) stranded: Vec<FakeImage>,
    /// Ids of images that CRI did not take up when it started, because their content was not there.
    pub(super) forgotten: BTreeSet<String>,
    pub(super) subscribers: Subscribers,
}

/// An image as CRI sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    pub tags: Vec<String>,
    pub digests: Vec<String>,
    pub size: u64,
    pub pinned: bool,
}

impl Model {
    /// Makes an image pullable under a reference; an image that had it before stays pullable by digest.
    pub fn publish(&mut self, reference: &str, image: &FakeImage) {
        if let Ok(parsed) = ImageRef::parse(reference) {
            for digest in [&image.manifest, &image.image_manifest] {
                self.registry
                    .insert(format!("{}@{digest}", parsed.name()), image.clone());
            }
            self.registry
                .insert(parsed.normalized().to_owned(), image.clone());
        }
    }

    /// Names of all records, sorted.
    pub fn names(&self) -> Vec<String> {
        self.records.keys().cloned().collect()
    }

    /// Labels of a record; none if it is absent.
    pub fn labels(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        self.records.get(name).map(|record| &record.labels)
    }

    /// Whether a blob is in the content store.
    pub fn has_content(&self, digest: &str) -> bool {
        self.store.blobs.contains_key(digest)
    }

    /// Takes a blob away behind the runtime's back: what only it refers to is collected, and CRI goes on listing the
    /// image.
    pub fn lose_content(&mut self, digest: &str) {
        if self.store.blobs.remove(digest).is_some() {
            self.subscribers.content_deleted(digest);
            self.collect();
        }
    }

    /// Ends a container.
    pub fn end_container(&mut self, id: &str) {
        for container in self.containers.iter_mut().filter(|c| c.id == id) {
            container.state = ContainerState::ContainerExited;
            self.subscribers.exited(id);
        }
    }

    /// What `RemoveImage` does: every record of the image goes, used or pinned or not, and its content is collected.
    pub fn remove(&mut self, reference: &str) {
        if let Some(id) = self.find(reference) {
            let of_image = |target: &str| self.known.get(target).is_some_and(|i| i.config == id);
            let gone: Vec<String> = self
                .records
                .iter()
                .filter(|(_, record)| of_image(&record.target.digest))
                .map(|(name, _)| name.clone())
                .collect();
            for name in gone {
                self.records.remove(&name);
                self.subscribers.image("delete", &name);
            }
            self.collect();
        }
    }

    /// Writes a record as a pull does. Its time is that of its first making: it survives a move to another target.
    pub(super) fn put(&mut self, name: &str, target: &Target, replace_labels: bool) {
        let known = self.records.contains_key(name);
        let now = self.now;
        let record = self
            .records
            .entry(name.to_owned())
            .or_insert_with(|| StoredRecord {
                target: Target::default(),
                labels: BTreeMap::new(),
                created_at: now,
            });
        record.target.clone_from(target);
        if replace_labels {
            record.labels.clear();
        }
        record.labels.insert(MANAGED.0.to_owned(), MANAGED.1.to_owned());
        self.subscribers
            .image(if known { "update" } else { "create" }, name);
    }

    /// Makes a record as the images service does. CRI sees it, takes it for its own, and makes the image id's.
    pub(super) fn create(&mut self, name: &str, target: Target, labels: BTreeMap<String, String>) -> bool {
        if self.records.contains_key(name) {
            return false;
        }
        let record = StoredRecord {
            target,
            labels,
            created_at: self.now,
        };
        self.records.insert(name.to_owned(), record);
        self.subscribers.image("create", name);
        self.adopt(name);
        true
    }

    /// What CRI does at every event of a record.
    pub(super) fn adopt(&mut self, name: &str) {
        let Some(record) = self.records.get_mut(name) else {
            return;
        };
        let image = self.known.get(&record.target.digest);
        let Some(image) = image.filter(|image| self.store.has_documents(image)) else {
            return;
        };
        if record.labels.get(MANAGED.0).is_some_and(|v| v == MANAGED.1) {
            return;
        }
        record.labels.insert(MANAGED.0.to_owned(), MANAGED.1.to_owned());
        let (id, target) = (image.config.clone(), record.target.clone());
        self.put(&id, &target, false);
    }

    /// Deletes one record. False if it is absent or points elsewhere.
    pub(super) fn delete(&mut self, name: &str, target: Option<&str>, collect: bool) -> bool {
        let fits = self
            .records
            .get(name)
            .is_some_and(|r| target.is_none_or(|t| t == r.target.digest));
        if fits {
            self.records.remove(name);
            self.subscribers.image("delete", name);
            if collect {
                self.collect();
            }
        }
        fits
    }

    /// The garbage collection: what neither a record nor a pull at work reaches goes.
    pub fn collect(&mut self) {
        let leased = self.leased();
        let targets = self.records.values().map(|r| &r.target.digest);
        self.store.collect(targets.chain(&leased));
    }

    /// What a crash and a restart do: subscriptions and pulls end, and CRI takes up only images of which the documents are there.
    pub(super) fn restart(&mut self) {
        self.subscribers.clear();
        self.strand();
        let images = self
            .records
            .values()
            .filter_map(|r| self.known.get(&r.target.digest));
        let broken = images.filter(|image| !self.store.has_documents(image));
        self.forgotten = broken.map(|image| image.config.clone()).collect();
    }

    /// The image behind an id, with or without its prefix, or a name in any spelling.
    pub(super) fn find(&self, reference: &str) -> Option<String> {
        let as_id = if is_digest(reference) {
            reference.to_owned()
        } else {
            format!("sha256:{reference}")
        };
        let listed = self.listed();
        if listed.contains_key(&as_id) {
            return Some(as_id);
        }
        let record = self.records.get(&source(&ImageRef::parse(reference).ok()?))?;
        let id = &self.known.get(&record.target.digest)?.config;
        listed.contains_key(id).then(|| id.clone())
    }

    /// Images by id. From memory: whether the content is still there is not looked at.
    pub(super) fn listed(&self) -> BTreeMap<String, Listed> {
        let mut images: BTreeMap<String, Listed> = BTreeMap::new();
        for (name, record) in &self.records {
            let image = self.known.get(&record.target.digest);
            let Some(image) = image.filter(|image| !self.forgotten.contains(&image.config)) else {
                continue;
            };
            let listed = images.entry(image.config.clone()).or_default();
            listed.size = image.size;
            listed.pinned |= record.labels.get(PINNED.0).is_some_and(|v| v == PINNED.1);
            if name.contains('@') {
                listed.digests.push(name.clone());
            } else if !is_digest(name) {
                listed.tags.push(name.clone());
            }
        }
        images
    }
}
