//! `ImageCache`: what a user asks for.

use std::collections::BTreeMap;
use std::time::Duration as StdDuration;

use k8s_openapi::api::core::v1::{NodeSelector, ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::image_source::Source;

/// The images that a set of nodes should hold.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "larder.dev",
    version = "v1alpha1",
    kind = "ImageCache",
    namespaced,
    status = "crate::ImageCacheStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "ic",
    shortname = "lic",
    category = "larder",
    doc = "An ImageCache names container images and the nodes that should hold them before a pod needs them.",
    validation = Rule::new("size(self.metadata.name) <= 49").message("metadata.name must have at most 49 characters"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.summary.ready", description = "Nodes that hold a whole revision, of the nodes selected"),
    printcolumn(name = "Up-to-date", type_ = "integer", json_path = ".status.nodes.updated", description = "Nodes that hold the newest revision whole"),
    printcolumn(name = "Images", type_ = "integer", json_path = ".status.images.total"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.summary.size", description = "Compressed size of the images of one platform"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.nodes.failed"),
    printcolumn(name = "Last Refresh", type_ = "date", json_path = ".status.lastRefresh.finishedAt"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.revision", priority = 1),
    printcolumn(name = "Puller", type_ = "string", json_path = ".spec.puller", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.privateImages != 'Agent' || self.puller != 'Job'").message("privateImages must not be Agent where puller is Job"))]
#[x_kube(validation = Rule::new("(has(self.images) && size(self.images) > 0) || (has(self.sources) && size(self.sources) > 0)").message("images or sources must name something"))]
pub struct ImageCacheSpec {
    /// The images, at most 500. Two spellings of one image (`nginx` and `docker.io/library/nginx:latest`) are
    /// folded into one with the higher priority; the condition `Accepted` says so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["image".into()]))]
    pub images: Vec<ImageEntry>,

    /// Where further images come from. A source that fails keeps its last good images. 500 images in all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub sources: Vec<Source>,

    /// Images of the sources to leave out: globs over normalised references, as `docker.io/library/*` or `*:debug`. Does
    /// not concern `images`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 100),
        inner(length(min = 1, max = 500), regex(pattern = r"^[A-Za-z0-9._:/@\[\]*-]+$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub exclude: Vec<String>,

    /// Which nodes should hold the images. Absent: every Linux node whose taints are tolerated.
    #[serde(default)]
    pub nodes: NodesSpec,

    /// Who pulls. `Auto` chooses for each image and node: the agent what can be had without credentials, where one runs,
    /// the kubelet all else.
    #[serde(default)]
    pub puller: Puller,

    /// Who pulls what needs credentials. `Agent`: the agent, with the credential provider plugins of its node and never
    /// with `pullSecrets`; in its place Jobs where no agent runs and `puller` is not Agent.
    #[serde(default)]
    pub private_images: PrivateImages,

    /// Secrets of this namespace, of type `kubernetes.io/dockerconfigjson` or `kubernetes.io/dockercfg`, for
    /// registries that ask for credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub pull_secrets: Vec<PullSecret>,

    /// Where a tag is turned into a digest. `OnNode` is for registries that only the nodes can reach.
    #[serde(default)]
    pub resolve: Resolve,

    /// What an image without a manifest for a node's platform means for that node.
    #[serde(default)]
    pub on_missing_platform: OnMissingPlatform,

    /// When tags are looked up again. Absent: on a change of this object and by annotation only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<RefreshSpec>,

    /// How many nodes and images are worked on at a time.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub rollout: RolloutSpec,

    /// How long things may take.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub timeouts: TimeoutsSpec,

    /// How failed pulls are repeated.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub retry: RetrySpec,

    /// What keeps the images on the node, and the node's disk from filling up; carried out by the agent.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub protect: ProtectSpec,

    /// What happens on the nodes to images that leave the cache, or when the cache is deleted.
    #[serde(default)]
    pub removal: Removal,

    /// Applied to the pods that Larder makes in this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,

    /// No new work while true; the status stays true to what is. A purge is still accepted.
    #[serde(default)]
    pub suspend: bool,
}

/// One image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageEntry {
    /// The reference: `[host[:port]/]repository[:tag][@sha256:…]`, at most 500 characters.
    // The grammar of the distribution project's reference package, digests limited to sha256.
    #[schemars(
        length(min = 1, max = 500),
        regex(
            pattern = r"^(([A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])(\.([A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9]))*(:[0-9]+)?/|\[[0-9A-Fa-f:]+\](:[0-9]+)?/)?[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$"
        )
    )]
    pub image: String,

    /// Higher goes first. Images of equal priority go smallest first.
    // No default in the schema: in items of a list it would make each `kubectl apply` of an unchanged file a change.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: i32,
}

/// Which nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodesSpec {
    /// Labels a node must have. Absent or empty: all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// A node selector as in a pod's required node affinity; a node must match it and `selector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<NodeSelector>,
    /// Taints to tolerate beyond those that are always tolerated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub tolerations: Vec<Toleration>,
    /// Work on cordoned nodes too.
    #[serde(default)]
    pub include_unschedulable: bool,
}

/// Who pulls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Puller {
    /// The best puller that the node allows.
    #[default]
    Auto,
    /// The kubelet, by pods of short Jobs.
    Job,
    /// The agent; a node without one waits for it. What needs credentials is pulled by the kubelet all the same, unless
    /// `privateImages` says otherwise.
    Agent,
}

/// Who pulls images that need credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PrivateImages {
    /// The kubelet, by pods with the cache's pull secrets. It remembers for whom it pulled, and may check pods by that.
    #[default]
    Kubelet,
    /// The agent, with the credential provider plugins of its node. To the kubelet such an image is one that was there
    /// before.
    Agent,
}

