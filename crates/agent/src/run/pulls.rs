//! The pulls at work.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use larder_core::agent::{PullFailure, PullOrder, PullResult, RunningPull};
use larder_runtime::{Runtime as _, RuntimeClient};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::Instant;
use tracing::{error, info};

use super::plugins::Plugins;
use super::progress::{Activity, Advance, follow};
use super::pull::pull;
use crate::failure;

/// A pull that ended by itself.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) result: PullResult,
    pub(super) took: Duration,
    /// Compressed bytes of the image, as far as known.
    pub(super) bytes: i64,
}

/// Pulls at work, one at most for each reference.
#[derive(Debug)]
pub(super) struct Pulls {
    plugins: Arc<Plugins>,
    tasks: JoinSet<Ended>,
    images: HashMap<Id, String>,
    running: BTreeMap<String, Running>,
    activity: Arc<Activity>,
}

#[derive(Debug)]
struct Running {
    order: PullOrder,
    started_at: Timestamp,
    advance: Arc<Advance>,
    task: AbortHandle,
}

impl Pulls {
    pub(super) fn new(plugins: Plugins) -> Self {
        Self {
            plugins: Arc::new(plugins),
            tasks: JoinSet::new(),
            images: HashMap::new(),
            running: BTreeMap::new(),
            activity: Arc::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Begins a pull; nothing happens if the image is being pulled already.
    pub(super) fn begin(
        &mut self,
        runtime: Arc<RuntimeClient>,
        order: PullOrder,
        platform: (&'static str, &'static str),
        there_before: Arc<BTreeSet<String>>,
    ) {
        if self.running.contains_key(&order.image) {
            return;
        }
        info!(
            image = order.image,
            digest = order.digest,
            bytes = order.bytes,
            "pulling"
        );
        let advance = Arc::new(Advance::default());
        let started_at = Timestamp::now();
        let work = work(
            runtime,
            order.clone(),
            platform,
            there_before,
            Arc::clone(&self.plugins),
            Arc::clone(&advance),
            Arc::clone(&self.activity),
        );
        let task = self.tasks.spawn(work);
        self.images.insert(task.id(), order.image.clone());
        let running = Running {
            order,
            started_at,
            advance,
            task,
        };
        self.running.insert(running.order.image.clone(), running);
    }

    /// Ends a pull: the runtime is told by the end of the call.
    pub(super) fn cancel(&mut self, image: &str) {
        if let Some(running) = self.running.get(image) {
            info!(image, "the pull is no longer wanted");
            running.task.abort();
        }
    }

    /// The next pull that ends; none for one that was cancelled. Waits for ever while nothing is pulled.
    pub(super) async fn next(&mut self) -> Option<Ended> {
        let Some(ended) = self.tasks.join_next_with_id().await else {
            return std::future::pending().await;
        };
        let (id, ended) = match ended {
            Ok((id, ended)) => (id, Some(ended)),
            Err(broken) => {
                if broken.is_panic() {
                    error!(error = %broken, "a pull broke off");
                }
                (broken.id(), None)
            }
        };
        if let Some(image) = self.images.remove(&id) {
            self.running.remove(&image);
        }
        ended
    }

    /// What the decision looks at.
    pub(super) fn view(&self) -> Vec<RunningPull> {
        let view = |running: &Running| {
            let progress = running.advance.get();
            RunningPull {
                order: running.order.clone(),
                started_at: running.started_at,
                bytes_done: signed(progress.bytes_done),
                bytes_total: match signed(progress.bytes_total) {
                    0 => running.order.bytes,
                    total => total,
                },
            }
        };
        self.running.values().map(view).collect()
    }
}

async fn work(
    runtime: Arc<RuntimeClient>,
    order: PullOrder,
    platform: (&'static str, &'static str),
    there_before: Arc<BTreeSet<String>>,
    plugins: Arc<Plugins>,
    advance: Arc<Advance>,
    activity: Arc<Activity>,
) -> Ended {
    let (started_at, begun) = (Timestamp::now(), Instant::now());
    let found = plugins.find(&order).await;
    let outcome = tokio::select! {
        outcome = pull(runtime.as_ref(), &order, &there_before, &plugins, found.as_ref()) => outcome,
        () = follow(runtime.content(), &order, platform, &advance, &activity) => {
            Err(failure::stalled(order.no_progress))
        }
        () = tokio::time::sleep(order.attempt) => Err(failure::too_long(order.attempt)),
    };
    let took = begun.elapsed();
    match &outcome {
        Ok(()) => info!(image = order.image, seconds = took.as_secs_f64(), "pulled"),
        Err(PullFailure { reason, message }) => {
            info!(image = order.image, %reason, message, seconds = took.as_secs_f64(), "cannot pull");
        }
    }
    let bytes = match signed(advance.get().bytes_total) {
        0 => order.bytes,
        total => total,
    };
    Ended {
        result: PullResult {
            order,
            started_at,
            ended_at: Timestamp::now(),
            outcome,
        },
        took,
        bytes,
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
