//! `NodeImageCache`: what one node should hold, and what it holds.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::image_cache::{
    OnMissingPlatform, PrivateImages, ProtectSpec, Puller, Removal, RetrySpec, TimeoutsSpec,
};
use crate::names;

/// What one node should hold: claims of caches on it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[allow(clippy::duplicated_attributes, reason = "columns have types in common")]
#[kube(
    group = "larder.dev",
    version = "v1alpha1",
    kind = "NodeImageCache",
    status = "NodeImageCacheStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "nic",
    category = "larder",
    doc = "A NodeImageCache, named like its node, says which revisions of which caches the node should hold, and what it holds. Written by Larder alone.",
    printcolumn(
        name = "Agent",
        type_ = "string",
        json_path = ".status.agent.summary.caches",
        description = "Caches whole as far as the agent pulls, of those that it works for"
    ),
    printcolumn(
        name = "Kubelet",
        type_ = "string",
        json_path = ".status.kubelet.summary.caches",
        description = "Caches whole as far as the kubelet pulls, of those that it works for"
    ),
    printcolumn(
        name = "Agent Missing",
        type_ = "integer",
        json_path = ".status.agent.summary.notReady",
        description = "Images that the agent should bring and has not"
    ),
    printcolumn(
        name = "Kubelet Missing",
        type_ = "integer",
        json_path = ".status.kubelet.summary.notReady",
        description = "Images that the kubelet should bring and has not"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct NodeImageCacheSpec {
    /// UID of the Node that this object is for. A node re-created under its name gets a new object.
    #[schemars(length(max = 64))]
    pub node_uid: String,
    /// Claims, sorted by namespace and name.
    #[serde(default)]
    #[schemars(length(max = 500))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub caches: Vec<CacheClaim>,
    /// Bounds of what the agent does on the node, for all caches together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<NodeLimits>,
}

/// Bounds of what the agent does on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeLimits {
    /// Images pulled at a time.
    #[schemars(range(min = 1, max = 100))]
    pub pulls: i32,
    /// Seconds between two reports of mere progress: more in a large cluster.
    #[schemars(range(min = 1, max = 3600))]
    pub report_seconds: i32,
}

/// What one cache wants of one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheClaim {
    /// Namespace of the ImageCache.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Name of the ImageCache.
    #[schemars(length(max = 49))]
    pub name: String,
    /// UID of the ImageCache, so that one re-created under its name starts afresh.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// The revision that the node should hold, or, when `desired` is Absent, held last.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Whether the node should hold the revision or get rid of it.
    pub desired: Desired,
    /// Older revisions whose images should go from the node, unless something still wants them; oldest first,
    /// at most 32: the oldest is dropped beyond that and its images stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub remove_revisions: Vec<String>,
    /// When the cache was first assigned to this node, or an earlier time inherited from a claim that shared images
    /// with it and is gone. What the node had before is not Larder's to remove.
    pub claimed_at: Time,
    /// When `revision` was assigned.
    pub assigned_at: Time,
    /// How images are removed.
    #[serde(default)]
    pub removal: Removal,
    /// Set by a refresh: images last confirmed before this moment are confirmed again, and the agent tries at once what it
    /// failed to pull before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify_after: Option<Time>,
    /// Who pulls.
    #[serde(default)]
    pub puller: Puller,
    /// Who pulls what needs credentials.
    #[serde(default)]
    pub private_images: PrivateImages,
    /// Whether the cache's pods run as a service account of its choice, which may bring pull secrets along.
    #[serde(default, skip_serializing_if = "is_false")]
    pub service_account: bool,
    /// What the cache asks of the agent beyond the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrides: Option<ClaimOverrides>,
}

/// Where a cache differs from the defaults of [`crate::ImageCacheSpec`]: what an agent, which reads no ImageCache, has to
/// know of it. Absent fields have the default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimOverrides {
    /// `spec.suspend`: no new work.
    #[serde(default, skip_serializing_if = "is_false")]
    pub suspend: bool,
    /// `spec.rollout.imagesPerNode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 20))]
    pub images_per_node: Option<i32>,
    /// `spec.timeouts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<TimeoutsSpec>,
    /// `spec.retry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetrySpec>,
    /// `spec.protect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protect: Option<ProtectSpec>,
    /// `spec.onMissingPlatform`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_missing_platform: Option<OnMissingPlatform>,
}

/// Whether a revision should be on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Desired {
    /// It should.
    #[default]
    Present,
    /// Its images should be removed.
    Absent,
}

/// What a node holds. One block for each kind of puller, each with one writer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeImageCacheStatus {
    /// Written by the operator from the status of pods: what the kubelet pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubelet: Option<PullerStatus>,
    /// Written by the agent on the node: what it pulled, and what it sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentStatus>,
}

/// What the agent knows of its node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// As of any puller. A claim of which the agent pulls and removes nothing has no entry.
    #[serde(flatten)]
    pub puller: PullerStatus,
    /// UID of the agent's own pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod_uid: String,
    /// The runtime that the agent speaks to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeOnNode>,
    /// What the runtime lets the agent do, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub capabilities: Vec<Capability>,
    /// The file system of the images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskOnNode>,
    /// `RuntimeReady`: the runtime answers. `Protected`: pins hold; False where the runtime knows none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub conditions: Vec<Condition>,
}

