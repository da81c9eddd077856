//! The questions that the operator asks of a registry.

use async_trait::async_trait;
use larder_api::revision::PlatformManifest;
use larder_core::image_ref::ImageRef;

use crate::{Credentials, RegistryError};

/// A registry client, as its users need it.
#[async_trait]
pub trait Registry: Send + Sync {
    /// What the reference means now. One HEAD request where the registry plays along.
    ///
    /// A reference with a digest is asked for by that digest, which proves that it exists; its tag is not looked at,
    /// as the container runtimes do it.
    async fn digest(&self, image: &ImageRef, credentials: &Credentials) -> Result<Head, RegistryError>;

    /// The image's manifests for the `wanted` platforms, or for all where `wanted` is empty; at most 20.
    ///
    /// `digest` is what [`Registry::digest`] gave: of an index, or of the only manifest. A wanted platform that the image
    /// does not have is left out, so the result may be empty. What is fetched is verified against its digest.
    async fn platforms(
        &self,
        image: &ImageRef,
        digest: &str,
        credentials: &Credentials,
        wanted: &[Platform],
    ) -> Result<Vec<PlatformManifest>, RegistryError>;
}

/// The tags of repositories, as those need them who choose among them.
#[async_trait]
pub trait Tags: Send + Sync {
    /// All tags of the repository, in the registry's order; tag and digest of the reference are not looked at. Fails for
    /// a repository of more than [`MAX_TAGS`](crate::sources::tags::MAX_TAGS).
    async fn tags(
        &self,
        repository: &ImageRef,
        credentials: &Credentials,
    ) -> Result<Vec<String>, RegistryError>;
}

/// What a reference means at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Digest of the index or manifest: `sha256:…`.
    pub digest: String,
    /// False only if a request without credentials succeeded.
    pub private: bool,
}

/// A platform that the cluster has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    /// As in Go's GOOS: `linux`.
    pub os: String,
    /// As in Go's GOARCH: `amd64`.
    pub architecture: String,
    /// As `v8` of arm64. None, which is all that a Node object tells, stands for any.
    pub variant: Option<String>,
}

impl Platform {
    /// A platform of any variant.
    pub fn new(os: impl Into<String>, architecture: impl Into<String>) -> Self {
        Self {
            os: os.into(),
            architecture: architecture.into(),
            variant: None,
        }
    }

    /// Whether an image for `os`, `architecture` and `variant` is meant.
    pub fn matches(&self, os: &str, architecture: &str, variant: Option<&str>) -> bool {
        self.os == os
            && self.architecture == architecture
            && (self.variant.is_none() || self.variant.as_deref() == variant)
    }
}
