//! containerd's own API, in the namespace that CRI uses.

use std::future::Future;

use jiff::Timestamp;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::client::{MAX_MESSAGE_BYTES, Timeouts, within};
use crate::error::RuntimeError;
use crate::proto::containerd::services::content::v1::content_client::ContentClient;
use crate::proto::containerd::services::events::v1::events_client::EventsClient;
use crate::proto::containerd::services::images::v1::images_client::ImagesClient;
use crate::proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use crate::proto::containerd::services::version::v1::version_client::VersionClient;

/// Kubernetes' images and containers live in this namespace of containerd.
pub(crate) const NAMESPACE: &str = "k8s.io";

type Namespaced = InterceptedService<Channel, InNamespace>;

/// containerd over the channel that also carries CRI. What it can do is in `records`, `content` and `events`.
#[derive(Clone, Debug)]
pub(crate) struct Containerd {
    version: VersionClient<Channel>,
    pub(crate) images: ImagesClient<Namespaced>,
    pub(crate) content: ContentClient<Namespaced>,
    pub(crate) snapshots: SnapshotsClient<Namespaced>,
    pub(crate) events: EventsClient<Namespaced>,
    pub(crate) timeouts: Timeouts,
}

impl Containerd {
    pub(crate) fn new(channel: Channel, timeouts: Timeouts) -> Self {
        let namespaced = InterceptedService::new(channel.clone(), InNamespace);
        Self {
            version: VersionClient::new(channel),
            images: ImagesClient::new(namespaced.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            content: ContentClient::new(namespaced.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            snapshots: SnapshotsClient::new(namespaced.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            events: EventsClient::new(namespaced),
            timeouts,
        }
    }

    /// Succeeds if containerd answers; Unimplemented means another runtime.
    pub(crate) async fn probe(&self) -> Result<(), RuntimeError> {
        let mut client = self.version.clone();
        within("containerd Version", self.timeouts.probe, client.version(())).await?;
        Ok(())
    }
}

/// Names the namespace in every request.
#[derive(Clone, Debug)]
pub(crate) struct InNamespace;

impl Interceptor for InNamespace {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("containerd-namespace", MetadataValue::from_static(NAMESPACE));
        Ok(request)
    }
}

/// Turns "not found" into none.
pub(crate) fn found<T>(answer: Result<T, RuntimeError>) -> Result<Option<T>, RuntimeError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts the parts of a streamed answer together.
pub(crate) async fn whole<Part, Whole: Default>(
    answer: impl Future<Output = Result<Response<Streaming<Part>>, Status>>,
    mut add: impl FnMut(&mut Whole, Part),
) -> Result<Response<Whole>, Status> {
    let mut parts = answer.await?.into_inner();
    let mut whole = Whole::default();
    while let Some(part) = parts.message().await? {
        add(&mut whole, part);
    }
    Ok(Response::new(whole))
}

/// None for what is no time.
pub(crate) fn time(at: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    at.and_then(|at| Timestamp::new(at.seconds, at.nanos).ok())
}

/// Sizes are signed on the wire and never negative.
pub(crate) fn bytes(size: i64) -> u64 {
    u64::try_from(size).unwrap_or_default()
}
