//! From references to digests: one memory and one bounded stream of requests for the whole operator.
//!
//! Whoever asks for what somebody else has just asked for gets the same answer. A registry that hangs delays nobody: an
//! answer that is not there in time is Pending, and those who asked are marked once it has come.

mod memory;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use larder_api::names::Reason;
use larder_api::revision::PlatformManifest;
use larder_core::image_ref::ImageRef;
use larder_core::message::{redact, shorten};
use larder_registry::{Credentials, Keyring, Platform, Registry, RegistryError};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::world::Key;
use memory::{Memory, Why};

pub use memory::{Failure, Known, MAX_DELAY, MIN_DELAY, Outcome};

/// Requests at a time, in all.
const AT_A_TIME: usize = 16;
/// Requests at a time to one registry; its client lets no more through.
const PER_HOST: usize = 8;
/// All requests for one reference together.
const PATIENCE: Duration = Duration::from_secs(30);
/// Characters of a registry's words that are kept.
const WORDS: usize = 256;

/// Resolves references. Clones share everything.
#[derive(Clone)]
pub struct Resolver {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Arc<dyn Registry>,
    metrics: Arc<Metrics>,
    /// Where those are marked who asked for what has come late.
    waiting: Queue<Key>,
    state: Mutex<State>,
    all: Semaphore,
}

#[derive(Default)]
struct State {
    memory: Memory,
    /// By reference; one request at a time for each.
    flights: BTreeMap<String, Flight>,
    hosts: BTreeMap<String, Arc<Semaphore>>,
}

struct Flight {
    /// Closed when the request has ended.
    done: watch::Receiver<()>,
    interested: BTreeSet<Key>,
}

/// What to resolve, for whom.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The cache that asks.
    pub cache: Key,
    /// The references.
    pub images: Vec<ImageRef>,
    /// Its pull secrets.
    pub keyring: &'a Keyring,
    /// Older answers do not do. None: recent ones do.
    pub not_before: Option<Timestamp>,
    /// Whose manifests are wanted.
    pub platforms: &'a [Platform],
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("in_flight", &self.inner.state().flights.len())
            .finish_non_exhaustive()
    }
}

enum Step {
    Done(Outcome),
    InFlight(watch::Receiver<()>),
}

impl Resolver {
    /// Asks `registry`; marks late answers in `waiting`.
    pub fn new(registry: Arc<dyn Registry>, metrics: Arc<Metrics>, waiting: Queue<Key>) -> Self {
        let state = Mutex::new(State::default());
        Self {
            inner: Arc::new(Inner {
                registry,
                metrics,
                waiting,
                state,
                all: Semaphore::new(AT_A_TIME),
            }),
        }
    }

    /// What each reference means, by its normalised form, as far as it is known after `patience`. The rest is Pending
    /// and goes on; the cache is marked whenever one of them is done.
    pub async fn resolve_within(
        &self,
        request: &Request<'_>,
        patience: Duration,
    ) -> BTreeMap<String, Outcome> {
        let deadline = Instant::now() + patience;
        let asked: Vec<(&ImageRef, Credentials)> = request
            .images
            .iter()
            .map(|image| (image, request.keyring.credentials(image)))
            .collect();
        for (image, credentials) in &asked {
            // Every request is begun before the first is waited for.
            self.step(request, image, credentials);
        }
        let mut outcomes = BTreeMap::new();
        for (image, credentials) in &asked {
            let outcome = loop {
                match self.step(request, image, credentials) {
                    Step::Done(outcome) => break outcome,
                    Step::InFlight(mut done) => {
                        // The sender sends nothing; it is dropped at the end.
                        if tokio::time::timeout_at(deadline, done.changed()).await.is_err() {
                            break self.wait_no_longer(request, image, credentials);
                        }
                    }
                }
            };
            outcomes.insert(image.normalized().to_owned(), outcome);
        }
        outcomes
    }

    /// What is known from before this moment of a reference does not count any more: a node found something else.
    pub fn moved(&self, reference: &str, at: Timestamp) {
        self.inner.state().memory.moved(reference, at);
    }

    /// Whether an answer that came later than `since` says that the reference means another digest.
    pub fn differs(&self, reference: &str, digest: &str, since: Timestamp) -> bool {
        self.inner.state().memory.differs(reference, digest, since)
    }

    /// Whether a node found the reference to mean something else than we know, and nothing newer is known yet.
    pub fn in_doubt(&self, reference: &str) -> bool {
        self.inner.state().memory.in_doubt(reference)
    }

    /// Whether a registry told whoever has these secrets, at this moment or later, what the reference means.
    pub fn answered(&self, image: &ImageRef, keyring: &Keyring, since: Timestamp) -> bool {
        let fingerprint = keyring.credentials(image).fingerprint();
        let state = self.inner.state();
        state.memory.answered(image.normalized(), &fingerprint, since)
    }

    /// References that came to mean something new since this was last called.
    pub fn take_changed(&self) -> BTreeSet<String> {
        self.inner.state().memory.take_changed()
    }

    /// Manifests that a revision tells, so that after a restart an image costs one HEAD.
    pub fn seed(&self, digest: &str, platforms: &[PlatformManifest]) {
        self.inner
            .state()
            .memory
            .learn_manifests(digest, &[], platforms.to_vec());
    }

    /// Somebody learned this then.
    #[cfg(test)]
    pub(crate) fn learned(&self, reference: &str, digest: &str, at: Timestamp) {
        self.inner.state().memory.learn(reference, "", digest, false, at);
    }

