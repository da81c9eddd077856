//! What is removed, and what the status says of it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::NodeImageCacheSpec;
use larder_api::image_cache::Puller;
use larder_api::names::Reason;
use larder_api::node_image_cache::{CacheClaim, CacheOnNode, Desired, NodeState};

use super::counted::kubelet_agrees;
use super::left;
use super::presence::Store;
use super::scope::{Scope, previous};
use super::types::{AgentInput, Memory, RemoveOrder, Removed};
use crate::entry::{going, is_leaving};
use crate::message::{redact, shorten};
use crate::plan::{Revisions, earliest, saturating, whole_seconds};
use crate::purge::{Claims, RETRY_AFTER, failure, gone, leaving};
use crate::removal::PurgeEntry;

/// The work of a removal of which only the status is known.
pub(super) const WORK_OF_STATUS: &str = "";
/// What comes of it.
#[derive(Default)]
pub(super) struct Removals {
    pub(super) order: Option<RemoveOrder>,
    /// One is due, and begins once the status of this decision has been written.
    pub(super) awaits_write: bool,
    pub(super) wake_at: Option<Timestamp>,
}

/// Decides for every claim, and changes the entries of those for which something is removed or was. `settled` has the
/// UIDs of the Present claims that wait for no image: what is new comes before what is old goes.
pub(super) fn decide(scope: &Scope<'_>, settled: &BTreeSet<&str>, caches: &mut Vec<CacheOnNode>) -> Removals {
    let input = scope.input;
    let claims = claims(input.spec, input.revisions, &scope.store);
    let mut removals = Removals::default();
    let mut sorted: Vec<&CacheClaim> = input.spec.caches.iter().collect();
    sorted.sort_by(|a, b| (&a.namespace, &a.name, &a.uid).cmp(&(&b.namespace, &b.name, &b.uid)));
    for claim in sorted {
        let place = caches.iter().position(|c| c.uid == claim.uid);
        let current = place.map(|i| caches.swap_remove(i)).or_else(|| {
            scope
                .previous(&claim.uid)
                .filter(|_| claim.desired == Desired::Absent)
                .cloned()
        });
        let next = match claim.desired {
            // Jobs pull and remove: see `merge::Blocks::agent_removes`.
            Desired::Absent if claim.puller == Puller::Job => None,
            Desired::Present if claim.puller == Puller::Job => current,
            Desired::Absent => Some(absent(scope, &claims, claim, current, &mut removals)),
            Desired::Present if settled.contains(claim.uid.as_str()) => {
                present(scope, &claims, claim, current, &mut removals)
            }
            Desired::Present => current,
        };
        caches.extend(next);
    }
    removals
}

/// A claim whose images are to go, and to stay away for as long as the claim is there.
fn absent(
    scope: &Scope<'_>,
    claims: &Claims<'_>,
    claim: &CacheClaim,
    current: Option<CacheOnNode>,
    removals: &mut Removals,
) -> CacheOnNode {
    let purged = current
        .clone()
        .filter(|c| c.state == NodeState::Purged && c.revision == claim.revision);
    let unreadable = !claims
        .revisions
        .contains_key(&(claim.namespace.as_str(), claim.revision.as_str()));
    let wait = if unreadable {
        Some(Wait::Unreadable)
    } else if scope.wanted.blind {
        Some(Wait::Blind)
    } else if !kubelet_agrees(scope.input, claim) {
        Some(Wait::Kubelet)
    } else {
        None
    };
    if let Some(wait) = wait {
        return purged.unwrap_or_else(|| waiting(scope.input, claim, current.as_ref(), wait));
    }
    let names = going(claim);
    let entries = claims.entries(claim, &names);
    let mut next = purged.clone().unwrap_or_else(|| {
        let mut next = leaving(claim, current.as_ref(), scope.input.now);
        (next.reason, next.message) = (None, String::new());
        next
    });
    if entries.is_empty() {
        if purged.is_none() {
            gone(
                &mut next,
                claim,
                &crate::removal::PurgeReport::default(),
                scope.input.now,
            );
        }
        return next;
    }
    let work = claims.work(claim, &entries);
    let record = record(scope.input.memory, claim, &work, purged.is_some());
    if let Some(Removed {
        report: Ok(report), ..
    }) = record
        && report.failed == 0
    {
        gone(&mut next, claim, report, scope.input.now);
        if let Some(purged) = purged {
            next.since = purged.since;
        }
        if left::is_due_again(scope, claims, claim, record, report, removals) {
            order(scope.input, claims, claim, work, entries, removals);
        }
        return next;
    }
    try_again(scope.input, record, &mut next, removals)
        .then(|| order(scope.input, claims, claim, work, entries, removals));
    next
}

