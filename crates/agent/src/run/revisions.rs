//! The revisions that the node's object names. They never change, so each is asked for once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::{Api, Client};
use larder_api::node_image_cache::Desired;
use larder_api::{ImageCacheRevision, NodeImageCache};
use larder_core::plan::Revisions;
use tokio::time::Instant;
use tracing::{debug, warn};

/// Requests at a time.
const PARALLEL: usize = 4;
/// The loop waits no longer for the API server; what has not come by then is asked for again.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before what is missing is asked for again; it doubles.
const FIRST_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_mins(1);

/// Namespace and name.
type Key = (String, String);

/// What is known of revisions.
#[derive(Debug, Default)]
pub(super) struct Known {
    held: BTreeMap<Key, Arc<ImageCacheRevision>>,
    missing: BTreeMap<Key, Missing>,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    times: u32,
    again_at: Instant,
}

impl Known {
    /// Gets what the object names and is not known, and forgets what it no longer names. When something is to be asked
    /// for again.
    pub(super) async fn follow(
        &mut self,
        client: &Client,
        object: Option<&NodeImageCache>,
    ) -> Option<Instant> {
        let named = object.map(named).unwrap_or_default();
        self.held.retain(|key, _| named.contains(key));
        self.missing.retain(|key, _| named.contains(key));
        let now = Instant::now();
        let due = |key: &Key| {
            !self.held.contains_key(key)
                && self
                    .missing
                    .get(key)
                    .is_none_or(|missing| missing.again_at <= now)
        };
        let due: Vec<Key> = named.into_iter().filter(due).collect();
        if !due.is_empty() {
            self.get(client, due).await;
        }
        self.missing.values().map(|missing| missing.again_at).min()
    }

    async fn get(&mut self, client: &Client, due: Vec<Key>) {
        let mut open: BTreeSet<Key> = due.iter().cloned().collect();
        let gets = due.into_iter().map(|key| {
            let api: Api<ImageCacheRevision> = Api::namespaced(client.clone(), &key.0);
            async move {
                let answer = api.get_opt(&key.1).await;
                (key, answer)
            }
        });
        let mut gets = futures::stream::iter(gets).buffer_unordered(PARALLEL);
        let deadline = Instant::now() + PATIENCE;
        while let Ok(Some((key, answer))) = tokio::time::timeout_at(deadline, gets.next()).await {
            open.remove(&key);
            match answer {
                Ok(Some(mut revision)) => {
                    revision.metadata.managed_fields = None;
                    revision.metadata.labels = None;
                    self.missing.remove(&key);
                    self.held.insert(key, Arc::new(revision));
                }
                Ok(None) => self.missed(key, "it does not exist"),
                Err(error) => self.missed(key, &error.to_string()),
            }
        }
        for key in open {
            self.missed(key, "the API server does not answer");
        }
    }

    fn missed(&mut self, key: Key, why: &str) {
        let times = self.missing.get(&key).map_or(0, |missing| missing.times);
        let (namespace, name) = &key;
        if times == 0 {
            warn!(namespace, name, why, "cannot read a revision");
        } else {
            debug!(namespace, name, why, times, "still cannot read a revision");
        }
        let delay = FIRST_DELAY.saturating_mul(1 << times.min(10)).min(MAX_DELAY);
        let missing = Missing {
            times: times + 1,
            again_at: Instant::now() + delay,
        };
        self.missing.insert(key, missing);
    }

    /// For the decision.
    pub(super) fn view(&self) -> Revisions<'_> {
        self.held
            .iter()
            .map(|((namespace, name), revision)| ((namespace.as_str(), name.as_str()), revision.as_ref()))
            .collect()
    }
}

/// Revisions that claims name, and those that the status calls held: they are looked at as well. While something is to be
/// removed, also what the operator counts on: nothing goes that is in one of those.
fn named(object: &NodeImageCache) -> BTreeSet<Key> {
    let key = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
    let claimed = object.spec.caches.iter().flat_map(|claim| {
        let names = std::iter::once(&claim.revision).chain(&claim.remove_revisions);
        names.map(|name| key(&claim.namespace, name))
    });
    let status = object.status.as_ref();
    let agent = status.and_then(|status| status.agent.as_ref());
    let held = agent
        .iter()
        .flat_map(|agent| &agent.puller.caches)
        .flat_map(|cache| cache.held.iter().map(|name| key(&cache.namespace, name)));
    let mut claims = object.spec.caches.iter();
    let removes = claims.any(|c| c.desired == Desired::Absent || !c.remove_revisions.is_empty());
    let kubelet = status.and_then(|status| status.kubelet.as_ref());
    let counted = kubelet
        .filter(|_| removes)
        .into_iter()
        .flat_map(|kubelet| &kubelet.caches)
        .flat_map(|cache| {
            let names = cache.held.iter().chain([&cache.revision]);
            names.map(|name| key(&cache.namespace, name))
        });
    claimed
        .chain(held)
        .chain(counted)
        .filter(|(_, name)| !name.is_empty())
        .collect()
}
