//! What is to be removed for a claim, and what stays whatever that says: alike for Jobs and for an agent.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::image_cache::Removal;
use larder_api::node_image_cache::{CacheClaim, CacheOnNode, Desired, NodeState};

use crate::image_ref::ImageRef;
use crate::plan::Revisions;
use crate::removal::PurgeEntry;

/// The claims of a node, as a removal for one of them sees them.
pub(crate) struct Claims<'a> {
    /// UID of the node.
    pub(crate) node_uid: &'a str,
    /// Every claim on it.
    pub(crate) all: &'a [CacheClaim],
    /// The revisions that could be read.
    pub(crate) revisions: &'a Revisions<'a>,
    /// Images that claims want and that are not there: the cache as `namespace/name`, and the reference.
    pub(crate) not_ready: BTreeSet<(String, String)>,
}

impl Claims<'_> {
    /// The images of these revisions that no claim keeps.
    pub(crate) fn entries(&self, claim: &CacheClaim, revisions: &[&str]) -> Vec<PurgeEntry> {
        let mut entries: BTreeMap<(&str, Option<&str>), PurgeEntry> = BTreeMap::new();
        for name in revisions {
            let Some(revision) = self.revisions.get(&(claim.namespace.as_str(), name)) else {
                continue;
            };
            for image in &revision.spec.spec.images {
                if self.keeps(&image.image, image.digest.as_deref()) {
                    continue;
                }
                entries
                    .entry((&image.image, image.digest.as_deref()))
                    .or_insert_with(|| PurgeEntry {
                        reference: image.image.clone(),
                        digest: image.digest.clone(),
                        claimed_at: claim.claimed_at.0,
                        all: claim.removal == Removal::PurgeAll,
                    });
            }
        }
        entries.into_values().collect()
    }

    /// Whether some claim on the node wants this image. Another digest under a wanted name is kept for as long as the
    /// wanted one has not arrived.
    fn keeps(&self, reference: &str, digest: Option<&str>) -> bool {
        self.all
            .iter()
            .filter(|c| c.desired == Desired::Present)
            .any(|claim| {
                let Some(revision) = self
                    .revisions
                    .get(&(claim.namespace.as_str(), claim.revision.as_str()))
                else {
                    // What an unreadable revision wants is unknown: nothing it may want is removed.
                    return true;
                };
                revision
                    .spec
                    .spec
                    .images
                    .iter()
                    .filter(|i| i.image == reference)
                    .any(|i| {
                        let cache = format!("{}/{}", claim.namespace, claim.name);
                        let arrived = !self.not_ready.contains(&(cache, reference.to_owned()));
                        match (i.digest.as_deref(), digest) {
                            (Some(wanted), Some(other)) if wanted != other => !arrived,
                            _ => true,
                        }
                    })
            })
    }

    /// References that Present claims want, of an entry's content or repository: a wanted `app@sha256:…` must not lose its
    /// record to the removal of `app:1`.
    pub(crate) fn sharing(&self, entries: &[PurgeEntry]) -> Vec<String> {
        let repository = |reference: &str| ImageRef::parse(reference).map(|r| r.name().to_owned()).ok();
        let repositories: BTreeSet<String> =
            entries.iter().filter_map(|e| repository(&e.reference)).collect();
        let digests: BTreeSet<&str> = entries.iter().filter_map(|e| e.digest.as_deref()).collect();
        let claims = self.all.iter().filter(|c| c.desired == Desired::Present);
        let wanted = claims
            .filter_map(|c| self.revisions.get(&(c.namespace.as_str(), c.revision.as_str())))
            .flat_map(|r| &r.spec.spec.images)
            .filter(|i| {
                i.digest.as_deref().is_some_and(|d| digests.contains(d))
                    || repository(&i.image).is_some_and(|r| repositories.contains(&r))
            })
            // Another digest under the very name of an entry: the name is the entry's to lose, see `keeps`.
            .filter(|i| !entries.iter().any(|e| e.reference == i.image))
            .map(|i| i.image.clone());
        wanted.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Names a removal by all that makes it what it is.
    pub(crate) fn work(&self, claim: &CacheClaim, entries: &[PurgeEntry]) -> String {
        let mut parts = vec![
            self.node_uid.to_owned(),
            claim.uid.clone(),
            claim.assigned_at.0.to_string(),
        ];
        for entry in entries {
            parts.push(entry.reference.clone());
            parts.push(entry.digest.clone().unwrap_or_default());
            parts.push(if entry.all { "all" } else { "ours" }.to_owned());
            parts.push(entry.claimed_at.to_string());
        }
        crate::hash::short(parts.iter().map(String::as_str))
    }
}

/// The state of a claim for which something is removed, when that begins and while it goes on.
pub(crate) fn leaving(claim: &CacheClaim, current: Option<&CacheOnNode>, now: Timestamp) -> CacheOnNode {
    let mut next = current.cloned().unwrap_or_default();
    next.namespace.clone_from(&claim.namespace);
    next.name.clone_from(&claim.name);
    next.uid.clone_from(&claim.uid);
    if claim.desired == Desired::Absent && next.state != NodeState::Purging {
        next = CacheOnNode {
            state: NodeState::Purging,
            since: Some(Time(now)),
            ..next
        };
        (next.reason, next.ready, next.total, next.skipped, next.bytes) = (None, 0, 0, 0, 0);
        // From here on nothing proves anything: a removal may be at work whose report nobody waits for.
        (next.checked_at, next.held) = (None, Vec::new());
        next.missing.clear();
        next.message.clear();
        next.revision.clone_from(&claim.revision);
    }
    next
}
