//! The loop: look, decide, act, report.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use kube::Client;
use larder_api::node_image_cache::AgentStatus;
use larder_api::{NodeImageCache, NodeImageCacheSpec};
use larder_core::agent::{Action, AgentInput, Decision, Memory, Observed, RunningPull, decide};
use larder_core::node::Write;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::attempts::Attempts;
use super::connection::Connection;
use super::metrics::Metrics;
use super::object::{Object, Own};
use super::plugins::Plugins;
use super::pulls::{Ended, Pulls};
use super::removals::{Removal, Removals};
use super::report::{Reporter, Written};
use super::revisions::Known;
use super::watch::Health;
use super::{Settings, act};
use crate::Attempt;

/// Changes of the runtime are looked at together, at most once in this time: on a busy node most are not about images of
/// ours.
const GATHER_EVENTS: Duration = Duration::from_secs(1);
/// The same for pulls that end together: the next ones should begin soon.
const GATHER_ENDS: Duration = Duration::from_millis(10);
/// The progress of pulls at work is looked at this often.
const PROGRESS: Duration = Duration::from_secs(1);
/// A name or pin that does not hold is not set more often than this.
const SET_AGAIN: Duration = Duration::from_secs(30);

/// Everything that the loop keeps between two passes.
pub(super) struct Keeper {
    client: Client,
    settings: Settings,
    object: Arc<Object>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    attempts: Arc<Attempts>,
    changed: Arc<Notify>,
    connection: Connection,
    revisions: Known,
    /// None until there was a status to remember.
    memory: Option<Memory>,
    pulls: Pulls,
    removals: Removals,
    /// Names and pins set lately.
    set: BTreeMap<String, Instant>,
    reporter: Reporter,
}

impl Keeper {
    pub(super) fn new(
        client: Client,
        settings: Settings,
        object: Arc<Object>,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        attempts: Arc<Attempts>,
    ) -> Self {
        let changed = Arc::new(Notify::new());
        Self {
            connection: Connection::new(settings.clone(), Arc::clone(&changed)),
            reporter: Reporter::new(
                client.clone(),
                &settings.node_name,
                Arc::clone(&object),
                Arc::clone(&metrics),
            ),
            pulls: Pulls::new(Plugins::load(settings.providers.as_ref())),
            client,
            settings,
            object,
            health,
            metrics,
            attempts,
            changed,
            revisions: Known::default(),
            memory: None,
            removals: Removals::default(),
            set: BTreeMap::new(),
        }
    }

