//! Manifests and indexes of OCI and Docker, as registries send them and runtimes store them: platforms, sizes, parts.

use serde::Deserialize;

use crate::image_ref::is_digest;

/// What a digest may stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// A list of manifests by platform.
    Index(Vec<IndexEntry>),
    /// An image for one platform.
    Image(ImageManifest),
}

/// Operating system and architecture as in Go's GOOS and GOARCH, and the variant of the latter; empty texts where it is
/// not said, as for artifacts that are no container images.
pub type PlatformParts = (String, String, Option<String>);

/// A manifest in an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Digest of the manifest.
    pub digest: String,
    /// None where the index does not say.
    pub platform: Option<PlatformParts>,
}

/// An image for one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageManifest {
    /// The configuration, whose digest is the image id and which names the platform.
    pub config: Descriptor,
    /// The layers, lowest first, compressed.
    pub layers: Vec<Descriptor>,
}

/// A blob as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Descriptor {
    /// Digest of its bytes.
    pub digest: String,
    /// Its bytes.
    pub size: u64,
}

/// Why bytes are not a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or a field of another type.
    #[error("its manifest cannot be read: {0}")]
    Json(String),
    /// The format of before 2017.
    #[error("its manifest has schema version {0}, 2 is expected")]
    SchemaVersion(i64),
    /// Neither an index nor an image.
    #[error("its manifest has neither manifests nor config and layers")]
    Neither,
    /// A digest that is none.
    #[error("its manifest names the malformed digest {0:?}")]
    Digest(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest {
    schema_version: Option<i64>,
    manifests: Option<Vec<RawEntry>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
struct RawEntry {
    digest: String,
    platform: Option<RawPlatform>,
}

/// As in an index, and as in an image's configuration.
#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

impl RawPlatform {
    fn into_parts(self) -> PlatformParts {
        (self.os, self.architecture, self.variant.filter(|v| !v.is_empty()))
    }
}

impl Manifest {
    /// Parses the bytes of an index or manifest. Which it is follows from its fields: media types are optional in OCI.
    /// Entries for the platform `unknown` (attestations) are left out.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let raw: RawManifest =
            serde_json::from_slice(bytes).map_err(|e| ManifestError::Json(e.to_string()))?;
        if let Some(version) = raw.schema_version.filter(|v| *v != 2) {
            return Err(ManifestError::SchemaVersion(version));
        }
        let manifest = match raw {
            RawManifest {
                manifests: Some(entries),
                ..
            } => Self::Index(entries.into_iter().map(IndexEntry::from).collect()),
            RawManifest {
                config: Some(config),
                layers: Some(layers),
                ..
            } => Self::Image(ImageManifest { config, layers }),
            _ => return Err(ManifestError::Neither),
        };
        manifest.checked()
    }

    /// Digests go into URLs, paths and objects: they must be some.
    fn checked(mut self) -> Result<Self, ManifestError> {
        let malformed = match &self {
            Self::Index(entries) => entries.iter().map(|e| &e.digest).find(|d| !is_digest(d)),
            Self::Image(image) => image.blobs().map(|b| &b.digest).find(|d| !is_digest(d)),
        };
        if let Some(malformed) = malformed {
            return Err(ManifestError::Digest(malformed.chars().take(100).collect()));
        }
        if let Self::Index(entries) = &mut self {
            entries.retain(IndexEntry::is_of_a_platform);
        }
        Ok(self)
    }

    /// Digests of the manifests of an index that can be this platform's image, most likely first: those that name it,
    /// then those that name none. Which variant of an architecture it is shows in what the runtime has fetched.
    pub fn candidates(&self, os: &str, architecture: &str) -> Vec<&str> {
        let Self::Index(entries) = self else {
            return Vec::new();
        };
        let named = entries.iter().filter(|entry| {
            let platform = entry.platform.as_ref();
            platform.is_some_and(|(o, a, _)| o == os && a == architecture)
        });
        let unnamed = entries.iter().filter(|entry| entry.platform.is_none());
        named.chain(unnamed).map(|entry| entry.digest.as_str()).collect()
    }
}

impl IndexEntry {
    fn is_of_a_platform(&self) -> bool {
        self.platform
            .as_ref()
            .is_none_or(|(os, architecture, _)| os != "unknown" && architecture != "unknown")
    }
}

impl From<RawEntry> for IndexEntry {
    fn from(entry: RawEntry) -> Self {
        Self {
            digest: entry.digest,
            platform: entry.platform.map(RawPlatform::into_parts),
        }
    }
}

impl ImageManifest {
    /// Bytes of configuration and layers, compressed; at most as many as objects can say.
    pub fn size_bytes(&self) -> i64 {
        let sum = self.blobs().fold(0_u64, |sum, b| sum.saturating_add(b.size));
        i64::try_from(sum).unwrap_or(i64::MAX)
    }

    fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

/// The platform that an image's configuration names.
pub fn platform_of_config(bytes: &[u8]) -> Result<PlatformParts, ManifestError> {
    let raw: RawPlatform = serde_json::from_slice(bytes).map_err(|e| ManifestError::Json(e.to_string()))?;
    Ok(raw.into_parts())
}

#[cfg(test)]
mod tests;
