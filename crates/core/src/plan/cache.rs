//! What one cache wants of every node: who is assigned the newest revision, within the slots there are.

use std::collections::BTreeMap;

use larder_api::image_cache::Removal;
use larder_api::names::CLEANUP_FINALIZER;
use larder_api::node_image_cache::CacheClaim;
use larder_api::{ImageCache, ImageCacheRevision};

use super::place::Place;
use super::{Plan, Snapshot, earliest, saturating, signed, slot_limit};
use crate::facts::NodeFacts;
use crate::select::{Eligibility, eligibility};

/// What a cache as a whole wants of the nodes it matches.
#[derive(Clone, Copy, PartialEq)]
enum Intent {
    /// The newest revision everywhere.
    Hold,
    /// Nothing new; what is, stays.
    Rest,
    /// Everything gone, and the claims with it once that is done.
    Leave(Removal),
    /// Everything gone; the claims stay and say so.
    Purge(Removal),
    /// The claims go, the images stay.
    Drop,
}

fn intent(cache: &ImageCache) -> Intent {
    let purge_in_force = cache
        .status
        .as_ref()
        .and_then(|s| s.last_purge.as_ref())
        .is_some_and(|purge| purge.in_force);
    if cache.metadata.deletion_timestamp.is_some() {
        let cleans = cache
            .metadata
            .finalizers
            .iter()
            .flatten()
            .any(|f| f == CLEANUP_FINALIZER);
        return if cleans && cache.spec.removal != Removal::Retain {
            Intent::Leave(cache.spec.removal)
        } else {
            Intent::Drop
        };
    }
    if purge_in_force {
        // Asked for by hand: it removes what Larder pulled also where leaving images are retained.
        return Intent::Purge(cache.spec.removal.max(Removal::Purge));
    }
    if cache.spec.suspend {
        Intent::Rest
    } else {
        Intent::Hold
    }
}

pub(super) fn plan_cache<'n>(
    snapshot: &Snapshot<'_>,
    nodes: &[&'n NodeFacts],
    cache: &ImageCache,
    newest: Option<&ImageCacheRevision>,
    claims: &mut BTreeMap<&'n str, Vec<CacheClaim>>,
    plan: &mut Plan,
) {
    let uid = cache.metadata.uid.as_deref().unwrap_or_default();
    let intent = intent(cache);
    let newest_name = newest.and_then(|r| r.metadata.name.as_deref());
    let overall = signed(cache.spec.timeouts.overall);

    let places: Vec<Place<'_>> = nodes
        .iter()
        .map(|node| {
            let object = snapshot
                .objects
                .get(node.name.as_str())
                .copied()
                .filter(|o| o.spec.node_uid == node.uid);
            let claimed = object.and_then(|o| Some((o, o.spec.caches.iter().find(|c| c.uid == uid)?)));
            let view = claimed.map(|(object, claim)| snapshot.view(object, claim));
            let watched = view.as_ref().is_some_and(|v| v.watched);
            Place {
                eligibility: eligibility(&cache.spec.nodes, node),
                claim: claimed.map(|(_, claim)| claim),
                on_node: view.and_then(|v| v.on_node),
                watched,
            }
        })
        .collect();

    let workable = places
        .iter()
        .filter(|p| p.eligibility == Eligibility::Workable)
        .count();
    let limit = slot_limit(&cache.spec.rollout.max_concurrent_nodes, workable);
    let mut in_use = 0;
    for place in &places {
        if let (Some(newest), Some(until)) = (newest_name, place.slot_until(newest_name, overall))
            && place.claim.is_some_and(|c| c.revision == newest)
            && until > snapshot.now
        {
            in_use += 1;
            plan.wake_at = earliest(plan.wake_at, until);
        }
    }

    for (node, place) in nodes.iter().zip(&places) {
        let next = match (intent, place.eligibility) {
            (Intent::Drop, _) => None,
            (Intent::Leave(removal), _) => place.absent(snapshot, removal, true),
            (Intent::Purge(removal), _) => {
                place.absent(snapshot, removal, place.eligibility == Eligibility::NotMatching)
            }
            (Intent::Rest, _) => place.claim.cloned(),
            (_, Eligibility::NotMatching) if cache.spec.removal == Removal::Retain => None,
            (_, Eligibility::NotMatching) => place.absent(snapshot, cache.spec.removal, true),
            (Intent::Hold, Eligibility::Workable) => match newest {
                None => place.claim.cloned(),
                Some(newest) => {
                    let takes_slot = place.takes_slot(cache, Some(newest));
                    if takes_slot && in_use >= limit {
                        place.claim.map(|c| place.upkeep(snapshot, cache, None, c))
                    } else {
                        if takes_slot {
                            in_use += 1;
                            plan.wake_at = earliest(plan.wake_at, saturating(snapshot.now, overall));
                        }
                        Some(place.present(snapshot, cache, newest))
                    }
                }
            },
            (Intent::Hold, _) => place.claim.map(|c| place.upkeep(snapshot, cache, None, c)),
        };
        if let Some(claim) = next {
            claims.entry(node.name.as_str()).or_default().push(claim);
        }
    }
    plan.slots_in_use += in_use;
}
