//! The fake's content and snapshots services.

use std::pin::Pin;

use larder_runtime::proto::containerd::services::content::v1::content_server::Content;
use larder_runtime::proto::containerd::services::content::v1::{
    DeleteContentRequest, Info, InfoRequest, InfoResponse, ListContentRequest, ListContentResponse,
    ListStatusesRequest, ListStatusesResponse, ReadContentRequest, ReadContentResponse, Status as Ingest,
};
use larder_runtime::proto::containerd::services::snapshots::v1::snapshots_server::Snapshots;
use larder_runtime::proto::containerd::services::snapshots::v1::{
    Info as Snapshot, ListSnapshotsRequest, ListSnapshotsResponse,
};
use prost_types::Timestamp;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, async_trait};

use super::Shared;
use super::containerd::check_namespace;
use super::faults::Call;
use super::store::{SNAPSHOTTER, StoredBlob};

/// Infos and bytes in one message of a stream: small, so that readers put several together.
const INFOS: usize = 10;
const BYTES: usize = 256;

type Parts<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[async_trait]
impl Content for Shared {
    type ListStream = Parts<ListContentResponse>;
    type ReadStream = Parts<ReadContentResponse>;

    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        self.enter(Call::ContentInfo).await?;
        check_namespace(&request)?;
        let digest = request.into_inner().digest;
        let model = self.model();
        let blob = model.store.blobs.get(&digest).ok_or_else(|| absent(&digest))?;
        let info = Some(info(&digest, blob));
        Ok(Response::new(InfoResponse { info }))
    }

    async fn list(&self, request: Request<ListContentRequest>) -> Result<Response<Self::ListStream>, Status> {
        self.enter(Call::ContentList).await?;
        check_namespace(&request)?;
        let infos: Vec<Info> = self
            .model()
            .store
            .blobs
            .iter()
            .map(|(digest, blob)| info(digest, blob))
            .collect();
        let parts = infos
            .chunks(INFOS)
            .map(|part| ListContentResponse { info: part.to_vec() });
        Ok(stream(parts.collect()))
    }

    async fn delete(&self, request: Request<DeleteContentRequest>) -> Result<Response<()>, Status> {
        self.enter(Call::ContentDelete).await?;
        check_namespace(&request)?;
        let digest = request.into_inner().digest;
        let mut model = self.model();
        if !model.has_content(&digest) {
            return Err(absent(&digest));
        }
        model.lose_content(&digest);
        Ok(Response::new(()))
    }

    async fn read(&self, request: Request<ReadContentRequest>) -> Result<Response<Self::ReadStream>, Status> {
        self.enter(Call::ContentRead).await?;
        check_namespace(&request)?;
        let ReadContentRequest { digest, .. } = request.into_inner();
        let model = self.model();
        let blob = model.store.blobs.get(&digest).ok_or_else(|| absent(&digest))?;
        let mut offset = 0;
        let mut parts = Vec::new();
        for data in blob.bytes.chunks(BYTES) {
            parts.push(ReadContentResponse {
                offset,
                data: data.to_vec(),
            });
            offset += data.len() as i64;
        }
        Ok(stream(parts))
    }

    async fn list_statuses(
        &self,
        request: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, Status> {
        self.enter(Call::ContentStatuses).await?;
        check_namespace(&request)?;
        let model = self.model();
        let statuses = model.ingests.iter().map(|(digest, ingest)| Ingest {
            started_at: Some(Timestamp {
                seconds: ingest.started_at.as_second(),
                nanos: ingest.started_at.subsec_nanosecond(),
            }),
            r#ref: format!("layer-{digest}"),
            offset: ingest.offset as i64,
            total: ingest.total as i64,
        });
        Ok(Response::new(ListStatusesResponse {
            statuses: statuses.collect(),
        }))
    }
}

#[async_trait]
impl Snapshots for Shared {
    type ListStream = Parts<ListSnapshotsResponse>;

    async fn list(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        self.enter(Call::ListSnapshots).await?;
        check_namespace(&request)?;
        let snapshotter = request.into_inner().snapshotter;
        if snapshotter != SNAPSHOTTER {
            let words = format!("snapshotter not loaded: {snapshotter}: invalid argument");
            return Err(Status::invalid_argument(words));
        }
        let names = self.model().store.snapshots.clone().into_iter();
        let info = names.map(|name| Snapshot { name }).collect();
        Ok(stream(vec![ListSnapshotsResponse { info }]))
    }
}

fn stream<T: Send + 'static>(parts: Vec<T>) -> Response<Parts<T>> {
    Response::new(Box::pin(tokio_stream::iter(parts.into_iter().map(Ok))))
}

fn info(digest: &str, blob: &StoredBlob) -> Info {
    Info {
        digest: digest.to_owned(),
        size: blob.size as i64,
        labels: blob.labels.clone().into_iter().collect(),
    }
}

fn absent(digest: &str) -> Status {
    Status::not_found(format!("content {digest}: not found"))
}
