//! Pull Jobs and the kubelet that runs their pods: it pulls the containers of each one after another.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Pod, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use larder_api::names::{IMAGES_ANNOTATION, NODE_UID_ANNOTATION, REVISION_ANNOTATION, WORK_ANNOTATION};
use larder_core::pull::{JobKey, JobView, PullJob};
use larder_core::purge::{PurgeJob, PurgeJobView};

use super::objects::digest_at;
use super::runtime::Runtime;

/// How the registry behaves for an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    Fine,
    /// Fails this many times.
    Fails(u32),
    /// Never answers.
    Hangs,
    /// Has no manifest for the node.
    NoPlatform,
    /// Arrives, and the kubelet calls it this.
    Named(&'static str),
}

/// By image; of others it is [`Fate::Fine`].
pub type Fates = BTreeMap<String, Fate>;

/// A Job and its pod.
#[derive(Clone, Debug)]
pub struct PullPod {
    pub job: Job,
    /// None once it is lost.
    pub pod: Option<Pod>,
    /// Number of the spec for which it was made, over all objects of the node.
    pub spec: i64,
    /// It is being deleted, and its pod goes on for so many steps.
    pub ending: Option<u32>,
}

fn waiting(message: &str) -> ContainerState {
    let waiting = ContainerStateWaiting {
        reason: Some("ErrImagePull".into()),
        message: Some(message.into()),
    };
    ContainerState {
        waiting: Some(waiting),
        ..ContainerState::default()
    }
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
            pod: Some(pod),
            spec,
            ending: None,
        }
    }

    pub fn view(&self) -> JobView {
        JobView::read(&self.job, &self.pod.iter().collect::<Vec<_>>()).unwrap()
    }

    /// Images that it is to bring.
    pub fn images(&self) -> Vec<String> {
        self.view().images
    }

    /// The kubelet works on the first container that is not done.
    pub fn step(&mut self, now: Timestamp, fates: &mut Fates, runtime: &mut Runtime) {
        let status = self.pod.as_mut().and_then(|p| p.status.as_mut());
        let Some(containers) = status.and_then(|s| s.container_statuses.as_mut()) else {
            return;
        };
        for status in containers.iter_mut().filter(|s| s.state.is_none()) {
            let fate = fates.entry(status.image.clone()).or_insert(Fate::Fine);
            match fate {
                Fate::Hangs => return,
                Fate::NoPlatform => {
                    status.state = Some(waiting("no match for platform in manifest: not found"));
                }
                Fate::Fails(left) if *left > 0 => {
                    *left -= 1;
                    status.state = Some(waiting("failed to resolve reference: not found"));
                }
                Fate::Fine | Fate::Fails(_) | Fate::Named(_) => {
                    let digest = digest_at(&status.image);
                    runtime.arrive(now, &status.image, &digest, true, 0, false);
                    status.image_id = match fate {
                        Fate::Named(id) => (*id).to_owned(),
                        _ => format!("{}@{digest}", status.image),
                    };
                    status.state = Some(ContainerState {
                        terminated: Some(ContainerStateTerminated {
                            finished_at: Some(Time(now)),
                            ..ContainerStateTerminated::default()
                        }),
                        ..ContainerState::default()
                    });
                    return;
                }
            }
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
