//! Reads what a pull pod tells: for each of its images whether it is held, failed or still to come.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use larder_api::names::Reason;

use crate::image_ref::ImageRef;
use crate::message::{pull_reason, redact, shorten};

/// Messages of the registry or runtime are cut to this many characters.
pub(super) const MESSAGE_CHARS: usize = 256;

/// What is known of one image from its container.
#[derive(Clone, Debug, PartialEq)]
pub enum ContainerState {
    /// Nothing yet.
    Pending,
    /// The kubelet pulled the image, or found it.
    Held {
        /// The digest that the kubelet names, if it names one.
        digest: Option<String>,
        /// The repository in which it names it, as `docker.io/library/nginx`.
        repository: Option<String>,
    },
    /// The kubelet could not pull it.
    Failed {
        /// Why.
        reason: Reason,
        /// In the words of the registry or runtime.
        message: String,
    },
}

/// A pull pod, read.
#[derive(Clone, Debug, PartialEq)]
pub struct PodView {
    /// One entry for each image, in the order of the pod's containers.
    pub containers: Vec<ContainerState>,
    /// Why no container can start at all: there is no room on the node.
    pub blocked: Option<String>,
    /// The last time that something moved.
    pub moved_at: Timestamp,
    /// The pod has ended or is being deleted: what is Pending stays so.
    pub over: bool,
    /// The pod's own message, where it failed as a whole.
    pub message: String,
}

/// Reads a pod with containers `i0` to `i<images - 1>`. `created` stands in where the pod has no times of its own.
pub fn read_pod(pod: &Pod, images: usize, created: Timestamp) -> PodView {
    let status = pod.status.as_ref();
    let statuses = status
        .and_then(|s| s.container_statuses.as_deref())
        .unwrap_or_default();
    let containers = (0..images)
        .map(|i| {
            let name = format!("i{i}");
            statuses
                .iter()
                .find(|s| s.name == name)
                .map_or(ContainerState::Pending, read_container)
        })
        .collect();
    let phase = status.and_then(|s| s.phase.as_deref()).unwrap_or_default();
    let message = status
        .map(|s| {
            [s.reason.as_deref(), s.message.as_deref()]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(": ")
        })
        .unwrap_or_default();
    PodView {
        containers,
        blocked: blocked(pod),
        moved_at: moved_at(pod).unwrap_or(created).max(created),
        over: matches!(phase, "Failed" | "Succeeded") || pod.metadata.deletion_timestamp.is_some(),
        message: shorten(&redact(&message), MESSAGE_CHARS),
    }
}

fn read_container(status: &ContainerStatus) -> ContainerState {
    let state = status.state.as_ref();
    // The one proof. A container that never started ends as terminated, too, when its pod goes (ContainerStatusUnknown),
    // and one that will not start has its image all the same.
    if !status.image_id.is_empty() {
        let (repository, digest) = match status.image_id.rsplit_once('@') {
            Some((repository, digest)) => (repository.parse::<ImageRef>().ok(), Some(digest.to_owned())),
            None => (None, None),
        };
        let repository = repository.map(|r| r.name().to_owned());
        return ContainerState::Held { digest, repository };
    }
    let Some(waiting) = state.and_then(|s| s.waiting.as_ref()) else {
        return ContainerState::Pending;
    };
    let message = waiting.message.as_deref().unwrap_or_default();
    match pull_reason(waiting.reason.as_deref().unwrap_or_default(), message) {
        None => ContainerState::Pending,
        Some(reason) => ContainerState::Failed {
            reason,
            message: shorten(&redact(message), MESSAGE_CHARS),
        },
    }
}

fn blocked(pod: &Pod) -> Option<String> {
    let unschedulable = pod.status.as_ref()?.conditions.iter().flatten().find(|c| {
        c.type_ == "PodScheduled" && c.status == "False" && c.reason.as_deref() == Some("Unschedulable")
    })?;
    let words = shorten(
        unschedulable.message.as_deref().unwrap_or_default(),
        MESSAGE_CHARS,
    );
    Some(format!("the pull pod cannot be scheduled: {words}"))
}

fn moved_at(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let times = status
        .container_statuses
        .iter()
        .flatten()
        .flat_map(|s| [s.state.as_ref(), s.last_state.as_ref()])
        .flatten()
        .flat_map(|s| {
            [
                s.running.as_ref().and_then(|r| r.started_at.as_ref()),
                s.terminated.as_ref().and_then(|t| t.finished_at.as_ref()),
                s.terminated.as_ref().and_then(|t| t.started_at.as_ref()),
            ]
        })
        .flatten()
        .map(|t| t.0);
    times.chain(status.start_time.as_ref().map(|t| t.0)).max()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{
        ContainerState as CoreState, ContainerStateTerminated, ContainerStateWaiting,
    };

    use super::*;

    fn status(image_id: &str, state: CoreState) -> ContainerStatus {
        ContainerStatus {
            image_id: image_id.into(),
            state: Some(state),
            ..ContainerStatus::default()
        }
    }

    fn waiting(reason: &str, message: &str) -> CoreState {
        let waiting = ContainerStateWaiting {
            reason: Some(reason.into()),
            message: Some(message.into()),
        };
        CoreState {
            waiting: Some(waiting),
            ..CoreState::default()
        }
    }

    fn terminated(reason: &str) -> CoreState {
        let terminated = ContainerStateTerminated {
            reason: Some(reason.into()),
            ..ContainerStateTerminated::default()
        };
        CoreState {
            terminated: Some(terminated),
            ..CoreState::default()
        }
    }

    #[test]
    fn only_an_image_id_proves_an_image() {
        let held = |digest: Option<&str>| ContainerState::Held {
            digest: digest.map(str::to_owned),
            repository: digest.map(|_| "a.io/x".to_owned()),
        };
        let cases = [
            (
                status("a.io/x@sha256:1", terminated("Completed")),
                held(Some("sha256:1")),
            ),
            (status("sha256:config", terminated("StartError")), held(None)),
            (
                status("a.io/x@sha256:1", waiting("RunContainerError", "no")),
                held(Some("sha256:1")),
            ),
            // What a pod that goes away says of containers that never started.
            (
                status("", terminated("ContainerStatusUnknown")),
                ContainerState::Pending,
            ),
            (
                status("", waiting("PodInitializing", "")),
                ContainerState::Pending,
            ),
        ];
        for (status, expected) in cases {
            assert_eq!(read_container(&status), expected, "{status:?}");
        }
        let failed = read_container(&status("", waiting("ErrImagePull", "x: not found")));
        assert!(
            matches!(
                failed,
                ContainerState::Failed {
                    reason: Reason::NotFound,
                    ..
                }
            ),
            "{failed:?}"
        );
    }
}
