//! Pulls step by step: what arrives, in which order, and what is left of one that ends early.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use larder_core::image_ref::ImageRef;
use tonic::{Code, Status};

use super::Shared;
use super::image::FakeImage;
use super::model::Model;

/// containerd fetches this many layers at a time.
const AT_A_TIME: usize = 3;

/// How fast layers arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speed {
    /// Bytes of each layer that is being fetched, three at most in one pull.
    pub step: u64,
    /// Time from one step to the next.
    pub every: Duration,
}

impl Default for Speed {
    /// At once.
    fn default() -> Self {
        Self {
            step: u64::MAX,
            every: Duration::ZERO,
        }
    }
}

/// A pull at work.
#[derive(Debug)]
pub(super) struct Download {
    reference: ImageRef,
    image: FakeImage,
    /// Layers to fetch, and their bytes.
    wanted: BTreeMap<String, u64>,
    /// Bytes that this pull has fetched.
    fetched: u64,
}

/// A layer that has not arrived whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredIngest {
    pub offset: u64,
    pub total: u64,
    pub started_at: Timestamp,
    owner: u64,
}

impl Model {
    /// What `PullImage` does, at the model's time and at once. Answers the image id.
    pub fn pull(&mut self, reference: &str) -> Result<String, (Code, String)> {
        let pull = self.begin(reference)?;
        self.step(pull, u64::MAX, u64::MAX);
        Ok(self.finish(pull))
    }

    /// Resolves a reference, stores the documents, and begins with the layers. Answers the pull's number.
    pub(super) fn begin(&mut self, reference: &str) -> Result<u64, (Code, String)> {
        self.pulls.push(reference.to_owned());
        let parsed = ImageRef::parse(reference).map_err(|e| {
            let words = format!("failed to parse image reference {reference:?}: {e}");
            (Code::InvalidArgument, words)
        })?;
        let Some(image) = self.registry.get(&source(&parsed)).cloned() else {
            let name = parsed.normalized();
            let words = format!(
                "failed to pull and unpack image {name:?}: failed to resolve image: {name}: not found"
            );
            return Err((Code::NotFound, words));
        };
        for digest in [&image.manifest, &image.image_manifest] {
            self.known.insert(digest.clone(), image.clone());
        }
        // What is unpacked is not fetched again, even if its layers are gone.
        let unpacked = self.store.has_documents(&image) && self.store.snapshots.contains(&image.chain);
        let layers = image.layers.iter().filter(|_| !unpacked);
        let wanted = layers.map(|layer| (layer.digest.clone(), layer.size)).collect();
        self.store.add_documents(&image);
        self.last_pull += 1;
        let pull = self.last_pull;
        let download = Download {
            reference: parsed,
            image,
            wanted,
            fetched: 0,
        };
        self.downloads.insert(pull, download);
        self.open_ingests(pull);
        Ok(pull)
    }

    /// Fetches up to `bytes` of each of the first layers, and not more than `at_most` in the whole pull. True if all is
    /// there.
    pub(super) fn step(&mut self, pull: u64, bytes: u64, at_most: u64) -> bool {
        self.open_ingests(pull);
        let Some(download) = self.downloads.get_mut(&pull) else {
            return false;
        };
        let mine = self.ingests.iter_mut().filter(|(_, i)| i.owner == pull);
        let places = if bytes == u64::MAX { usize::MAX } else { AT_A_TIME };
        for (_, ingest) in mine.take(places) {
            let left = at_most.saturating_sub(download.fetched);
            let more = bytes.min(ingest.total - ingest.offset).min(left);
            ingest.offset += more;
            download.fetched += more;
        }
        let whole: Vec<(String, u64)> = self
            .ingests
            .iter()
            .filter(|(_, i)| i.owner == pull && i.offset == i.total)
            .map(|(digest, i)| (digest.clone(), i.total))
            .collect();
        for (digest, size) in whole {
            self.ingests.remove(&digest);
            self.store.add_layer(&digest, size);
        }
        download
            .wanted
            .keys()
            .all(|layer| self.store.blobs.contains_key(layer))
    }

