//! Keyed work queues: what changed is marked, and each key is worked on by one task at a time.

mod schedule;

use std::fmt::Debug;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::metrics::Metrics;
use schedule::{Next, Outcome, Schedule};

pub use schedule::{MAX_BACKOFF, MIN_BACKOFF};

/// Work that is under way when the operator is told to stop may go on for this long.
pub const GRACE: Duration = Duration::from_secs(10);

/// Work that takes longer hangs: it is given up and repeated.
pub const AT_MOST: Duration = Duration::from_mins(2);

/// A queue of keys. Clones are the same queue.
#[derive(Debug)]
pub struct Queue<K> {
    inner: Arc<Inner<K>>,
}

#[derive(Debug)]
struct Inner<K> {
    name: &'static str,
    schedule: Mutex<Schedule<K>>,
    wake: Notify,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<K: Ord + Clone + Debug + Send + Sync + 'static> Queue<K> {
    /// An empty queue; `name` labels its metrics, `interval` is the shortest time between two runs of a key.
    pub fn new(name: &'static str, interval: Duration) -> Self {
        let schedule = Mutex::new(Schedule::new(interval));
        Self {
            inner: Arc::new(Inner {
                name,
                schedule,
                wake: Notify::new(),
            }),
        }
    }

    /// Something about the key changed.
    pub fn mark(&self, key: K) {
        self.mark_after(key, Duration::ZERO);
    }

    /// Something about the key changes after this time.
    pub fn mark_after(&self, key: K, after: Duration) {
        self.schedule().mark(key, Instant::now() + after);
        self.inner.wake.notify_one();
    }

    /// Every key that waits, marked or delayed; they wait no longer.
    #[cfg(test)]
    pub(crate) fn take_marked(&self) -> Vec<K> {
        self.schedule().take_waiting()
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule<K>> {
        // Nothing panics while it holds the lock; a poisoned schedule would still be whole.
        self.inner.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on marked keys with `work`, at most `concurrency` at a time, until `stop` turns true; what is under way
    /// then is waited for, at most [`GRACE`]. `work` may ask to be called again after a time; an error is logged and
    /// the key repeated with growing delays.
    pub async fn run<W, F, E>(
        self,
        concurrency: usize,
        metrics: Arc<Metrics>,
        mut stop: watch::Receiver<bool>,
        work: W,
    ) where
        W: Fn(K) -> F,
        F: Future<Output = Result<Option<Duration>, E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let name = self.inner.name;
        let mut running: JoinSet<()> = JoinSet::new();
        loop {
            let now = Instant::now();
            let mut wait = None;
            while running.len() < concurrency {
                let next = self.schedule().next(now);
                match next {
                    Next::Run(key) => {
                        let task = self.clone().work_on(key.clone(), work(key), Arc::clone(&metrics));
                        running.spawn(task);
                    }
                    Next::Wait(at) => {
                        wait = Some(at);
                        break;
                    }
                    Next::Idle => break,
                }
            }
            let depth = self.schedule().depth(now);
            metrics
                .queue_depth
                .with_label_values(&[name])
                .set(i64::try_from(depth).unwrap_or(i64::MAX));
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                () = self.inner.wake.notified() => {}
                Some(_) = running.join_next() => {}
                () = tokio::time::sleep_until(wait.unwrap_or(now)), if wait.is_some() => {}
            }
        }
        let finish = async { while running.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, finish).await.is_err() {
            tracing::warn!(queue = name, "work was still under way at the end");
        }
    }

    async fn work_on<E: std::error::Error + 'static>(
        self,
        key: K,
        work: impl Future<Output = Result<Option<Duration>, E>> + Send,
        metrics: Arc<Metrics>,
    ) {
        let name = self.inner.name;
        let started = Instant::now();
        let result = tokio::time::timeout(AT_MOST, work).await;
        let now = Instant::now();
        metrics
            .reconcile_duration
            .with_label_values(&[name])
            .observe((now - started).as_secs_f64());
        let outcome = match result {
            Ok(Ok(again)) => Outcome::Done { again },
            Err(_) => {
                metrics.reconcile_errors.with_label_values(&[name]).inc();
                tracing::warn!(
                    queue = name,
                    ?key,
                    "was given up after {} s, will be repeated",
                    AT_MOST.as_secs()
                );
                Outcome::Failed
            }
            Ok(Err(error)) => {
                metrics.reconcile_errors.with_label_values(&[name]).inc();
                let before = self.schedule().failures(&key);
                // A conflict now and then is how things are; what fails twice in a row is news.
                if before == 0 {
                    tracing::debug!(queue = name, ?key, error = %Chain(&error), "failed, will be repeated");
                } else {
                    tracing::warn!(queue = name, ?key, before, error = %Chain(&error), "failed again, will be repeated");
                }
                Outcome::Failed
            }
        };
        self.schedule().done(&key, started, now, outcome);
        self.inner.wake.notify_one();
    }
}

/// An error with its sources, on one line.
pub struct Chain<'a>(pub &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut next = Some(self.0);
        let mut separator = "";
        while let Some(error) = next {
            if let Some(kube::Error::Api(status)) = error.downcast_ref() {
                // Its own text is the whole status, twice.
                return write!(f, "{separator}{} ({})", status.message, status.code);
            }
            write!(f, "{separator}{error}")?;
            separator = ": ";
            next = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
