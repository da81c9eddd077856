//! Writes the agent's block of the status.

use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Error, Resource};
use larder_api::NodeImageCache;
use larder_api::names::AGENT_FIELD_MANAGER;
use larder_api::node_image_cache::AgentStatus;
use serde_json::json;

/// Applies `status.agent` whole, and answers with the object; none if it is gone, or another one by now. There is one
/// writer of it, so a conflict can only be with a former one, whose fields are taken over.
pub(super) async fn report(
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
