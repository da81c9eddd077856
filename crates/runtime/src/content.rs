//! containerd's content store and snapshots: what is really there of an image.

use std::collections::BTreeSet;

use async_trait::async_trait;

use crate::client::within;
use crate::containerd::{Containerd, bytes, found, time, whole};
use crate::error::RuntimeError;
use crate::proto::containerd::services::content::v1::{
    DeleteContentRequest, Info, InfoRequest, ListContentRequest, ListStatusesRequest, ReadContentRequest,
    Status,
};
use crate::proto::containerd::services::snapshots::v1::ListSnapshotsRequest;
use crate::runtime::Content;
use crate::types::{Blob, Ingest};

/// Larger documents are not read as manifests. It is what containerd accepts from a registry.
pub const MAX_MANIFEST_BYTES: u64 = 8 << 20;

#[async_trait]
impl Content for Containerd {
    async fn blobs(&self) -> Result<Vec<Blob>, RuntimeError> {
        let mut client = self.content.clone();
        let call = whole(
            client.list(ListContentRequest { filters: Vec::new() }),
            |blobs: &mut Vec<Blob>, part| blobs.extend(part.info.into_iter().map(Blob::from)),
        );
        within("containerd content List", self.timeouts.read, call).await
    }

    async fn blob(&self, digest: &str) -> Result<Option<Blob>, RuntimeError> {
        let mut client = self.content.clone();
        let call = client.info(InfoRequest {
            digest: digest.to_owned(),
        });
        let answer = found(within("containerd content Info", self.timeouts.read, call).await)?;
        Ok(answer.and_then(|a| a.info).map(Blob::from))
    }

    async fn read(&self, digest: &str, at_most: u64) -> Result<Option<Vec<u8>>, RuntimeError> {
        let Some(blob) = self.blob(digest).await? else {
            return Ok(None);
        };
        if blob.size > at_most {
            return Err(RuntimeError::TooLarge {
                digest: blob.digest,
                size: blob.size,
                at_most,
            });
        }
        let mut client = self.content.clone();
        let call = whole(
            client.read(ReadContentRequest {
                digest: digest.to_owned(),
                offset: 0,
                size: 0,
            }),
            |data: &mut Vec<u8>, part| data.extend(part.data),
        );
        found(within("containerd content Read", self.timeouts.read, call).await)
    }

    async fn ingests(&self) -> Result<Vec<Ingest>, RuntimeError> {
        let mut client = self.content.clone();
        let call = client.list_statuses(ListStatusesRequest { filters: Vec::new() });
        let answer = within("containerd content ListStatuses", self.timeouts.read, call).await?;
        Ok(answer.statuses.into_iter().map(Ingest::from).collect())
    }

    async fn delete(&self, digest: &str) -> Result<(), RuntimeError> {
        let mut client = self.content.clone();
        let call = client.delete(DeleteContentRequest {
            digest: digest.to_owned(),
        });
        found(within("containerd content Delete", self.timeouts.write, call).await)?;
        Ok(())
    }

    async fn snapshots(&self, snapshotter: &str) -> Result<BTreeSet<String>, RuntimeError> {
        let mut client = self.snapshots.clone();
        let call = whole(
            client.list(ListSnapshotsRequest {
                snapshotter: snapshotter.to_owned(),
                filters: Vec::new(),
            }),
            |keys: &mut BTreeSet<String>, part| keys.extend(part.info.into_iter().map(|info| info.name)),
        );
        within("containerd snapshots List", self.timeouts.read, call).await
    }
}

impl From<Info> for Blob {
    fn from(info: Info) -> Self {
        Self {
            digest: info.digest,
            size: bytes(info.size),
            labels: info.labels.into_iter().collect(),
        }
    }
}

impl From<Status> for Ingest {
    fn from(status: Status) -> Self {
        Self {
            reference: status.r#ref,
            offset: bytes(status.offset),
            total: bytes(status.total),
            started_at: time(status.started_at),
        }
    }
}
