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
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no")]
    struct No;

    struct Fixture {
        queue: Queue<&'static str>,
        stop: watch::Sender<bool>,
        metrics: Arc<Metrics>,
    }

    fn fixture() -> Fixture {
        Fixture {
            queue: Queue::new("test", Duration::from_millis(50)),
            stop: watch::Sender::new(false),
            metrics: Arc::new(Metrics::new().unwrap()),
        }
    }

    #[test]
    fn errors_are_told_with_their_sources_and_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot write")]
        struct Write(#[source] kube::Error);
        let status = kube::core::Status::failure("no such node", "NotFound").with_code(404);
        let error = Write(kube::Error::Api(status.boxed()));
        assert_eq!(Chain(&error).to_string(), "cannot write: no such node (404)");
    }

    #[tokio::test(start_paused = true)]
    async fn concurrency_is_bounded_and_a_key_is_alone() {
        let f = fixture();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        for key in ["a", "b", "c", "d", "e"] {
            f.queue.mark(key);
        }
        let (n, m) = (Arc::clone(&now), Arc::clone(&most));
        let run = tokio::spawn(f.queue.clone().run(
            2,
            Arc::clone(&f.metrics),
            f.stop.subscribe(),
            move |_| {
                let (n, m) = (Arc::clone(&n), Arc::clone(&m));
                async move {
                    m.fetch_max(n.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    n.fetch_sub(1, Ordering::SeqCst);
                    Ok::<_, Infallible>(None)
                }
            },
        ));
        tokio::time::sleep(Duration::from_millis(3500)).await;
        assert_eq!(most.load(Ordering::SeqCst), 2);
        assert_eq!(
            now.load(Ordering::SeqCst),
            0,
            "five seconds of work, two at a time, are done"
        );
        f.stop.send_replace(true);
        run.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn errors_are_repeated_and_counted_and_delays_are_kept() {
        let f = fixture();
        let started = Instant::now();
        let runs = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&runs);
        f.queue.mark("a");
        let run = tokio::spawn(f.queue.clone().run(
            4,
            Arc::clone(&f.metrics),
            f.stop.subscribe(),
            move |_| {
                let seen = Arc::clone(&seen);
                async move {
                    let n = {
                        let mut seen = seen.lock().unwrap();
                        seen.push(started.elapsed().as_millis());
                        seen.len()
                    };
                    match n {
                        1 | 2 => Err(No),
                        3 => Ok(Some(Duration::from_secs(5))),
                        _ => Ok(None),
                    }
                }
            },
        ));
        tokio::time::sleep(Duration::from_mins(1)).await;
        f.stop.send_replace(true);
        run.await.unwrap();
        assert_eq!(*runs.lock().unwrap(), [0, 200, 600, 5600]);
        assert_eq!(f.metrics.reconcile_errors.with_label_values(&["test"]).get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_hangs_is_given_up_and_repeated() {
        let f = fixture();
        let begun = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&begun);
        f.queue.mark("a");
        let run = tokio::spawn(f.queue.clone().run(
            1,
            Arc::clone(&f.metrics),
            f.stop.subscribe(),
            move |_| {
                let first = count.fetch_add(1, Ordering::SeqCst) == 0;
                async move {
                    if first {
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, Infallible>(None)
                }
            },
        ));
        tokio::time::sleep(AT_MOST + Duration::from_secs(1)).await;
        f.stop.send_replace(true);
        run.await.unwrap();
        assert_eq!(begun.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_waits_for_what_is_under_way_but_not_for_ever() {
        for (takes, ended) in [(Duration::from_secs(3), true), (Duration::from_mins(5), false)] {
            let f = fixture();
            f.queue.mark("a");
            let done = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&done);
            let run = tokio::spawn(f.queue.clone().run(
                1,
                Arc::clone(&f.metrics),
                f.stop.subscribe(),
                move |_| {
                    let count = Arc::clone(&count);
                    async move {
                        tokio::time::sleep(takes).await;
                        count.fetch_add(1, Ordering::SeqCst);
                        Ok::<_, Infallible>(None)
                    }
                },
            ));
            tokio::time::sleep(Duration::from_secs(1)).await;
            f.queue.mark("b");
            let asked = Instant::now();
            f.stop.send_replace(true);
            run.await.unwrap();
            assert!(asked.elapsed() <= GRACE);
            assert_eq!(
                done.load(Ordering::SeqCst),
                usize::from(ended),
                "b was not begun, a ended: {ended}"
            );
        }
    }
}
