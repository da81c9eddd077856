//! An image as a registry serves it: real documents, layers of which only the digests exist.

use std::collections::BTreeMap;

use larder_core::manifest::Descriptor;
use larder_runtime::Target;
use serde_json::json;
use sha2::{Digest, Sha256};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image as a registry serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeImage {
    /// Digest of its index or, where it has none, of its manifest.
    pub manifest: String,
    /// Digest of the manifest of this machine's platform.
    pub image_manifest: String,
    /// Digest of its configuration: the image id.
    pub config: String,
    /// Its layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Bytes of its layers.
    pub size: u64,
    /// Name of the snapshot that it is unpacked to.
    pub(super) chain: String,
    /// Index, manifest and configuration by digest.
    pub(super) documents: BTreeMap<String, Document>,
}

/// A document of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Document {
    pub media_type: &'static str,
    pub bytes: Vec<u8>,
    /// Digests of what it names, under the part of containerd's label that says which.
    pub children: BTreeMap<String, String>,
}

impl FakeImage {
    /// An image of one layer of 1 MB whose digests are made from a word.
    pub fn new(word: &str) -> Self {
        Self::with_layers(word, &[1_000_000])
    }

    /// An image with layers of these sizes in bytes whose digests are made from a word.
    pub fn with_layers(word: &str, sizes: &[u64]) -> Self {
        let layers: Vec<Descriptor> = sizes
            .iter()
            .enumerate()
            .map(|(number, &size)| Descriptor {
                digest: digest_of(format!("layer {number} of {word}").as_bytes()),
                size,
            })
            .collect();
        let diff_ids: Vec<&String> = layers.iter().map(|layer| &layer.digest).collect();
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {"Labels": {"word": word}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let mut image = Self {
            manifest: String::new(),
            image_manifest: String::new(),
            config: String::new(),
            size: sizes.iter().sum(),
            chain: digest_of(format!("{diff_ids:?}").as_bytes()),
            layers: layers.clone(),
            documents: BTreeMap::new(),
        };
        let config = image.add(CONFIG, &config, BTreeMap::new());
        let descriptors: Vec<_> = layers
            .iter()
            .map(|layer| json!({"mediaType": LAYER, "digest": layer.digest, "size": layer.size}))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": config.digest, "size": config.size},
            "layers": descriptors,
        });
        let mut children: BTreeMap<String, String> = layers
            .into_iter()
            .enumerate()
            .map(|(number, layer)| (format!("l.{number}"), layer.digest))
            .collect();
        children.insert("config".to_owned(), config.digest.clone());
        image.config = config.digest;
        image.manifest = image.add(MANIFEST, &manifest, children).digest;
        image.image_manifest.clone_from(&image.manifest);
        image
    }

    /// The same image behind an index that is made from a word.
    #[must_use]
    pub fn behind(&self, word: &str) -> Self {
        let mut image = self.clone();
        let size = self.documents.get(&self.image_manifest).map(|d| d.bytes.len());
        let index = json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "annotations": {"word": word},
            "manifests": [{
                "mediaType": MANIFEST,
                "digest": self.image_manifest,
                "size": size,
                "platform": {"os": "linux", "architecture": architecture()},
            }],
        });
        let children = BTreeMap::from([("m.0".to_owned(), self.image_manifest.clone())]);
        if self.manifest != self.image_manifest {
            image.documents.remove(&self.manifest);
        }
        image.manifest = image.add(INDEX, &index, children).digest;
        image
    }

    /// What a record of it points at.
    pub(super) fn target(&self) -> Target {
        let document = self.documents.get(&self.manifest);
        Target {
            media_type: document.map(|d| d.media_type.to_owned()).unwrap_or_default(),
            digest: self.manifest.clone(),
            size: document.map(|d| d.bytes.len() as u64).unwrap_or_default(),
        }
    }

    fn add(
        &mut self,
        media_type: &'static str,
        document: &serde_json::Value,
        children: BTreeMap<String, String>,
    ) -> Descriptor {
        let bytes = document.to_string().into_bytes();
        let digest = digest_of(&bytes);
        let size = bytes.len() as u64;
        self.documents.insert(
            digest.clone(),
            Document {
                media_type,
                bytes,
                children,
            },
        );
        Descriptor { digest, size }
    }
}

/// This machine's, as Go names it.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn digest_of(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter()
        .fold("sha256:".to_owned(), |hex, byte| format!("{hex}{byte:02x}"))
}
