//! How far a pull is, as containerd's content store shows it while CRI says nothing.

use std::collections::BTreeMap;

use larder_core::manifest::{Descriptor, Manifest};

use crate::content::MAX_MANIFEST_BYTES;
use crate::error::RuntimeError;
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
    /// Layers of which a part has arrived: the others wait for their turn, which the runtime gives to a few at a time.
    pub layers_begun: usize,
    /// All layers.
    pub layers_total: usize,
}

/// Follows the pull of one image.
#[derive(Clone, Debug)]
pub struct PullProgress {
    digest: String,
    os: String,
    architecture: String,
    /// By digest, once the manifest has come.
    layers: Option<BTreeMap<String, Layer>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Layer {
    size: u64,
    arrived: u64,
    whole: bool,
}

impl PullProgress {
    /// For the image with this digest, of an index or of a manifest, on a node of this platform, as Go names it.
    pub fn new(digest: &str, os: &str, architecture: &str) -> Self {
        Self {
            digest: digest.to_owned(),
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            layers: None,
        }
    }

    /// Looks once. None until the manifest is there. Layers of which only the snapshots are kept never arrive. It never
    /// goes back: containerd shows a layer neither as an ingest nor as a blob while it commits it.
    pub async fn look(&mut self, content: &dyn Content) -> Result<Option<Progress>, RuntimeError> {
        if self.layers.is_none() {
            let found = layers(content, &self.digest, &self.os, &self.architecture).await?;
            self.layers = found.map(|layers| layers.into_iter().map(Layer::of).collect());
        }
        let Some(layers) = &mut self.layers else {
            return Ok(None);
        };
        let ingests: BTreeMap<String, u64> = content
            .ingests()
            .await?
            .into_iter()
            .filter_map(|ingest| Some((ingest.reference.strip_prefix(LAYER)?.to_owned(), ingest.offset)))
            .collect();
        for (digest, layer) in layers.iter_mut().filter(|(_, layer)| !layer.whole) {
            match ingests.get(digest) {
                Some(offset) => layer.arrived = layer.arrived.max(*offset).min(layer.size),
                None if content.blob(digest).await?.is_some() => {
                    layer.arrived = layer.size;
                    layer.whole = true;
                }
                None => {}
            }
        }
        Ok(Some(Progress {
            bytes_done: layers.values().map(|layer| layer.arrived).sum(),
            bytes_total: layers
                .values()
                .fold(0, |sum, layer| layer.size.saturating_add(sum)),
            layers_done: layers.values().filter(|layer| layer.whole).count(),
            layers_begun: layers
                .keys()
                .filter(|digest| ingests.get(*digest).is_some_and(|offset| *offset > 0))
                .count(),
            layers_total: layers.len(),
        }))
    }
}

impl Layer {
    fn of(descriptor: Descriptor) -> (String, Self) {
        let layer = Self {
            size: descriptor.size,
            ..Self::default()
        };
        (descriptor.digest, layer)
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
