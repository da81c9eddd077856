//! An image as the OCI image specification has it: documents and blobs, held together by digests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::{Blob, Error, sha256_digest};

/// Media types of the OCI image specification, version 1.1.
pub(super) mod media {
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
}

/// What an image is for, such as linux/amd64.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// Operating system, such as `linux`.
    pub os: String,
    /// Architecture as Go names it, such as `amd64`.
    pub architecture: String,
    /// Variant of the architecture, such as `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// A Linux platform without a variant.
    pub fn linux(architecture: &str) -> Self {
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: None,
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        self.variant
            .iter()
            .try_for_each(|variant| write!(formatter, "/{variant}"))
    }
}

/// Points at a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    pub media_type: String,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Bytes of the blob.
    pub size: u64,
    /// Set on the manifests of an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free annotations; a layout keeps the image's name here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Describes these bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: sha256_digest(bytes),
            size: bytes.len() as u64,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Whether the blob is a list of manifests.
    pub fn is_index(&self) -> bool {
        [media::INDEX, media::DOCKER_LIST].contains(&self.media_type.as_str())
    }
}

/// The part of a manifest or of an index that says what else belongs to the image.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<Descriptor>,
}

/// A complete image: one manifest, or an index over several.
#[derive(Debug, Clone)]
pub struct Image {
    pub(super) root: Descriptor,
    pub(super) blobs: BTreeMap<String, Blob>,
    /// Every manifest below the root, in the order of the index; the root itself without an index.
    pub(super) manifests: Vec<Descriptor>,
    /// Indexes below the root, innermost first, then the root if it is one.
    pub(super) indexes: Vec<Descriptor>,
    /// Configs and layers, each once.
    pub(super) content: Vec<Descriptor>,
    pub(super) name: Option<String>,
    /// Where an archive was unpacked; removed with the last copy of the image.
    pub(super) folder: Option<Arc<TempDir>>,
}

impl Image {
    /// Follows a root through its blobs; `blobs` must hold everything that it reaches.
    pub(super) fn assemble(root: Descriptor, blobs: BTreeMap<String, Blob>) -> Result<Self, Missing> {
        let mut image = Self {
            root: root.clone(),
            blobs,
            manifests: Vec::new(),
            indexes: Vec::new(),
            content: Vec::new(),
            name: None,
            folder: None,
        };
        image.follow(root, &mut BTreeSet::new())?;
        Ok(image)
    }

    fn follow(&mut self, descriptor: Descriptor, seen: &mut BTreeSet<String>) -> Result<(), Missing> {
        if !seen.insert(descriptor.digest.clone()) {
            return Ok(());
        }
        let blob = self
            .blobs
            .get(&descriptor.digest)
            .ok_or_else(|| Missing::Blob(descriptor.digest.clone()))?;
        let bytes = blob.read().map_err(Missing::Unreadable)?;
        let document: Document = serde_json::from_slice(&bytes).map_err(|error| Missing::Meaning {
            digest: descriptor.digest.clone(),
            error,
        })?;
        if descriptor.is_index() {
            for child in document.manifests {
                self.follow(child, seen)?;
            }
            self.indexes.push(descriptor);
            return Ok(());
        }
        for part in document.config.into_iter().chain(document.layers) {
            if !self.blobs.contains_key(&part.digest) {
                return Err(Missing::Blob(part.digest));
            }
            if seen.insert(part.digest.clone()) {
                self.content.push(part);
            }
        }
        self.manifests.push(descriptor);
        Ok(())
    }

    /// Digest that a pull by tag gives: that of the index, or of the only manifest.
    pub fn digest(&self) -> &str {
        &self.root.digest
    }

    /// Digest of the manifest for each platform; a manifest without one counts as linux/amd64's.
    pub fn platforms(&self) -> Vec<(Platform, String)> {
        let of = |manifest: &Descriptor| {
            manifest
                .platform
                .clone()
                .unwrap_or_else(|| Platform::linux("amd64"))
        };
        self.manifests
            .iter()
            .map(|manifest| (of(manifest), manifest.digest.clone()))
            .collect()
    }

    /// Bytes of all configs and layers, each counted once, as a registry keeps them.
    pub fn size(&self) -> u64 {
        self.content.iter().map(|part| part.size).sum()
    }

    /// The name that the image carried in its layout or archive.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

/// Why blobs do not make an image.
#[derive(Debug)]
pub(super) enum Missing {
    /// Named by a manifest or an index, but not there.
    Blob(String),
    /// Neither manifest nor index.
    Meaning {
        /// Which blob.
        digest: String,
        /// What the parser says.
        error: serde_json::Error,
    },
    /// There, but not readable.
    Unreadable(Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platform_reads_as_users_write_it() {
        assert_eq!(Platform::linux("amd64").to_string(), "linux/amd64");
        let arm = Platform {
            variant: Some("v8".to_owned()),
            ..Platform::linux("arm64")
        };
        assert_eq!(arm.to_string(), "linux/arm64/v8");
    }

    #[test]
    fn a_root_without_its_blob_is_not_an_image() {
        let root = Descriptor::of(media::MANIFEST, b"x");
        assert!(matches!(
            Image::assemble(root, BTreeMap::new()),
            Err(Missing::Blob(_))
        ));
    }

    #[test]
    fn a_manifest_without_one_of_its_layers_is_not_an_image() {
        let layer = Descriptor::of(media::LAYER, b"layer");
        let document = Document {
            schema_version: 2,
            layers: vec![layer.clone()],
            ..Document::default()
        };
        let bytes = serde_json::to_vec(&document).unwrap_or_default();
        let root = Descriptor::of(media::MANIFEST, &bytes);
        let blobs = BTreeMap::from([(root.digest.clone(), Blob::Memory(bytes.into()))]);
        let missing = Image::assemble(root, blobs).map(|image| image.root);
        assert!(matches!(missing, Err(Missing::Blob(digest)) if digest == layer.digest));
    }
}
