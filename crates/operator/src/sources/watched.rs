//! Sources inside the cluster, followed: one watch for each `ConfigMap`, and for each kind of workload of a namespace,
//! that some cache names, for as long as one does. What is kept of an object is the images it names.

mod config_map;
mod follow;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::core::Selector;
use larder_api::ImageCache;
use larder_api::image_source::{ConfigMapSource, Source, WorkloadKind, WorkloadsSource};
use larder_api::names::{MANAGED_BY, MANAGED_BY_LABEL};
use larder_core::sources::{Problem, SourceView, denied, reason};
use tokio::task::AbortHandle;

use crate::queue::Queue;
use crate::world::Key;

/// Watches in all. A source beyond them says so.
const MAX_WATCHES: usize = 1000;
/// Of these, in one namespace.
const MAX_OF_NAMESPACE: usize = 100;
/// A cache for whose sources there were no watches left is looked at again after this long: others may have ended.
const FULL: SignedDuration = SignedDuration::from_mins(1);

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// A key of a `ConfigMap`.
    ConfigMap {
        namespace: String,
        name: String,
        key: String,
    },
    /// Workloads of a kind, by an encoded label selector.
    Workloads {
        namespace: String,
        kind: WorkloadKind,
        selector: String,
    },
}

impl What {
    fn namespace(&self) -> &str {
        match self {
            Self::ConfigMap { namespace, .. } | Self::Workloads { namespace, .. } => namespace,
        }
    }
}

/// What a watch tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    images: Vec<String>,
    problem: Option<Problem>,
    /// What is wrong hides images.
    incomplete: bool,
    /// When it was last told anew.
    at: Option<Timestamp>,
}

/// The watches.
pub(super) struct Watched {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    waiting: Queue<Key>,
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    all: BTreeMap<What, Slot>,
    /// Caches for whose sources there were no watches left.
    refused: BTreeSet<Key>,
}

struct Slot {
    /// None until it has been listed, or the API server has said why it is not.
    seen: Option<Seen>,
    interested: BTreeSet<Key>,
    task: AbortHandle,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether the source is followed, and not asked.
pub(super) fn is_watched(source: &Source) -> bool {
    source.config_map.is_some() || source.workloads.is_some()
}

impl Watched {
    pub(super) fn new(client: Client, waiting: Queue<Key>) -> Self {
        Self {
            inner: Arc::new(Inner {
                client,
                waiting,
                slots: Mutex::default(),
            }),
        }
    }

    /// Has watches for what this cache names, and for nothing that nobody names any more.
    pub(super) fn follow(&self, key: &Key, cache: &ImageCache) {
        let denied = denied(cache);
        let named: BTreeSet<What> = cache
            .spec
            .sources
            .iter()
            .filter(|s| !denied.contains_key(&s.name))
            .filter_map(|s| whats(cache, s).ok())
            .flatten()
            .collect();
        let mut slots = self.inner.slots();
        slots.all.retain(|what, slot| {
            if !named.contains(what) {
                slot.interested.remove(key);
            }
            !slot.interested.is_empty()
        });
        slots.refused.remove(key);
        let mut share = slots.all.keys().filter(|w| w.namespace() == key.0).count();
        for what in named {
            if let Some(slot) = slots.all.get_mut(&what) {
                slot.interested.insert(key.clone());
            } else if slots.all.len() < MAX_WATCHES && share < MAX_OF_NAMESPACE {
                let task = tokio::spawn(watch(Arc::clone(&self.inner), what.clone()));
                let slot = Slot {
                    seen: None,
                    interested: [key.clone()].into(),
                    task: task.abort_handle(),
                };
                slots.all.insert(what, slot);
                share += 1;
            } else {
                slots.refused.insert(key.clone());
            }
        }
    }

    /// When a cache for whose sources there were no watches left is to be looked at again.
    pub(super) fn wake_at(&self, key: &Key, now: Timestamp) -> Option<Timestamp> {
        let refused = self.inner.slots().refused.contains(key);
        refused.then(|| now + FULL)
    }

    /// A cache that is gone names nothing.
    pub(super) fn forget(&self, key: &Key) {
        let mut slots = self.inner.slots();
        slots.refused.remove(key);
        slots.all.retain(|_, slot| {
            slot.interested.remove(key);
            !slot.interested.is_empty()
        });
    }

