//! Kubernetes Events: only on transitions, bounded in rate, never waited for.
//!
//! kube's own recorder joins events of one reason and keeps the first one's words for six minutes; words matter here,
//! so each event is an object of its own.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use larder_api::names::FIELD_MANAGER;
use tokio::sync::mpsc;

use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::queue::Chain;

/// Events that wait to be sent; more are dropped and counted.
const WAITING: usize = 256;
/// Events a second, after a burst of as many.
const PER_SECOND: u32 = 20;
/// The API server takes notes of up to this many bytes.
const NOTE_BYTES: usize = 1000;

/// Whether an event is good or bad news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As expected.
    Normal,
    /// Someone may have to look.
    Warning,
}

/// Where events are handed in. Clones feed the same sender.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<Event>,
    pace: Arc<Pace>,
    metrics: Arc<Metrics>,
}

impl Events {
    /// The handing-in side, and the task that sends until the former is dropped.
    pub fn new(client: Client, metrics: Arc<Metrics>) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, waiting) = mpsc::channel(WAITING);
        let pace = Arc::new(Pace::per_second(PER_SECOND));
        (Self { queue, pace, metrics }, send(client, waiting))
    }

    /// Something happened to an object. `reason` is in `PascalCase`, `action` says what Larder did.
    pub fn publish(&self, about: ObjectReference, kind: Kind, reason: &str, action: &str, note: &str) {
        let event = event(about, kind, reason, action, note, jiff::Timestamp::now());
        if !self.pace.try_now(tokio::time::Instant::now()) || self.queue.try_send(event).is_err() {
            self.metrics.events_dropped.inc();
        }
    }
}

async fn send(client: Client, mut waiting: mpsc::Receiver<Event>) {
    while let Some(event) = waiting.recv().await {
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        // An event in a namespace that is going away is refused; nobody would read it.
        if let Err(error) = api.create(&params, &event).await {
            tracing::debug!(error = %Chain(&error), "event was not taken");
        }
    }
}

fn event(
    about: ObjectReference,
    kind: Kind,
    reason: &str,
    action: &str,
    note: &str,
    now: jiff::Timestamp,
) -> Event {
    // Events about cluster-scoped objects live in `default`.
    let namespace = about.namespace.clone().unwrap_or_else(|| "default".into());
    let name = about.name.as_deref().unwrap_or(FIELD_MANAGER);
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:x}", cut(name, 200), now.as_nanosecond())),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some(format!("{kind:?}")),
        reason: Some(cut(reason, 128).to_owned()),
        action: Some(cut(action, 128).to_owned()),
        note: Some(cut(note, NOTE_BYTES).to_owned()),
        reporting_controller: Some(FIELD_MANAGER.into()),
        reporting_instance: Some(FIELD_MANAGER.into()),
        regarding: Some(about),
        ..Event::default()
    }
}

/// At most so many bytes, on a character boundary.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn notes_fit_what_the_api_server_takes() {
        let about = ObjectReference {
            name: Some("web".into()),
            ..ObjectReference::default()
        };
        let e = event(
            about,
            Kind::Warning,
            "NotFound",
            "Pull",
            &"ü".repeat(2000),
            jiff::Timestamp::UNIX_EPOCH,
        );
        assert!(e.note.unwrap().len() <= NOTE_BYTES);
        assert_eq!(e.metadata.namespace.unwrap(), "default");
        assert_eq!(e.type_.unwrap(), "Warning");
    }
}
