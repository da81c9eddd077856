//! Writes the agent's block of the status.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Error, Resource};
use larder_api::NodeImageCache;
use larder_api::names::AGENT_FIELD_MANAGER;
use larder_api::node_image_cache::AgentStatus;
use serde_json::json;
use tokio::time::Instant;
use tracing::warn;

use super::metrics::Metrics;
use super::object::Object;

/// The loop waits no longer for the API server.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Before a write that failed is repeated; it doubles.
const FIRST_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(30);

/// The one writer of `status.agent`.
pub(super) struct Reporter {
    client: Client,
    node: String,
    object: Arc<Object>,
    metrics: Arc<Metrics>,
    written_at: Option<Timestamp>,
    failures: u32,
    again_at: Option<Instant>,
}

impl Reporter {
    pub(super) fn new(client: Client, node: &str, object: Arc<Object>, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            node: node.to_owned(),
            object,
            metrics,
            written_at: None,
            failures: 0,
            again_at: None,
        }
    }

    /// When this process last wrote.
    pub(super) fn written_at(&self) -> Option<Timestamp> {
        self.written_at
    }

    /// Writes, unless a write failed just now.
    pub(super) async fn write(
        &mut self,
        object: &NodeImageCache,
        status: &AgentStatus,
        now: Timestamp,
    ) -> Written {
        if let Some(again_at) = self.again_at.filter(|at| *at > Instant::now()) {
            return Written::Not(again_at);
        }
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        let apply = apply(&self.client, &self.node, uid, status);
        let answer = match tokio::time::timeout(TIMEOUT, apply).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err("the API server does not answer".to_owned()),
        };
        let result = if answer.is_ok() { "success" } else { "failure" };
        self.metrics.status_writes.with_label_values(&[result]).inc();
        match answer {
            Ok(written) => {
                (self.failures, self.again_at) = (0, None);
                self.written_at = Some(now);
                match written {
                    Some(object) => {
                        self.object.wrote(object);
                        Written::Yes
                    }
                    None => Written::Gone,
                }
            }
            Err(error) => {
                warn!(error, failures = self.failures, "cannot write the status");
                let delay = FIRST_DELAY
                    .saturating_mul(1 << self.failures.min(10))
                    .min(MAX_DELAY);
                self.failures += 1;
                let again_at = Instant::now() + delay;
                self.again_at = Some(again_at);
                Written::Not(again_at)
            }
        }
    }
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It is written.
    Yes,
    /// The object is gone or another by now, as the watch will tell.
    Gone,
    /// Not, and when to try again.
    Not(Instant),
}

/// Applies `status.agent` whole, and answers with the object; none if it is gone, or another one by now. There is one
/// writer of it, so a conflict can only be with a former one, whose fields are taken over.
async fn apply(
    client: &Client,
    node: &str,
    uid: &str,
    status: &AgentStatus,
) -> Result<Option<NodeImageCache>, Error> {
    let api: Api<NodeImageCache> = Api::all(client.clone());
    let patch = json!({
        "apiVersion": NodeImageCache::api_version(&()),
        "kind": NodeImageCache::kind(&()),
        // The one that was decided for, not one made since under its name.
        "metadata": { "uid": uid },
        "status": { "agent": status },
    });
    let params = PatchParams::apply(AGENT_FIELD_MANAGER).force();
    match api.patch_status(node, &params, &Patch::Apply(patch)).await {
        Ok(object) => Ok(Some(object)),
        Err(Error::Api(refusal)) if matches!(refusal.code, 404 | 409) => Ok(None),
        Err(error) => Err(error),
    }
}
