//! Sources: where an `ImageCache` has further images from.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// A place that names images. Exactly one of the keys beside `name` is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.configMap) ? 1 : 0) + (has(self.http) ? 1 : 0) + (has(self.appRegistry) ? 1 : 0) + (has(self.workloads) ? 1 : 0) + (has(self.registryTags) ? 1 : 0) == 1").message("each of sources must have exactly one of configMap, http, appRegistry, workloads and registryTags"))]
pub struct Source {
    /// Names the source in the status and in revisions; one of a kind within the cache.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// A key of a ConfigMap of this namespace: a reference a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapSource>,
    /// A document behind a URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSource>,
    /// An app registry of HeLx (Tycho).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_registry: Option<AppRegistrySource>,
    /// What the workloads of the cluster run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workloads: Option<WorkloadsSource>,
    /// The newest tags of a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_tags: Option<RegistryTagsSource>,
}

/// A key of a ConfigMap of this namespace. Each line is a reference; what follows a `#` is a comment. Followed: a change
/// counts at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapSource {
    /// Name of the ConfigMap.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Key within it.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// A document behind a URL, of at most 4 MiB; asked for at every refresh, with the ETag of the last answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.format) && self.format == 'Json') == has(self.jsonPath)").message("http.jsonPath must be set if http.format is Json, and only then"))]
pub struct HttpSource {
    /// Where it is.
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https?://[^\s@]+$"))]
    pub url: String,
    /// How it is read; `Lines` if absent.
    // No default in the schema: in items of a list it would make each `kubectl apply` of an unchanged file a change.
    #[serde(default, skip_serializing_if = "ListFormat::is_lines")]
    pub format: ListFormat,
    /// Where the references are, as in `kubectl get -o jsonpath`: `{.items[*].image}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 500))]
    pub json_path: Option<String>,
    /// A secret of this namespace, of type `larder.dev/http-source`, with the keys `host` (equal to the URL's host and
    /// port; it goes over HTTPS alone unless it begins with `http://`) and either `token` or `username` and `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub secret_name: Option<String>,
    /// Certificates in PEM to trust beside the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub ca_bundle: Option<String>,
}

/// How a document is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ListFormat {
    /// A reference a line, `#` comments.
    #[default]
    Lines,
    /// JSON, with a path to the references.
    Json,
}

impl ListFormat {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
    fn is_lines(&self) -> bool {
        *self == Self::Lines
    }
}

/// An app registry of HeLx (Tycho): `app-registry.yaml` below a URL, and the services of a brand's apps. Asked for at
/// every refresh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppRegistrySource {
    /// The folder of `app-registry.yaml`, with the branch if there is one.
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https?://[^\s@]+$"))]
    pub url: String,
    /// Which of its contexts.
    #[schemars(length(min = 1, max = 253))]
    pub brand: String,
}

/// The images of workloads: of containers, init containers, ephemeral containers and image volumes. Followed: a change
/// counts at once. Larder's own Jobs and pods do not count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadsSource {
    /// Namespaces to look at. Absent: this one. Others are refused (PolicyDenied).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub namespaces: Vec<String>,
    /// Labels that a workload must have. Absent or empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Kinds to look at. Absent: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 6))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub kinds: Vec<WorkloadKind>,
}

/// A kind that runs pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum WorkloadKind {
    /// apps/v1.
    Deployment,
    /// apps/v1.
    StatefulSet,
    /// apps/v1.
    DaemonSet,
    /// batch/v1.
    Job,
    /// batch/v1.
    CronJob,
    /// v1.
    Pod,
}

impl WorkloadKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Deployment,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::Job,
        Self::CronJob,
        Self::Pod,
    ];
}

/// The newest tags of a repository that match; asked for at every refresh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.semver) != has(self.regex)").message("registryTags must have exactly one of semver and regex"))]
pub struct RegistryTagsSource {
    /// The repository, without tag or digest.
    #[schemars(
        length(min = 1, max = 400),
        regex(pattern = r"^[A-Za-z0-9\[][A-Za-z0-9._:/\[\]-]*$")
    )]
    pub repository: String,
    /// A requirement such as `>=1.2, <2` or `^1.27`: the highest versions that meet it. Pre-releases only where it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    pub semver: Option<String>,
    /// A regular expression, not anchored: of the tags in which it finds a match the highest by its first group, or by the
    /// whole tag where it has none; numbers compared as numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    pub regex: Option<String>,
    /// How many, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub newest: i32,
}