    /// Keeps the node until dropped, which cancels what is at work.
    pub(super) async fn keep(&mut self) {
        let mut own = self.object.subscribe();
        loop {
            let wake_at = self.pass(&mut own).await;
            tokio::select! {
                // The sender lives as long as this loop.
                _ = own.changed() => {}
                () = self.changed.notified() => tokio::select! {
                    () = tokio::time::sleep(GATHER_EVENTS) => {}
                    // Whose end the changes may well be: what comes next does not wait for more of them.
                    ended = self.pulls.next() => self.gather_ends(ended).await,
                    Some(ended) = self.removals.next() => self.removed(ended),
                    _ = own.changed() => {}
                },
                ended = self.pulls.next() => self.gather_ends(ended).await,
                Some(ended) = self.removals.next() => self.removed(ended),
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }

    /// One pass; when the next is due if nothing happens.
    async fn pass(&mut self, own: &mut tokio::sync::watch::Receiver<Own>) -> Instant {
        let idle_until = Instant::now() + self.settings.look_every;
        let object = match own.borrow_and_update().clone() {
            // Nothing is done to a node before it is known what it should hold.
            Own::Unknown => return idle_until,
            Own::Absent => None,
            Own::Present(object) => Some(object),
        };
        let revisions_at = self.revisions.follow(&self.client, object.as_deref()).await;
        // What ended is told before the look that shows what it left.
        while let Some(ended) = self.pulls.next().now_or_never() {
            self.pulled(ended);
        }
        let observed = self.connection.look().await;
        self.metrics.looked(observed.as_ref().ok());
        // What the revisions and the runtime are compared with is the newest that is known by now.
        let now = Timestamp::now();
        let mut decision = self.decide(now, object.as_deref(), &observed);
        let actions = std::mem::take(&mut decision.actions);
        if let Ok(observed) = &observed {
            self.act(actions, observed).await;
        }
        self.count_pulls();
        let write_at = match &object {
            Some(object) => self.report(object, &decision, now).await,
            None => None,
        };
        let wake_at = decision.wake_at.map(|at| from_now(now, at));
        let progress_at = (!self.pulls.is_empty()).then(|| Instant::now() + PROGRESS);
        [
            wake_at,
            write_at,
            revisions_at,
            progress_at,
            self.connection.again_at(),
        ]
        .into_iter()
        .flatten()
        .fold(idle_until, Instant::min)
    }

    fn decide(
        &mut self,
        now: Timestamp,
        object: Option<&NodeImageCache>,
        observed: &Result<Observed, String>,
    ) -> Decision {
        let nothing = NodeImageCacheSpec::default();
        let spec = object.map_or(&nothing, |o| &o.spec);
        let previous = object
            .and_then(status)
            .filter(|s| s.puller.node_uid == spec.node_uid);
        let kubelet = object
            .and_then(|o| o.status.as_ref()?.kubelet.as_ref())
            .filter(|k| k.node_uid == spec.node_uid);
        let memory = self
            .memory
            .get_or_insert_with(|| previous.map(Memory::from_status).unwrap_or_default());
        let revisions = self.revisions.view();
        let (os, architecture) = platform();
        if let Ok(observed) = observed {
            memory.observe(now, os, architecture, spec, &revisions, observed);
        }
        let pulls = self.pulls.view();
        let removing = self.removals.view();
        let decision = decide(&AgentInput {
            now,
            os,
            architecture,
            pod_uid: &self.settings.pod_uid,
            spec,
            generation: object.and_then(|o| o.metadata.generation).unwrap_or(0),
            revisions: &revisions,
            previous,
            kubelet,
            written_at: self.reporter.written_at(),
            observed: observed.as_ref().map_err(String::as_str),
            pulls: &pulls,
            removing: &removing,
            watching: self.health.ready(),
            memory,
        });
        self.metrics.decided(&decision.status);
        decision
    }

    /// Writes the status if it is worth it; when to decide again because of it.
    async fn report(
        &mut self,
        object: &NodeImageCache,
        decision: &Decision,
        now: Timestamp,
    ) -> Option<Instant> {
        match decision.write {
            Write::No => None,
            Write::At(at) if at > now => Some(from_now(now, at)),
            Write::At(_) | Write::Now => match self.reporter.write(object, &decision.status, now).await {
                Written::Not(again_at) => Some(again_at),
                Written::Yes if decision.awaits_write => Some(Instant::now()),
                Written::Yes | Written::Gone => None,
            },
        }
    }

    fn count_pulls(&self) {
        let pulls = self.pulls.view();
        let bytes = |of: fn(&RunningPull) -> i64| pulls.iter().map(of).sum();
        self.metrics
            .pulling(pulls.len(), bytes(|p| p.bytes_done), bytes(|p| p.bytes_total));
    }

    async fn act(&mut self, actions: Vec<Action>, observed: &Observed) {
        let Some(runtime) = self.connection.runtime() else {
            return;
        };
        let there: Arc<BTreeSet<String>> = Arc::new(observed.images.iter().map(|i| i.id.clone()).collect());
        self.set.retain(|_, at| at.elapsed() < SET_AGAIN);
        for action in actions {
            match action {
                Action::Pull(order) => {
                    self.pulls
                        .begin(Arc::clone(&runtime), order, platform(), Arc::clone(&there));
                }
                Action::Cancel(image) => self.pulls.cancel(&image),
                Action::Tag { name, target } => {
                    if self.lately(format!("tag {name} {target}")) {
                        continue;
                    }
                    info!(name, target, "pointing a name at content that is there");
                    match act::tag(runtime.as_ref(), &name, &target).await {
                        Ok(true) => self.changed.notify_one(),
                        Ok(false) => debug!(name, target, "the content is not there any more"),
                        Err(error) => warn!(%error, name, target, "cannot point a name at content"),
                    }
                }
                Action::Pin { id, pin } => {
                    if self.lately(format!("pin {id} {pin}")) {
                        continue;
                    }
                    info!(id, pin, "changing a pin");
                    match act::pin(runtime.as_ref(), &id, pin).await {
                        // Read back at the next look.
                        Ok(true) => self.changed.notify_one(),
                        Ok(false) => debug!(id, pin, "the image is not there any more"),
                        Err(error) => warn!(%error, id, pin, "cannot change a pin"),
                    }
                }
                Action::Remove(order) => self.removals.begin(Arc::clone(&runtime), order),
            }
        }
    }

    /// Whether this was set lately: what does not hold is not worth more than a try now and then.
    fn lately(&mut self, what: String) -> bool {
        if self.set.contains_key(&what) {
            return true;
        }
        self.set.insert(what, Instant::now());
        false
    }

    fn removed(&mut self, removal: Removal) {
        let Removal { order, report } = removal;
        if let Ok(report) = &report {
            self.metrics.removed(report);
        }
        let memory = self.memory.get_or_insert_default();
        memory.removed(&order.cache_uid, &order.work, Timestamp::now(), report);
    }

    fn pulled(&mut self, ended: Option<Ended>) {
        let Some(Ended { result, took, bytes }) = ended else {
            return;
        };
        self.metrics.pulled(&result, took, bytes);
        let mut attempt = Attempt::new(
            &self.settings.node_name,
            &result.order.image,
            result.started_at,
            took,
        );
        match &result.outcome {
            Ok(()) => attempt.size_bytes = bytes,
            Err(failure) => failure.message.clone_into(&mut attempt.error),
        }
        self.attempts.add(attempt);
        self.memory.get_or_insert_default().pulled(&result);
    }

    /// Takes in a pull that has ended, and those that end together with it.
    async fn gather_ends(&mut self, ended: Option<Ended>) {
        self.pulled(ended);
        let until = Instant::now() + GATHER_ENDS;
        while let Ok(ended) = tokio::time::timeout_at(until, self.pulls.next()).await {
            self.pulled(ended);
        }
    }
}

/// The agent's own block, as last written.
fn status(object: &NodeImageCache) -> Option<&AgentStatus> {
    object.status.as_ref()?.agent.as_ref()
}

/// This node's platform as Go names it.
fn platform() -> (&'static str, &'static str) {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        same => same,
    };
    (std::env::consts::OS, architecture)
}

/// A moment of the wall clock on the clock that sleeps.
fn from_now(now: Timestamp, at: Timestamp) -> Instant {
    let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
    Instant::now() + wait.min(Duration::from_hours(24))
}
