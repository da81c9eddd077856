//! What the pods of both kinds of Jobs share.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod,
    PodTemplateSpec, ResourceRequirements, SeccompProfile, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use larder_api::names::{MANAGED_BY, MANAGED_BY_LABEL, PURPOSE_LABEL};

/// Jobs that nobody deleted go by themselves after this many seconds.
const TTL_SECONDS: i32 = 600;
/// Annotation that lets the cluster autoscaler evict a pod without asking.
const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict";

/// Only this very node, by name. Unlike `nodeName` it goes through the scheduler, as the pods of a `DaemonSet` do.
pub(super) fn on_node(node: &str) -> Affinity {
    let term = NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: "metadata.name".into(),
            operator: "In".into(),
            values: Some(vec![node.into()]),
        }]),
        ..NodeSelectorTerm::default()
    };
    Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                node_selector_terms: vec![term],
            }),
            ..NodeAffinity::default()
        }),
        ..Affinity::default()
    }
}

/// What Pod Security `restricted` asks of a container, for this user and the group of the same number: unnamed, the group
/// would be what the image's own `/etc/passwd` says, else root.
pub(super) fn confined(user: i64) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".into()]),
            add: None,
        }),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(user != 0),
        run_as_user: Some(user),
        run_as_group: Some(user),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".into(),
            localhost_profile: None,
        }),
        ..SecurityContext::default()
    }
}

/// Requests and limits of a container that does next to nothing.
pub(super) fn resources(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> ResourceRequirements {
    let map = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), Quantity((*v).to_owned())))
            .collect::<BTreeMap<_, _>>()
    };
    ResourceRequirements {
        requests: Some(map(requests)),
        limits: Some(map(limits)),
        claims: None,
    }
}

/// Labels of Larder's Jobs and pods of one purpose.
pub(super) fn labels(purpose: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (MANAGED_BY_LABEL.into(), MANAGED_BY.into()),
        (PURPOSE_LABEL.into(), purpose.into()),
    ])
}

/// A Job that tries its one pod once. The pod carries the Job's annotations, and leave to be evicted.
pub(super) fn job(metadata: ObjectMeta, deadline_seconds: i64, mut pod: PodTemplateSpec) -> Job {
    let meta = pod.metadata.get_or_insert_default();
    let annotations = meta.annotations.get_or_insert_default();
    annotations.extend(metadata.annotations.clone().unwrap_or_default());
    annotations.insert(SAFE_TO_EVICT.into(), "true".into());
    meta.labels
        .get_or_insert_default()
        .extend(metadata.labels.clone().unwrap_or_default());
    Job {
        metadata,
        spec: Some(JobSpec {
            backoff_limit: Some(0),
            completions: Some(1),
            parallelism: Some(1),
            ttl_seconds_after_finished: Some(TTL_SECONDS),
            active_deadline_seconds: Some(deadline_seconds.max(1)),
            template: pod,
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// The pod that the Job will make, to ask the API server whether it would take it.
pub(super) fn pod_of(job: &Job) -> Pod {
    let template = job.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let metadata = ObjectMeta {
        name: job.metadata.name.clone(),
        namespace: job.metadata.namespace.clone(),
        ..template.metadata.unwrap_or_default()
    };
    Pod {
        metadata,
        spec: template.spec,
        status: None,
    }
}
