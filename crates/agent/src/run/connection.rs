//! The connection to the runtime: found, looked through, lost and found again.

use std::sync::Arc;
use std::time::Duration;

use larder_core::agent::Observed;
use larder_runtime::{Contents, Manifests, Runtime, RuntimeClient, RuntimeError, Timeouts};
use larder_runtime::{disk, find_runtime, observed};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Settings;

/// Before a lost runtime is looked for again; it doubles.
const FIRST_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(15);

/// The runtime, or why there is none.
#[derive(Debug)]
pub(super) struct Connection {
    settings: Settings,
    /// Woken whenever the runtime tells that something changed.
    changed: Arc<Notify>,
    runtime: Option<Arc<RuntimeClient>>,
    manifests: Manifests,
    events: Option<AbortHandle>,
    failures: u32,
    again_at: Option<Instant>,
    /// Why there is no runtime.
    error: String,
}

impl Connection {
    pub(super) fn new(settings: Settings, changed: Arc<Notify>) -> Self {
        Self {
            settings,
            changed,
            runtime: None,
            manifests: Manifests::default(),
            events: None,
            failures: 0,
            again_at: None,
            error: "not looked for yet".to_owned(),
        }
    }

    pub(super) fn runtime(&self) -> Option<Arc<RuntimeClient>> {
        self.runtime.clone()
    }

    /// When a lost runtime is looked for again.
    pub(super) fn again_at(&self) -> Option<Instant> {
        self.again_at
    }

    /// What the runtime holds, or why that cannot be told. A runtime that does not answer is let go: it is looked for
    /// anew, by its path, after a while.
    pub(super) async fn look(&mut self) -> Result<Observed, String> {
        let Some(runtime) = self.connect().await else {
            return Err(self.error.clone());
        };
        self.follow_events(&runtime);
        match self.look_through(&runtime).await {
            Ok(observed) => {
                self.failures = 0;
                Ok(observed)
            }
            Err(error) => {
                self.lost(error.to_string());
                Err(self.error.clone())
            }
        }
    }

    async fn look_through(&mut self, runtime: &RuntimeClient) -> Result<Observed, RuntimeError> {
        let contents = Contents::observe(runtime, &mut self.manifests).await?;
        // Not every runtime knows; the root's file system is looked at then.
        let image_fs = runtime.image_fs().await.unwrap_or_default();
        Ok(observed(&contents, disk(&image_fs)))
    }

    async fn connect(&mut self) -> Option<Arc<RuntimeClient>> {
        if let Some(runtime) = &self.runtime {
            return Some(Arc::clone(runtime));
        }
        if self.again_at.is_some_and(|at| at > Instant::now()) {
            return None;
        }
        let Settings { host_run, socket, .. } = &self.settings;
        match find_runtime(host_run, socket.as_deref(), Timeouts::default()).await {
            Ok(runtime) => {
                info!(path = %runtime.path().display(), "connected to the runtime");
                let runtime = Arc::new(runtime);
                self.runtime = Some(Arc::clone(&runtime));
                self.again_at = None;
                Some(runtime)
            }
            Err(error) => {
                self.lost(error.to_string());
                None
            }
        }
    }

    fn lost(&mut self, error: String) {
        warn!(error, failures = self.failures, "the runtime does not answer");
        let delay = FIRST_DELAY
            .saturating_mul(1 << self.failures.min(10))
            .min(MAX_DELAY);
        self.failures += 1;
        self.again_at = Some(Instant::now() + delay);
        self.error = error;
        self.runtime = None;
        self.stop_events();
    }

    /// Listens, where the runtime tells of changes. Events that ended are a change too: they may mean a restart.
    fn follow_events(&mut self, runtime: &Arc<RuntimeClient>) {
        if self.events.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let Some(events) = runtime.events() else { return };
        let mut events = events.subscribe();
        let changed = Arc::clone(&self.changed);
        let task = tokio::spawn(async move {
            loop {
                match events.next().await {
                    Ok(_) => changed.notify_one(),
                    Err(error) => {
                        warn!(%error, "the runtime's events ended");
                        // A runtime that refuses them is not asked again at once.
                        tokio::time::sleep(FIRST_DELAY).await;
                        changed.notify_one();
                        return;
                    }
                }
            }
        });
        self.events = Some(task.abort_handle());
    }

    fn stop_events(&mut self) {
        if let Some(task) = self.events.take() {
            task.abort();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.stop_events();
    }
}
