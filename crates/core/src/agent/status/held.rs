//! Which revisions a node holds whole.

use larder_api::ImageCacheRevision;

use crate::agent::counted::has_settled;
use crate::agent::scope::Scope;
use crate::agent::wanted::{Claimed, Here, digest_of};
use crate::choose::{Who, is_for_agent};
use crate::pull::MAX_HELD;

/// Revisions held whole, the present one first: looked at each time, not remembered. One that is to be removed is none
/// once nothing is awaited of the present one: until then a rollout counts on it.
pub(super) fn held(
    scope: &Scope<'_>,
    claimed: &Claimed<'_>,
    current: &ImageCacheRevision,
    (whole, settled): (bool, bool),
) -> Vec<String> {
    let claim = claimed.claim;
    let lets_go = settled && has_settled(scope.input, claim);
    let goes = |name: &String| lets_go && claim.remove_revisions.contains(name);
    let older = scope
        .previous(&claim.uid)
        .into_iter()
        .flat_map(|p| &p.held)
        .filter(|name| **name != claim.revision && !goes(name))
        .filter(|name| {
            let revision = scope
                .input
                .revisions
                .get(&(claim.namespace.as_str(), name.as_str()));
            revision.is_some_and(|r| holds(scope, claim.into(), r))
        });
    let this = (whole && is_any(claim.into(), current)).then_some(&claim.revision);
    this.into_iter().chain(older).take(MAX_HELD).cloned().collect()
}

fn is_any(who: Who, revision: &ImageCacheRevision) -> bool {
    let spec = &revision.spec.spec;
    spec.images.iter().any(|i| is_for_agent(who, spec, i))
}

/// The content of every image of a revision that is the agent's and that the node's platform has; tags may have moved on.
fn holds(scope: &Scope<'_>, who: Who, revision: &ImageCacheRevision) -> bool {
    let spec = &revision.spec.spec;
    let mut ours = spec.images.iter().filter(|i| is_for_agent(who, spec, i));
    is_any(who, revision)
        && ours.all(|image| {
            let here = Here::of(image, scope.input.os, scope.input.architecture);
            let Some(digest) = image.digest.as_deref().or(digest_of(&image.image)) else {
                return scope.store.tagged(&image.image).is_some_and(|i| i.complete);
            };
            let digests: Vec<&str> = std::iter::once(digest).chain(here.manifests).collect();
            here.missing || scope.store.holds(&digests).is_some()
        })
}
