//! Pulls each image until it is there or is given up.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use larder_api::names::Reason;
use larder_core::backoff::seldom_heals;
use larder_core::image_ref::ImageRef;
use larder_runtime::{Runtime, RuntimeClient, RuntimeError};
use tokio::time::Instant;

use super::list::Wanted;
use super::output::{Failure, Output, Summary};
use crate::Attempt;
use crate::credentials::{Finder, Found};
use crate::failure::{self, PullError};

/// What the registry refuses for good is refused again, but a tag may be on its way there, and a token service may have
/// a bad moment.
const TRIES_OF_WHAT_SELDOM_HEALS: u32 = 3;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) attempt: Duration,
    pub(super) max_attempt: Duration,
    pub(super) delay: Duration,
    pub(super) max_delay: Duration,
}

impl Patience {
    /// What attempt number `n`, from 1, may take.
    fn attempt(&self, n: u32) -> Duration {
        doubled(self.attempt, n).min(self.max_attempt)
    }

    /// Time between attempt number `n` and the next; none if there is no next.
    fn delay(&self, n: u32, reason: Reason) -> Option<Duration> {
        if !seldom_heals(reason) {
            return Some(doubled(self.delay, n).min(self.max_delay));
        }
        (n < TRIES_OF_WHAT_SELDOM_HEALS && reason != Reason::InvalidReference).then_some(self.max_delay)
    }
}

fn doubled(first: Duration, n: u32) -> Duration {
    first.saturating_mul(1 << n.saturating_sub(1).min(20))
}

/// Everything that pulling takes.
pub(super) struct Work {
    pub(super) runtime: Arc<RuntimeClient>,
    pub(super) finder: Finder,
    pub(super) patience: Patience,
    pub(super) node: String,
    pub(super) output: Output,
}

impl Work {
    /// Pulls all of it, `parallel` images at a time, until `end` says why it is over. True if every image is there.
    pub(super) async fn run(
        &self,
        wanted: Wanted,
        parallel: usize,
        end: impl Future<Output = &'static str>,
    ) -> bool {
        let begun = Instant::now();
        let total = wanted.len();
        let mut failures: Vec<Failure> = Vec::new();
        for (image, error) in wanted.malformed {
            failures.push(self.refused(&image, &error));
        }
        let mut open: Vec<Option<&ImageRef>> = wanted.images.iter().map(Some).collect();
        let mut size_bytes = 0;
        // An image that waits for its next attempt gives its place to another.
        let places = tokio::sync::Semaphore::new(parallel);
        let pulls = wanted.images.iter().enumerate();
        let pulls = pulls.map(|(i, image)| {
            let places = &places;
            async move { (i, self.image(image, places).await) }
        });
        let mut pulls = pulls.collect::<futures::stream::FuturesUnordered<_>>();
        tokio::pin!(end);
        let cut_short = loop {
            tokio::select! {
                next = pulls.next() => match next {
                    None => break None,
                    Some((i, result)) => {
                        open[i] = None;
                        self.output.settled();
                        match result {
                            Ok(size) => size_bytes += size,
                            Err(failure) => failures.push(failure),
                        }
                    }
                },
                why = &mut end => break Some(why),
            }
        };
        drop(pulls);
        if let Some(why) = cut_short {
            failures.extend(open.into_iter().flatten().map(|image| Failure {
                image: image.normalized().to_owned(),
                reason: Reason::Timeout,
                error: why.to_owned(),
                attempts: 0,
            }));
        }
        let failed = failures.len();
        self.output.end(&Summary {
            total,
            ready: total - failed,
            failed,
            size_bytes,
            duration_ms: i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX),
            failures,
        });
        failed == 0
    }

    fn refused(&self, image: &str, error: &str) -> Failure {
        let mut attempt = Attempt::new(&self.node, image, Timestamp::now(), Duration::ZERO);
        error.clone_into(&mut attempt.error);
        self.output.attempt(&attempt);
        self.output.settled();
        Failure {
            image: image.to_owned(),
            reason: Reason::InvalidReference,
            error: error.to_owned(),
            attempts: 0,
        }
    }

    /// Bytes of the image, once it is there.
    async fn image(&self, image: &ImageRef, places: &tokio::sync::Semaphore) -> Result<i64, Failure> {
        let mut n = 1;
        loop {
            let result = {
                // The semaphore is never closed, so there always is a permit in the end.
                let _place = places.acquire().await;
                self.attempt(image, self.patience.attempt(n)).await
            };
            let error = match result {
                Ok(size) => return Ok(size),
                Err(error) => error,
            };
            let Some(delay) = self.patience.delay(n, error.reason) else {
                return Err(Failure {
                    image: image.normalized().to_owned(),
                    reason: error.reason,
                    error: error.message,
                    attempts: n,
                });
            };
            tokio::time::sleep(delay).await;
            n += 1;
        }
    }

    async fn attempt(&self, image: &ImageRef, at_most: Duration) -> Result<i64, PullError> {
        let (started_at, begun) = (Timestamp::now(), Instant::now());
        // What plugins take is bounded by itself and not taken from the pull.
        let found = self.finder.find(image).await;
        let mut result = match tokio::time::timeout(at_most, self.pull(image, &found, at_most)).await {
            Ok(result) => result,
            Err(_) => Err(failure::too_long(at_most)),
        };
        if let Err(error) = &mut result {
            for complaint in &found.complaints {
                error.message.push_str("; ");
                error.message.push_str(complaint);
            }
        }
        let mut attempt = Attempt::new(&self.node, image.normalized(), started_at, begun.elapsed());
        match &result {
            Ok(size) => attempt.size_bytes = *size,
            Err(error) => error.message.clone_into(&mut attempt.error),
        }
        self.output.attempt(&attempt);
        result
    }

    async fn pull(&self, image: &ImageRef, found: &Found, at_most: Duration) -> Result<i64, PullError> {
        let runtime = self.runtime.as_ref();
        let source = image.normalized();
        let id = self.finder.pull(runtime, image, source, found, at_most).await?;
        Ok(self.size(image, &id).await)
    }

    async fn size(&self, image: &ImageRef, id: &str) -> i64 {
        let found: Result<_, RuntimeError> = match self.runtime.image(image.normalized()).await {
            Ok(None) => self.runtime.image(id).await,
            other => other,
        };
        // It is there all the same.
        found
            .ok()
            .flatten()
            .map_or(0, |found| i64::try_from(found.size).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_doubles_and_ends_where_repetition_seldom_heals() {
        let second = Duration::from_secs(1);
        let patience = Patience {
            attempt: 30 * second,
            max_attempt: 300 * second,
            delay: second,
            max_delay: 10 * second,
        };
        let attempts: Vec<u64> = (1..=6).map(|n| patience.attempt(n).as_secs()).collect();
        assert_eq!(attempts, [30, 60, 120, 240, 300, 300]);
        let delays = |reason| -> Vec<Option<u64>> {
            (1..=5)
                .map(|n| patience.delay(n, reason).map(|d| d.as_secs()))
                .collect()
        };
        assert_eq!(
            delays(Reason::RegistryUnreachable),
            [Some(1), Some(2), Some(4), Some(8), Some(10)]
        );
        assert_eq!(delays(Reason::NotFound), [Some(10), Some(10), None, None, None]);
        assert_eq!(patience.attempt(u32::MAX), 300 * second);
    }
}
