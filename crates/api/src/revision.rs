//! `ImageCacheRevision`: the exact images of one moment, and the number that orders revisions.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::image_cache::PullSecret;

/// The top-level fields of an [`ImageCacheRevision`] beside its metadata, as in a `ControllerRevision`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "larder.dev",
    version = "v1alpha1",
    kind = "ImageCacheRevision",
    namespaced,
    no_spec,
    derive = "PartialEq",
    derive = "Default",
    shortname = "icr",
    category = "larder",
    doc = "An ImageCacheRevision is the exact list of images, by digest, that an ImageCache meant at one moment.",
    printcolumn(name = "Number", type_ = "integer", json_path = ".number"),
    printcolumn(
        name = "Cache",
        type_ = "string",
        json_path = ".metadata.ownerReferences[0].name"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct RevisionBody {
    /// Orders the revisions of a cache: the highest is the newest. Raised when an old revision becomes current again.
    #[schemars(range(min = 1))]
    pub number: i64,
    /// The images; never changes.
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec is immutable"))]
    pub spec: ImageCacheRevisionSpec,
}

/// The immutable part of a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageCacheRevisionSpec {
    /// Every image, sorted by normalised reference.
    #[schemars(length(max = 500))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub images: Vec<RevisionImage>,
    /// The cache's pull secrets at that moment: a change of them is a new revision, so that refused pulls are repeated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub pull_secrets: Vec<PullSecret>,
}

/// One image of a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionImage {
    /// The reference, normalised: `docker.io/library/nginx:1.27`.
    #[schemars(length(max = 600))]
    pub image: String,
    /// Digest of what the reference meant: an index's or, for single-platform images, a manifest's. Absent where the
    /// operator never learned it: then nodes pull by tag and report what they got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub digest: Option<String>,
    /// Manifests of the platforms that the cluster had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub platforms: Vec<PlatformManifest>,
    /// Higher goes first.
    #[serde(default)]
    pub priority: i32,
    /// True unless an anonymous request was answered with the manifest, or with "not found".
    #[serde(default)]
    pub private: bool,
    /// Names of the sources that it comes from, sorted. None: the cache's own `images`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub sources: Vec<String>,
}

/// An image's manifest for one platform.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlatformManifest {
    /// As in Go's GOOS: `linux`.
    pub os: String,
    /// As in Go's GOARCH: `amd64`.
    pub architecture: String,
    /// As `v8` of arm64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Digest of the manifest.
    pub digest: String,
    /// Bytes of configuration and layers, compressed.
    pub size_bytes: i64,
}
