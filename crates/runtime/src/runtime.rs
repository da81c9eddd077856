//! What Larder asks of a runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;

use crate::error::RuntimeError;
use crate::events::EventStream;
use crate::proto::cri::AuthConfig;
use crate::types::{Blob, Container, Image, ImageFs, Ingest, Record, Target, Version};

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

    /// The content, where the runtime shows it: containerd's own API. None elsewhere.
    fn content(&self) -> Option<&dyn Content>;

    /// Events, where the runtime tells them: containerd's own API. None elsewhere.
    fn events(&self) -> Option<&dyn Events>;
}

/// The names of images one by one.
#[async_trait]
pub trait Records: Send + Sync {
    /// Every record.
    async fn list(&self) -> Result<Vec<Record>, RuntimeError>;

    /// The record of a name; none if it is absent.
    async fn get(&self, name: &str) -> Result<Option<Record>, RuntimeError>;

    /// Points a normalised name at content that is there: makes the record, or moves it and leaves its labels. Nothing
    /// happens if it points there already. No registry is asked.
    async fn tag(&self, name: &str, target: &Target) -> Result<(), RuntimeError>;

    /// Sets these labels of a record at once and leaves the others. An empty value takes the label away.
    async fn set_labels(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<(), RuntimeError>;

    /// Deletes a record if it still points at `target`; containerd before 2.0 does not look at the target. Deleting what
    /// is absent, or moved, succeeds. With `collect` it returns after the garbage collection.
    async fn delete(&self, name: &str, target: &str, collect: bool) -> Result<(), RuntimeError>;
}

/// What is really there of the images, blob by blob.
#[async_trait]
pub trait Content: Send + Sync {
    /// Every blob that is whole.
    async fn blobs(&self) -> Result<Vec<Blob>, RuntimeError>;

    /// One blob; none if it is absent.
    async fn blob(&self, digest: &str) -> Result<Option<Blob>, RuntimeError>;

    /// The bytes of a blob; none if it is absent. One of more than `at_most` bytes is an error.
    async fn read(&self, digest: &str, at_most: u64) -> Result<Option<Vec<u8>>, RuntimeError>;

    /// Blobs on their way. Nothing tells to which pull they belong: match them by their digests.
    async fn ingests(&self) -> Result<Vec<Ingest>, RuntimeError>;

    /// Deletes a blob, whatever refers to it. Deleting what is absent succeeds.
    async fn delete(&self, digest: &str) -> Result<(), RuntimeError>;

    /// Names of a snapshotter's snapshots; an unpacked image is the one named by the chain id of its layers.
    async fn snapshots(&self, snapshotter: &str) -> Result<BTreeSet<String>, RuntimeError>;
}

/// What changes, told as it does.
pub trait Events: Send + Sync {
    /// Changes of records, deletions of blobs, ends of containers.
    fn subscribe(&self) -> EventStream;
}
