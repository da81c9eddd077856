//! The sources of caches: followed where the API server tells of changes, asked where nobody does.
//!
//! What they said is remembered here; which images that makes is the core's to say (`larder_core::sources`). Nothing of
//! it outlives the operator: after a restart the newest revision stands in until every source has been asked again.

mod apps;
mod entry;
pub mod fetch;
mod memory;
mod secrets;
mod turns;
mod watched;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use kube::{Client, ResourceExt};
use larder_api::image_source::Source;
use larder_api::{ImageCache, ImageCacheRevisionSpec};
use larder_core::images::{WantedImages, wanted};
use larder_core::sources::{Combined, LOOK_AGAIN, Problem, SourceView, combine, denied};
use larder_registry::sources::{SourceError, SourceReason};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::queue::Queue;
use crate::world::Key;
use entry::Answer;
use fetch::{Ask, Fetch};
use memory::{Asked, Memory};
use turns::Turns;
use watched::Watched;

/// A cache's work is not held up for longer by slow sources.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Everything that one source has to say, whatever it asks of others for it.
const AT_MOST: Duration = Duration::from_mins(1);

/// What sources of caches said. Clones share everything.
#[derive(Clone)]
#[allow(missing_debug_implementations, reason = "the client has none")]
pub struct Sources {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    fetch: Arc<dyn Fetch>,
    /// Where caches are marked whose sources have something new.
    waiting: Queue<Key>,
    watched: Watched,
    memory: Mutex<BTreeMap<Key, Memory>>,
    turns: Turns,
}

/// What is known of a cache's sources.
#[derive(Debug, Default)]
pub struct Read {
    /// In the order of the spec.
    pub views: Vec<SourceView>,
    /// Some source has not answered yet; the cache is marked when it has.
    pub pending: bool,
    /// When a source is to be looked at again.
    pub wake_at: Option<Timestamp>,
}

impl Sources {
    /// Asks through `fetch`, follows through `client`; marks in `waiting` the caches that something new concerns.
    pub fn new(client: Client, fetch: Arc<dyn Fetch>, waiting: Queue<Key>) -> Self {
        let watched = Watched::new(client.clone(), waiting.clone());
        Self {
            inner: Arc::new(Inner {
                client,
                fetch,
                waiting,
                watched,
                memory: Mutex::default(),
                turns: Turns::default(),
            }),
        }
    }

    /// What the cache's sources say, after asking those whose turn it is: with `not_before` all that were not asked since.
    /// A source that takes its time is pending.
    pub async fn read(&self, cache: &ImageCache, not_before: Option<Timestamp>) -> Read {
        let key = key(cache);
        if cache.spec.sources.is_empty() {
            self.forget(&key);
            return Read::default();
        }
        self.inner.watched.follow(&key, cache);
        let now = Timestamp::now();
        let not_before = not_before.map(|at| Memory::of(&mut self.inner.memory(), cache).in_reach(at, now));
        let deadline = Instant::now() + PATIENCE;
        let mut late = false;
        loop {
            let flights = self.begin_due(cache, not_before);
            if flights.is_empty() {
                break;
            }
            let landed = join_all(
                flights
                    .into_iter()
                    .map(|mut f| async move { f.changed().await.is_ok() }),
            );
            if tokio::time::timeout_at(deadline, landed).await.is_err() {
                late = self.leave(&key);
                break;
            }
        }
        let views = self.look(cache);
        let pending = late || views.iter().any(|v| v.images.is_none() && v.problem.is_none());
        let wake_at = [self.wake_at(cache, now), self.inner.watched.wake_at(&key, now)];
        Read {
            views,
            pending,
            wake_at: wake_at.into_iter().flatten().min(),
        }
    }

    /// Waits no longer for what is under way: the cache is marked when it has landed. False if all has.
    fn leave(&self, key: &Key) -> bool {
        let mut memory = self.inner.memory();
        let asked = memory.get_mut(key).into_iter().flat_map(|m| m.asked.values_mut());
        let mut any = false;
        for asked in asked.filter(|a| a.flight.is_some()) {
            asked.late = true;
            any = true;
        }
        any
    }

    /// What is known, without asking anybody.
    pub fn look(&self, cache: &ImageCache) -> Vec<SourceView> {
        let denied = denied(cache);
        let now = Timestamp::now();
        let memory = self.inner.memory();
        let memory = memory.get(&key(cache)).filter(|m| m.uid == uid(cache));
        let view = |source: &Source| {
            let shrunk_since = memory.and_then(|m| m.shrunk.get(&source.name)).copied();
            if let Some(words) = denied.get(&source.name) {
                return SourceView {
                    name: source.name.clone(),
                    problem: Some(Problem {
                        reason: "PolicyDenied".into(),
                        message: words.clone(),
                    }),
                    incomplete: true,
                    ..SourceView::default()
                };
            }
            if let Some(seen) = self.inner.watched.view(cache, source) {
                return SourceView {
                    name: source.name.clone(),
                    seen_twice: shrunk_since.is_some_and(|since| since + LOOK_AGAIN <= now),
                    ..seen
                };
            }
            let asked = memory.and_then(|m| m.asked.get(&source.name));
            match asked.filter(|a| a.entry.is_of(source)) {
                Some(asked) => asked.entry.view(shrunk_since),
                None => SourceView {
                    name: source.name.clone(),
                    ..SourceView::default()
                },
            }
        };
        cache.spec.sources.iter().map(view).collect()
    }

