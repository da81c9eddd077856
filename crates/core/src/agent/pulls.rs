//! Which pulls begin and end, and how every wanted image stands.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use larder_api::names::Reason;
use larder_api::node_image_cache::Capability;

use super::disk::{Fit, Guard};
use super::presence::Presence;
use super::scope::Scope;
use super::types::{Action, Failed, PullOrder, RunningPull, Vanished};
use super::wanted::{Key, Want};
use crate::backoff;
use crate::plan::{earliest, saturating};

/// Pulls of a node at a time where its object does not say.
const PULLS: usize = 5;

/// How a wanted image stands.
#[derive(Debug)]
pub(super) enum Standing<'a> {
    /// It is there.
    Whole,
    /// It is being pulled, maybe again.
    Pulling(&'a RunningPull, Option<&'a Failed>),
    /// It failed and waits for the next attempt.
    Failed(&'a Failed),
    /// It keeps vanishing and waits before it is brought back.
    Vanishing(Vanished),
    /// The disk has no room for it, in words.
    Refused(String),
    /// It waits for its turn.
    Waiting,
}

/// What comes of it.
#[derive(Default)]
pub(super) struct Pulls<'a> {
    pub(super) standings: BTreeMap<Key<'a>, Standing<'a>>,
    pub(super) cancel: Vec<Action>,
    pub(super) tag: Vec<Action>,
    pub(super) pull: Vec<Action>,
    pub(super) wake_at: Option<Timestamp>,
}

/// Decides.
pub(super) fn decide<'a>(scope: &Scope<'a>) -> Pulls<'a> {
    let mut pulls = Pulls::default();
    let running: BTreeMap<Key<'a>, &RunningPull> = scope
        .input
        .pulls
        .iter()
        .map(|p| ((p.order.image.as_str(), p.order.digest.as_deref()), p))
        .collect();
    if !scope.wanted.blind {
        for (key, pull) in &running {
            if !scope.wanted.images.contains_key(key) {
                pulls.cancel.push(Action::Cancel(pull.order.image.clone()));
            }
        }
    }
    let mut candidates = Vec::new();
    for (key, want) in &scope.wanted.images {
        let standing = standing(scope, *key, want, running.get(key).copied(), &mut pulls);
        if matches!(standing, Standing::Waiting) {
            candidates.push((*key, want));
        }
        pulls.standings.insert(*key, standing);
    }
    candidates.retain(|(key, _)| {
        !pulls
            .tag
            .iter()
            .any(|a| matches!(a, Action::Tag { name, .. } if name == key.0))
    });
    candidates.sort_by(|(a, x), (b, y)| (y.priority, x.bytes, a).cmp(&(x.priority, y.bytes, b)));
    begin(scope, &candidates, &mut pulls);
    pulls
}

/// How an image stands before anything begins.
fn standing<'a>(
    scope: &Scope<'a>,
    key: Key<'a>,
    want: &Want<'a>,
    running: Option<&'a RunningPull>,
    pulls: &mut Pulls<'a>,
) -> Standing<'a> {
    let input = scope.input;
    if running.is_none() && scope.is_going(key.0, &want.digests) {
        // What is there now is gone in a moment.
        return Standing::Waiting;
    }
    let presence = scope.store.presence(key, want);
    if matches!(presence, Presence::Whole(_)) && !is_verifying(scope, key, want) {
        return Standing::Whole;
    }
    let owned = (key.0.to_owned(), key.1.map(str::to_owned));
    let failed = input.memory.failures.get(&owned);
    // What was asked for again since is tried as if for the first time.
    let failed = failed.filter(|f| f.asked_at >= want.asked_at);
    if let Some(running) = running {
        return Standing::Pulling(running, failed);
    }
    if let Presence::Untagged { target, .. } = presence {
        if may_work(scope, want) {
            pulls.tag.push(Action::Tag {
                name: key.0.to_owned(),
                target: target.to_owned(),
            });
        }
        return Standing::Waiting;
    }
    if let Some(failed) = failed {
        if is_hopeless(want, failed) {
            return Standing::Failed(failed);
        }
        let until = retry_at(scope, key, want, failed);
        if input.now < until {
            pulls.wake_at = earliest(pulls.wake_at, until);
            return Standing::Failed(failed);
        }
    }
    if let Some(vanished) = input.memory.vanished.get(key.0)
        && input.now < vanished.until()
    {
        pulls.wake_at = earliest(pulls.wake_at, vanished.until());
        return Standing::Vanishing(*vanished);
    }
    Standing::Waiting
}

/// No manifest for this node, and that is no failure to any claim: not tried again until it is asked for again.
fn is_hopeless(want: &Want<'_>, failed: &Failed) -> bool {
    want.skippable && failed.failure.reason == Reason::NoMatchingPlatform
}

/// What a tag means has to be looked up, because the claim is new or a refresh asks: the operator could not, so the node
/// pulls. That some image of that name is there already says nothing.
fn is_verifying(scope: &Scope<'_>, key: Key<'_>, want: &Want<'_>) -> bool {
    if key.1.is_some() {
        return false;
    }
    let pulled = scope.input.memory.pulled.get(key.0);
    want.claims
        .iter()
        .filter_map(|i| scope.wanted.claims.get(*i))
        .any(|claimed| {
            let claim = claimed.claim;
            let asked = claim.verify_after.as_ref().map(|t| t.0);
            let after = asked.map_or(claim.assigned_at.0, |asked| asked.max(claim.assigned_at.0));
            let checked = scope
                .previous(&claim.uid)
                .filter(|p| p.revision == claim.revision)
                .and_then(|p| p.checked_at.as_ref());
            checked.is_none_or(|c| c.0 < after) && pulled.is_none_or(|pulled| *pulled < after)
        })
}

