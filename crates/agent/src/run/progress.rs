//! How far the pulls at work are, and whether they move.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use larder_core::agent::PullOrder;
use larder_runtime::{Content, Progress, PullProgress};
use tokio::time::Instant;
use tracing::debug;

/// How often the content store is asked while something is pulled.
const EVERY: Duration = Duration::from_secs(1);

/// What all pulls share: the runtime downloads a few layers at a time over all images, so that one may wait for another.
#[derive(Debug, Default)]
pub(super) struct Activity(Mutex<Option<Instant>>);

impl Activity {
    fn advanced(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn within(&self, time: Duration) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|at| at.elapsed() < time)
    }
}

/// How far one pull is.
#[derive(Debug, Default)]
pub(super) struct Advance(Mutex<Progress>);

impl Advance {
    pub(super) fn get(&self) -> Progress {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, progress: Progress) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }
}

/// Follows a pull; returns only once nothing of it has come for `order.no_progress`. What is all there and is being
/// unpacked, or waits for others' layers, does not count as standing still.
pub(super) async fn follow(
    content: Option<&dyn Content>,
    order: &PullOrder,
    platform: (&str, &str),
    advance: &Advance,
    activity: &Arc<Activity>,
) {
    // Without a digest nothing tells which of the ingests are this image's.
    let (Some(content), Some(digest)) = (content, &order.digest) else {
        return std::future::pending().await;
    };
    let mut pull = PullProgress::new(digest, platform.0, platform.1);
    let mut moved_at = Instant::now();
    loop {
        tokio::time::sleep(EVERY.min(order.no_progress)).await;
        let before = advance.get();
        match pull.look(content).await {
            Ok(Some(now)) => {
                if now.bytes_done > before.bytes_done || now.layers_total > before.layers_total {
                    moved_at = Instant::now();
                    activity.advanced();
                }
                advance.set(now);
                let arrived = now.bytes_done == now.bytes_total;
                let queued = now.layers_begun == 0 && activity.within(order.no_progress);
                if arrived || queued {
                    moved_at = Instant::now();
                }
            }
            Ok(None) => {}
            Err(error) => debug!(%error, image = order.image, "cannot tell how far a pull is"),
        }
        if moved_at.elapsed() >= order.no_progress {
            return;
        }
    }
}
