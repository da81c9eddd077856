//! A pull Job and its pod, as the decision sees them.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use larder_api::names::{IMAGES_ANNOTATION, NODE_UID_ANNOTATION, REVISION_ANNOTATION};

use super::pod::{ContainerState, PodView, read_pod};

/// Names a Job and the very object meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID, as the precondition of a deletion.
    pub uid: String,
}

/// A pull Job.
#[derive(Clone, Debug)]
pub struct JobView {
    /// Which.
    pub key: JobKey,
    /// UID of the cache that owns it.
    pub cache_uid: String,
    /// The revision whose images it pulls.
    pub revision: String,
    /// UID of the node that it was made for.
    pub node_uid: String,
    /// Normalised references, in the order of the containers.
    pub images: Vec<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// It is being deleted.
    pub deleting: bool,
    /// It has failed or completed.
    pub finished: bool,
    /// The Job's own words, where it failed.
    pub message: String,
    /// Its pod.
    pub pod: Option<PodView>,
}

impl JobView {
    /// Reads a Job and the newest of its pods. None if it lacks what every pull Job carries.
    pub fn read(job: &Job, pods: &[&Pod]) -> Option<Self> {
        let annotation = |key: &str| job.metadata.annotations.as_ref()?.get(key).cloned();
        let images: Vec<String> = serde_json::from_str(&annotation(IMAGES_ANNOTATION)?).ok()?;
        let created_at = job.metadata.creation_timestamp.as_ref()?.0;
        let conditions = job
            .status
            .as_ref()
            .and_then(|s| s.conditions.as_deref())
            .unwrap_or_default();
        let ended = |kind: &str| conditions.iter().find(|c| c.type_ == kind && c.status == "True");
        let pod = pods
            .iter()
            .max_by_key(|p| p.metadata.creation_timestamp.as_ref().map(|t| t.0))
            .map(|p| read_pod(p, images.len(), created_at));
        Some(Self {
            key: JobKey {
                namespace: job.metadata.namespace.clone()?,
                name: job.metadata.name.clone()?,
                uid: job.metadata.uid.clone().unwrap_or_default(),
            },
            cache_uid: job.metadata.owner_references.as_ref()?.first()?.uid.clone(),
            revision: annotation(REVISION_ANNOTATION)?,
            node_uid: annotation(NODE_UID_ANNOTATION)?,
            images,
            created_at,
            deleting: job.metadata.deletion_timestamp.is_some(),
            finished: ended("Failed").is_some() || ended("Complete").is_some(),
            message: ended("Failed")
                .and_then(|c| c.message.clone())
                .unwrap_or_default(),
            pod,
        })
    }

    /// State of each image, by position. Without a pod all are Pending.
    pub(super) fn states(&self) -> impl Iterator<Item = (&str, &ContainerState)> {
        const PENDING: &ContainerState = &ContainerState::Pending;
        let states = self
            .pod
            .as_ref()
            .map(|p| p.containers.as_slice())
            .unwrap_or_default();
        self.images
            .iter()
            .enumerate()
            .map(move |(i, image)| (image.as_str(), states.get(i).unwrap_or(PENDING)))
    }
}
