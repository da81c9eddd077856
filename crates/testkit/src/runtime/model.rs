//! What the fake runtime holds, and how pulls and removals change it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use larder_core::image_ref::{ImageRef, is_digest};
use larder_runtime::proto::cri::ContainerState;
use sha2::{Digest, Sha256};
use tonic::Code;

/// The label that CRI puts on records it knows.
const MANAGED: (&str, &str) = ("io.cri-containerd.image", "managed");
/// The label that keeps an image from the kubelet's garbage collection.
const PINNED: (&str, &str) = ("io.cri-containerd.pinned", "pinned");

/// An image as a registry serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeImage {
    /// Digest of its index or manifest.
    pub manifest: String,
    /// Digest of its configuration: the image id.
    pub config: String,
    /// Digests of its layers.
    pub layers: Vec<String>,
    /// Bytes.
    pub size: u64,
}

impl FakeImage {
    /// An image of one layer whose digests are made from a word.
    pub fn new(word: &str) -> Self {
        Self {
            manifest: digest_of(&format!("manifest of {word}")),
            config: digest_of(&format!("config of {word}")),
            layers: vec![digest_of(&format!("layer of {word}"))],
            size: 1_000_000,
        }
    }

    /// The same image behind another manifest, as an index and its own manifest are.
    #[must_use]
    pub fn behind(&self, word: &str) -> Self {
        Self {
            manifest: digest_of(&format!("manifest of {word}")),
            ..self.clone()
        }
    }

    fn blobs(&self) -> impl Iterator<Item = &String> {
        [&self.manifest, &self.config].into_iter().chain(&self.layers)
    }
}

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
    pub target: String,
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
    registry: BTreeMap<String, FakeImage>,
    /// Everything that was ever pulled, by manifest.
    known: BTreeMap<String, FakeImage>,
    pub(super) records: BTreeMap<String, StoredRecord>,
    content: BTreeSet<String>,
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
            self.registry
                .insert(format!("{}@{}", parsed.name(), image.manifest), image.clone());
            self.registry
                .insert(parsed.normalized().to_owned(), image.clone());
        }
    }

    /// What `PullImage` does, at the model's time. Answers the image id.
    pub fn pull(&mut self, reference: &str) -> Result<String, (Code, String)> {
        self.pulls.push(reference.to_owned());
        let invalid = |e| {
            (
                Code::InvalidArgument,
                format!("failed to parse image reference {reference:?}: {e}"),
            )
        };
        let parsed = ImageRef::parse(reference).map_err(invalid)?;
        let by_digest = parsed
            .digest()
            .map(|digest| format!("{}@{digest}", parsed.name()));
        let source = by_digest.as_deref().unwrap_or(parsed.normalized());
        let Some(image) = self.registry.get(source).cloned() else {
            let name = parsed.normalized();
            let words = format!(
                "failed to pull and unpack image {name:?}: failed to resolve image: {name}: not found"
            );
            return Err((Code::NotFound, words));
        };
        self.known.insert(image.manifest.clone(), image.clone());
        self.content.extend(image.blobs().cloned());
        // The record that is pulled is replaced with its labels; those of the other two stay.
        let digest_name = format!("{}@{}", parsed.name(), image.manifest);
        if by_digest.is_some() {
            self.put(&digest_name, &image.manifest, true);
        } else {
            self.put(parsed.normalized(), &image.manifest, true);
            self.put(&digest_name, &image.manifest, false);
        }
        self.put(&image.config, &image.manifest, false);
        Ok(image.config)
    }

    /// The time of a record is that of its first making: it survives a move to another target.
    fn put(&mut self, name: &str, target: &str, replace_labels: bool) {
        let now = self.now;
        let record = self
            .records
            .entry(name.to_owned())
            .or_insert_with(|| StoredRecord {
                target: String::new(),
                labels: BTreeMap::new(),
                created_at: now,
            });
        target.clone_into(&mut record.target);
        if replace_labels {
            record.labels.clear();
        }
        record.labels.insert(MANAGED.0.to_owned(), MANAGED.1.to_owned());
    }

    /// Names of all records, sorted.
    pub fn names(&self) -> Vec<String> {
        self.records.keys().cloned().collect()
    }

    /// Whether a blob is in the content store.
    pub fn has_content(&self, digest: &str) -> bool {
        self.content.contains(digest)
    }

    /// Takes a blob away behind the runtime's back.
    pub fn lose_content(&mut self, digest: &str) {
        self.content.remove(digest);
    }

    /// What `RemoveImage` does: every record of the image goes, used or pinned or not, and its content is collected.
    pub fn remove(&mut self, reference: &str) {
        if let Some(id) = self.find(reference) {
            let gone: Vec<String> = self
                .records
                .keys()
                .filter(|name| self.id_of(name).as_ref() == Some(&id))
                .cloned()
                .collect();
            for name in gone {
                self.records.remove(&name);
            }
            self.collect();
        }
    }

    /// Deletes one record. False if it is absent or points elsewhere.
    pub(super) fn delete(&mut self, name: &str, target: Option<&str>, collect: bool) -> bool {
        let fits = self
            .records
            .get(name)
            .is_some_and(|r| target.is_none_or(|t| t == r.target));
        if fits {
            self.records.remove(name);
            if collect {
                self.collect();
            }
        }
        fits
    }

    /// The garbage collection: what no record reaches goes.
    fn collect(&mut self) {
        let targets: BTreeSet<&String> = self.records.values().map(|r| &r.target).collect();
        let reached: BTreeSet<&String> = targets
            .iter()
            .filter_map(|t| self.known.get(*t))
            .flat_map(FakeImage::blobs)
            .collect();
        self.content.retain(|blob| reached.contains(blob));
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
        let parsed = ImageRef::parse(reference).ok()?;
        let name = match parsed.digest() {
            Some(digest) => format!("{}@{digest}", parsed.name()),
            None => parsed.normalized().to_owned(),
        };
        self.id_of(&name)
    }

    fn id_of(&self, name: &str) -> Option<String> {
        let record = self.records.get(name)?;
        Some(self.known.get(&record.target)?.config.clone())
    }

    /// Images by id. From memory: whether the content is still there is not looked at.
    pub(super) fn listed(&self) -> BTreeMap<String, Listed> {
        let mut images: BTreeMap<String, Listed> = BTreeMap::new();
        for (name, record) in &self.records {
            let Some(image) = self.known.get(&record.target) else {
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

fn digest_of(text: &str) -> String {
    let hash = Sha256::digest(text.as_bytes());
    hash.iter()
        .fold("sha256:".to_owned(), |hex, byte| format!("{hex}{byte:02x}"))
}
