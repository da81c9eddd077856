//! Writes the status of a cache if it differs, and tells transitions as Events.

use std::collections::BTreeSet;

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use larder_api::names::{FIELD_MANAGER, condition};
use larder_api::{ImageCache, ImageCacheStatus, NodeImageCache};
use larder_core::merge::Blocks;
use larder_core::plan::Revisions;
use larder_core::report::{DIGESTS_DIFFER, NodeView, ReportInput};
use larder_core::select::{Eligibility, eligibility};
use larder_core::sources::Combined;
use serde_json::json;

use super::gather::Gathered;
use super::{Error, named, newest_of, revisions_of};
use crate::context::Context;
use crate::events::Kind;

/// Reports. `cache` carries the records of requests as they should be; without `gathered` nothing was resolved this
/// time. Returns when time alone changes the report.
pub(super) async fn report(
    ctx: &Context,
    cache: &ImageCache,
    combined: &Combined,
    gathered: Option<&Gathered>,
) -> Result<Option<Timestamp>, Error> {
    let uid = cache.metadata.uid.as_deref().unwrap_or_default();
    let revisions = revisions_of(ctx, cache);
    let nodes = ctx.world.nodes.all();
    let objects = ctx.world.objects.all();
    let objects: std::collections::BTreeMap<&str, &NodeImageCache> = objects
        .iter()
        .filter_map(|o| Some((o.metadata.name.as_deref()?, &**o)))
        .collect();
    let by_name: Revisions<'_> = revisions
        .iter()
        .filter_map(|r| {
            let key = (r.metadata.namespace.as_deref()?, r.metadata.name.as_deref()?);
            Some((key, &**r))
        })
        .collect();
    let now = Timestamp::now();
    let mut wake_at = None;
    let previous = cache.status.clone().unwrap_or_default();
    let views = nodes
        .iter()
        .filter_map(|facts| {
            let object = objects
                .get(facts.name.as_str())
                .copied()
                .filter(|o| o.spec.node_uid == facts.uid);
            let claim = object.and_then(|o| o.spec.caches.iter().find(|c| c.uid == uid));
            let eligibility = eligibility(&cache.spec.nodes, facts);
            if eligibility == Eligibility::NotMatching && claim.is_none() {
                return None;
            }
            let presence = ctx.world.agent(&facts.name, now);
            wake_at = [wake_at, presence.wake_at()].into_iter().flatten().min();
            let blocks = object.map_or_else(Blocks::default, |o| Blocks::of(o, presence));
            let view = claim.map(|c| blocks.view(c, &by_name)).unwrap_or_default();
            let images = claim.map(|c| blocks.images(c, &by_name)).unwrap_or_default();
            Some(NodeView {
                facts,
                eligibility,
                claim,
                images: if view.on_node.is_some() {
                    images
                } else {
                    Vec::new()
                },
                on_node: view.on_node,
                agent: view.agent,
                kubelet: view.kubelet,
                watched: view.watched,
            })
        })
        .collect();
    let input = ReportInput {
        cache,
        wanted: &combined.wanted,
        revision: newest_of(&revisions, cache),
        unresolved: gathered.map(|g| g.failures.as_slice()).unwrap_or_default(),
        sources: &combined.statuses,
        resolving: gathered.is_some_and(|g| g.pending),
        nodes: views,
        previous: &previous,
        now,
    };
    let next = larder_core::trim::trim(larder_core::report::report(&input));
    let wake_at = [wake_at, larder_core::report::next_wake(&input)]
        .into_iter()
        .flatten()
        .min();
    let current = ctx
        .world
        .caches
        .get(
            cache.metadata.namespace.as_deref().unwrap_or_default(),
            cache.metadata.name.as_deref().unwrap_or_default(),
        )
        .and_then(|c| c.status.clone());
    if current.as_ref() != Some(&next) {
        let mut written = cache.clone();
        written.status = Some(next.clone());
        write(ctx, &written).await?;
        tell(ctx, cache, &current.unwrap_or_default(), &next);
    }
    Ok(wake_at)
}

