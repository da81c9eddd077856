//! Writes one node's object as planned.

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource};
use larder_api::names::{FIELD_MANAGER, MANAGED_BY, MANAGED_BY_LABEL};
use larder_api::{NodeImageCache, NodeImageCacheSpec};
use larder_core::plan::NodeAction;

use crate::api_error::{is_already_exists, is_conflict, is_not_found};
use crate::context::Context;

/// What could not be written for a node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node has no object.
    #[error("cannot create the object of node {node}")]
    Create {
        /// Name of the node.
        node: String,
        /// Why.
        source: kube::Error,
    },
    /// The object is as it was.
    #[error("cannot change the object of node {node}")]
    Update {
        /// Name of the node.
        node: String,
        /// Why.
        source: kube::Error,
    },
    /// The object is still there.
    #[error("cannot delete the object of node {node}")]
    Delete {
        /// Name of the node.
        node: String,
        /// Why.
        source: kube::Error,
    },
}

impl Error {
    /// Whether the object had changed since the plan was made.
    pub(super) fn is_conflict(&self) -> bool {
        match self {
            Self::Create { source, .. } | Self::Update { source, .. } | Self::Delete { source, .. } => {
                is_conflict(source)
            }
        }
    }
}

/// Does one thing, and tells the world.
pub(super) async fn apply(ctx: &Context, action: NodeAction) -> Result<(), Error> {
    match action {
        NodeAction::Create { node, spec } => create(ctx, &node, spec)
            .await
            .map_err(|source| Error::Create { node, source }),
        NodeAction::Update { node, spec } => update(ctx, &node, &spec)
            .await
            .map_err(|source| Error::Update { node, source }),
        NodeAction::Delete {
            node,
            uid,
            resource_version,
        } => delete(ctx, &node, uid, resource_version)
            .await
            .map_err(|source| Error::Delete { node, source }),
    }
}

async fn create(ctx: &Context, node: &str, spec: NodeImageCacheSpec) -> Result<(), kube::Error> {
    let object = NodeImageCache {
        metadata: ObjectMeta {
            name: Some(node.to_owned()),
            labels: Some([(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())].into()),
            // The object goes with its node; it must not hold the node's deletion up.
            owner_references: Some(vec![OwnerReference {
                api_version: Node::api_version(&()).into_owned(),
                kind: Node::kind(&()).into_owned(),
                name: node.to_owned(),
                uid: spec.node_uid.clone(),
                controller: None,
                block_owner_deletion: None,
            }]),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    };
    let api: Api<NodeImageCache> = Api::all(ctx.client.clone());
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PostParams::default()
    };
    match api.create(&params, &object).await {
        Ok(created) => ctx.wrote_object(created),
        Err(error) if is_already_exists(&error) => {
            // The watch has not told yet: look, so that the next plan sees it.
            if let Some(found) = api.get_opt(node).await? {
                ctx.wrote_object(found);
            }
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

async fn update(ctx: &Context, node: &str, spec: &NodeImageCacheSpec) -> Result<(), kube::Error> {
    let Some(before) = ctx.world.objects.get("", node) else {
        return Ok(());
    };
    let api: Api<NodeImageCache> = Api::all(ctx.client.clone());
    let body = serde_json::json!({
        "apiVersion": NodeImageCache::api_version(&()),
        "kind": NodeImageCache::kind(&()),
        // The UID makes sure that it is this very object; the version, that the plan saw what it changes.
        "metadata": {
            "name": node,
            "uid": before.metadata.uid,
            "resourceVersion": before.metadata.resource_version,
        },
        "spec": spec,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch(node, &params, &Patch::Apply(&body)).await {
        Ok(written) => ctx.wrote_object(written),
        Err(error) => {
            look_again(ctx, &api, node, &error).await?;
            return Err(error);
        }
    }
    Ok(())
}

async fn delete(ctx: &Context, node: &str, uid: String, resource_version: String) -> Result<(), kube::Error> {
    let api: Api<NodeImageCache> = Api::all(ctx.client.clone());
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.clone()),
            resource_version: Some(resource_version),
        }),
        ..DeleteParams::background()
    };
    match api.delete(node, &params).await {
        Ok(answer) => match answer.left() {
            // Somebody's finalizer holds it: the watch tells when it is gone.
            Some(held) => ctx.wrote_object(held),
            None => {
                if let Some(change) = ctx.world.objects.gone("", node, &uid) {
                    ctx.queues.object_changed(&change);
                }
            }
        },
        Err(error) => {
            look_again(ctx, &api, node, &error).await?;
            if !is_not_found(&error) {
                return Err(error);
            }
        }
    }
    Ok(())
}

/// After a refusal because of what we believed: see what is.
async fn look_again(
    ctx: &Context,
    api: &Api<NodeImageCache>,
    node: &str,
    error: &kube::Error,
) -> Result<(), kube::Error> {
    if !is_conflict(error) && !is_not_found(error) {
        return Ok(());
    }
    if let Some(found) = api.get_opt(node).await? {
        ctx.wrote_object(found);
    } else if let Some(known) = ctx.world.objects.get("", node)
        && let Some(change) =
            ctx.world
                .objects
                .gone("", node, known.metadata.uid.as_deref().unwrap_or_default())
    {
        ctx.queues.object_changed(&change);
    }
    Ok(())
}