    /// What a source of the cache says; None for one that is not followed.
    pub(super) fn view(&self, cache: &ImageCache, source: &Source) -> Option<SourceView> {
        if !is_watched(source) {
            return None;
        }
        let whats = match whats(cache, source) {
            Ok(whats) => whats,
            Err(message) => {
                return Some(SourceView {
                    problem: Some(invalid(message)),
                    incomplete: true,
                    ..SourceView::default()
                });
            }
        };
        let slots = self.inner.slots();
        let refused = slots.refused.contains(&super::key(cache));
        let mut view = SourceView {
            images: Some(Vec::new()),
            ..SourceView::default()
        };
        for what in &whats {
            match slots.all.get(what) {
                None if refused => {
                    let words = format!(
                        "the operator follows at most {MAX_OF_NAMESPACE} things for a namespace, and {MAX_WATCHES} in all: \
                         a ConfigMap each, and each kind of workloads by its selector"
                    );
                    view.problem.get_or_insert(invalid(words));
                    view.incomplete = true;
                }
                // Of a part that has not been listed nobody can say what is not there.
                None | Some(Slot { seen: None, .. }) => return Some(SourceView::default()),
                Some(Slot { seen: Some(seen), .. }) => {
                    view.images.get_or_insert_default().extend(seen.images.clone());
                    view.incomplete |= seen.incomplete;
                    view.problem = view.problem.or_else(|| seen.problem.clone());
                    view.read_at = view.read_at.max(seen.at);
                }
            }
        }
        if view.problem.is_some() {
            view.read_at = None;
        }
        Some(view)
    }
}

impl Inner {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A watch told something; whoever names it looks again, if it is new.
    fn tell(&self, what: &What, seen: Seen) {
        let mut slots = self.slots();
        let Some(slot) = slots.all.get_mut(what) else {
            return;
        };
        let same = slot.seen.as_ref().is_some_and(|s| {
            (&s.images, &s.problem, s.incomplete) == (&seen.images, &seen.problem, seen.incomplete)
        });
        if same {
            return;
        }
        slot.seen = Some(seen);
        let interested: Vec<Key> = slot.interested.iter().cloned().collect();
        drop(slots);
        for key in interested {
            self.waiting.mark(key);
        }
    }

    /// A watch cannot be had: what it told before stays.
    fn broken(&self, what: &What, problem: Problem) {
        let before = self.slots().all.get(what).and_then(|slot| slot.seen.clone());
        let seen = Seen {
            problem: Some(problem),
            incomplete: true,
            ..before.unwrap_or_default()
        };
        self.tell(what, seen);
    }
}

/// Watches until aborted.
async fn watch(inner: Arc<Inner>, what: What) {
    match &what {
        What::ConfigMap { namespace, name, key } => {
            config_map::watch(&inner, &what, namespace, name, key).await;
        }
        What::Workloads {
            namespace,
            kind,
            selector,
        } => {
            workloads::watch(&inner, &what, namespace, *kind, selector).await;
        }
    }
}

fn invalid(message: String) -> Problem {
    Problem {
        reason: reason::INVALID_SOURCE.into(),
        message,
    }
}

/// What has to be watched for a source: of the cache's own namespace, whatever it names.
fn whats(cache: &ImageCache, source: &Source) -> Result<Vec<What>, String> {
    let namespace = cache.metadata.namespace.clone().unwrap_or_default();
    if let Some(ConfigMapSource { name, key }) = &source.config_map {
        return Ok(vec![What::ConfigMap {
            namespace,
            name: name.clone(),
            key: key.clone(),
        }]);
    }
    let Some(WorkloadsSource {
        namespaces: _,
        selector,
        kinds,
    }) = &source.workloads
    else {
        return Ok(Vec::new());
    };
    let asked: Selector = selector
        .clone()
        .unwrap_or_default()
        .try_into()
        .map_err(|e| format!("workloads.selector: {e}"))?;
    // Larder's own pods run the images of caches: they would keep themselves.
    let others = format!("{MANAGED_BY_LABEL}!={MANAGED_BY}");
    let selector = if asked.selects_all() {
        others
    } else {
        format!("{asked},{others}")
    };
    let kinds: BTreeSet<WorkloadKind> = if kinds.is_empty() {
        WorkloadKind::ALL.into()
    } else {
        kinds.iter().copied().collect()
    };
    Ok(kinds
        .into_iter()
        .map(|kind| What::Workloads {
            namespace: namespace.clone(),
            kind,
            selector: selector.clone(),
        })
        .collect())
}

#[cfg(test)]
mod tests;
