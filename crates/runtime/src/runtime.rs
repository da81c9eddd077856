//! What Larder asks of a runtime.

use std::time::Duration;

use async_trait::async_trait;

use crate::error::RuntimeError;
use crate::proto::cri::AuthConfig;
use crate::types::{Container, Image, ImageFs, Record, Version};

/// A runtime as every CRI runtime is.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Which runtime answers.
    async fn version(&self) -> Result<Version, RuntimeError>;

    /// Every image. Answered from the runtime's memory: it does not prove that the content is still there.
    async fn images(&self) -> Result<Vec<Image>, RuntimeError>;

    /// The image behind a name or an id; none if it is absent.
    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError>;

    /// Every container, ended ones too.
    async fn containers(&self) -> Result<Vec<Container>, RuntimeError>;

    /// Images that a container mounts as volumes, as its creator named them; none if the container is gone.
    async fn mounted_images(&self, container_id: &str) -> Result<Vec<String>, RuntimeError>;

    /// Pulls an image and answers its id, or its name with a digest. It always asks the registry, also for an image that
    /// is there. With `auth`, `server_address` should name the registry: a mirror is sent the password otherwise.
    async fn pull(
        &self,
        reference: &str,
        auth: Option<AuthConfig>,
        at_most: Duration,
    ) -> Result<String, RuntimeError>;

    /// Removes an image under **every** name it has, in other repositories too, pinned or in use or not. Removing what is
    /// absent succeeds.
    async fn remove(&self, reference: &str) -> Result<(), RuntimeError>;

    /// Where images are kept, one for each file system.
    async fn image_fs(&self) -> Result<Vec<ImageFs>, RuntimeError>;

    /// The names one by one, where the runtime tells them apart: containerd's own API. None elsewhere.
    fn records(&self) -> Option<&dyn Records>;
}

/// The names of images one by one, and their content.
#[async_trait]
pub trait Records: Send + Sync {
    /// Every record.
    async fn list(&self) -> Result<Vec<Record>, RuntimeError>;

    /// The record of a name; none if it is absent.
    async fn get(&self, name: &str) -> Result<Option<Record>, RuntimeError>;

    /// Sets one label of a record and leaves the others. An empty value is kept as such.
    async fn set_label(&self, name: &str, key: &str, value: &str) -> Result<(), RuntimeError>;

    /// Deletes a record if it still points at `target`; containerd before 2.0 does not look at the target. Deleting what
    /// is absent, or moved, succeeds. With `collect` it returns after the garbage collection.
    async fn delete(&self, name: &str, target: &str, collect: bool) -> Result<(), RuntimeError>;

    /// Whether a blob is really in the content store.
    async fn has_content(&self, digest: &str) -> Result<bool, RuntimeError>;
}
