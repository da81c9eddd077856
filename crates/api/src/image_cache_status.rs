//! What the operator reports in the status of an `ImageCache`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::Reason;
use crate::node_image_cache::NodeState;

/// What is true of an ImageCache; at most 48 KiB.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageCacheStatus {
    /// Generation of the spec that the status is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// The newest revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Accepted, Resolved, Ready, Progressing, Degraded.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Counts of nodes.
    #[serde(default)]
    pub nodes: NodeCounts,
    /// Counts of images.
    #[serde(default)]
    pub images: ImageCounts,
    /// The sources, in the order of the spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub sources: Vec<SourceStatus>,
    /// Nodes one by one, those that are not Ready first; all up to 250 nodes.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub node_statuses: Vec<NodeStatus>,
    /// Nodes left out of `nodeStatuses`.
    #[serde(default)]
    pub node_statuses_omitted: i32,
    /// What failed, grouped by image and reason; at most 20 groups.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub failures: Vec<Failure>,
    /// Groups left out of `failures`.
    #[serde(default)]
    pub failures_omitted: i32,
    /// The last refresh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_refresh: Option<RefreshStatus>,
    /// The last purge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_purge: Option<PurgeStatus>,
    /// Texts that printer columns cannot compose.
    #[serde(default)]
    pub summary: Summary,
}

/// Counts of nodes. `ready` and `updated` overlap the others; the rest are disjoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCounts {
    /// Nodes that the cache selects.
    #[serde(default)]
    pub selected: i32,
    /// Nodes that hold some revision whole.
    #[serde(default)]
    pub ready: i32,
    /// Nodes that hold the newest revision whole.
    #[serde(default)]
    pub updated: i32,
    /// Nodes at work on the newest revision.
    #[serde(default)]
    pub progressing: i32,
    /// Nodes on which something failed.
    #[serde(default)]
    pub failed: i32,
    /// Nodes that wait for their turn, or cannot be worked on: cordoned, disk pressure.
    #[serde(default)]
    pub waiting: i32,
    /// Nodes that are not Ready.
    #[serde(default)]
    pub unreachable: i32,
}

/// Counts of images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageCounts {
    /// Images of the newest revision.
    #[serde(default)]
    pub total: i32,
    /// Images without a digest.
    #[serde(default)]
    pub unresolved: i32,
    /// Compressed bytes of one platform's images: the platform that needs most.
    #[serde(default)]
    pub bytes: i64,
}

/// One source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// Name of the source.
    pub name: String,
    /// It was read whole when it was last asked.
    #[serde(default)]
    pub ready: bool,
    /// Why not, in one word.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why not, in words. What it gave last stays in the cache.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Images that the cache has from it.
    #[serde(default)]
    pub images: i32,
    /// When it was last read whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success_time: Option<Time>,
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Name of the node.
    pub node: String,
    /// State of the cache on it.
    pub state: NodeState,
    /// The revision assigned to it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// Images that it holds, of that revision.
    #[serde(default)]
    pub ready: i32,
    /// Images that it should hold.
    #[serde(default)]
    pub total: i32,
    /// Images left out because they have no manifest for the node's platform.
    #[serde(default)]
    pub skipped: i32,
    /// Who pulls.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub puller: String,
    /// In words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When the state began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// One image that failed for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The reference as the user wrote it. Empty when the failure is the node's and not an image's.
    pub image: String,
    /// Why.
    pub reason: Reason,
    /// The registry's, runtime's or API server's own words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// On how many nodes. Zero: the operator itself could not resolve the reference.
    #[serde(default)]
    pub nodes: i32,
    /// Some of them, at most 5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sample_nodes: Vec<String>,
}

/// The last refresh.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefreshStatus {
    /// Value of the annotation that asked, or the moment for other triggers.
    #[serde(default)]
    pub token: String,
    /// When it was accepted, to the microsecond: what registries said before does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<MicroTime>,
    /// When every workable node was Ready, or could get no further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<MicroTime>,
    /// Equals `token` once finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_token: Option<String>,
    /// What asked for it.
    #[serde(default)]
    pub trigger: RefreshTrigger,
    /// References whose digest moved.
    #[serde(default)]
    pub changed: i32,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<RefreshResult>,
}

/// What asked for a refresh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RefreshTrigger {
    /// An annotation.
    #[default]
    Annotation,
    /// `spec.refresh.interval`.
    Interval,
    /// `spec.refresh.schedule`.
    Schedule,
}

/// How a refresh ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RefreshResult {
    /// Every workable node holds the newest digests.
    Succeeded,
    /// Some node or reference failed; the work goes on.
    Failed,
    /// A purge was asked for at the same time, or came before the end.
    Superseded,
}

/// The last purge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PurgeStatus {
    /// Value of the annotation that asked.
    #[serde(default)]
    pub token: String,
    /// When it was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<Time>,
    /// When every reachable node was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Equals `token` once finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_token: Option<String>,
    /// True until a refresh by annotation or a change of the images ends it: the nodes are to hold nothing.
    #[serde(default)]
    pub in_force: bool,
    /// Hash of the images asked for when the purge was accepted; another one ends it.
    #[serde(default)]
    pub images_hash: String,
    /// Images removed, over all nodes.
    #[serde(default)]
    pub removed: i32,
    /// Images kept because a container uses them.
    #[serde(default)]
    pub in_use: i32,
    /// Images kept because they were there before Larder.
    #[serde(default)]
    pub foreign: i32,
    /// Names removed whose content another name shares.
    #[serde(default)]
    pub shared: i32,
}

/// Texts that printer columns cannot compose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Nodes ready of nodes selected: `48/50`.
    #[serde(default)]
    pub ready: String,
    /// Size of the images: `3.0 GiB`.
    #[serde(default)]
    pub size: String,
}
