//! The runtime at the other end of a socket.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};
use tracing::debug;

use crate::containerd::Containerd;
use crate::error::RuntimeError;
use crate::proto::cri::image_service_client::ImageServiceClient;
use crate::proto::cri::runtime_service_client::RuntimeServiceClient;
use crate::proto::cri::{
    AuthConfig, ContainerStatusRequest, ImageFsInfoRequest, ImageSpec, ImageStatusRequest,
    ListContainersRequest, ListImagesRequest, PullImageRequest, RemoveImageRequest, VersionRequest,
};
use crate::runtime::{Content, Events, Records, Runtime};
use crate::types::{Container, Image, ImageFs, Version};

/// A node with some thousand images passes gRPC's default of 4 MiB.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// How long calls may take. Pulls are given theirs one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Connecting and the first answers.
    pub probe: Duration,
    /// Calls that only read.
    pub read: Duration,
    /// Calls that change something; a removal may wait for a garbage collection.
    pub write: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            probe: Duration::from_secs(3),
            read: Duration::from_secs(30),
            write: Duration::from_mins(2),
        }
    }
}

/// A runtime over its Unix socket. The path is opened anew at each reconnect, so a restarted runtime is found again.
#[derive(Clone, Debug)]
pub struct RuntimeClient {
    path: PathBuf,
    images: ImageServiceClient<Channel>,
    runtime: RuntimeServiceClient<Channel>,
    containerd: Option<Containerd>,
    timeouts: Timeouts,
}

impl RuntimeClient {
    /// Connects, makes sure that CRI answers, and finds out whether containerd's own API does.
    pub async fn connect(path: &Path, timeouts: Timeouts) -> Result<Self, RuntimeError> {
        let refused = |source| RuntimeError::Connect {
            path: path.to_owned(),
            source,
        };
        let endpoint = Endpoint::from_shared(format!("unix:{}", path.display())).map_err(refused)?;
        let channel = tokio::time::timeout(timeouts.probe, endpoint.connect())
            .await
            .map_err(|_| RuntimeError::Timeout {
                call: "connect",
                after: timeouts.probe,
            })?
            .map_err(refused)?;
        let mut client = Self {
            path: path.to_owned(),
            images: ImageServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            containerd: None,
            timeouts,
        };
        let version = client.version_within(timeouts.probe).await?;
        let containerd = Containerd::new(channel, timeouts);
        match containerd.probe().await {
            Ok(()) => client.containerd = Some(containerd),
            Err(error) if error.is_unimplemented() => {}
            Err(error) => return Err(error),
        }
        debug!(
            path = %path.display(),
            runtime = version.runtime,
            version = version.version,
            containerd = client.containerd.is_some(),
            "connected"
        );
        Ok(client)
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    async fn version_within(&self, at_most: Duration) -> Result<Version, RuntimeError> {
        let mut client = self.runtime.clone();
        let request = VersionRequest {
            version: "v1".to_owned(),
        };
        let answer = within("Version", at_most, client.version(request)).await?;
        Ok(Version {
            runtime: answer.runtime_name,
            version: answer.runtime_version,
        })
    }
}

#[async_trait]
impl Runtime for RuntimeClient {
    async fn version(&self) -> Result<Version, RuntimeError> {
        self.version_within(self.timeouts.read).await
    }

    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        let mut client = self.images.clone();
        let answer = within(
            "ListImages",
            self.timeouts.read,
            client.list_images(ListImagesRequest {}),
        )
        .await?;
        Ok(answer.images.into_iter().map(Image::from).collect())
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError> {
        let mut client = self.images.clone();
        let request = ImageStatusRequest {
            image: Some(spec(reference)),
        };
        let answer = within("ImageStatus", self.timeouts.read, client.image_status(request)).await?;
        Ok(answer.image.map(Image::from))
    }

    async fn containers(&self) -> Result<Vec<Container>, RuntimeError> {
        let mut client = self.runtime.clone();
        let call = client.list_containers(ListContainersRequest {});
        let answer = within("ListContainers", self.timeouts.read, call).await?;
        Ok(answer.containers.into_iter().map(Container::from).collect())
    }

    async fn mounted_images(&self, container_id: &str) -> Result<Vec<String>, RuntimeError> {
        let mut client = self.runtime.clone();
        let request = ContainerStatusRequest {
            container_id: container_id.to_owned(),
        };
        match within(
            "ContainerStatus",
            self.timeouts.read,
            client.container_status(request),
        )
        .await
        {
            Ok(answer) => {
                let mounts = answer.status.unwrap_or_default().mounts;
                Ok(mounts
                    .into_iter()
                    .filter_map(|mount| Some(mount.image?.image))
                    .collect())
            }
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    async fn pull(
        &self,
        reference: &str,
        auth: Option<AuthConfig>,
        at_most: Duration,
    ) -> Result<String, RuntimeError> {
        let mut client = self.images.clone();
        let request = PullImageRequest {
            image: Some(spec(reference)),
            auth,
        };
        Ok(within("PullImage", at_most, client.pull_image(request))
            .await?
            .image_ref)
    }

    async fn remove(&self, reference: &str) -> Result<(), RuntimeError> {
        let mut client = self.images.clone();
        let request = RemoveImageRequest {
            image: Some(spec(reference)),
        };
        within("RemoveImage", self.timeouts.write, client.remove_image(request)).await?;
        Ok(())
    }

    async fn image_fs(&self) -> Result<Vec<ImageFs>, RuntimeError> {
        let mut client = self.images.clone();
        let answer = within(
            "ImageFsInfo",
            self.timeouts.read,
            client.image_fs_info(ImageFsInfoRequest {}),
        )
        .await?;
        let usage = answer.image_filesystems.into_iter().map(|fs| ImageFs {
            mountpoint: fs.fs_id.unwrap_or_default().mountpoint,
            used_bytes: fs.used_bytes.unwrap_or_default().value,
        });
        Ok(usage.collect())
    }

    fn records(&self) -> Option<&dyn Records> {
        self.containerd
            .as_ref()
            .map(|containerd| containerd as &dyn Records)
    }

    fn content(&self) -> Option<&dyn Content> {
        self.containerd
            .as_ref()
            .map(|containerd| containerd as &dyn Content)
    }

    fn events(&self) -> Option<&dyn Events> {
        self.containerd
            .as_ref()
            .map(|containerd| containerd as &dyn Events)
    }
}

fn spec(reference: &str) -> ImageSpec {
    ImageSpec {
        image: reference.to_owned(),
    }
}

/// Waits for an answer. Giving up resets the stream, which cancels the call in the runtime.
pub(crate) async fn within<T>(
    call: &'static str,
    at_most: Duration,
    answer: impl Future<Output = Result<Response<T>, Status>> + Send,
) -> Result<T, RuntimeError> {
    match tokio::time::timeout(at_most, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(RuntimeError::Refused {
            call,
            status: Box::new(status),
        }),
        Err(_) => Err(RuntimeError::Timeout { call, after: at_most }),
    }
}
