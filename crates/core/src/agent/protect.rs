//! Which images are pinned and unpinned.

use std::collections::{BTreeMap, BTreeSet};

use larder_api::node_image_cache::Capability;

use super::scope::Scope;
use super::types::{Action, ImageObserved};
use super::wanted::{Here, digest_of};

/// What comes of it.
#[derive(Default)]
pub(super) struct Protection {
    pub(super) actions: Vec<Action>,
    /// Images that should be pinned and are not yet.
    pub(super) open: usize,
}

/// Pins what pinning claims want and the node holds, whoever pulled it, and unpins what Larder pinned and no claim wants
/// pinned any more. A pin that something else set is left alone.
pub(super) fn decide(scope: &Scope<'_>) -> Protection {
    let mut protection = Protection::default();
    if !scope.can(Capability::Pin) {
        return protection;
    }
    let mut wanted: BTreeSet<&str> = BTreeSet::new();
    let mut pin: BTreeMap<&str, &ImageObserved> = BTreeMap::new();
    for image in scope.wanted.pinned() {
        let here = Here::of(image, scope.input.os, scope.input.architecture);
        let digest = image.digest.as_deref().or(digest_of(&image.image));
        let found: Vec<&ImageObserved> = match digest {
            Some(digest) => std::iter::once(digest)
                .chain(here.manifests)
                .flat_map(|d| scope.store.under(d).iter().copied())
                .collect(),
            None => scope.store.tagged(&image.image).into_iter().collect(),
        };
        // What is only half there keeps its pin: it is about to be repaired.
        wanted.extend(found.iter().map(|i| i.id.as_str()));
        if let Some(whole) = found.into_iter().find(|i| i.complete) {
            pin.insert(&whole.id, whole);
        }
    }
    let unpinned = pin.values().filter(|i| !i.pinned);
    protection.actions.extend(unpinned.map(|i| Action::Pin {
        id: i.id.clone(),
        pin: true,
    }));
    protection.open = protection.actions.len();
    if !scope.wanted.blind {
        let ours: BTreeSet<&str> = scope
            .observed
            .images
            .iter()
            .filter(|i| i.pinned_by_us && !wanted.contains(i.id.as_str()))
            .map(|i| i.id.as_str())
            .collect();
        protection.actions.extend(ours.into_iter().map(|id| Action::Pin {
            id: id.to_owned(),
            pin: false,
        }));
    }
    protection
}
