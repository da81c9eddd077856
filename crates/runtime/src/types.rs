//! What a runtime holds, as plain data.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::proto::cri;

/// Which runtime answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// `containerd`, `cri-o`, `docker`.
    pub runtime: String,
    /// Its release.
    pub version: String,
}

/// An image as CRI sees it: one for each image id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Digest of the image's configuration: `sha256:…`, without the prefix in CRI-O.
    pub id: String,
    /// Names with a tag, in any repository.
    pub tags: Vec<String>,
    /// Names with a digest, in any repository.
    pub digests: Vec<String>,
    /// Bytes, as the runtime counts them.
    pub size: u64,
    /// The runtime and the kubelet keep it.
    pub pinned: bool,
}

/// A container as CRI sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Id of its image; empty where the runtime does not say.
    pub image_id: String,
    /// The image as the runtime resolved it: an id or a name with a digest.
    pub image_ref: String,
    /// The image as the creator of the container named it.
    pub image: String,
    /// Its state.
    pub state: ContainerState,
}

/// State of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, not started yet.
    Created,
    /// At work.
    Running,
    /// Ended.
    Exited,
    /// The runtime cannot tell.
    Unknown,
}

/// A record of containerd's images service: one for each name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// A name with a tag, a name with a digest, or an image id.
    pub name: String,
    /// Digest of the index or manifest that it points at.
    pub target: String,
    /// Media type of that.
    pub media_type: String,
    /// Bytes of that.
    pub size: u64,
    /// When a record of this name was first made. It survives a move of the name to another target.
    pub created_at: Option<Timestamp>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Record {
    /// What the record points at, for another record to point at it as well.
    pub fn to_target(&self) -> Target {
        Target {
            media_type: self.media_type.clone(),
            digest: self.target.clone(),
            size: self.size,
        }
    }
}

/// An index or manifest that a record points at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// As in its descriptor.
    pub media_type: String,
    /// Its digest.
    pub digest: String,
    /// Its bytes.
    pub size: u64,
}

/// A blob that is whole in containerd's content store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blob {
    /// Its digest.
    pub digest: String,
    /// Its bytes.
    pub size: u64,
    /// Its labels: what it refers to, among others.
    pub labels: BTreeMap<String, String>,
}

/// A blob on its way into containerd's content store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ingest {
    /// `layer-sha256:…`, `config-…`, `manifest-…` or `index-…` in a pull.
    pub reference: String,
    /// Bytes that have arrived; zero while it waits for its turn.
    pub offset: u64,
    /// Bytes it will have; zero where the writer does not know.
    pub total: u64,
    /// When it began.
    pub started_at: Option<Timestamp>,
}

/// Something changed in the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeEvent {
    /// A record was made, changed or deleted.
    Image {
        /// Its name.
        name: String,
    },
    /// A blob was deleted, or a container ended or went.
    Other,
}

/// Where a runtime keeps its images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFs {
    /// A path in the node's own mount namespace.
    pub mountpoint: String,
    /// Bytes taken by images and containers' layers.
    pub used_bytes: u64,
}

impl From<cri::Image> for Image {
    fn from(image: cri::Image) -> Self {
        let cri::Image {
            id,
            repo_tags,
            repo_digests,
            size,
            pinned,
        } = image;
        Self {
            id,
            tags: repo_tags,
            digests: repo_digests,
            size,
            pinned,
        }
    }
}

impl From<cri::Container> for Container {
    fn from(container: cri::Container) -> Self {
        let state = match container.state() {
            cri::ContainerState::ContainerCreated => ContainerState::Created,
            cri::ContainerState::ContainerRunning => ContainerState::Running,
            cri::ContainerState::ContainerExited => ContainerState::Exited,
            cri::ContainerState::ContainerUnknown => ContainerState::Unknown,
        };
        let cri::Container {
            id,
            image,
            image_ref,
            image_id,
            ..
        } = container;
        Self {
            id,
            image_id,
            image_ref,
            image: image.unwrap_or_default().image,
            state,
        }
    }
}
