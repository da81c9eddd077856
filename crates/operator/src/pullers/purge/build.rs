//! The Job that removes images from a node: the agent, once, at the runtime's socket. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    Container, HostPathVolumeSource, PodSpec, PodTemplateSpec, Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use larder_api::NodeImageCache;
use larder_api::names::{
    NODE_ANNOTATION, NODE_UID_ANNOTATION, PURGE_SERVICE_ACCOUNT, PURPOSE_PURGE, WORK_ANNOTATION,
};
use larder_core::purge::{END_WITHIN, PurgeJob};

use crate::config::PodSettings;
use crate::pullers::pod::{confined, job, labels, on_node, resources};

/// The host's /run is mounted here: the runtime makes its socket anew when it restarts, so the folder is mounted and
/// not the socket.
const HOST_RUN: &str = "/host/run";
const VOLUME: &str = "host-run";

/// Builds the Job that the decision asks for, owned by the node's object: when that goes, so does the Job.
pub fn build(purge: &PurgeJob, object: &NodeImageCache, settings: &PodSettings) -> Job {
    let metadata = ObjectMeta {
        name: Some(purge.name.clone()),
        namespace: Some(settings.agents_namespace.clone()),
        labels: Some(labels(PURPOSE_PURGE)),
        annotations: Some(BTreeMap::from([
            (NODE_ANNOTATION.into(), purge.node.clone()),
            (NODE_UID_ANNOTATION.into(), purge.node_uid.clone()),
            (WORK_ANNOTATION.into(), purge.work.clone()),
        ])),
        owner_references: Some(vec![OwnerReference {
            api_version: NodeImageCache::api_version(&()).into_owned(),
            kind: NodeImageCache::kind(&()).into_owned(),
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(false),
        }]),
        ..ObjectMeta::default()
    };
    job(metadata, END_WITHIN.as_secs(), pod(purge, settings))
}

fn pod(purge: &PurgeJob, settings: &PodSettings) -> PodTemplateSpec {
    let mut args: Vec<String> = vec!["purge".into(), "--host-run".into(), HOST_RUN.into()];
    for entry in &purge.entries {
        args.push("--entry".into());
        args.push(serde_json::to_string(entry).unwrap_or_default());
    }
    for reference in &purge.keep {
        args.push("--keep".into());
        args.push(reference.clone());
    }
    let container = Container {
        name: "purge".into(),
        image: Some(settings.agent_image.clone()),
        image_pull_policy: Some(settings.image_pull_policy.as_str().into()),
        args: Some(args),
        resources: Some(resources(
            &[("cpu", "1m"), ("memory", "16Mi")],
            &[("memory", "128Mi")],
        )),
        // The socket is root's; no capability is needed to use it.
        security_context: Some(confined(0)),
        volume_mounts: Some(vec![VolumeMount {
            name: VOLUME.into(),
            mount_path: HOST_RUN.into(),
            read_only: Some(true),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    };
    let everything = Toleration {
        operator: Some("Exists".into()),
        ..Toleration::default()
    };
    let spec = PodSpec {
        affinity: Some(on_node(&purge.node)),
        tolerations: Some(vec![everything]),
        restart_policy: Some("Never".into()),
        service_account_name: Some(PURGE_SERVICE_ACCOUNT.into()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(5),
        containers: vec![container],
        volumes: Some(vec![Volume {
            name: VOLUME.into(),
            host_path: Some(HostPathVolumeSource {
                path: "/run".into(),
                type_: Some("Directory".into()),
            }),
            ..Volume::default()
        }]),
        ..PodSpec::default()
    };
    PodTemplateSpec {
        metadata: None,
        spec: Some(spec),
    }
}