/// A node's container runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeOnNode {
    /// `containerd`, `cri-o`.
    pub name: String,
    /// Its release.
    pub version: String,
}

/// Something that not every runtime lets an agent do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Capability {
    /// See whether the content of an image is really there, and mark what Larder pulled.
    Content,
    /// Keep an image from garbage collection.
    Pin,
    /// Tell how many bytes of a pull have arrived.
    Progress,
}

/// The file system of a node's images. Rounded to a hundredth of it, so that it is written seldom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskOnNode {
    /// Bytes that can be used at all.
    pub total_bytes: i64,
    /// Percent of them that are free.
    pub free_percent: i32,
}

/// What one puller knows of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PullerStatus {
    /// Generation of the spec that this is about; while an agent removes, of the one that asked for the removal. It may
    /// lag behind where a newer spec changed nothing here and no pod waits for it.
    #[serde(default)]
    pub observed_generation: i64,
    /// UID of the Node that this is about.
    #[serde(default)]
    pub node_uid: String,
    /// One entry a claim.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub caches: Vec<CacheOnNode>,
    /// Images that are not ready; at most 200, failed ones first.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub images: Vec<ImageOnNode>,
    /// Images left out of `images`.
    #[serde(default)]
    pub images_omitted: i32,
    /// For the printer columns.
    #[serde(default)]
    pub summary: PullerSummary,
}

/// For the printer columns of a NodeImageCache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PullerSummary {
    /// Caches whole on the node, of those assigned: `3/4`.
    #[serde(default)]
    pub caches: String,
    /// Images that the node should hold and does not.
    #[serde(default)]
    pub not_ready: i32,
}

/// State of one cache on one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheOnNode {
    /// Namespace of the ImageCache.
    pub namespace: String,
    /// Name of the ImageCache.
    pub name: String,
    /// UID of the ImageCache.
    #[serde(default)]
    pub uid: String,
    /// The revision that the counts are about.
    pub revision: String,
    /// Revisions that the node holds whole, newest assignment first; at most 4.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub held: Vec<String>,
    /// The state.
    pub state: NodeState,
    /// Why, where there is one reason for the whole cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<names::Reason>,
    /// In words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When the state began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Images of the revision that the node holds.
    #[serde(default)]
    pub ready: i32,
    /// Images of the revision that the node should hold.
    #[serde(default)]
    pub total: i32,
    /// Images left out because they have no manifest for the node's platform.
    #[serde(default)]
    pub skipped: i32,
    /// Which images of the revision the node does not hold: a bit each in the revision's order, the first image in the
    /// highest bit of the first hexadecimal digit. Empty: it holds all of them, or `total` is 0 and nothing is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 125))]
    pub missing: String,
    /// Compressed bytes of the images held.
    #[serde(default)]
    pub bytes: i64,
    /// When the last of the images was last confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked_at: Option<Time>,
    /// Of the claim's `removeRevisions`, those whose removal is done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub removed_revisions: Vec<String>,
    /// Images removed by the last removal.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub removed: i32,
    /// Images kept by the last removal because a container uses them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub in_use: i32,
    /// Images kept by the last removal because they were there before Larder.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub foreign: i32,
    /// Names removed by the last removal whose content stays because another name shares it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub shared: i32,
    /// Why the last removal could not be carried out; it is repeated.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub removal_error: String,
    /// When that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removal_error_at: Option<Time>,
    /// Digests that this node reported for references that the operator could not resolve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub reported: Vec<ReportedDigest>,
}

/// The digest that a node found behind a reference.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportedDigest {
    /// Normalised reference.
    pub image: String,
    /// Digest.
    pub digest: String,
}

/// State of a cache on a node.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum NodeState {
    /// Nothing assigned yet, or nothing begun.
    #[default]
    Waiting,
    /// Images are being pulled.
    Pulling,
    /// Everything is there.
    Ready,
    /// Something failed; it is repeated.
    Failed,
    /// The node cannot be reached.
    Unreachable,
    /// Images are being removed.
    Purging,
    /// Images were removed.
    Purged,
}

/// An image that a node should hold and does not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageOnNode {
    /// The cache that wants it, as `namespace/name`.
    pub cache: String,
    /// Normalised reference.
    pub image: String,
    /// Digest wanted, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The state.
    pub state: ImageState,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<names::Reason>,
    /// The registry's, runtime's or API server's own words, at most 256 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Attempts that failed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempts: i32,
    /// When the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Compressed bytes that have arrived, where a pull by the agent is at work.
    #[serde(default, skip_serializing_if = "is_zero_bytes")]
    pub bytes_done: i64,
    /// Compressed bytes of the image, beside `bytesDone`.
    #[serde(default, skip_serializing_if = "is_zero_bytes")]
    pub bytes_total: i64,
}

/// State of one image on a node.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum ImageState {
    /// It failed; it is repeated after a delay.
    Failed,
    /// It waits for its turn or is being pulled.
    #[default]
    Waiting,
    /// It has no manifest for the node's platform and is left out.
    Skipped,
    /// The agent is pulling it.
    Pulling,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_zero(n: &i32) -> bool {
    *n == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_zero_bytes(n: &i64) -> bool {
    *n == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_false(b: &bool) -> bool {
    !*b
}
