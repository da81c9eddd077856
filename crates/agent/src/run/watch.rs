//! The watch of the node's own object.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, pin_mut};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_kind};
use kube::{Api, Client, ResourceExt as _};
use larder_api::NodeImageCache;
use tokio::time::Instant;
use tracing::{info, warn};

use super::object::Object;

/// A watch that cannot be begun again is tried at least this often.
const RETRIES_WITHIN: Duration = Duration::from_secs(45);

/// Whether the agent hears of its object.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Heard>);

#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    listed: bool,
    last_break: Option<Instant>,
    /// Breaks without a word in between, each soon after the one before.
    breaks: u32,
}

impl Health {
    /// Ready once the object was looked up, while the watch is established. A single break is routine, and a watch that
    /// is begun again tells nothing until something changes: only breaks in a row mean that there is none.
    pub(super) fn ready(&self) -> bool {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let broken = heard.breaks > 1 && heard.last_break.is_some_and(|at| at.elapsed() < RETRIES_WITHIN);
        heard.listed && !broken
    }

    fn heard(&self, listed: bool) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.listed |= listed;
        heard.breaks = 0;
    }

    fn broke(&self) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let soon = heard.last_break.is_some_and(|at| at.elapsed() < RETRIES_WITHIN);
        heard.breaks = if soon { heard.breaks + 1 } else { 1 };
        heard.last_break = Some(Instant::now());
    }
}

/// Watches until dropped. A broken watch is begun again with the client's usual delays.
pub(super) async fn watch(client: Client, node: String, object: Arc<Object>, health: Arc<Health>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={node}"));
    let events = watch_kind(Api::<NodeImageCache>::all(client), config).default_backoff();
    pin_mut!(events);
    let mut found = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => found = false,
            // The server selects; that it is the node's is made sure of all the same.
            Ok(Event::InitApply(seen)) => {
                if seen.name_any() == node {
                    found = true;
                    object.seen(seen);
                }
            }
            Ok(Event::InitDone) => {
                if !found {
                    object.gone();
                }
                info!(node, found, "looked up the node's object");
                health.heard(true);
            }
            Ok(Event::Apply(seen)) => {
                health.heard(false);
                if seen.name_any() == node {
                    object.seen(seen);
                }
            }
            Ok(Event::Delete(seen)) => {
                health.heard(false);
                if seen.name_any() == node {
                    object.gone();
                }
            }
            Err(error) => {
                health.broke();
                warn!(%error, "the watch broke and is begun again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ready_means_that_changes_are_heard_of() {
        let health = Health::default();
        assert!(!health.ready(), "nothing was looked up yet");
        health.heard(true);
        health.broke();
        assert!(health.ready(), "one break is routine");
        health.broke();
        assert!(!health.ready());
        tokio::time::advance(RETRIES_WITHIN).await;
        assert!(health.ready(), "it would have broken again by now");
        health.broke();
        assert!(health.ready());
        health.broke();
        health.heard(false);
        assert!(health.ready());
    }
}