/// A claim that stays, with revisions whose images are to go once: when no container uses them any more.
fn present(
    scope: &Scope<'_>,
    claims: &Claims<'_>,
    claim: &CacheClaim,
    current: Option<CacheOnNode>,
    removals: &mut Removals,
) -> Option<CacheOnNode> {
    let before = scope.previous(&claim.uid);
    let done = |name: &str| before.is_some_and(|c| c.removed_revisions.iter().any(|r| r == name));
    let names: Vec<&str> = claim
        .remove_revisions
        .iter()
        .map(String::as_str)
        // What can no longer be read is left for what reads it to decide.
        .filter(|name| !done(name) && claims.revisions.contains_key(&(claim.namespace.as_str(), *name)))
        .collect();
    if names.is_empty() || scope.wanted.blind || !kubelet_agrees(scope.input, claim) {
        return current;
    }
    let mut next = current.unwrap_or_else(|| leaving(claim, before, scope.input.now));
    let entries = claims.entries(claim, &names);
    let work = claims.work(claim, &entries);
    let record = record(scope.input.memory, claim, &work, false);
    let nothing = crate::removal::PurgeReport::default();
    let report = match record {
        _ if entries.is_empty() => Some(&nothing),
        Some(Removed {
            report: Ok(report), ..
        }) if report.failed == 0 => Some(report),
        _ => None,
    };
    if let Some(report) = report {
        gone(&mut next, claim, report, scope.input.now);
        let in_use = report.in_use > 0;
        next.removed_revisions
            .retain(|r| done(r) || (!in_use && names.contains(&r.as_str())));
        if in_use && left::is_due_again(scope, claims, claim, record, report, removals) {
            order(scope.input, claims, claim, work, entries, removals);
        }
    } else if try_again(scope.input, record, &mut next, removals) {
        order(scope.input, claims, claim, work, entries, removals);
    }
    Some(next)
}

/// Why a removal does not begin yet.
#[derive(Clone, Copy)]
enum Wait {
    /// The claimed revision cannot be read.
    Unreadable,
    /// A revision that may want the same images cannot be read: nothing is removed on a guess.
    Blind,
    /// The kubelet's part still counts on what is to go.
    Kubelet,
}

fn waiting(
    input: &AgentInput<'_>,
    claim: &CacheClaim,
    current: Option<&CacheOnNode>,
    wait: Wait,
) -> CacheOnNode {
    let mut next = leaving(claim, current, input.now);
    (next.reason, next.message) = match wait {
        Wait::Unreadable => (
            Some(Reason::RevisionMissing),
            format!("revision {} cannot be read", claim.revision),
        ),
        Wait::Blind => (
            None,
            "waits for a revision that cannot be read and may want the same".to_owned(),
        ),
        Wait::Kubelet => (
            None,
            "waits until the operator no longer counts on what the kubelet pulled".to_owned(),
        ),
    };
    next
}

/// What is remembered of this very work.
fn record<'a>(memory: &'a Memory, claim: &CacheClaim, work: &str, purged: bool) -> Option<&'a Removed> {
    let removed = memory.removals.get(&claim.uid)?;
    (removed.work == work || (purged && removed.work == WORK_OF_STATUS)).then_some(removed)
}