/// Some claim that wants the image is not suspended.
fn may_work(scope: &Scope<'_>, want: &Want<'_>) -> bool {
    let claims = want.claims.iter().filter_map(|i| scope.wanted.claims.get(*i));
    claims.into_iter().any(|c| !c.settings.suspend)
}

fn retry_at(scope: &Scope<'_>, key: Key<'_>, want: &Want<'_>, failed: &Failed) -> Timestamp {
    let seed = backoff::seed(&[&scope.input.spec.node_uid, key.0]);
    let delay = backoff::delay(&want.retry, Some(failed.failure.reason), failed.attempts, seed);
    saturating(
        failed.at,
        SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX),
    )
}

/// How many more pulls may begin: on the node, and for each claim.
struct Room {
    node: usize,
    claims: Vec<usize>,
}

impl Room {
    fn of(scope: &Scope<'_>) -> Self {
        let limit = scope
            .input
            .spec
            .limits
            .as_ref()
            .map_or(PULLS, |limits| usize::try_from(limits.pulls).unwrap_or(1).max(1));
        let mut room = Self {
            node: limit.saturating_sub(scope.input.pulls.len()),
            claims: scope
                .wanted
                .claims
                .iter()
                .map(|c| c.settings.images_per_node)
                .collect(),
        };
        let running = scope.input.pulls.iter().filter_map(|pull| {
            let key = (pull.order.image.as_str(), pull.order.digest.as_deref());
            Some((key, scope.wanted.images.get(&key)?))
        });
        let mut running: Vec<_> = running.collect();
        // Those with the least choice first, and never in the order in which they happen to be listed.
        running.sort_by_key(|(key, want)| (want.claims.len(), *key));
        for (_, want) in running {
            if let Some(claim) = room.roomiest(want.claims.iter().copied()) {
                room.claims[claim] = room.claims[claim].saturating_sub(1);
            }
        }
        room
    }

    /// A pull for several claims is on the account of the one with the most room.
    fn roomiest(&self, claims: impl Iterator<Item = usize>) -> Option<usize> {
        claims.max_by_key(|claim| (self.claims[*claim], std::cmp::Reverse(*claim)))
    }

    fn take(&mut self, claims: impl Iterator<Item = usize>) -> bool {
        match self.roomiest(claims) {
            Some(claim) if self.node > 0 && self.claims[claim] > 0 => {
                self.node -= 1;
                self.claims[claim] -= 1;
                true
            }
            _ => false,
        }
    }
}

/// Begins what there is room for, in this order.
fn begin<'a>(scope: &Scope<'a>, candidates: &[(Key<'a>, &Want<'a>)], pulls: &mut Pulls<'a>) {
    let input = scope.input;
    let percent = scope
        .wanted
        .claims
        .iter()
        .map(|c| c.settings.min_free_percent)
        .max();
    let mut guard = Guard::new(scope.observed.disk, percent.unwrap_or(0), input.pulls);
    let mut room = Room::of(scope);
    // Two pulls of one name would undo each other, and one pull of a digest serves every name of it.
    let mut names: BTreeSet<&str> = input.pulls.iter().map(|p| p.order.image.as_str()).collect();
    let mut digests: BTreeSet<&str> = if scope.can(Capability::Content) {
        input
            .pulls
            .iter()
            .filter_map(|p| p.order.digest.as_deref())
            .collect()
    } else {
        BTreeSet::new()
    };
    for (key, want) in candidates {
        let active = want
            .claims
            .iter()
            .copied()
            .filter(|i| scope.wanted.claims.get(*i).is_some_and(|c| !c.settings.suspend));
        if active.clone().next().is_none()
            || names.contains(key.0)
            || key.1.is_some_and(|d| digests.contains(d))
        {
            continue;
        }
        match guard.fits(want.bytes) {
            Fit::Yes => {}
            Fit::Later => continue,
            Fit::No(words) => {
                pulls.standings.insert(*key, Standing::Refused(words));
                continue;
            }
        }
        // A removal that is at work may not know yet that this is wanted again.
        if !input.removing.is_empty() || !room.take(active) {
            continue;
        }
        guard.promise(want.bytes);
        names.insert(key.0);
        digests.extend(key.1.filter(|_| scope.can(Capability::Content)));
        pulls.pull.push(Action::Pull(order(scope, *key, want)));
    }
}

fn order(scope: &Scope<'_>, key: Key<'_>, want: &Want<'_>) -> PullOrder {
    PullOrder {
        image: key.0.to_owned(),
        digest: key.1.map(str::to_owned),
        manifest: want.digests.get(1).map(|m| (*m).to_owned()),
        tag: want.tagged.then(|| key.0.to_owned()),
        bytes: want.bytes,
        asked_at: want.asked_at,
        credentials: want.credentials,
        pin: want.pin && scope.can(Capability::Pin),
        attempt: want.attempt,
        no_progress: want.no_progress,
    }
}
