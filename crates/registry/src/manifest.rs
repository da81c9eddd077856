//! Manifests and indexes of OCI and Docker, read for platforms and sizes.

use larder_core::image_ref::is_digest;
use serde::Deserialize;

/// Asked for in Accept, most wanted first.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// What a digest may stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// A list of manifests by platform.
    Index(Vec<IndexEntry>),
    /// An image for one platform.
    Image {
        /// The image's configuration, which names the platform.
        config: Descriptor,
        /// Bytes of configuration and layers, compressed.
        size_bytes: i64,
    },
}

/// A manifest in an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The manifest.
    pub digest: String,
    /// Operating system, architecture and variant; None where the index does not say.
    pub platform: Option<(String, String, Option<String>)>,
}

/// A blob.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Descriptor {
    /// Digest of its bytes.
    pub digest: String,
    /// Bytes.
    pub size: i64,
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
    schema_version: i64,
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
    fn into_parts(self) -> (String, String, Option<String>) {
        (self.os, self.architecture, self.variant.filter(|v| !v.is_empty()))
    }
}

impl Manifest {
    /// Parses the bytes of an index or manifest. Entries for the platform `unknown` (attestations) are left out.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let raw: RawManifest =
            serde_json::from_slice(bytes).map_err(|e| ManifestError::Json(e.to_string()))?;
        if raw.schema_version != 2 {
            return Err(ManifestError::SchemaVersion(raw.schema_version));
        }
        match raw {
            RawManifest {
                manifests: Some(manifests),
                ..
            } => {
                let mut entries = Vec::new();
                for entry in manifests {
                    let platform = entry.platform.map(RawPlatform::into_parts);
                    if platform
                        .as_ref()
                        .is_none_or(|(os, architecture, _)| os != "unknown" && architecture != "unknown")
                    {
                        entries.push(IndexEntry {
                            digest: checked(entry.digest)?,
                            platform,
                        });
                    }
                }
                Ok(Self::Index(entries))
            }
            RawManifest {
                config: Some(config),
                layers: Some(layers),
                ..
            } => {
                let sizes = layers.iter().map(|l| l.size).chain([config.size]);
                let size_bytes = sizes.fold(0_i64, |sum, size| sum.saturating_add(size.max(0)));
                Ok(Self::Image {
                    config: Descriptor {
                        digest: checked(config.digest)?,
                        ..config
                    },
                    size_bytes,
                })
            }
            _ => Err(ManifestError::Neither),
        }
    }
}

/// Operating system, architecture and variant from an image's configuration; empty texts where it does not say, as for
/// artifacts that are no container images.
pub(crate) fn parse_config(bytes: &[u8]) -> Result<(String, String, Option<String>), ManifestError> {
    let raw: RawPlatform = serde_json::from_slice(bytes).map_err(|e| ManifestError::Json(e.to_string()))?;
    Ok(raw.into_parts())
}

/// A digest goes into URLs and into objects: it must be one.
fn checked(digest: String) -> Result<String, ManifestError> {
    if is_digest(&digest) {
        Ok(digest)
    } else {
        Err(ManifestError::Digest(digest.chars().take(100).collect()))
    }
}

#[cfg(test)]
mod tests;
