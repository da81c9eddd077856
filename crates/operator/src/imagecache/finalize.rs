//! The finalizer of caches whose deletion has to remove images first.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use larder_api::ImageCache;
use larder_api::image_cache::Removal;
use larder_api::names::{CLEANUP_FINALIZER, FIELD_MANAGER};
use serde_json::json;

use super::{Error, named, until};
use crate::context::Context;
use crate::events::Kind;

/// A deletion waits for nodes at most this long.
const AT_MOST: SignedDuration = SignedDuration::from_mins(10);

/// Has the finalizer present while removal is Purge or `PurgeAll`, and absent otherwise.
pub(super) async fn ensure(ctx: &Context, cache: &mut ImageCache) -> Result<(), Error> {
    let wanted = cache.spec.removal != Removal::Retain;
    let present = has_finalizer(cache);
    if wanted != present {
        set(ctx, cache, wanted).await?;
    }
    Ok(())
}

/// Takes the finalizer off a cache under deletion once no node claims it any more, or after ten minutes.
pub(super) async fn release(ctx: &Context, cache: &ImageCache) -> Result<Option<Duration>, Error> {
    if !has_finalizer(cache) {
        return Ok(None);
    }
    let uid = cache.metadata.uid.as_deref().unwrap_or_default();
    let objects = ctx.world.objects.all();
    let waiting: Vec<&str> = objects
        .iter()
        .filter(|o| o.spec.caches.iter().any(|c| c.uid == uid))
        .filter_map(|o| o.metadata.name.as_deref())
        .collect();
    let now = Timestamp::now();
    let asked = cache.metadata.deletion_timestamp.as_ref().map_or(now, |t| t.0);
    let at_most = asked + AT_MOST;
    if !waiting.is_empty() && cache.spec.removal != Removal::Retain {
        if now < at_most {
            return Ok(Some(until(at_most, now)));
        }
        let note = format!(
            "images were not removed within 10 minutes on {} nodes, such as {}",
            waiting.len(),
            waiting[0]
        );
        ctx.events.publish(
            cache.object_ref(&()),
            Kind::Warning,
            "CleanupTimedOut",
            "Delete",
            &note,
        );
    }
    let mut cache = cache.clone();
    set(ctx, &mut cache, false).await?;
    Ok(None)
}

fn has_finalizer(cache: &ImageCache) -> bool {
    cache
        .metadata
        .finalizers
        .iter()
        .flatten()
        .any(|f| f == CLEANUP_FINALIZER)
}

async fn set(ctx: &Context, cache: &mut ImageCache, present: bool) -> Result<(), Error> {
    let mut finalizers = cache.metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|f| f != CLEANUP_FINALIZER);
    if present {
        finalizers.push(CLEANUP_FINALIZER.into());
    }
    // The whole list is replaced, so the version is a precondition: nobody else's finalizer is lost.
    let patch = json!({"metadata": {
        "finalizers": finalizers,
        "resourceVersion": cache.metadata.resource_version,
        "uid": cache.metadata.uid,
    }});
    let api: Api<ImageCache> = Api::namespaced(
        ctx.client.clone(),
        cache.metadata.namespace.as_deref().unwrap_or_default(),
    );
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    let name = cache.metadata.name.clone().unwrap_or_default();
    match api.patch(&name, &params, &Patch::Merge(&patch)).await {
        Ok(written) => {
            cache.metadata = written.metadata.clone();
            // Without its last finalizer a cache under deletion is gone, and the watch says so.
            if present || written.metadata.deletion_timestamp.is_none() {
                ctx.wrote_cache(written);
            }
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Error::Finalizer(named(cache), error)),
    }
}
