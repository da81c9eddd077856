//! One `ImageCache`: what is asked for, what its references mean, which revision that makes, what its status says.

mod accept;
mod finalize;
mod gather;
mod report;
mod revise;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use larder_api::{ImageCache, ImageCacheRevision};
use larder_core::images::images_hash;
use larder_core::revise::owned;
use larder_core::sources::{Combined, SourceView, combine};
use larder_core::{requests, revision};

use crate::api_error::is_terminating;
use crate::context::Context;
use crate::world::{Key, pair};
pub(crate) use gather::read_secrets;

/// What could not be done for a cache; it is repeated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The status is as it was.
    #[error("cannot write the status of ImageCache {0}")]
    Status(String, #[source] kube::Error),
    /// An accepted annotation is still there.
    #[error("cannot remove annotation {1} of ImageCache {0}")]
    Annotation(String, String, #[source] kube::Error),
    /// The finalizer is not as it should be.
    #[error("cannot change the finalizers of ImageCache {0}")]
    Finalizer(String, #[source] kube::Error),
    /// A revision was not made, raised or deleted.
    #[error("cannot write ImageCacheRevision {0}")]
    Revision(String, #[source] kube::Error),
    /// It is not known which revisions are still named.
    #[error("cannot list NodeImageCaches")]
    List(#[source] kube::Error),
}

/// Works on one cache. Returns after how long it wants to be called again.
pub async fn reconcile(ctx: Arc<Context>, key: Key) -> Result<Option<Duration>, Error> {
    let Some(found) = ctx.world.caches.get(&key.0, &key.1) else {
        ctx.sources.forget(&key);
        return Ok(None);
    };
    let mut cache = (*found).clone();
    let now = Timestamp::now();
    if cache.metadata.deletion_timestamp.is_some() {
        let combined = known(&ctx, &cache);
        report::report(&ctx, &cache, &combined, None).await?;
        // The report may have made a newer version; the finalizer is taken off that one.
        let Some(cache) = ctx.world.caches.get(&key.0, &key.1) else {
            return Ok(None);
        };
        return finalize::release(&ctx, &cache).await;
    }
    finalize::ensure(&ctx, &mut cache).await?;

    let asked = requests::read(&cache, &images_hash(&cache.spec), now);
    if asked.accepted {
        cache = accept::accept(&ctx, cache, &asked).await?;
    } else {
        let status = cache.status.get_or_insert_default();
        status.last_refresh.clone_from(&asked.last_refresh);
        status.last_purge.clone_from(&asked.last_purge);
    }

    let purged = asked.last_purge.as_ref().is_some_and(|p| p.in_force);
    let (combined, gathered) = if purged || cache.spec.suspend {
        (known(&ctx, &cache), None)
    } else {
        let revisions = revisions_of(&ctx, &cache);
        let newest = newest_of(&revisions, &cache);
        let refresh = asked.last_refresh.as_ref().filter(|r| r.finished_at.is_none());
        let not_before = refresh.and_then(|r| r.requested_at.as_ref()).map(|t| t.0);
        let read = ctx.sources.read(&cache, not_before).await;
        let combined = combined(&cache, &read.views, newest);
        let believe_at = ctx.sources.note(&cache, &combined);
        let wanted = &combined.wanted;
        let mut gathered = gather::gather(&ctx, &cache, wanted, newest, asked.last_refresh.as_ref()).await;
        gathered.pending |= read.pending;
        gathered.retry_at = [gathered.retry_at, read.wake_at, believe_at]
            .into_iter()
            .flatten()
            .min();
        // Where nothing can be parsed or read, nodes keep what they have; Accepted and Resolved say why.
        if !wanted.images.is_empty() || combined.is_empty_for_good() {
            match revise::revise(&ctx, &mut cache, wanted, &gathered, &revisions).await {
                // Its revisions went first; the cache is the next.
                Err(Error::Revision(_, error)) if is_terminating(&error) => return Ok(None),
                revised => revised?,
            }
        }
        (combined, Some(gathered))
    };
    let report_at = report::report(&ctx, &cache, &combined, gathered.as_ref()).await?;
    revise::prune(&ctx, &cache).await?;

    let retry_at = gathered.and_then(|g| g.retry_at);
    let wake = [asked.wake_at, retry_at, report_at].into_iter().flatten().min();
    Ok(wake.map(|at| until(at, Timestamp::now())))
}

/// The cache's images and what its status says of sources, from what these said.
fn combined(cache: &ImageCache, views: &[SourceView], newest: Option<&ImageCacheRevision>) -> Combined {
    let previous = cache.status.as_ref().map(|s| s.sources.as_slice());
    combine(
        &cache.spec,
        views,
        newest.map(|n| &n.spec.spec),
        previous.unwrap_or_default(),
    )
}

/// The same without asking anybody.
fn known(ctx: &Context, cache: &ImageCache) -> Combined {
    let revisions = revisions_of(ctx, cache);
    combined(cache, &ctx.sources.look(cache), newest_of(&revisions, cache))
}

/// `namespace/name`.
fn named(cache: &ImageCache) -> String {
    pair(&cache.namespace().unwrap_or_default(), &cache.name_any())
}

/// Time from `now` to `at`; none if that is past.
fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default()
}

/// Every revision whose name may be that of one of the cache's, whoever owns it.
fn revisions_of(ctx: &Context, cache: &ImageCache) -> Vec<Arc<ImageCacheRevision>> {
    let prefix = format!("{}-", cache.name_any());
    let mut all = ctx.world.revisions.all();
    all.retain(|r| r.metadata.namespace == cache.metadata.namespace && r.name_any().starts_with(&prefix));
    all
}

/// The newest of the cache's own.
fn newest_of<'a>(
    revisions: &'a [Arc<ImageCacheRevision>],
    cache: &ImageCache,
) -> Option<&'a ImageCacheRevision> {
    let uid = cache.metadata.uid.as_deref()?;
    let ours: Vec<&ImageCacheRevision> = revisions.iter().map(|r| &**r).filter(|r| owned(r, uid)).collect();
    revision::newest(&ours)
}

#[cfg(test)]
mod tests;
