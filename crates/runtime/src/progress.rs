//! How far a pull is, as containerd's content store shows it while CRI says nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::RuntimeError;
use crate::manifest::{Descriptor, MAX_MANIFEST_BYTES, Manifest};
use crate::runtime::Content;

/// How containerd names the ingest of a layer, before its digest.
const LAYER: &str = "layer-";

/// How far a pull is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Compressed bytes of layers that have arrived, of those there before the pull too.
    pub bytes_done: u64,
    /// Compressed bytes of all layers.
    pub bytes_total: u64,
    /// Layers that are whole.
    pub layers_done: usize,
    /// All layers.
    pub layers_total: usize,
}

/// Follows the pull of one image.
#[derive(Clone, Debug)]
pub struct PullProgress {
    digest: String,
    os: String,
    architecture: String,
    /// Bytes of each layer, once its manifest has come.
    layers: Option<BTreeMap<String, u64>>,
    whole: BTreeSet<String>,
}

impl PullProgress {
    /// For the image with this digest, of an index or of a manifest, on a node of this platform, as Go names it.
    pub fn new(digest: &str, os: &str, architecture: &str) -> Self {
        Self {
            digest: digest.to_owned(),
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            layers: None,
            whole: BTreeSet::new(),
        }
    }

    /// Looks once. None until the manifest is there. Layers of which only the snapshots are kept never arrive.
    pub async fn look(&mut self, content: &dyn Content) -> Result<Option<Progress>, RuntimeError> {
        if self.layers.is_none() {
            let found = layers(content, &self.digest, &self.os, &self.architecture).await?;
            self.layers = found.map(|layers| layers.into_iter().map(|l| (l.digest, l.size)).collect());
        }
        let Some(layers) = &self.layers else {
            return Ok(None);
        };
        // A layer that becomes whole between the two looks is missed once, never counted twice.
        let ingests: BTreeMap<String, u64> = content
            .ingests()
            .await?
            .into_iter()
            .filter_map(|ingest| Some((ingest.reference.strip_prefix(LAYER)?.to_owned(), ingest.offset)))
            .collect();
        for digest in layers.keys() {
            let known = self.whole.contains(digest) || ingests.contains_key(digest);
            if !known && content.blob(digest).await?.is_some() {
                self.whole.insert(digest.clone());
            }
        }
        let arrived = layers.iter().map(|(digest, size)| match ingests.get(digest) {
            _ if self.whole.contains(digest) => *size,
            Some(offset) => *offset.min(size),
            None => 0,
        });
        Ok(Some(Progress {
            bytes_done: arrived.sum(),
            bytes_total: layers.values().sum(),
            layers_done: self.whole.len(),
            layers_total: layers.len(),
        }))
    }
}

/// The layers of an image, lowest first; none while its manifest is not there, or cannot be read.
async fn layers(
    content: &dyn Content,
    digest: &str,
    os: &str,
    architecture: &str,
) -> Result<Option<Vec<Descriptor>>, RuntimeError> {
    let index = match read(content, digest).await? {
        Some(Manifest::Image(image)) => return Ok(Some(image.layers)),
        Some(index) => index,
        None => return Ok(None),
    };
    for candidate in index.candidates(os, architecture) {
        if let Some(Manifest::Image(image)) = read(content, candidate).await? {
            return Ok(Some(image.layers));
        }
    }
    Ok(None)
}

async fn read(content: &dyn Content, digest: &str) -> Result<Option<Manifest>, RuntimeError> {
    match content.read(digest, MAX_MANIFEST_BYTES).await {
        Ok(document) => Ok(document.and_then(|document| Manifest::parse(&document).ok())),
        Err(RuntimeError::TooLarge { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
