//! One revision: while it is being deleted, it stays readable until no node names it any more, at most ten minutes.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{Patch, PatchParams};
use larder_api::ImageCacheRevision;
use larder_api::names::{FIELD_MANAGER, IN_USE_FINALIZER};
use serde_json::json;

use crate::context::Context;
use crate::world::{Key, pair};

/// A deletion waits for nodes at most this long.
const AT_MOST: SignedDuration = SignedDuration::from_mins(10);

/// The finalizer of a revision could not be removed; it is repeated.
#[derive(Debug, thiserror::Error)]
#[error("cannot remove the finalizer of ImageCacheRevision {0}")]
pub struct Error(String, #[source] kube::Error);

/// Releases a revision under deletion. Returns after how long time alone asks for another run.
pub async fn reconcile(ctx: Arc<Context>, key: Key) -> Result<Option<Duration>, Error> {
    let (namespace, name) = key;
    let Some(revision) = ctx.world.revisions.get(&namespace, &name) else {
        return Ok(None);
    };
    let Some(asked) = revision.metadata.deletion_timestamp.as_ref() else {
        return Ok(None);
    };
    if !revision
        .metadata
        .finalizers
        .iter()
        .flatten()
        .any(|f| f == IN_USE_FINALIZER)
    {
        return Ok(None);
    }
    let now = Timestamp::now();
    let at_most = asked.0 + AT_MOST;
    let named = !ctx.world.objects.indexed(&pair(&namespace, &name)).is_empty();
    if named && now < at_most {
        return Ok(Some(
            Duration::try_from(at_most.duration_since(now)).unwrap_or_default(),
        ));
    }
    let api: Api<ImageCacheRevision> = Api::namespaced(ctx.client.clone(), &namespace);
    drop_finalizer(&api, &name)
        .await
        .map_err(|e| Error(pair(&namespace, &name), e))?;
    Ok(None)
}

/// Takes Larder's finalizer off a revision; one that is gone needs nothing more.
pub(crate) async fn drop_finalizer(api: &Api<ImageCacheRevision>, name: &str) -> Result<(), kube::Error> {
    let Some(current) = api.get_opt(name).await? else {
        return Ok(());
    };
    let mut finalizers = current.metadata.finalizers.unwrap_or_default();
    finalizers.retain(|f| f != IN_USE_FINALIZER);
    let patch = json!({"metadata": {
        "finalizers": finalizers,
        "resourceVersion": current.metadata.resource_version,
    }});
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    match api.patch(name, &params, &Patch::Merge(&patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(|_| ()),
    }
}
