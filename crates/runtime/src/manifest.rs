//! Manifests and indexes of OCI and Docker as the content store holds them, read for configurations and layers.

use larder_core::image_ref::is_digest;
use serde::Deserialize;

/// Larger documents are not read. It is what containerd accepts from a registry.
pub const MAX_MANIFEST_BYTES: u64 = 8 << 20;

/// What an image's record may point at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// A list of manifests by platform.
    Index(Vec<IndexEntry>),
    /// An image for one platform.
    Image(ImageManifest),
}

/// A manifest in an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Digest of the manifest.
    pub digest: String,
    /// Operating system and architecture as Go names them; none where the index does not say.
    pub platform: Option<(String, String)>,
}

/// An image for one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageManifest {
    /// The configuration, whose digest is the image id.
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

/// Why a blob is no manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or a field of another type.
    #[error("the manifest cannot be read: {0}")]
    Json(String),
    /// Neither an index nor an image.
    #[error("the manifest has neither manifests nor config and layers")]
    Neither,
    /// A digest that is none.
    #[error("the manifest names the malformed digest {0:?}")]
    Digest(String),
}

#[derive(Deserialize)]
struct Raw {
    manifests: Option<Vec<RawEntry>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
struct RawEntry {
    digest: String,
    platform: Option<RawPlatform>,
}

#[derive(Deserialize)]
struct RawPlatform {
    os: String,
    architecture: String,
}

impl Manifest {
    /// Reads a document of at most [`MAX_MANIFEST_BYTES`]. What it is follows from its fields: media types are
    /// optional in OCI.
    pub fn parse(document: &[u8]) -> Result<Self, ManifestError> {
        let raw: Raw = serde_json::from_slice(document).map_err(|e| ManifestError::Json(e.to_string()))?;
        let manifest = match raw {
            Raw {
                manifests: Some(entries),
                ..
            } => Self::Index(entries.into_iter().map(IndexEntry::from).collect()),
            Raw {
                config: Some(config),
                layers: Some(layers),
                ..
            } => Self::Image(ImageManifest { config, layers }),
            _ => return Err(ManifestError::Neither),
        };
        let malformed = manifest.digests().find(|digest| !is_digest(digest));
        if let Some(malformed) = malformed {
            return Err(ManifestError::Digest(malformed.to_owned()));
        }
        Ok(manifest)
    }

    /// Digests of the manifests of an index that can be this platform's image, most likely first: those that name it,
    /// then those that name none. Which variant of an architecture it is shows in what the runtime has fetched.
    pub fn candidates(&self, os: &str, architecture: &str) -> Vec<&str> {
        let Self::Index(entries) = self else {
            return Vec::new();
        };
        let named = entries.iter().filter(|entry| {
            entry
                .platform
                .as_ref()
                .is_some_and(|(o, a)| o == os && a == architecture)
        });
        let unnamed = entries.iter().filter(|entry| entry.platform.is_none());
        named.chain(unnamed).map(|entry| entry.digest.as_str()).collect()
    }

    fn digests(&self) -> impl Iterator<Item = &str> {
        let (entries, image) = match self {
            Self::Index(entries) => (entries.as_slice(), None),
            Self::Image(image) => ([].as_slice(), Some(image)),
        };
        let blobs = image
            .into_iter()
            .flat_map(|i| std::iter::once(&i.config).chain(&i.layers));
        entries
            .iter()
            .map(|e| e.digest.as_str())
            .chain(blobs.map(|b| b.digest.as_str()))
    }
}

impl From<RawEntry> for IndexEntry {
    fn from(entry: RawEntry) -> Self {
        Self {
            digest: entry.digest,
            platform: entry.platform.map(|p| (p.os, p.architecture)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Manifest, ManifestError};

    fn digest(byte: char) -> String {
        format!("sha256:{}", byte.to_string().repeat(64))
    }

    #[test]
    fn an_index_gives_the_manifests_that_can_be_a_platforms() {
        let entry = |byte, platform: &str| format!(r#"{{"digest":"{}","size":1{platform}}}"#, digest(byte));
        let document = format!(
            r#"{{"schemaVersion":2,"manifests":[{},{},{},{}]}}"#,
            entry('a', ""),
            entry(
                'b',
                r#","platform":{"os":"linux","architecture":"arm","variant":"v6"}"#
            ),
            entry(
                'c',
                r#","platform":{"os":"linux","architecture":"arm","variant":"v7"}"#
            ),
            entry('d', r#","platform":{"os":"unknown","architecture":"unknown"}"#),
        );
        let index = Manifest::parse(document.as_bytes()).unwrap();
        assert_eq!(
            index.candidates("linux", "arm"),
            [digest('b'), digest('c'), digest('a')]
        );
        assert_eq!(index.candidates("linux", "amd64"), [digest('a')]);
    }

    #[test]
    fn an_image_gives_its_configuration_and_layers() {
        let document = format!(
            r#"{{"config":{{"digest":"{}","size":7,"mediaType":"x"}},"layers":[{{"digest":"{}","size":9}}]}}"#,
            digest('a'),
            digest('b')
        );
        let Manifest::Image(image) = Manifest::parse(document.as_bytes()).unwrap() else {
            panic!("not an image");
        };
        assert_eq!((image.config.digest, image.config.size), (digest('a'), 7));
        assert_eq!(
            (image.layers[0].digest.as_str(), image.layers[0].size),
            (digest('b').as_str(), 9)
        );
    }

    #[test]
    fn what_is_no_manifest_is_refused_with_the_reason() {
        let error = |document: &str| Manifest::parse(document.as_bytes()).unwrap_err();
        assert!(matches!(error("<html>"), ManifestError::Json(_)));
        assert!(matches!(
            error(r#"{"config":{"digest":"x","size":-1},"layers":[]}"#),
            ManifestError::Json(_)
        ));
        assert_eq!(
            error(r#"{"schemaVersion":1,"fsLayers":[]}"#),
            ManifestError::Neither
        );
        assert_eq!(
            error(r#"{"manifests":[{"digest":"sha256:../x"}]}"#),
            ManifestError::Digest("sha256:../x".into())
        );
    }
}
