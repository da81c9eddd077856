//! One cache on one node: what its claim should become.

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::image_cache::Removal;
use larder_api::node_image_cache::{CacheClaim, CacheOnNode, Desired, NodeState};
use larder_api::{ImageCache, ImageCacheRevision};

use super::overrides::{has_service_account, overrides};
use super::{CONFIRM_AFTER, MAX_REMOVE_REVISIONS, Snapshot, asked_at, saturating};
use crate::select::Eligibility;

/// One cache on one node, as it is.
pub(super) struct Place<'a> {
    pub(super) eligibility: Eligibility,
    pub(super) claim: Option<&'a CacheClaim>,
    pub(super) on_node: Option<Cow<'a, CacheOnNode>>,
    /// An agent looks at all of its images all the time.
    pub(super) watched: bool,
}

impl Place<'_> {
    /// Until when this node holds a rollout slot for the newest revision, if it is the one it is assigned.
    pub(super) fn slot_until(&self, newest: Option<&str>, overall: SignedDuration) -> Option<Timestamp> {
        let claim = self
            .claim
            .filter(|c| c.desired == Desired::Present && Some(c.revision.as_str()) == newest)?;
        if self.eligibility == Eligibility::Unreachable {
            return None;
        }
        // A node that holds nothing is being filled for the first time: that takes no slot.
        let on_node = self.on_node.as_ref().filter(|s| !s.held.is_empty())?;
        let confirmed = claim.verify_after <= on_node.checked_at;
        let settled = on_node.revision == claim.revision
            && (on_node.state == NodeState::Failed || (on_node.state == NodeState::Ready && confirmed));
        let begun = claim
            .verify_after
            .as_ref()
            .map_or(claim.assigned_at.0, |v| v.0.max(claim.assigned_at.0));
        (!settled).then(|| saturating(begun, overall))
    }

    /// Whether assigning the newest revision now, or asking for its confirmation, would take a slot.
    pub(super) fn takes_slot(&self, cache: &ImageCache, newest: Option<&ImageCacheRevision>) -> bool {
        let Some(claim) = self.claim.filter(|c| c.desired == Desired::Present) else {
            return false;
        };
        let Some(newest) = newest.filter(|_| self.on_node.as_ref().is_some_and(|s| !s.held.is_empty()))
        else {
            return false;
        };
        let moves = newest.metadata.name.as_deref() != Some(claim.revision.as_str());
        moves
            || self
                .verify_after(cache, newest)
                .is_some_and(|after| claim.verify_after.as_ref() < Some(&after))
    }

    pub(super) fn present(
        &self,
        snapshot: &Snapshot<'_>,
        cache: &ImageCache,
        newest: &ImageCacheRevision,
    ) -> CacheClaim {
        let name = newest.metadata.name.clone().unwrap_or_default();
        match self.claim {
            Some(claim) if claim.desired == Desired::Present && claim.revision == name => {
                self.upkeep(snapshot, cache, Some(newest), claim)
            }
            Some(claim) if claim.desired == Desired::Present => {
                let mut next = self.upkeep(snapshot, cache, Some(newest), claim);
                if cache.spec.removal != Removal::Retain {
                    next.remove_revisions.push(claim.revision.clone());
                }
                next.remove_revisions.retain(|r| *r != name);
                let surplus = next.remove_revisions.len().saturating_sub(MAX_REMOVE_REVISIONS);
                next.remove_revisions.drain(..surplus);
                next.revision = name;
                next.assigned_at = Time(snapshot.now);
                next
            }
            other => CacheClaim {
                remove_revisions: self.unfinished(snapshot, cache, &name),
                namespace: cache.metadata.namespace.clone().unwrap_or_default(),
                name: cache.metadata.name.clone().unwrap_or_default(),
                uid: cache.metadata.uid.clone().unwrap_or_default(),
                revision: name,
                desired: Desired::Present,
                claimed_at: other.map_or(Time(snapshot.now), |c| c.claimed_at.clone()),
                assigned_at: Time(snapshot.now),
                removal: cache.spec.removal,
                verify_after: None,
                puller: cache.spec.puller,
                private_images: cache.spec.private_images,
                service_account: has_service_account(&cache.spec),
                overrides: overrides(&cache.spec),
            },
        }
    }

    /// What a removal that is called off leaves to be removed: older revisions, where images that leave are to go.
    fn unfinished(&self, snapshot: &Snapshot<'_>, cache: &ImageCache, newest: &str) -> Vec<String> {
        let purged = self
            .on_node
            .as_ref()
            .is_some_and(|s| s.state == NodeState::Purged);
        let Some(claim) = self
            .claim
            .filter(|_| cache.spec.removal != Removal::Retain && !purged)
        else {
            return Vec::new();
        };
        let done = self
            .on_node
            .as_ref()
            .map(|s| s.removed_revisions.as_slice())
            .unwrap_or_default();
        let readable = |r: &&String| {
            let exists = snapshot
                .revisions
                .contains_key(&(claim.namespace.as_str(), r.as_str()));
            exists && *r != newest && !done.contains(r)
        };
        let all = claim.remove_revisions.iter().chain([&claim.revision]);
        let mut left: Vec<String> = all.filter(readable).cloned().collect();
        left.truncate(MAX_REMOVE_REVISIONS);
        left
    }

    /// A claim that stays on its revision: finished and unreadable removals leave, a refresh may ask for confirmation.
    pub(super) fn upkeep(
        &self,
        snapshot: &Snapshot<'_>,
        cache: &ImageCache,
        newest: Option<&ImageCacheRevision>,
        claim: &CacheClaim,
    ) -> CacheClaim {
        let mut next = claim.clone();
        next.removal = cache.spec.removal;
        next.puller = cache.spec.puller;
        next.private_images = cache.spec.private_images;
        next.service_account = has_service_account(&cache.spec);
        next.overrides = overrides(&cache.spec);
        let done = self
            .on_node
            .as_ref()
            .map(|s| s.removed_revisions.as_slice())
            .unwrap_or_default();
        next.remove_revisions.retain(|r| {
            next.removal != Removal::Retain
                && !done.contains(r)
                && snapshot
                    .revisions
                    .contains_key(&(claim.namespace.as_str(), r.as_str()))
        });
        if let Some(newest) = newest
            && let Some(after) = self.verify_after(cache, newest)
        {
            next.verify_after = next.verify_after.max(Some(after));
        }
        next
    }

    /// A refresh confirms what is confirmed only by pulling: references without a digest always, others after a day,
    /// unless an agent looks at them anyway. What the agent could not pull it tries again at once.
    fn verify_after(&self, cache: &ImageCache, newest: &ImageCacheRevision) -> Option<Time> {
        let refresh = cache.status.as_ref()?.last_refresh.as_ref()?;
        let asked = asked_at(refresh)?;
        let on_node = self.on_node.as_ref()?;
        if self.watched && on_node.state == NodeState::Failed && refresh.finished_at.is_none() {
            return Some(asked);
        }
        let checked = on_node.checked_at.clone()?;
        let undigested = newest.spec.spec.images.iter().any(|i| i.digest.is_none());
        if self.watched && !undigested {
            return None;
        }
        if !undigested {
            return (checked.0 < saturating(asked.0, -CONFIRM_AFTER)).then_some(asked);
        }
        let was_asked = self.claim.and_then(|c| c.verify_after.as_ref()) >= Some(&asked);
        if checked.0 == asked.0 && !was_asked {
            // Times have whole seconds: whether this check came after the question, nobody knows.
            return Some(Time(saturating(asked.0, SignedDuration::from_secs(1))));
        }
        (checked.0 < asked.0).then_some(asked)
    }

    /// The claim turned to removal; none once that is done, if `drop_when_done`.
    pub(super) fn absent(
        &self,
        snapshot: &Snapshot<'_>,
        removal: Removal,
        drop_when_done: bool,
    ) -> Option<CacheClaim> {
        let claim = self.claim?;
        if claim.desired == Desired::Absent {
            let done = self
                .on_node
                .as_ref()
                .is_some_and(|s| s.state == NodeState::Purged);
            if done && drop_when_done {
                return None;
            }
            return Some(CacheClaim {
                removal: claim.removal.max(removal),
                ..claim.clone()
            });
        }
        let mut next = claim.clone();
        for held in self
            .on_node
            .as_ref()
            .map(|s| s.held.as_slice())
            .unwrap_or_default()
        {
            let readable = snapshot
                .revisions
                .contains_key(&(claim.namespace.as_str(), held.as_str()));
            if readable && *held != claim.revision && !next.remove_revisions.contains(held) {
                next.remove_revisions.push(held.clone());
            }
        }
        next.remove_revisions.truncate(MAX_REMOVE_REVISIONS);
        next.desired = Desired::Absent;
        next.removal = removal;
        next.assigned_at = Time(snapshot.now);
        next.verify_after = None;
        Some(next)
    }
}
