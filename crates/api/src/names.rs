//! Names of annotations, labels, finalizers, condition types and reasons: each is part of the public API.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// API group of every object of Larder.
pub const GROUP: &str = "larder.dev";
/// The one served and stored version.
pub const VERSION: &str = "v1alpha1";

/// Asks for a refresh; the value is a free token.
pub const REFRESH_ANNOTATION: &str = "larder.dev/refresh";
/// Asks for a purge; the value is a free token.
pub const PURGE_ANNOTATION: &str = "larder.dev/purge";
/// kube-fledged's name for a refresh.
pub const KUBEFLEDGED_REFRESH_ANNOTATION: &str = "kubefledged.io/refresh-imagecache";
/// kube-fledged's name for a purge.
pub const KUBEFLEDGED_PURGE_ANNOTATION: &str = "kubefledged.io/purge-imagecache";

/// On an [`crate::ImageCache`] while its deletion has to remove images first.
pub const CLEANUP_FINALIZER: &str = "larder.dev/cleanup";
/// On an [`crate::ImageCacheRevision`] while a node object names it.
pub const IN_USE_FINALIZER: &str = "larder.dev/in-use";

/// Value of [`MANAGED_BY_LABEL`] on whatever Larder makes.
pub const MANAGED_BY: &str = "larder";
/// The well-known label that names the tool that manages an object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Says what a Job or pod is for: [`PURPOSE_PULL`] or [`PURPOSE_PURGE`].
pub const PURPOSE_LABEL: &str = "larder.dev/purpose";
/// A Job or pod that pulls images.
pub const PURPOSE_PULL: &str = "pull";
/// A Job or pod that removes images.
pub const PURPOSE_PURGE: &str = "purge";
/// Annotation on Jobs and pods: the node they work for, as its full name (labels are shorter than node names may be).
pub const NODE_ANNOTATION: &str = "larder.dev/node";
/// Annotation on Jobs and pods: UID of the node they work for.
pub const NODE_UID_ANNOTATION: &str = "larder.dev/node-uid";
/// Annotation on pull Jobs and pods: name of the ImageCache they work for.
pub const CACHE_ANNOTATION: &str = "larder.dev/cache";
/// Annotation on pull Jobs and pods: name of the revision whose images they pull.
pub const REVISION_ANNOTATION: &str = "larder.dev/revision";
/// Annotation on pull pods: JSON list of the images, in the order of the containers `i0`, `i1`, ….
pub const IMAGES_ANNOTATION: &str = "larder.dev/images";
/// Annotation on purge Jobs: what they carry out, as JSON.
pub const WORK_ANNOTATION: &str = "larder.dev/work";
/// A pod of the agent's DaemonSet.
pub const PURPOSE_AGENT: &str = "agent";
/// Field manager of the agents.
pub const AGENT_FIELD_MANAGER: &str = "larder-agent";
/// Service account of the agents.
pub const AGENT_SERVICE_ACCOUNT: &str = "larder-agent";
/// containerd label on the record of an image id: Larder pulled the image, at this time.
pub const PULLED_LABEL: &str = "larder.dev/pulled";
/// containerd's own label on the record of an image: `pinned` keeps the image from garbage collection.
pub const PIN_LABEL: &str = "io.cri-containerd.pinned";
/// containerd label on the record of an image id: Larder pinned the image.
pub const PINNED_LABEL: &str = "larder.dev/pinned";
/// Label on revisions: the hash their name ends with.
pub const REVISION_HASH_LABEL: &str = "larder.dev/revision-hash";

/// Type of the secrets of http sources.
pub const HTTP_SOURCE_SECRET: &str = "larder.dev/http-source";

/// Field manager of everything that the operator applies.
pub const FIELD_MANAGER: &str = "larder-operator";
/// Namespace of the operator.
pub const SYSTEM_NAMESPACE: &str = "larder-system";
/// Namespace of the pods that touch a node's runtime socket.
pub const AGENTS_NAMESPACE: &str = "larder-agents";
/// Service account of the purge Jobs: it has no rights and its token is not mounted.
pub const PURGE_SERVICE_ACCOUNT: &str = "larder-purge";

/// Why a condition, a node or an image is in the state it is in. A closed set, stable for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Reason {
    /// The registry does not know the image.
    NotFound,
    /// The registry refused the credentials, or that there are none (401, 403).
    Unauthorized,
    /// The registry could not be reached or did not answer in time.
    RegistryUnreachable,
    /// The registry, or the kubelet on its behalf, asked to come back later.
    RateLimited,
    /// The image has no manifest for the node's platform.
    NoMatchingPlatform,
    /// What arrived is not the digest that was asked for.
    DigestMismatch,
    /// The image arrived, but the node's report does not prove its digest.
    Unverified,
    /// The tag moved between resolution and pull.
    TagMoved,
    /// The node has too little disk space for the image.
    InsufficientDisk,
    /// No end of the pull within the time allowed.
    Timeout,
    /// The node's container runtime failed.
    RuntimeError,
    /// The reference cannot be parsed.
    InvalidReference,
    /// No pull secret fits the registry, or the one named does not exist.
    CredentialsMissing,
    /// The API server refused the pod that would have pulled.
    PodRejected,
    /// The revision that the node should hold cannot be read.
    RevisionMissing,
    /// A container uses the image.
    InUse,
    /// A policy of the cluster forbids what the object asks for.
    PolicyDenied,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The variant's name is the stable reason.
        fmt::Debug::fmt(self, f)
    }
}

/// Types of conditions in [`crate::ImageCacheStatus`].
pub mod condition {
    /// The spec can be worked on.
    pub const ACCEPTED: &str = "Accepted";
    /// Every reference has a digest.
    pub const RESOLVED: &str = "Resolved";
    /// Every workable node holds the newest revision whole.
    pub const READY: &str = "Ready";
    /// Work is going on.
    pub const PROGRESSING: &str = "Progressing";
    /// Something needs a person.
    pub const DEGRADED: &str = "Degraded";
    /// Of an agent: the node's runtime answers.
    pub const RUNTIME_READY: &str = "RuntimeReady";
    /// Of an agent: pinned images are safe from garbage collection.
    pub const PROTECTED: &str = "Protected";
}
