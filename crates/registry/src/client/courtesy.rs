//! What a registry bears: so many requests at a time, none before the moment it named, and what remains of its budget.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::budget::Budget;
use crate::RegistryError;

/// Registries remembered.
const MAX_HOSTS: usize = 256;
/// Credentials that one registry told to wait.
const MAX_PAUSES: usize = 64;
/// Where a registry says "later" without saying when.
const DEFAULT_PAUSE: Duration = Duration::from_secs(5);
/// A moment that is now, or over, is no "later".
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// No registry is left alone for longer.
const MAX_PAUSE: Duration = Duration::from_hours(1);

/// Registries by [`Endpoint::key`](super::endpoint::Endpoint::key), bounded.
pub(super) struct Courtesy {
    per_registry: usize,
    hosts: Mutex<HashMap<String, Host>>,
}

struct Host {
    turns: Arc<Semaphore>,
    /// By fingerprint of the credential: registries count users by themselves, and everybody else together.
    pauses: HashMap<String, Pause>,
    /// As images name it, with what it said last.
    budget: Option<(String, Budget)>,
}

#[derive(Clone)]
struct Pause {
    until: Instant,
    error: RegistryError,
}

impl Courtesy {
    pub(super) fn new(per_registry: usize) -> Self {
        Self {
            per_registry: per_registry.max(1),
            hosts: Mutex::default(),
        }
    }

    /// Waits for a turn. An error if the registry said "later" to this credential, meanwhile or before.
    pub(super) async fn turn(
        &self,
        key: &str,
        credential: &str,
    ) -> Result<Option<OwnedSemaphorePermit>, RegistryError> {
        let turns = Arc::clone(&self.host(&mut self.lock(), key).turns);
        // Nobody closes it.
        let turn = turns.acquire_owned().await.ok();
        self.may_ask(key, credential)?;
        Ok(turn)
    }

    /// An error while the registry wants to be left alone.
    pub(super) fn may_ask(&self, key: &str, credential: &str) -> Result<(), RegistryError> {
        let hosts = self.lock();
        let pause = hosts.get(key).and_then(|host| host.pauses.get(credential));
        let left = |pause: &Pause| pause.until.checked_duration_since(Instant::now());
        match pause.and_then(|p| left(p).zip(Some(p))) {
            Some((left, pause)) if !left.is_zero() => Err(pause.error.clone().waiting(left)),
            _ => Ok(()),
        }
    }

    /// Takes note if the error means "later". Gives the error that those get who ask before.
    pub(super) fn refused(&self, key: &str, credential: &str, error: RegistryError) -> RegistryError {
        let wait = match &error {
            RegistryError::RateLimited { retry_after, .. } => retry_after.unwrap_or(DEFAULT_PAUSE),
            RegistryError::Unreachable {
                retry_after: Some(wait),
                ..
            } => *wait,
            _ => return error,
        };
        self.wait(key, credential, error, wait)
    }

    /// Takes note of what remains. With nothing left, the registry is not asked until it said to begin anew.
    pub(super) fn told(&self, key: &str, credential: &str, host: &str, budget: Budget) {
        let exhausted = budget.reset.filter(|_| budget.remaining == 0);
        let mut hosts = self.lock();
        self.host(&mut hosts, key).budget = Some((host.to_owned(), budget));
        drop(hosts);
        if let Some(wait) = exhausted {
            let error = RegistryError::RateLimited {
                message: format!("{host} allows no more requests"),
                retry_after: None,
            };
            self.wait(key, credential, error, wait);
        }
    }

    fn wait(&self, key: &str, credential: &str, error: RegistryError, wait: Duration) -> RegistryError {
        let (wait, now) = (wait.clamp(MIN_PAUSE, MAX_PAUSE), Instant::now());
        let error = error.not_before(Timestamp::now(), wait);
        let pause = Pause {
            until: now + wait,
            error: error.clone(),
        };
        let mut hosts = self.lock();
        let pauses = &mut self.host(&mut hosts, key).pauses;
        pauses.retain(|_, pause| pause.until > now);
        if pauses.len() < MAX_PAUSES || pauses.contains_key(credential) {
            pauses.insert(credential.to_owned(), pause);
        }
        error
    }

    /// What registries said last, by their names.
    pub(super) fn budgets(&self) -> Vec<(String, Budget)> {
        self.lock()
            .values()
            .filter_map(|host| host.budget.clone())
            .collect()
    }