    /// Forgets what neither an `ImageCache` (references) nor a revision (digests) names.
    pub fn retain(&self, references: &BTreeSet<String>, digests: &BTreeSet<String>) {
        let mut state = self.inner.state();
        state.memory.retain(references, digests);
        state
            .hosts
            .retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
    }

    /// The answer, or the request under way for this reference, begun if there is none.
    fn step(&self, request: &Request<'_>, image: &ImageRef, credentials: &Credentials) -> Step {
        let mut state = self.inner.state();
        let reference = image.normalized();
        let fingerprint = credentials.fingerprint();
        let now = Timestamp::now();
        if let Some(outcome) = state.memory.recall(
            reference,
            &fingerprint,
            request.not_before,
            request.platforms,
            now,
        ) {
            return Step::Done(outcome);
        }
        if let Some(flight) = state.flights.get(reference) {
            return Step::InFlight(flight.done.clone());
        }
        let (sender, done) = watch::channel(());
        let flight = Flight {
            done: done.clone(),
            interested: BTreeSet::new(),
        };
        state.flights.insert(reference.to_owned(), flight);
        let host = image.registry_host().to_owned();
        let host = Arc::clone(
            state
                .hosts
                .entry(host)
                .or_insert_with(|| Arc::new(Semaphore::new(PER_HOST))),
        );
        let known_private = state.memory.was_private(reference, &fingerprint);
        let credentials = credentials.clone().known_private(known_private);
        let task = Arc::clone(&self.inner).fly(
            image.clone(),
            credentials,
            request.platforms.to_vec(),
            host,
            sender,
        );
        tokio::spawn(task);
        Step::InFlight(done)
    }

    fn wait_no_longer(&self, request: &Request<'_>, image: &ImageRef, credentials: &Credentials) -> Outcome {
        // A request for somebody else's credentials may just have ended: then ours begins here.
        if let Step::Done(outcome) = self.step(request, image, credentials) {
            return outcome;
        }
        let mut state = self.inner.state();
        match state.flights.get_mut(image.normalized()) {
            Some(flight) => {
                flight.interested.insert(request.cache.clone());
            }
            // It ended between the two looks.
            None => self.inner.waiting.mark(request.cache.clone()),
        }
        let fingerprint = credentials.fingerprint();
        let failed = state
            .memory
            .failure(image.normalized(), &fingerprint, request.not_before);
        match failed {
            // A repetition that takes its time is no news: what it failed of last stands until it has an end.
            Some(failure) => Outcome::Failed(Failure {
                retry_at: Timestamp::now().checked_add(PATIENCE).unwrap_or(Timestamp::MAX),
                ..failure.clone()
            }),
            None => Outcome::Pending,
        }
    }
}

/// No answer that can be used.
struct Refused {
    error: RegistryError,
    /// Anybody gets it, with or without credentials.
    public: bool,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One reference, asked. `_done` tells those who wait when it is dropped.
    async fn fly(
        self: Arc<Self>,
        image: ImageRef,
        credentials: Credentials,
        platforms: Vec<Platform>,
        host: Arc<Semaphore>,
        done: watch::Sender<()>,
    ) {
        // First the registry's own turn: one that hangs must not use up everybody's.
        let turns = async { (host.acquire().await, self.all.acquire().await) };
        let _turns = turns.await;
        let at = Timestamp::now();
        let asked = tokio::time::timeout(PATIENCE, self.ask(&image, &credentials, &platforms, at)).await;
        let late = || RegistryError::Unreachable {
            message: format!("no answer within {} s", PATIENCE.as_secs()),
            retry_after: None,
        };
        let (result, public) = match asked {
            Ok(Ok(())) => (Ok(()), true),
            Ok(Err(refused)) => (Err(refused.error), refused.public),
            Err(_) => (Err(late()), false),
        };
        let label = result
            .as_ref()
            .err()
            .map_or_else(|| "Resolved".to_owned(), |e| e.reason().to_string());
        self.metrics.resolves.with_label_values(&[label.as_str()]).inc();
        let mut state = self.state();
        if let Err(error) = result {
            let message = shorten(&redact(&error.to_string()), WORDS);
            let why = Why {
                reason: error.reason(),
                message,
                retry_after: error.retry_after(),
                public,
            };
            tracing::debug!(image = image.normalized(), reason = %why.reason, message = why.message, "not resolved");
            state.memory.fail(
                image.normalized(),
                &credentials.fingerprint(),
                why,
                at,
                Timestamp::now(),
            );
        }
        let flight = state.flights.remove(image.normalized());
        drop(state);
        drop(done);
        for cache in flight.into_iter().flat_map(|f| f.interested) {
            self.waiting.mark(cache);
        }
    }

    async fn ask(
        &self,
        image: &ImageRef,
        credentials: &Credentials,
        platforms: &[Platform],
        at: Timestamp,
    ) -> Result<(), Refused> {
        let asked = self.registry.digest(image, credentials).await;
        let head = asked.map_err(|error| Refused {
            // The first "not found" ends it, so it is nobody's in particular.
            public: credentials.anonymous_first() && error.reason() == Reason::NotFound,
            error,
        })?;
        let missing = self.state().memory.missing(&head.digest, platforms);
        if !missing.is_empty() {
            let credentials = credentials.clone().known_private(head.private);
            let found = self
                .registry
                .platforms(image, &head.digest, &credentials, &missing)
                .await
                .map_err(|error| Refused {
                    error,
                    public: !head.private,
                })?;
            self.state().memory.learn_manifests(&head.digest, &missing, found);
        }
        let fingerprint = credentials.fingerprint();
        self.state()
            .memory
            .learn(image.normalized(), &fingerprint, &head.digest, head.private, at);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
