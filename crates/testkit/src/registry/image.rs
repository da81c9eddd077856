//! Images for tests: small, valid, of any platforms.

use serde_json::json;
use sha2::{Digest, Sha256};

/// Whose names the manifests carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaTypes {
    /// `application/vnd.oci.image.…`
    Oci,
    /// `application/vnd.docker.distribution.…`
    Docker,
}

impl MediaTypes {
    fn index(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.index.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
        }
    }

    fn manifest(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.manifest.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.config.v1+json",
            Self::Docker => "application/vnd.docker.container.image.v1+json",
        }
    }

    fn layer(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.layer.v1.tar",
            Self::Docker => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        }
    }
}

/// An image or an index of images, with everything that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestImage {
    /// Bytes of the manifest or index.
    pub manifest: Vec<u8>,
    /// Its media type.
    pub media_type: &'static str,
    /// Configuration and layers.
    pub blobs: Vec<Vec<u8>>,
    /// The images of an index.
    pub children: Vec<TestImage>,
    types: MediaTypes,
    platform: serde_json::Value,
}

impl TestImage {
    /// An image for one platform, given as `os/architecture` or `os/architecture/variant`. The layers are any bytes.
    pub fn new(types: MediaTypes, platform: &str, layers: &[&[u8]]) -> Self {
        let mut parts = platform.split('/');
        let mut config = json!({ "os": parts.next(), "architecture": parts.next() });
        if let Some(variant) = parts.next() {
            config["variant"] = json!(variant);
        }
        let platform = config.clone();
        config["rootfs"] = json!({ "type": "layers", "diff_ids": [] });
        let config = config.to_string().into_bytes();
        let descriptor = |media_type: &str, bytes: &[u8]| json!({ "mediaType": media_type, "digest": digest_of(bytes), "size": bytes.len() });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": types.manifest(),
            "config": descriptor(types.config(), &config),
            "layers": layers.iter().map(|l| descriptor(types.layer(), l)).collect::<Vec<_>>(),
        });
        let mut blobs = vec![config];
        blobs.extend(layers.iter().map(|l| l.to_vec()));
        Self {
            manifest: manifest.to_string().into_bytes(),
            media_type: types.manifest(),
            blobs,
            children: Vec::new(),
            types,
            platform,
        }
    }

    /// An index of these images; the media types are those of the first.
    pub fn index(children: Vec<TestImage>) -> Self {
        let types = children.first().map_or(MediaTypes::Oci, |c| c.types);
        let entries: Vec<_> = children
            .iter()
            .map(|c| json!({ "mediaType": c.media_type, "digest": c.digest(), "size": c.manifest.len(), "platform": c.platform }))
            .collect();
        let index = json!({ "schemaVersion": 2, "mediaType": types.index(), "manifests": entries });
        Self {
            manifest: index.to_string().into_bytes(),
            media_type: types.index(),
            blobs: Vec::new(),
            children,
            types,
            platform: serde_json::Value::Null,
        }
    }

    /// Digest of the manifest or index.
    pub fn digest(&self) -> String {
        digest_of(&self.manifest)
    }

    /// Bytes of configuration and layers, of one platform.
    pub fn size_bytes(&self) -> i64 {
        self.blobs.iter().map(|b| b.len() as i64).sum()
    }
}

/// `sha256:…` of the bytes.
pub(super) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}
