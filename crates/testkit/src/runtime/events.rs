//! The fake's events, as containerd's events service tells them.

use std::pin::Pin;

use larder_runtime::proto::containerd::events::{ContentDelete, ImageChange, TaskExit};
use larder_runtime::proto::containerd::services::events::v1::SubscribeRequest;
use larder_runtime::proto::containerd::services::events::v1::events_server::Events;
use larder_runtime::proto::containerd::types::Envelope;
use prost::Message;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, async_trait};

use super::Shared;
use super::faults::Call;

/// Whoever listens.
#[derive(Debug, Default)]
pub(super) struct Subscribers(Vec<UnboundedSender<Envelope>>);

impl Subscribers {
    /// `create`, `update` or `delete` of a record.
    pub fn image(&mut self, what: &str, name: &str) {
        let change = ImageChange {
            name: name.to_owned(),
        };
        self.send(&format!("/images/{what}"), &change);
    }

    pub fn content_deleted(&mut self, digest: &str) {
        let deleted = ContentDelete {
            digest: digest.to_owned(),
        };
        self.send("/content/delete", &deleted);
    }

    pub fn exited(&mut self, container: &str) {
        let exit = TaskExit {
            container_id: container.to_owned(),
            id: container.to_owned(),
        };
        self.send("/tasks/exit", &exit);
    }

    /// Ends all subscriptions.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    fn send(&mut self, topic: &str, event: &impl Message) {
        let envelope = Envelope {
            namespace: "k8s.io".to_owned(),
            topic: topic.to_owned(),
            event: Some(prost_types::Any {
                value: event.encode_to_vec(),
                ..prost_types::Any::default()
            }),
            ..Envelope::default()
        };
        self.0
            .retain(|subscriber| subscriber.send(envelope.clone()).is_ok());
    }
}

#[async_trait]
impl Events for Shared {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<Envelope, Status>> + Send>>;

    async fn subscribe(
        &self,
        _: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        self.enter(Call::Subscribe).await?;
        let (sender, mut receiver) = unbounded_channel();
        self.model().subscribers.0.push(sender);
        // As containerd does: the answer begins with the first event. It ends when the senders go, at a stop.
        let ended = || Status::unavailable("transport is closing");
        let first = receiver.recv().await.ok_or_else(ended)?;
        let events = tokio_stream::once(first).chain(UnboundedReceiverStream::new(receiver));
        Ok(Response::new(Box::pin(events.map(Ok))))
    }
}
