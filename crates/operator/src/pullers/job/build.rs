//! The Job that lets a node's kubelet pull images. Pure.
//!
//! Each image is a container of its pod; each runs the no-op program that the first container put into a shared folder,
//! so that any image will do, also one without a shell.
//!
//! That first container is an ordinary one, not an init container: the kubelet starts containers in their order, so the
//! program is there a long time before the next image has been pulled, while the end of an init container is noticed
//! only up to a second later. Should the program be missing all the same, the container fails to start and its image has
//! been pulled, which is what it is for; nor do the images wait where the program's own image cannot be had.
//!
//! Its end is also why failed pulls are told at once. The kubelet writes what became of a pod's containers when it looks at
//! the pod again: when one of them started or ended since it began to look, else only after 10 to 15 seconds (kubelet
//! 1.36, `backOffPeriod` of its pod workers). The program ends while images are being pulled, or a moment after.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, LocalObjectReference, PodSpec, PodTemplateSpec, ResourceRequirements,
    Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use larder_api::ImageCache;
use larder_api::image_cache::PodTemplate;
use larder_api::names::{
    CACHE_ANNOTATION, IMAGES_ANNOTATION, NODE_ANNOTATION, NODE_UID_ANNOTATION, PURPOSE_PULL,
    REVISION_ANNOTATION,
};
use larder_core::facts::NodeFacts;
use larder_core::image_ref::ImageRef;
use larder_core::images::WantedImages;
use larder_core::pull::PullJob;
use larder_core::select::pod_tolerations;

use crate::config::ProgramImage;
use crate::pullers::pod::{confined, job, labels, on_node, resources};

/// Where the no-op program lies in every container.
const FOLDER: &str = "/larder";
const PROGRAM: &str = "/larder/noop";
/// Where it lies in the images that bring it.
const SOURCE: &str = "/larder-noop";
const VOLUME: &str = "larder";
/// The folder holds one program of a few KiB.
const FOLDER_SIZE: &str = "16Mi";
/// The user that everything runs as: `nobody` on most systems.
const USER: i64 = 65534;

/// Builds the Job that the decision asks for. `wanted` tells how the user, or a source, spells the images; `program` is
/// where the no-op program comes from.
pub fn build(
    pull: &PullJob,
    cache: &ImageCache,
    wanted: &WantedImages,
    node: &NodeFacts,
    program: &ProgramImage<'_>,
) -> Job {
    let template = cache.spec.pod_template.clone().unwrap_or_default();
    let images = serde_json::to_string(&pull.images).unwrap_or_default();
    let metadata = ObjectMeta {
        name: Some(pull.name.clone()),
        namespace: Some(pull.namespace.clone()),
        labels: Some(labels(PURPOSE_PULL)),
        annotations: Some(BTreeMap::from([
            (NODE_ANNOTATION.into(), pull.node.clone()),
            (NODE_UID_ANNOTATION.into(), pull.node_uid.clone()),
            (CACHE_ANNOTATION.into(), pull.cache.clone()),
            (REVISION_ANNOTATION.into(), pull.revision.clone()),
            (IMAGES_ANNOTATION.into(), images),
        ])),
        owner_references: Some(vec![OwnerReference {
            api_version: ImageCache::api_version(&()).into_owned(),
            kind: ImageCache::kind(&()).into_owned(),
            name: cache.name_any(),
            uid: pull.cache_uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(false),
        }]),
        ..ObjectMeta::default()
    };
    job(
        metadata,
        pull.deadline_seconds,
        pod(pull, cache, wanted, template, node, program),
    )
}

fn pod(
    pull: &PullJob,
    cache: &ImageCache,
    wanted: &WantedImages,
    template: PodTemplate,
    node: &NodeFacts,
    program: &ProgramImage<'_>,
) -> PodTemplateSpec {
    let own = resources(&[("cpu", "1m"), ("memory", "4Mi")], &[("memory", "64Mi")]);
    let resources = template.resources.unwrap_or(own);
    let secrets = &cache.spec.pull_secrets;
    let spec = PodSpec {
        affinity: Some(on_node(&pull.node)),
        tolerations: Some(pod_tolerations(&cache.spec.nodes, node)),
        restart_policy: Some("Never".into()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        // A pod that is deleted has nothing to finish.
        termination_grace_period_seconds: Some(1),
        service_account_name: template.service_account_name,
        priority_class_name: template.priority_class_name,
        image_pull_secrets: (!secrets.is_empty()).then(|| {
            secrets
                .iter()
                .map(|s| LocalObjectReference { name: s.name.clone() })
                .collect()
        }),
        // In the user's spelling: the kubelet records what it pulled under the very words of the pod (KEP-2535), and a
        // pod that says `nginx` and must not pull would not be let use what was pulled as docker.io/library/nginx.
        containers: std::iter::once(install(&resources, program))
            .chain(
                pull.images
                    .iter()
                    .enumerate()
                    .map(|(i, image)| pull_one(i, wanted.written(image), &resources)),
            )
            .collect(),
        volumes: Some(vec![Volume {
            name: VOLUME.into(),
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: Some(Quantity(FOLDER_SIZE.into())),
                medium: None,
            }),
            ..Volume::default()
        }]),
        ..PodSpec::default()
    };
    let metadata = ObjectMeta {
        labels: Some(template.labels),
        annotations: Some(template.annotations),
        ..ObjectMeta::default()
    };
    PodTemplateSpec {
        metadata: Some(metadata),
        spec: Some(spec),
    }
}

fn install(resources: &ResourceRequirements, program: &ProgramImage<'_>) -> Container {
    Container {
        name: "noop".into(),
        image: Some(program.reference.to_owned()),
        image_pull_policy: Some(program.pull_policy.as_str().into()),
        command: Some(vec![SOURCE.into(), "install".into(), PROGRAM.into()]),
        resources: Some(resources.clone()),
        security_context: Some(confined(USER)),
        volume_mounts: Some(vec![mount(false)]),
        ..Container::default()
    }
}

fn pull_one(index: usize, image: &str, resources: &ResourceRequirements) -> Container {
    Container {
        name: format!("i{index}"),
        image: Some(image.to_owned()),
        image_pull_policy: Some(policy(image).into()),
        command: Some(vec![PROGRAM.into()]),
        // The image's own may not exist for this user.
        working_dir: Some(FOLDER.into()),
        resources: Some(resources.clone()),
        security_context: Some(confined(USER)),
        volume_mounts: Some(vec![mount(true)]),
        ..Container::default()
    }
}

/// A tag is asked for anew each time; what a digest names never changes.
fn policy(image: &str) -> &'static str {
    if ImageRef::parse(image).is_ok_and(|r| r.digest().is_some()) {
        "IfNotPresent"
    } else {
        "Always"
    }
}

fn mount(read_only: bool) -> VolumeMount {
    VolumeMount {
        name: VOLUME.into(),
        mount_path: FOLDER.into(),
        read_only: Some(read_only),
        ..VolumeMount::default()
    }
}
