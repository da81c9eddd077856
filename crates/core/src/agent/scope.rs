//! What every step of the decision looks at.

use larder_api::node_image_cache::{AgentStatus, CacheOnNode, Capability, ImageOnNode};

use super::presence::Store;
use super::types::{AgentInput, Observed};
use super::wanted::{Claimed, Wanted};

/// The input, read.
pub(super) struct Scope<'a> {
    pub(super) input: &'a AgentInput<'a>,
    pub(super) observed: &'a Observed,
    pub(super) wanted: &'a Wanted<'a>,
    pub(super) store: Store<'a>,
}

impl<'a> Scope<'a> {
    pub(super) fn can(&self, capability: Capability) -> bool {
        self.observed.capabilities.contains(&capability)
    }

    /// Whether a removal at work may take the image: it was decided before this was wanted.
    pub(super) fn is_going(&self, reference: &str, digests: &[&str]) -> bool {
        let entries = self.input.removing.iter().flat_map(|r| &r.entries);
        entries.into_iter().any(|e| {
            let digest = e.digest.as_deref();
            e.reference == reference || digest.is_some_and(|d| digests.contains(&d))
        })
    }

    /// What was last written of a cache.
    pub(super) fn previous(&self, cache_uid: &str) -> Option<&'a CacheOnNode> {
        previous(self.input.previous, cache_uid)
    }

    /// What was last written of an image that was not ready.
    pub(super) fn listed(&self, cache: &str, image: &str) -> Option<&'a ImageOnNode> {
        let listed = &self.input.previous?.puller.images;
        listed.iter().find(|i| i.cache == cache && i.image == image)
    }
}

pub(super) fn previous<'a>(status: Option<&'a AgentStatus>, cache_uid: &str) -> Option<&'a CacheOnNode> {
    status?.puller.caches.iter().find(|c| c.uid == cache_uid)
}

impl Claimed<'_> {
    /// `namespace/name` of the cache.
    pub(super) fn cache(&self) -> String {
        format!("{}/{}", self.claim.namespace, self.claim.name)
    }
}
