//! Writes the revision that a cache needs, and deletes those that nothing needs any more.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use larder_api::names::{
    FIELD_MANAGER, IN_USE_FINALIZER, MANAGED_BY, MANAGED_BY_LABEL, REVISION_HASH_LABEL, Reason,
};
use larder_api::revision::RevisionBody;
use larder_api::{ImageCache, ImageCacheRevision, ImageCacheRevisionSpec, NodeImageCache};
use larder_core::images::WantedImages;
use larder_core::revise::{Revise, owned};
use larder_core::revision::{self, Moved};
use serde_json::json;

use super::gather::Gathered;
use super::{Error, newest_of, revisions_of};
use crate::context::Context;
use crate::events::Kind;
use crate::revision::drop_finalizer;

/// Moved tags that an Event names.
const NAMED: usize = 5;
/// `sha256:` and twelve digits of a digest are enough to tell two apart.
const DIGEST_CHARS: usize = 19;

/// Makes the newest revision what the cache needs, and counts the digests that moved in the record of the refresh.
pub(super) async fn revise(
    ctx: &Context,
    cache: &mut ImageCache,
    wanted: &WantedImages,
    gathered: &Gathered,
    revisions: &[Arc<ImageCacheRevision>],
) -> Result<(), Error> {
    let name = cache.name_any();
    let uid = cache.metadata.uid.clone().unwrap_or_default();
    let next = revision::build(wanted, &gathered.resolved, &cache.spec.pull_secrets);
    let all: Vec<&ImageCacheRevision> = revisions.iter().map(|r| &**r).collect();
    let api: Api<ImageCacheRevision> = Api::namespaced(
        ctx.client.clone(),
        cache.metadata.namespace.as_deref().unwrap_or_default(),
    );
    let moved = newest_of(revisions, cache)
        .map(|newest| revision::moved(&newest.spec.spec, &next))
        .unwrap_or_default();
    let changed = match larder_core::revise::revise(&name, &uid, next, &all) {
        Revise::Keep { .. } => 0,
        Revise::Raise {
            name,
            number,
            changed,
        } => {
            let patch = json!({"number": number});
            let params = PatchParams {
                field_manager: Some(FIELD_MANAGER.into()),
                ..PatchParams::default()
            };
            let written = api
                .patch(&name, &params, &Patch::Merge(&patch))
                .await
                .map_err(|e| Error::Revision(name, e))?;
            ctx.wrote_revision(written);
            changed
        }
        Revise::Create {
            name,
            number,
            spec,
            changed,
        } => {
            create(ctx, &api, cache, name, number, spec).await?;
            changed
        }
    };
    if let Some(refresh) = cache.status.as_mut().and_then(|s| s.last_refresh.as_mut())
        && refresh.finished_at.is_none()
    {
        refresh.changed += changed;
    }
    tell(ctx, cache, &moved);
    Ok(())
}

/// Tags that moved are counted, and told in one Event.
fn tell(ctx: &Context, cache: &ImageCache, moved: &[Moved]) {
    if moved.is_empty() {
        return;
    }
    ctx.metrics.tags_moved.inc_by(moved.len() as u64);
    let short = |digest: &str| digest.chars().take(DIGEST_CHARS).collect::<String>();
    let named = moved
        .iter()
        .take(NAMED)
        .map(|m| format!("{}: {} -> {}", m.image, short(&m.from), short(&m.to)));
    let more = (moved.len() > NAMED).then(|| format!("and {} more", moved.len() - NAMED));
    let note = named.chain(more).collect::<Vec<_>>().join("; ");
    let reason = Reason::TagMoved.to_string();
    ctx.events
        .publish(cache.object_ref(&()), Kind::Normal, &reason, "Resolve", &note);
}

async fn create(
    ctx: &Context,
    api: &Api<ImageCacheRevision>,
    cache: &ImageCache,
    name: String,
    number: i64,
    spec: ImageCacheRevisionSpec,
) -> Result<(), Error> {
    let hash = revision::hash(&spec);
    let mut object = ImageCacheRevision::new(&name, RevisionBody { number, spec });
    object.metadata = ObjectMeta {
        name: Some(name.clone()),
        namespace: cache.metadata.namespace.clone(),
        labels: Some(
            [
                (MANAGED_BY_LABEL.into(), MANAGED_BY.into()),
                (REVISION_HASH_LABEL.into(), hash),
            ]
            .into(),
        ),
        owner_references: cache.controller_owner_ref(&()).map(|o| vec![o]),
        // From the start: foreground deletion removes dependents at once, and nodes still have to read what to remove.
        finalizers: Some(vec![IN_USE_FINALIZER.into()]),
        ..ObjectMeta::default()
    };
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PostParams::default()
    };
    match api.create(&params, &object).await {
        Ok(written) => ctx.wrote_revision(written),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            // Made before a crash, or by a name that the watch has not shown yet: what is there decides next time.
            let existing = api.get(&name).await.map_err(|e| Error::Revision(name, e))?;
            ctx.wrote_revision(existing);
            ctx.queues
                .caches
                .mark((cache.namespace().unwrap_or_default(), cache.name_any()));
        }
        Err(error) => return Err(Error::Revision(name, error)),
    }
    Ok(())
}

/// Deletes revisions that are old and that no node names in a fresh list.
pub(super) async fn prune(ctx: &Context, cache: &ImageCache) -> Result<(), Error> {
    let uid = cache.metadata.uid.as_deref().unwrap_or_default();
    let revisions = revisions_of(ctx, cache);
    let ours: Vec<&ImageCacheRevision> = revisions.iter().map(|r| &**r).filter(|r| owned(r, uid)).collect();
    let now = Timestamp::now();
    if revision::prunable(&ours, &BTreeSet::new(), now).is_empty() {
        return Ok(());
    }
    let namespace = cache.metadata.namespace.as_deref().unwrap_or_default();
    let nodes: Api<NodeImageCache> = Api::all(ctx.client.clone());
    let fresh = nodes.list(&ListParams::default()).await.map_err(Error::List)?;
    let referenced: BTreeSet<String> = fresh
        .iter()
        .flat_map(|o| &o.spec.caches)
        .filter(|c| c.namespace == namespace)
        .flat_map(|c| std::iter::once(&c.revision).chain(&c.remove_revisions).cloned())
        .collect();
    let api: Api<ImageCacheRevision> = Api::namespaced(ctx.client.clone(), namespace);
    for name in revision::prunable(&ours, &referenced, now) {
        let Some(old) = ours
            .iter()
            .find(|r| r.metadata.name.as_deref() == Some(name.as_str()))
        else {
            continue;
        };
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: old.metadata.uid.clone(),
                resource_version: old.metadata.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        match api.delete(&name, &params).await {
            Ok(_) => drop_finalizer(&api, &name)
                .await
                .map_err(|e| Error::Revision(name, e))?,
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(Error::Revision(name, error)),
        }
    }
    Ok(())
}