/// A secret of the cache's own namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PullSecret {
    /// Name of the secret.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub name: String,
}

/// Where a tag becomes a digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Resolve {
    /// Once, by the operator, for every node.
    #[default]
    Central,
    /// By each node when it pulls; the digests that nodes report are shown.
    OnNode,
}

/// What an image without a manifest for the node's platform means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnMissingPlatform {
    /// The node does without it and can still be Ready.
    #[default]
    Skip,
    /// The node is Failed.
    Fail,
}

/// When tags are looked up and sources asked again: by an interval or by a schedule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.interval) != has(self.schedule)").message("refresh must have exactly one of interval and schedule: refresh.interval or refresh.schedule"))]
#[x_kube(validation = Rule::new("!has(self.timeZone) || has(self.schedule)").message("refresh.timeZone needs refresh.schedule"))]
pub struct RefreshSpec {
    /// Time between two refreshes, from 1m to 720h, as a Go duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration_schema")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1m') && duration(self) <= duration('720h')").message("refresh.interval must be between 1m and 720h"))]
    pub interval: Option<Duration>,
    /// Moments in the form of cron: minute, hour, day of the month, month, day of the week. A moment that was missed is
    /// made up for once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub schedule: Option<String>,
    /// Time zone of the schedule, as `Europe/Berlin`; UTC if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
}

/// How much is worked on at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutSpec {
    /// Nodes that may be changing to a newer revision at the same time: a number from 1 to 10000, or a
    /// percentage of the workable nodes from 1% to 100%, rounded up. A node's first fill takes no slot.
    #[serde(default = "default_max_concurrent_nodes")]
    #[x_kube(validation = Rule::new("type(self) == int ? self >= 1 && self <= 10000 : self.matches('^([1-9][0-9]?|100)%$')").message("rollout.maxConcurrentNodes must be a number from 1 to 10000 or a percentage from 1% to 100%"))]
    pub max_concurrent_nodes: IntOrString,
    /// Pods of this cache at work on one node at a time, 1 to 20.
    #[serde(default = "default_images_per_node")]
    #[schemars(range(min = 1, max = 20))]
    pub images_per_node: i32,
}

impl Default for RolloutSpec {
    fn default() -> Self {
        Self {
            max_concurrent_nodes: default_max_concurrent_nodes(),
            images_per_node: default_images_per_node(),
        }
    }
}

/// How long things may take, each from 1s to 720h as a Go duration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimeoutsSpec {
    /// A pull by the agent of which no byte arrives for so long is given up.
    #[serde(default = "default_no_progress")]
    #[schemars(schema_with = "duration_schema", extend("default" = "2m"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('720h')").message("timeouts.noProgress must be between 1s and 720h"))]
    pub no_progress: Duration,
    /// One attempt at pulling an image.
    #[serde(default = "default_attempt")]
    #[schemars(schema_with = "duration_schema", extend("default" = "1h"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('720h')").message("timeouts.attempt must be between 1s and 720h"))]
    pub attempt: Duration,
    /// All of a node's work on one revision. Changes what is reported and frees the rollout slot; the work goes on.
    #[serde(default = "default_overall")]
    #[schemars(schema_with = "duration_schema", extend("default" = "2h"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('720h')").message("timeouts.overall must be between 1s and 720h"))]
    pub overall: Duration,
}

