//! The fake's content store: blobs with containerd's labels, snapshots, and the garbage collection over them.

use std::collections::{BTreeMap, BTreeSet};

use super::image::FakeImage;

/// The only snapshotter.
pub(super) const SNAPSHOTTER: &str = "overlayfs";
const CONTENT_LABEL: &str = "containerd.io/gc.ref.content.";
const SNAPSHOT_LABEL: &str = "containerd.io/gc.ref.snapshot.overlayfs";

/// A blob that is whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StoredBlob {
    pub size: u64,
    pub labels: BTreeMap<String, String>,
    /// Empty for layers.
    pub bytes: Vec<u8>,
}

/// Blobs and snapshots.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub blobs: BTreeMap<String, StoredBlob>,
    pub snapshots: BTreeSet<String>,
}

impl Store {
    /// Writes index, manifest and configuration, with the labels that tie them together.
    pub fn add_documents(&mut self, image: &FakeImage) {
        for (digest, document) in &image.documents {
            let labels = document.children.iter();
            let labels = labels.map(|(key, child)| (format!("{CONTENT_LABEL}{key}"), child.clone()));
            let blob = self.blobs.entry(digest.clone()).or_default();
            blob.size = document.bytes.len() as u64;
            blob.bytes.clone_from(&document.bytes);
            blob.labels.extend(labels);
        }
    }

    pub fn add_layer(&mut self, digest: &str, size: u64) {
        let blob = self.blobs.entry(digest.to_owned()).or_default();
        blob.size = size;
    }

    /// Makes the snapshot of an image. With `discard`, nothing keeps its layers any more.
    pub fn unpack(&mut self, image: &FakeImage, discard: bool) {
        self.snapshots.insert(image.chain.clone());
        if let Some(config) = self.blobs.get_mut(&image.config) {
            config
                .labels
                .insert(SNAPSHOT_LABEL.to_owned(), image.chain.clone());
        }
        if let Some(manifest) = self.blobs.get_mut(&image.image_manifest).filter(|_| discard) {
            let layer = format!("{CONTENT_LABEL}l.");
            manifest.labels.retain(|key, _| !key.starts_with(&layer));
        }
    }

    /// Whether the documents of an image are all there.
    pub fn has_documents(&self, image: &FakeImage) -> bool {
        image
            .documents
            .keys()
            .all(|digest| self.blobs.contains_key(digest))
    }

    /// Removes what cannot be reached from the roots by the labels of what is there.
    pub fn collect<'a>(&mut self, roots: impl Iterator<Item = &'a String>) {
        let mut blobs: BTreeSet<String> = BTreeSet::new();
        let mut snapshots: BTreeSet<String> = BTreeSet::new();
        let mut open: Vec<String> = roots.cloned().collect();
        while let Some(digest) = open.pop() {
            if let Some(blob) = self.blobs.get(&digest) {
                for (key, child) in &blob.labels {
                    if key.starts_with(CONTENT_LABEL) && !blobs.contains(child) {
                        open.push(child.clone());
                    } else if key == SNAPSHOT_LABEL {
                        snapshots.insert(child.clone());
                    }
                }
            }
            blobs.insert(digest);
        }
        self.blobs.retain(|digest, _| blobs.contains(digest));
        self.snapshots.retain(|name| snapshots.contains(name));
    }
}
