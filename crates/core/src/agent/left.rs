//! What a removal left, and whether that is reason for another.

use std::collections::BTreeMap;

use larder_api::node_image_cache::CacheClaim;

use super::presence::Store;
use super::remove::Removals;
use super::scope::Scope;
use super::types::{ImageObserved, Removed};
use super::wanted::digest_of;
use crate::entry::going;
use crate::plan::{earliest, saturating};
use crate::purge::{Claims, RETRY_AFTER};
use crate::removal::PurgeReport;

/// [`Removed::left`] where nothing is.
pub(super) const NOTHING: &str = "";

/// What is there of a claim's removals: reference, image id and whether it has the tag; and whether it is kept by use.
pub(super) type Left = BTreeMap<(String, String, bool), bool>;

pub(super) fn of(claims: &Claims<'_>, claim: &CacheClaim, store: &Store<'_>) -> Left {
    let mut left = Left::new();
    for entry in &claims.entries(claim, &going(claim)) {
        let reference = entry.reference.as_str();
        let digest = entry.digest.as_deref().or(digest_of(reference));
        let tagged = store.tagged(reference).filter(|image| {
            let target = image.tags.get(reference).and_then(Option::as_deref);
            match (digest, target) {
                (Some(digest), Some(target)) => digest == target,
                (Some(digest), None) => image.targets.contains(digest),
                (None, _) => true,
            }
        });
        let mut note = |image: &ImageObserved, has_tag: bool| {
            let kept = image.used || (image.pinned && !image.pinned_by_us);
            left.insert((reference.to_owned(), image.id.clone(), has_tag), kept);
        };
        for image in digest.map_or(&[][..], |d| store.under(d)) {
            note(image, false);
        }
        if let Some(image) = tagged {
            note(image, true);
        }
    }
    left
}

/// In a few characters.
pub(super) fn hash(left: &Left) -> String {
    if left.is_empty() {
        return NOTHING.to_owned();
    }
    let parts: Vec<String> = left.iter().map(|entry| format!("{entry:?}")).collect();
    crate::hash::short(parts.iter().map(String::as_str))
}

/// Whether a removal that went through has to be repeated: something came back or is no longer used. That a container
/// ended before it was looked at shows in there being fewer in use than the removal found; that is tried after a while.
pub(super) fn is_due_again(
    scope: &Scope<'_>,
    claims: &Claims<'_>,
    claim: &CacheClaim,
    record: Option<&Removed>,
    report: &PurgeReport,
    removals: &mut Removals,
) -> bool {
    let Some(Removed {
        at,
        left: Some(before),
        ..
    }) = record
    else {
        return false;
    };
    let left = of(claims, claim, &scope.store);
    if *before != hash(&left) {
        return true;
    }
    let mut kept: Vec<&str> = left
        .iter()
        .filter(|(_, kept)| **kept)
        .map(|((r, ..), _)| r.as_str())
        .collect();
    kept.dedup();
    if kept.len() as i64 >= i64::from(report.in_use) || left.is_empty() {
        return false;
    }
    let until = saturating(*at, RETRY_AFTER);
    if scope.input.now < until {
        removals.wake_at = earliest(removals.wake_at, until);
    }
    scope.input.now >= until
}