/// Writes the whole status; the operator is its only writer.
pub(super) async fn write(ctx: &Context, cache: &ImageCache) -> Result<ImageCache, Error> {
    let name = cache.metadata.name.as_deref().unwrap_or_default();
    let namespace = cache.metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<ImageCache> = Api::namespaced(ctx.client.clone(), namespace);
    let body = json!({
        "apiVersion": ImageCache::api_version(&()),
        "kind": ImageCache::kind(&()),
        "metadata": {"name": name, "namespace": namespace, "uid": cache.metadata.uid},
        "status": cache.status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch_status(name, &params, &Patch::Apply(&body)).await {
        Ok(written) => {
            ctx.wrote_cache(written.clone());
            Ok(written)
        }
        // It is gone, or another one has its name: nobody waits for this status.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(cache.clone()),
        Err(error) => Err(Error::Status(named(cache), error)),
    }
}

/// Events on transitions, at most eight for one write.
fn tell(ctx: &Context, cache: &ImageCache, old: &ImageCacheStatus, new: &ImageCacheStatus) {
    let about = cache.object_ref(&());
    let publish = |kind, reason: &str, action: &str, note: &str| {
        ctx.events.publish(about.clone(), kind, reason, action, note);
    };
    let ready = |s: &ImageCacheStatus| {
        s.conditions
            .iter()
            .find(|c| c.type_ == condition::READY)
            .map(|c| (c.status == "True", c.message.clone()))
    };
    let became_ready = ready(new).is_some_and(|(r, _)| r) && !ready(old).is_some_and(|(r, _)| r);
    let revised = old.revision != new.revision;
    if became_ready && (revised || new.last_refresh.as_ref().is_none_or(|r| r.changed > 0)) {
        // Of images that nodes resolve the size is not known.
        let size = Some(&new.summary.size).filter(|size| !size.is_empty());
        let size = size.map(|size| format!(" ({size})")).unwrap_or_default();
        let note = format!(
            "{} nodes hold {} images{size}",
            new.nodes.updated, new.images.total
        );
        publish(Kind::Normal, "Ready", "Pull", &note);
    }
    let differ = |s: &ImageCacheStatus| {
        let resolved = s.conditions.iter().find(|c| c.type_ == condition::RESOLVED);
        let differ = resolved.filter(|c| c.reason == DIGESTS_DIFFER);
        differ.map(|c| c.message.clone())
    };
    if let Some(note) = differ(new).filter(|_| differ(old).is_none()) {
        publish(Kind::Warning, DIGESTS_DIFFER, "Resolve", &note);
    }
    let known: BTreeSet<(&str, String)> = old
        .failures
        .iter()
        .map(|f| (f.image.as_str(), f.reason.to_string()))
        .collect();
    let fresh = new
        .failures
        .iter()
        .filter(|f| !known.contains(&(f.image.as_str(), f.reason.to_string())));
    for failure in fresh.take(5) {
        let on = failure
            .sample_nodes
            .first()
            .map(|n| format!(" on {n}"))
            .unwrap_or_default();
        let what = if failure.image.is_empty() {
            "pods"
        } else {
            &failure.image
        };
        publish(
            Kind::Warning,
            &failure.reason.to_string(),
            "Pull",
            &format!("{what}{on}: {}", failure.message),
        );
    }
    if let Some(purge) = new.last_purge.as_ref().filter(|p| p.finished_at.is_some())
        && old.last_purge.as_ref().is_none_or(|p| p.finished_at.is_none())
    {
        let note = format!(
            "{} removed, {} in use, {} foreign, {} shared",
            purge.removed, purge.in_use, purge.foreign, purge.shared
        );
        publish(Kind::Normal, "Purged", "Purge", &note);
    }
}