/// Says what went wrong, if something did. Whether the removal is due now.
fn try_again(
    input: &AgentInput<'_>,
    record: Option<&Removed>,
    next: &mut CacheOnNode,
    removals: &mut Removals,
) -> bool {
    let Some(record) = record else {
        return true;
    };
    let error = match &record.report {
        Ok(report) => failure(report),
        Err(words) => Some(shorten(&redact(words), 256)),
    };
    let until = saturating(record.at, RETRY_AFTER);
    next.removal_error = error.unwrap_or_default();
    next.removal_error_at = Some(Time(whole_seconds(record.at)));
    if input.now < until {
        removals.wake_at = earliest(removals.wake_at, until);
        return false;
    }
    true
}

/// Orders a removal: one at a time on a node, for whether a name is shared is judged by the entries of one, and not while
/// one of its images is being pulled.
fn order(
    input: &AgentInput<'_>,
    claims: &Claims<'_>,
    claim: &CacheClaim,
    work: String,
    entries: Vec<PurgeEntry>,
    removals: &mut Removals,
) {
    let pulling = input
        .pulls
        .iter()
        .any(|p| entries.iter().any(|e| e.reference == p.order.image));
    if removals.order.is_some() || !input.removing.is_empty() || pulling || !input.watching {
        return;
    }
    if !is_told(input, claim) {
        removals.awaits_write = true;
        return;
    }
    removals.order = Some(RemoveOrder {
        cache_uid: claim.uid.clone(),
        generation: input.generation,
        work,
        keep: claims.sharing(&entries),
        entries,
    });
}

/// Whether the status as last written says already that the images are not to be counted on: it is believed, by those who
/// call the removal off, for as long as this agent does not speak again.
fn is_told(input: &AgentInput<'_>, claim: &CacheClaim) -> bool {
    previous(input.previous, &claim.uid).is_none_or(|said| match claim.desired {
        Desired::Absent => is_leaving(said),
        Desired::Present => !said.held.iter().any(|r| claim.remove_revisions.contains(r)),
    })
}

/// Notes what removals left, so that what comes back is told from what had to stay.
pub(super) fn look(
    memory: &mut Memory,
    spec: &NodeImageCacheSpec,
    revisions: &Revisions<'_>,
    store: &Store<'_>,
) {
    let claims = claims(spec, revisions, store);
    for claim in &spec.caches {
        if let Some(removed) = memory.removals.get_mut(&claim.uid)
            && removed.left.is_none()
        {
            removed.left = Some(left::hash(&left::of(&claims, claim, store)));
        }
    }
}

fn claims<'a>(spec: &'a NodeImageCacheSpec, revisions: &'a Revisions<'a>, store: &Store<'_>) -> Claims<'a> {
    let mut not_ready = BTreeSet::new();
    for claim in spec.caches.iter().filter(|c| c.desired == Desired::Present) {
        let revision = revisions.get(&(claim.namespace.as_str(), claim.revision.as_str()));
        for image in revision.iter().flat_map(|r| &r.spec.spec.images) {
            let digests: Vec<&str> = image
                .digest
                .iter()
                .chain(image.platforms.iter().map(|p| &p.digest))
                .map(String::as_str)
                .collect();
            let arrived = if digests.is_empty() {
                store.tagged(&image.image).is_some_and(|i| i.complete)
            } else {
                store.holds(&digests).is_some()
            };
            if !arrived {
                not_ready.insert((format!("{}/{}", claim.namespace, claim.name), image.image.clone()));
            }
        }
    }
    Claims {
        node_uid: &spec.node_uid,
        all: &spec.caches,
        revisions,
        not_ready,
    }
}

/// Of a claim that is to be Absent, what was last written: for when the runtime cannot be asked.
pub(super) fn unasked(input: &AgentInput<'_>, claim: &CacheClaim) -> CacheOnNode {
    let current = previous(input.previous, &claim.uid);
    match current.filter(|c| c.state == NodeState::Purged && c.revision == claim.revision) {
        Some(purged) => purged.clone(),
        None => leaving(claim, current, input.now),
    }
}
