//! Pull Jobs and the kubelet that runs their pods: it pulls the containers of each one after another.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use larder_api::names::{IMAGES_ANNOTATION, NODE_UID_ANNOTATION, REVISION_ANNOTATION, WORK_ANNOTATION};
use larder_core::pull::{JobKey, JobView, PullJob};
use larder_core::purge::{PurgeJob, PurgeJobView};

use super::objects::digest;
use super::runtime::Runtime;

/// A Job and its pod.
#[derive(Clone, Debug)]
pub struct PullPod {
    pub job: Job,
    pub pod: Pod,
    /// Number of the spec for which it was made, over all objects of the node.
    pub spec: i64,
    /// It is being deleted, and its pod goes on for so many steps.
    pub ending: Option<u32>,
}

impl PullPod {
    pub fn new(now: Timestamp, wanted: &PullJob, spec: i64) -> Self {
        let annotations = BTreeMap::from([
            (
                IMAGES_ANNOTATION.to_owned(),
                serde_json::to_string(&wanted.images).unwrap(),
            ),
            (NODE_UID_ANNOTATION.to_owned(), wanted.node_uid.clone()),
            (REVISION_ANNOTATION.to_owned(), wanted.revision.clone()),
            (WORK_ANNOTATION.to_owned(), String::new()),
        ]);
        let owner = OwnerReference {
            uid: wanted.cache_uid.clone(),
            ..OwnerReference::default()
        };
        let metadata = ObjectMeta {
            name: Some(wanted.name.clone()),
            namespace: Some(wanted.namespace.clone()),
            uid: Some(format!("uid-{}", wanted.name)),
            annotations: Some(annotations),
            owner_references: Some(vec![owner]),
            creation_timestamp: Some(Time(now)),
            ..ObjectMeta::default()
        };
        let containers = wanted
            .images
            .iter()
            .enumerate()
            .map(|(i, image)| ContainerStatus {
                name: format!("i{i}"),
                image: image.clone(),
                ..ContainerStatus::default()
            });
        let pod = Pod {
            metadata: ObjectMeta {
                creation_timestamp: Some(Time(now)),
                ..ObjectMeta::default()
            },
            status: Some(PodStatus {
                phase: Some("Pending".into()),
                start_time: Some(Time(now)),
                container_statuses: Some(containers.collect()),
                ..PodStatus::default()
            }),
            ..Pod::default()
        };
        Self {
            job: Job {
                metadata,
                ..Job::default()
            },
            pod,
            spec,
            ending: None,
        }
    }

    pub fn view(&self) -> JobView {
        JobView::read(&self.job, &[&self.pod]).unwrap()
    }

    /// Images that it is to bring.
    pub fn images(&self) -> Vec<String> {
        self.view().images
    }

    /// The kubelet moves on by one image.
    pub fn step(&mut self, now: Timestamp, runtime: &mut Runtime) {
        let status = self.pod.status.as_mut();
        let containers = status.and_then(|s| s.container_statuses.as_mut());
        let next = containers.and_then(|all| all.iter_mut().find(|s| s.state.is_none()));
        if let Some(status) = next {
            let digest = digest(&status.image);
            runtime.arrive(now, &status.image, &digest, true, 0, false);
            status.image_id = format!("{}@{digest}", status.image);
            status.state = Some(ContainerState {
                terminated: Some(ContainerStateTerminated {
                    finished_at: Some(Time(now)),
                    ..ContainerStateTerminated::default()
                }),
                ..ContainerState::default()
            });
        }
    }
}

/// A purge Job whose pod has started.
pub fn begun(now: Timestamp, wanted: &PurgeJob) -> PurgeJobView {
    PurgeJobView {
        key: JobKey {
            namespace: "agents".into(),
            name: wanted.name.clone(),
            uid: wanted.name.clone(),
        },
        work: wanted.work.clone(),
        node_uid: wanted.node_uid.clone(),
        created_at: now,
        deleting: false,
        begun: true,
        report: None,
        error: None,
        over: false,
    }
}
