//! Which revisions a node holds whole.

use larder_api::image_cache::Puller;
use larder_api::node_image_cache::{CacheClaim, CacheOnNode};
use larder_api::revision::ImageCacheRevisionSpec;

use super::{Blocks, Split, counts_all};
use crate::choose::is_for_agent;
use crate::plan::Revisions;
use crate::pull::MAX_HELD;

impl Blocks<'_> {
    /// Revisions that everybody who answers for some of their images holds, the claimed one first.
    pub(super) fn held(&self, claim: &CacheClaim, revisions: &Revisions<'_>, split: Split) -> Vec<String> {
        let agent = self.of_agent(&claim.uid);
        let kubelet = self.of_kubelet(&claim.uid);
        let find = |name: &str| {
            revisions
                .get(&(claim.namespace.as_str(), name))
                .map(|r| &r.spec.spec)
        };
        let has = |entry: Option<&CacheOnNode>, name: &String| entry.is_some_and(|e| e.held.contains(name));
        let all = |entry: Option<&CacheOnNode>| entry.map(|e| e.held.clone()).unwrap_or_default();
        let mut held = if split.by_agent {
            let mut all_named = all(agent);
            all_named.extend(all(kubelet).into_iter().filter(|r| !has(agent, r)));
            all_named.retain(|name| match find(name) {
                Some(revision) => {
                    let whose = |agents: bool| {
                        revision
                            .images
                            .iter()
                            .any(|i| split.is_agents(revision, i) == agents)
                    };
                    (!whose(true) || has(agent, name)) && (!whose(false) || has(kubelet, name))
                }
                None => (agent.is_none() || has(agent, name)) && (kubelet.is_none() || has(kubelet, name)),
            });
            all_named
        } else {
            let mut all_named = all(kubelet);
            // Where there was an agent, the kubelet may have spoken of its own images alone.
            let alone = self.agent.is_none()
                || kubelet.is_some_and(|k| counts_all(Puller::Agent, claim, k, revisions));
            let agents =
                |r: &ImageCacheRevisionSpec| r.images.iter().any(|i| is_for_agent(Puller::Agent, r, i));
            all_named.retain(|name| alone || has(agent, name) || find(name).is_some_and(|r| !agents(r)));
            all_named
        };
        held.sort_by_key(|name| *name != claim.revision);
        held.truncate(MAX_HELD);
        held
    }
}