    /// What the cache wants, by what is known now.
    pub fn wanted(&self, cache: &ImageCache, newest: Option<&ImageCacheRevisionSpec>) -> WantedImages {
        if cache.spec.sources.is_empty() {
            return wanted(&cache.spec);
        }
        combine(&cache.spec, &self.look(cache), newest, &[]).wanted
    }

    /// Remembers since when sources have lost too much to be believed at once; the cache is looked at again then.
    pub fn note(&self, cache: &ImageCache, combined: &Combined) -> Option<Timestamp> {
        let now = Timestamp::now();
        let mut memory = self.inner.memory();
        if combined.shrunk.is_empty() && !memory.contains_key(&key(cache)) {
            return None;
        }
        let memory = memory.entry(key(cache)).or_default();
        memory.shrunk.retain(|name, _| combined.shrunk.contains(name));
        for name in &combined.shrunk {
            memory.shrunk.entry(name.clone()).or_insert(now);
        }
        let again = memory.shrunk.values().map(|since| *since + LOOK_AGAIN);
        // One that is past already was of no use yet, as with a source that asked to be left alone.
        again.map(|at| if at > now { at } else { now + LOOK_AGAIN }).min()
    }

    /// Forgets a cache that is gone.
    pub fn forget(&self, key: &Key) {
        self.inner.watched.forget(key);
        self.inner.memory().remove(key);
    }

    /// Begins to ask those whose turn it is; everything of the cache that is under way.
    fn begin_due(&self, cache: &ImageCache, not_before: Option<Timestamp>) -> Vec<watch::Receiver<()>> {
        let denied = denied(cache);
        let now = Timestamp::now();
        let mut all = self.inner.memory();
        let memory = Memory::of(&mut all, cache);
        let names: Vec<&str> = cache.spec.sources.iter().map(|s| s.name.as_str()).collect();
        memory.asked.retain(|name, _| names.contains(&name.as_str()));
        let mut flights = Vec::new();
        for source in &cache.spec.sources {
            if denied.contains_key(&source.name) || watched::is_watched(source) {
                continue;
            }
            let shrunk_since = memory.shrunk.get(&source.name).copied();
            let fresh = || Asked::new(source.clone());
            let asked = memory.asked.entry(source.name.clone()).or_insert_with(fresh);
            if !asked.entry.is_of(source) {
                *asked = fresh();
            }
            asked.bury(now);
            if asked.flight.is_none() && asked.entry.is_due(not_before, shrunk_since, now) {
                let (done, flight) = watch::channel(());
                asked.flight = Some(flight);
                let etag = asked.entry.etag().map(str::to_owned);
                tokio::spawn(self.clone().fly(cache.clone(), source.clone(), etag, done));
            }
            flights.extend(asked.flight.clone());
        }
        flights
    }

    /// When time alone has a source asked again. One that is being asked has the cache marked when it has answered: to
    /// look before only finds those that came to no end.
    fn wake_at(&self, cache: &ImageCache, now: Timestamp) -> Option<Timestamp> {
        let memory = self.inner.memory();
        let memory = memory.get(&key(cache))?;
        let asked = memory.asked.iter().filter_map(|(name, a)| match a.flight {
            Some(_) => now.checked_add(AT_MOST).ok(),
            None => a.entry.wake_at(memory.shrunk.get(name).copied()),
        });
        asked.min()
    }

    /// One source, asked. `_done` tells those who wait when it is dropped.
    async fn fly(self, cache: ImageCache, source: Source, etag: Option<String>, done: watch::Sender<()>) {
        let _turn = self
            .inner
            .turns
            .take(&cache.namespace().unwrap_or_default())
            .await;
        let asked_at = Timestamp::now();
        let asking = async {
            let ask = Ask {
                authorization: secrets::authorization(&self.inner.client, &cache, &source).await?,
                keyring: secrets::keyring(&self.inner.client, &cache, &source).await,
                source: source.clone(),
                etag,
            };
            self.inner.fetch.fetch(&ask).await
        };
        let answer = match tokio::time::timeout(AT_MOST, asking).await {
            Ok(Ok(found)) => fetch::answer(found),
            Ok(Err(failed)) => Answer::Failed {
                problem: fetch::problem(&failed.error),
                retry_after: failed.retry_after,
            },
            Err(_) => Answer::Failed {
                problem: fetch::problem(&SourceError::new(
                    SourceReason::Timeout,
                    format!("not read within {} s", AT_MOST.as_secs()),
                )),
                retry_after: None,
            },
        };
        if let Answer::Failed { problem, .. } = &answer {
            tracing::debug!(
                cache = cache.name_any(),
                source = source.name,
                reason = problem.reason,
                message = problem.message,
                "source not read"
            );
        }
        let key = key(&cache);
        let mut memory = self.inner.memory();
        let asked = memory
            .get_mut(&key)
            .filter(|m| m.uid == uid(&cache))
            .and_then(|m| m.asked.get_mut(&source.name))
            .filter(|a| a.entry.is_of(&source));
        let mut late = false;
        if let Some(asked) = asked {
            asked.entry.learn(answer, asked_at, Timestamp::now());
            asked.flight = None;
            late = std::mem::take(&mut asked.late);
        }
        drop(memory);
        drop(done);
        if late {
            self.inner.waiting.mark(key);
        }
    }
}

impl Inner {
    fn memory(&self) -> MutexGuard<'_, BTreeMap<Key, Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(cache: &ImageCache) -> Key {
    (cache.namespace().unwrap_or_default(), cache.name_any())
}

fn uid(cache: &ImageCache) -> &str {
    cache.metadata.uid.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests;
