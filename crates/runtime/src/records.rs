//! containerd's own API, in the namespace that CRI uses.

use std::collections::HashMap;

use async_trait::async_trait;
use prost_types::FieldMask;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::client::{MAX_MESSAGE_BYTES, Timeouts, within};
use crate::error::RuntimeError;
use crate::proto::containerd::services::content::v1::InfoRequest;
use crate::proto::containerd::services::content::v1::content_client::ContentClient;
use crate::proto::containerd::services::images::v1::images_client::ImagesClient;
use crate::proto::containerd::services::images::v1::{
    DeleteImageRequest, GetImageRequest, Image, ListImagesRequest, UpdateImageRequest,
};
use crate::proto::containerd::services::version::v1::version_client::VersionClient;
use crate::proto::containerd::types::Descriptor;
use crate::runtime::Records;
use crate::types::Record;

/// Kubernetes' images and containers live in this namespace of containerd.
const NAMESPACE: &str = "k8s.io";

type Namespaced = InterceptedService<Channel, InNamespace>;

/// containerd over the channel that also carries CRI.
#[derive(Clone, Debug)]
pub(crate) struct RecordsClient {
    version: VersionClient<Channel>,
    images: ImagesClient<Namespaced>,
    content: ContentClient<Namespaced>,
    timeouts: Timeouts,
}

impl RecordsClient {
    pub(crate) fn new(channel: Channel, timeouts: Timeouts) -> Self {
        let namespaced = InterceptedService::new(channel.clone(), InNamespace);
        Self {
            version: VersionClient::new(channel),
            images: ImagesClient::new(namespaced.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            content: ContentClient::new(namespaced),
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

#[async_trait]
impl Records for RecordsClient {
    async fn list(&self) -> Result<Vec<Record>, RuntimeError> {
        let mut client = self.images.clone();
        let call = client.list(ListImagesRequest { filters: Vec::new() });
        let answer = within("containerd ListImages", self.timeouts.read, call).await?;
        Ok(answer.images.into_iter().map(Record::from).collect())
    }

    async fn get(&self, name: &str) -> Result<Option<Record>, RuntimeError> {
        let mut client = self.images.clone();
        let call = client.get(GetImageRequest {
            name: name.to_owned(),
        });
        let answer = found(within("containerd GetImage", self.timeouts.read, call).await)?;
        Ok(answer.and_then(|a| a.image).map(Record::from))
    }

    async fn set_label(&self, name: &str, key: &str, value: &str) -> Result<(), RuntimeError> {
        let mut client = self.images.clone();
        let request = UpdateImageRequest {
            image: Some(Image {
                name: name.to_owned(),
                labels: HashMap::from([(key.to_owned(), value.to_owned())]),
                // Not looked at, but without it containerd 2.3.7 crashes (a nil pointer in imageFromProto).
                target: Some(Descriptor::default()),
                ..Image::default()
            }),
            update_mask: Some(FieldMask {
                paths: vec![format!("labels.{key}")],
            }),
        };
        within(
            "containerd UpdateImage",
            self.timeouts.write,
            client.update(request),
        )
        .await?;
        Ok(())
    }

    async fn delete(&self, name: &str, target: &str, collect: bool) -> Result<(), RuntimeError> {
        let mut client = self.images.clone();
        let request = DeleteImageRequest {
            name: name.to_owned(),
            sync: collect,
            target: Some(Descriptor {
                digest: target.to_owned(),
                ..Descriptor::default()
            }),
        };
        found(
            within(
                "containerd DeleteImage",
                self.timeouts.write,
                client.delete(request),
            )
            .await,
        )?;
        Ok(())
    }

    async fn has_content(&self, digest: &str) -> Result<bool, RuntimeError> {
        let mut client = self.content.clone();
        let call = client.info(InfoRequest {
            digest: digest.to_owned(),
        });
        Ok(found(within("containerd content Info", self.timeouts.read, call).await)?.is_some())
    }
}

/// Names the namespace in every request.
#[derive(Clone, Debug)]
struct InNamespace;

impl Interceptor for InNamespace {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("containerd-namespace", MetadataValue::from_static(NAMESPACE));
        Ok(request)
    }
}

/// Turns "not found" into none.
fn found<T>(answer: Result<T, RuntimeError>) -> Result<Option<T>, RuntimeError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