    /// Bytes that a pull has fetched.
    fn fetched(&self, pull: u64) -> u64 {
        self.downloads.get(&pull).map_or(0, |download| download.fetched)
    }

    /// Unpacks and writes the records. Answers the image id.
    pub(super) fn finish(&mut self, pull: u64) -> String {
        let Some(Download { reference, image, .. }) = self.downloads.remove(&pull) else {
            return String::new();
        };
        self.store.unpack(&image, self.discard_unpacked_layers);
        self.forgotten.remove(&image.config);
        self.stranded.retain(|stranded| stranded != &image);
        let target = image.target();
        // The record that is pulled is replaced with its labels; those of the other two stay.
        let digest_name = format!("{}@{}", reference.name(), image.manifest);
        if reference.digest().is_some() {
            self.put(&digest_name, &target, true);
        } else {
            self.put(reference.normalized(), &target, true);
            self.put(&digest_name, &target, false);
        }
        self.put(&image.config, &target, false);
        image.config
    }

    /// Ends a pull early: everything that it brought goes, whole layers too, unless something else needs it.
    pub(super) fn cancel(&mut self, pull: u64) {
        if self.downloads.remove(&pull).is_some() {
            self.ingests.retain(|_, ingest| ingest.owner != pull);
            self.collect();
        }
    }

    /// Ends all pulls as a crash does: what they brought stays, and the next pull goes on with it.
    pub(super) fn strand(&mut self) {
        let downloads = std::mem::take(&mut self.downloads);
        self.stranded
            .extend(downloads.into_values().map(|download| download.image));
    }

    /// What pulls at work need, and what a crash left.
    pub(super) fn leased(&self) -> BTreeSet<String> {
        let at_work = self.downloads.values().map(|download| &download.image);
        let images = at_work.chain(&self.stranded);
        images
            .flat_map(|image| {
                image
                    .documents
                    .keys()
                    .chain(image.layers.iter().map(|l| &l.digest))
            })
            .cloned()
            .collect()
    }

    /// All missing layers show at once, with nothing in them. One that another pull fetches is left to it.
    fn open_ingests(&mut self, pull: u64) {
        let Some(download) = self.downloads.get(&pull) else {
            return;
        };
        for (layer, total) in &download.wanted {
            if self.store.blobs.contains_key(layer) {
                continue;
            }
            let ingest = self.ingests.entry(layer.clone()).or_insert(StoredIngest {
                offset: 0,
                total: *total,
                started_at: self.now,
                owner: pull,
            });
            if !self.downloads.contains_key(&ingest.owner) {
                ingest.owner = pull;
            }
        }
    }
}

/// A pull that a caller waits for. Dropped before its end, it leaves nothing.
struct Pulling<'a> {
    shared: &'a Shared,
    pull: u64,
}

impl Drop for Pulling<'_> {
    fn drop(&mut self) {
        self.shared.model().cancel(self.pull);
    }
}

impl Shared {
    /// What `PullImage` does, step by step. Answers the image id.
    pub(super) async fn pull(&self, reference: &str) -> Result<String, Status> {
        let fault = self.faults().pull(reference);
        let begun = self.model().begin(reference);
        let pull = begun.map_err(|(code, message)| Status::new(code, message))?;
        let pulling = Pulling { shared: self, pull };
        loop {
            let speed = self.model().speed;
            tokio::time::sleep(speed.every).await;
            let limit = fault.as_ref().map_or(u64::MAX, |(bytes, _)| *bytes);
            let whole = self.model().step(pulling.pull, speed.step, limit);
            if let Some((bytes, fault)) = &fault
                && self.model().fetched(pulling.pull) >= *bytes
            {
                return self.suffer(fault.clone()).await;
            }
            if whole {
                return Ok(self.model().finish(pulling.pull));
            }
        }
    }
}

/// What the registry is asked for: a digest outweighs a tag.
pub(super) fn source(reference: &ImageRef) -> String {
    match reference.digest() {
        Some(digest) => format!("{}@{digest}", reference.name()),
        None => reference.normalized().to_owned(),
    }
}
