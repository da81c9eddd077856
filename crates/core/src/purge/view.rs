//! A purge Job as it is found.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use larder_api::names::{NODE_UID_ANNOTATION, WORK_ANNOTATION};

use crate::message::{redact, shorten};
use crate::pull::{JobKey, read_pod};
use crate::removal::PurgeReport;

/// A purge Job, as the decision sees it.
#[derive(Clone, Debug)]
pub struct PurgeJobView {
    /// Which.
    pub key: JobKey,
    /// What it carries out: [`PurgeJob::work`].
    pub work: String,
    /// UID of the node that it was made for.
    pub node_uid: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// It is being deleted.
    pub deleting: bool,
    /// Its container has started.
    pub begun: bool,
    /// What it reported.
    pub report: Option<PurgeReport>,
    /// Why it failed, or what keeps it from starting.
    pub error: Option<String>,
    /// It has ended.
    pub over: bool,
}

impl PurgeJobView {
    /// Reads a Job and the newest of its pods. None if it lacks what every purge Job carries.
    pub fn read(job: &Job, pods: &[&Pod]) -> Option<Self> {
        let annotation = |key: &str| job.metadata.annotations.as_ref()?.get(key).cloned();
        let created_at = job.metadata.creation_timestamp.as_ref()?.0;
        let pod = pods
            .iter()
            .max_by_key(|p| p.metadata.creation_timestamp.as_ref().map(|t| t.0));
        let status = pod.and_then(|p| p.status.as_ref());
        let container = status.and_then(|s| s.container_statuses.as_ref()?.first());
        let state = container.and_then(|c| c.state.as_ref());
        let ended = state.and_then(|s| s.terminated.as_ref());
        let words = ended.and_then(|t| t.message.as_deref()).unwrap_or_default();
        let report = ended
            .filter(|t| t.exit_code == 0)
            .and_then(|_| serde_json::from_str(words).ok());
        let failed_job = job
            .status
            .iter()
            .flat_map(|s| s.conditions.iter().flatten())
            .find(|c| c.type_ == "Failed" && c.status == "True");
        let over = ended.is_some() || failed_job.is_some();
        let error = if report.is_some() {
            None
        } else if let Some(ended) = ended {
            let reason = ended.reason.as_deref().unwrap_or("Error");
            Some(format!(
                "the purge pod ended with {} ({reason}): {}",
                ended.exit_code,
                error_words(words)
            ))
        } else if let Some(pod) = pod {
            let waiting = state
                .and_then(|s| s.waiting.as_ref())
                .and_then(|w| w.message.clone());
            let view = read_pod(pod, 0, created_at);
            waiting
                .or(view.blocked)
                .or(Some(view.message).filter(|m| !m.is_empty()))
        } else {
            failed_job.and_then(|c| c.message.clone())
        };
        Some(Self {
            key: JobKey {
                namespace: job.metadata.namespace.clone()?,
                name: job.metadata.name.clone()?,
                uid: job.metadata.uid.clone().unwrap_or_default(),
            },
            work: annotation(WORK_ANNOTATION)?,
            node_uid: annotation(NODE_UID_ANNOTATION)?,
            created_at,
            deleting: job.metadata.deletion_timestamp.is_some(),
            begun: state.is_some_and(|s| s.running.is_some()) || ended.is_some(),
            report,
            error: error.map(|e| shorten(&redact(&e), 256)),
            over,
        })
    }
}

/// The agent reports failures as `{"error": "…"}`.
fn error_words(message: &str) -> String {
    serde_json::from_str::<serde_json::Value>(message)
        .ok()
        .and_then(|v| v.get("error")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| message.to_owned())
}