impl Default for TimeoutsSpec {
    fn default() -> Self {
        Self {
            no_progress: default_no_progress(),
            attempt: default_attempt(),
            overall: default_overall(),
        }
    }
}

/// How failed pulls are repeated: the delay doubles from `initialDelay` to `maxDelay`, with jitter. Errors that a
/// repetition seldom heals (NotFound, Unauthorized, NoMatchingPlatform) start at a tenth of `maxDelay`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetrySpec {
    /// Before the first repetition, from 1s to 720h.
    #[serde(default = "default_initial_delay")]
    #[schemars(schema_with = "duration_schema", extend("default" = "1s"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('720h')").message("retry.initialDelay must be between 1s and 720h"))]
    pub initial_delay: Duration,
    /// The longest delay, from 1s to 720h.
    #[serde(default = "default_max_delay")]
    #[schemars(schema_with = "duration_schema", extend("default" = "10m"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('720h')").message("retry.maxDelay must be between 1s and 720h"))]
    pub max_delay: Duration,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self {
            initial_delay: default_initial_delay(),
            max_delay: default_max_delay(),
        }
    }
}

/// What keeps images on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProtectSpec {
    /// Have the runtime and the kubelet's garbage collector leave the images alone.
    #[serde(default = "default_pin")]
    pub pin: bool,
    /// A pull that would leave less than this share of the image file system free is not begun: 0% to 90%. Of several
    /// caches on a node, the highest counts.
    #[serde(default = "default_min_free_disk")]
    #[schemars(length(max = 3), regex(pattern = r"^([0-9]|[1-8][0-9]|90)%$"))]
    pub min_free_disk: String,
}

impl Default for ProtectSpec {
    fn default() -> Self {
        Self {
            pin: default_pin(),
            min_free_disk: default_min_free_disk(),
        }
    }
}

/// What happens on nodes to images that leave the cache.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Removal {
    /// Nothing.
    #[default]
    Retain,
    /// What Larder pulled is removed.
    Purge,
    /// What was there before Larder is removed too.
    PurgeAll,
}

/// Applied to the pods that Larder makes in the cache's namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Service account; it serves only for its pull secrets, its token is never mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub service_account_name: Option<String>,
    /// Priority class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub priority_class_name: Option<String>,
    /// Further labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "string_map_schema")]
    #[x_kube(validation = Rule::new("self.all(k, !k.matches('(^|[.])(larder[.]dev|kubernetes[.]io|k8s[.]io)/'))").message("podTemplate.labels must not use keys of larder.dev, kubernetes.io or k8s.io"))]
    pub labels: BTreeMap<String, String>,
    /// Further annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "string_map_schema")]
    #[x_kube(validation = Rule::new("self.all(k, !k.matches('(^|[.])(larder[.]dev|kubernetes[.]io|k8s[.]io)/'))").message("podTemplate.annotations must not use keys of larder.dev, kubernetes.io or k8s.io"))]
    pub annotations: BTreeMap<String, String>,
    /// Requests and limits of each container, instead of Larder's own small ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_zero(n: &i32) -> bool {
    *n == 0
}

fn duration_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    // maxLength bounds the cost that the API server reckons for the CEL rules over it.
    schemars::json_schema!({
        "type": "string",
        "maxLength": 32,
        "pattern": r"^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$",
    })
}

fn string_map_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 1024},
    })
}

fn default_max_concurrent_nodes() -> IntOrString {
    IntOrString::String("25%".into())
}

fn default_images_per_node() -> i32 {
    3
}

fn default_pin() -> bool {
    true
}

fn default_min_free_disk() -> String {
    "20%".into()
}

fn default_no_progress() -> Duration {
    StdDuration::from_mins(2).into()
}

fn default_attempt() -> Duration {
    StdDuration::from_hours(1).into()
}

fn default_overall() -> Duration {
    StdDuration::from_hours(2).into()
}

fn default_initial_delay() -> Duration {
    StdDuration::from_secs(1).into()
}

fn default_max_delay() -> Duration {
    StdDuration::from_mins(10).into()
}