    fn host<'a>(&self, hosts: &'a mut HashMap<String, Host>, key: &str) -> &'a mut Host {
        if hosts.len() >= MAX_HOSTS && !hosts.contains_key(key) {
            forget(hosts, Instant::now());
        }
        hosts.entry(key.to_owned()).or_insert_with(|| Host {
            turns: Arc::new(Semaphore::new(self.per_registry)),
            pauses: HashMap::new(),
            budget: None,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Host>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes room: those that nobody asks and that did not say "later" first, else the one that may be asked soonest.
fn forget(hosts: &mut HashMap<String, Host>, now: Instant) {
    let until = |host: &Host| host.pauses.values().map(|p| p.until).max().filter(|u| *u > now);
    hosts.retain(|_, host| Arc::strong_count(&host.turns) > 1 || until(host).is_some());
    if hosts.len() >= MAX_HOSTS
        && let Some(soonest) = hosts
            .iter()
            .min_by_key(|(_, host)| until(host))
            .map(|(key, _)| key.clone())
    {
        hosts.remove(&soonest);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn later(seconds: Option<u64>) -> RegistryError {
        RegistryError::RateLimited {
            message: "429 Too Many Requests".to_owned(),
            retry_after: seconds.map(Duration::from_secs),
        }
    }

    async fn wait_of(courtesy: &Courtesy, key: &str, credential: &str) -> Option<Duration> {
        courtesy.turn(key, credential).await.err()?.retry_after()
    }

    #[tokio::test(start_paused = true)]
    async fn who_said_later_is_not_asked_before() {
        let courtesy = Courtesy::new(8);
        for (wait, expected) in [(Some(33), 33), (None, 5), (Some(0), 1), (Some(1_000_000), 3600)] {
            courtesy.refused("a", "", later(wait));
            assert_eq!(
                wait_of(&courtesy, "a", "").await,
                Some(Duration::from_secs(expected))
            );
            tokio::time::advance(Duration::from_secs(expected - 1)).await;
            assert_eq!(wait_of(&courtesy, "a", "").await, Some(Duration::from_secs(1)));
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(wait_of(&courtesy, "a", "").await, None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn others_and_other_registries_are_not_concerned() {
        let courtesy = Courtesy::new(8);
        courtesy.refused("a", "", later(Some(33)));
        courtesy.refused(
            "b",
            "",
            RegistryError::NotFound {
                message: String::new(),
            },
        );
        for (key, credential) in [("a", "user"), ("b", "")] {
            assert_eq!(wait_of(&courtesy, key, credential).await, None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_exhausted_budget_is_a_later_only_if_it_says_when() {
        let courtesy = Courtesy::new(8);
        let budget = |remaining, reset: Option<u64>| Budget {
            remaining,
            limit: None,
            reset: reset.map(Duration::from_secs),
        };
        for (budget, expected) in [
            (budget(1, Some(9)), None),
            (budget(0, None), None),
            (budget(0, Some(9)), Some(Duration::from_secs(9))),
        ] {
            courtesy.told("a", "", "a.io", budget);
            assert_eq!(wait_of(&courtesy, "a", "").await, expected);
            assert_eq!(courtesy.budgets(), [("a.io".to_owned(), budget)]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_at_a_time() {
        let courtesy = Courtesy::new(2);
        let first = courtesy.turn("a", "").await.unwrap();
        let _second = courtesy.turn("a", "").await.unwrap();
        let soon = Duration::from_secs(1);
        assert!(tokio::time::timeout(soon, courtesy.turn("a", "")).await.is_err());
        assert!(tokio::time::timeout(soon, courtesy.turn("b", "")).await.is_ok());
        drop(first);
        assert!(tokio::time::timeout(soon, courtesy.turn("a", "")).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_registries_is_bounded() {
        let courtesy = Courtesy::new(1);
        courtesy.refused("kept", "", later(Some(3000)));
        for i in 0..MAX_HOSTS * 2 {
            courtesy.refused(&i.to_string(), "", later(Some(60 + i as u64)));
        }
        assert_eq!(courtesy.lock().len(), MAX_HOSTS);
        assert!(wait_of(&courtesy, "kept", "").await.is_some());
        assert!(wait_of(&courtesy, "0", "").await.is_none());
    }
}
