//! What of the content store says whether images are whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use larder_core::manifest::{Descriptor, ImageManifest, Manifest};
use tonic::Code;

use crate::content::MAX_MANIFEST_BYTES;
use crate::error::RuntimeError;
use crate::runtime::Content;
use crate::types::Blob;

/// Before the snapshotter's name, the label of a configuration that keeps the snapshot of the image's layers.
const SNAPSHOT_LABEL: &str = "containerd.io/gc.ref.snapshot.";

/// What was read before and cannot change, so that it is read once; what went from the node is forgotten.
#[derive(Debug, Default)]
pub struct Manifests {
    /// By digest; none for a document that cannot be read as a manifest.
    manifests: BTreeMap<String, Option<Arc<Manifest>>>,
    /// Images that a container mounts, by its id.
    pub(super) mounts: BTreeMap<String, Vec<String>>,
}

/// The content store at one moment.
#[derive(Debug, Default)]
pub(super) struct Store {
    blobs: BTreeSet<String>,
    /// Snapshots that configurations refer to: snapshotter and name.
    unpacked: BTreeMap<String, Vec<(String, String)>>,
    snapshots: BTreeMap<String, BTreeSet<String>>,
    /// None for a document that cannot be read as a manifest.
    manifests: BTreeMap<String, Option<Arc<Manifest>>>,
}

/// Whether an image can be used by one of its targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Checked {
    pub whole: bool,
    pub layers: Vec<Descriptor>,
}

impl Store {
    /// Lists blobs, reads the manifests behind `targets`, and lists snapshots where a layer is missing.
    pub async fn look(
        content: &dyn Content,
        targets: &BTreeSet<&str>,
        known: &mut Manifests,
    ) -> Result<Self, RuntimeError> {
        let mut store = Self::default();
        for blob in content.blobs().await? {
            store.add(blob);
        }
        for target in targets {
            let Some(manifest) = store.read(content, target, known).await? else {
                continue;
            };
            if let Manifest::Index(entries) = manifest.as_ref() {
                for entry in entries {
                    store.read(content, &entry.digest, known).await?;
                }
            }
        }
        known.manifests.clone_from(&store.manifests);
        for snapshotter in store.snapshotters_in_question() {
            let listed = match content.snapshots(&snapshotter).await {
                Ok(listed) => listed,
                // A snapshotter that was switched off.
                Err(error) if matches!(error.code(), Some(Code::InvalidArgument | Code::NotFound)) => {
                    BTreeSet::new()
                }
                Err(error) => return Err(error),
            };
            store.snapshots.insert(snapshotter, listed);
        }
        Ok(store)
    }

    fn add(&mut self, blob: Blob) {
        let unpacked: Vec<(String, String)> = blob
            .labels
            .into_iter()
            .filter_map(|(key, name)| Some((key.strip_prefix(SNAPSHOT_LABEL)?.to_owned(), name)))
            .collect();
        if !unpacked.is_empty() {
            self.unpacked.insert(blob.digest.clone(), unpacked);
        }
        self.blobs.insert(blob.digest);
    }

    async fn read(
        &mut self,
        content: &dyn Content,
        digest: &str,
        known: &Manifests,
    ) -> Result<Option<Arc<Manifest>>, RuntimeError> {
        if let Some(read) = self.manifests.get(digest) {
            return Ok(read.clone());
        }
        if !self.blobs.contains(digest) {
            return Ok(None);
        }
        let manifest = match known.manifests.get(digest) {
            Some(manifest) => manifest.clone(),
            None => match content.read(digest, MAX_MANIFEST_BYTES).await {
                Ok(Some(document)) => Manifest::parse(&document).ok().map(Arc::new),
                Ok(None) => {
                    self.blobs.remove(digest);
                    return Ok(None);
                }
                Err(RuntimeError::TooLarge { .. }) => None,
                Err(error) => return Err(error),
            },
        };
        self.manifests.insert(digest.to_owned(), manifest.clone());
        Ok(manifest)
    }

    fn snapshotters_in_question(&self) -> BTreeSet<String> {
        let images = self
            .manifests
            .values()
            .flatten()
            .filter_map(|m| match m.as_ref() {
                Manifest::Image(image) if !self.has_layers(image) => Some(&image.config.digest),
                _ => None,
            });
        images
            .filter_map(|config| self.unpacked.get(config))
            .flatten()
            .map(|(snapshotter, _)| snapshotter.clone())
            .collect()
    }

    /// Whether the image with this id can be used by this target. A document that is there and cannot be read is not
    /// held against the image: the runtime, which has read it, lists it.
    pub fn check(&self, id: &str, target: &str) -> Checked {
        if !self.blobs.contains(target) {
            return Checked::default();
        }
        match self.manifests.get(target) {
            Some(Some(manifest)) => match self.image_in(manifest, id) {
                Some(image) => Checked {
                    whole: self.is_whole(image),
                    layers: image.layers.clone(),
                },
                None => Checked::default(),
            },
            Some(None) | None => Checked {
                whole: true,
                layers: Vec::new(),
            },
        }
    }

    /// Whether the target leads to the image with this id.
    pub fn leads_to(&self, target: &str, id: &str) -> bool {
        let manifest = self.manifests.get(target).and_then(Option::as_deref);
        manifest.is_some_and(|manifest| self.image_in(manifest, id).is_some())
    }

    /// An index leads to the images of which the manifest is there.
    fn image_in<'a>(&'a self, manifest: &'a Manifest, id: &str) -> Option<&'a ImageManifest> {
        let fits = |manifest: &'a Manifest| match manifest {
            Manifest::Image(image) if image.config.digest == id => Some(image),
            _ => None,
        };
        match manifest {
            Manifest::Image(_) => fits(manifest),
            Manifest::Index(entries) => entries
                .iter()
                .filter_map(|entry| self.manifests.get(&entry.digest)?.as_deref())
                .find_map(fits),
        }
    }

    fn is_whole(&self, image: &ImageManifest) -> bool {
        self.blobs.contains(&image.config.digest) && (self.has_layers(image) || self.is_unpacked(image))
    }

    fn has_layers(&self, image: &ImageManifest) -> bool {
        image
            .layers
            .iter()
            .all(|layer| self.blobs.contains(&layer.digest))
    }

    fn is_unpacked(&self, image: &ImageManifest) -> bool {
        let snapshots = self.unpacked.get(&image.config.digest).into_iter().flatten();
        snapshots
            .filter_map(|(snapshotter, name)| Some(self.snapshots.get(snapshotter)?.contains(name)))
            .any(|there| there)
    }
}
