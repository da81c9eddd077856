//! The half of the fake that is containerd's own API.

use larder_runtime::proto::containerd::services::content::v1::content_server::Content;
use larder_runtime::proto::containerd::services::content::v1::{Info, InfoRequest, InfoResponse};
use larder_runtime::proto::containerd::services::images::v1::images_server::Images;
use larder_runtime::proto::containerd::services::images::v1::{
    DeleteImageRequest, GetImageRequest, GetImageResponse, Image, ListImagesRequest, ListImagesResponse,
    UpdateImageRequest, UpdateImageResponse,
};
use larder_runtime::proto::containerd::services::version::v1::VersionResponse;
use larder_runtime::proto::containerd::services::version::v1::version_server::Version;
use larder_runtime::proto::containerd::types::Descriptor;
use prost_types::Timestamp;
use tonic::{Request, Response, Status, async_trait};

use super::Shared;
use super::faults::Call;
use super::model::StoredRecord;

#[async_trait]
impl Version for Shared {
    async fn version(&self, _: Request<()>) -> Result<Response<VersionResponse>, Status> {
        self.enter(Call::ContainerdVersion).await?;
        Ok(Response::new(VersionResponse {
            version: "v2.3.7".to_owned(),
            revision: String::new(),
        }))
    }
}

#[async_trait]
impl Images for Shared {
    async fn get(&self, request: Request<GetImageRequest>) -> Result<Response<GetImageResponse>, Status> {
        self.enter(Call::GetRecord).await?;
        check_namespace(&request)?;
        let name = request.into_inner().name;
        let model = self.model();
        let stored = model.records.get(&name).ok_or_else(|| absent(&name))?;
        Ok(Response::new(GetImageResponse {
            image: Some(image(&name, stored)),
        }))
    }

    async fn list(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        self.enter(Call::ListRecords).await?;
        check_namespace(&request)?;
        let images = self
            .model()
            .records
            .iter()
            .map(|(name, stored)| image(name, stored))
            .collect();
        Ok(Response::new(ListImagesResponse { images }))
    }

    async fn update(
        &self,
        request: Request<UpdateImageRequest>,
    ) -> Result<Response<UpdateImageResponse>, Status> {
        self.enter(Call::UpdateRecord).await?;
        check_namespace(&request)?;
        let UpdateImageRequest {
            image: wanted,
            update_mask,
        } = request.into_inner();
        let wanted = wanted.unwrap_or_default();
        if wanted.target.is_none() {
            return Err(Status::unavailable(
                "the real one crashes on an update without a target",
            ));
        }
        let mut model = self.model();
        let stored = model
            .records
            .get_mut(&wanted.name)
            .ok_or_else(|| absent(&wanted.name))?;
        for path in update_mask.unwrap_or_default().paths {
            let key = path.strip_prefix("labels.");
            let key = key.ok_or_else(|| Status::invalid_argument(format!("cannot update field {path:?}")))?;
            let value = wanted.labels.get(key).cloned().unwrap_or_default();
            stored.labels.insert(key.to_owned(), value);
        }
        Ok(Response::new(UpdateImageResponse {
            image: Some(image(&wanted.name, stored)),
        }))
    }

    async fn delete(&self, request: Request<DeleteImageRequest>) -> Result<Response<()>, Status> {
        self.enter(Call::DeleteRecord).await?;
        check_namespace(&request)?;
        let DeleteImageRequest { name, sync, target } = request.into_inner();
        let target = target.map(|t| t.digest);
        if self.model().delete(&name, target.as_deref(), sync) {
            Ok(Response::new(()))
        } else {
            Err(absent(&name))
        }
    }
}

#[async_trait]
impl Content for Shared {
    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        self.enter(Call::ContentInfo).await?;
        check_namespace(&request)?;
        let digest = request.into_inner().digest;
        if !self.model().has_content(&digest) {
            return Err(Status::not_found(format!("content {digest}: not found")));
        }
        Ok(Response::new(InfoResponse {
            info: Some(Info { digest, size: 1 }),
        }))
    }
}

/// containerd keeps one set of images a namespace; CRI's is `k8s.io`.
fn check_namespace<T>(request: &Request<T>) -> Result<(), Status> {
    match request.metadata().get("containerd-namespace") {
        Some(namespace) if namespace == "k8s.io" => Ok(()),
        Some(_) => Err(Status::not_found("nothing in this namespace")),
        None => Err(Status::failed_precondition(
            "namespace is required: failed precondition",
        )),
    }
}

fn absent(name: &str) -> Status {
    Status::not_found(format!("image {name:?}: not found"))
}

fn image(name: &str, stored: &StoredRecord) -> Image {
    let time = stored.created_at;
    let created_at = Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    };
    Image {
        name: name.to_owned(),
        labels: stored.labels.clone().into_iter().collect(),
        target: Some(Descriptor {
            digest: stored.target.clone(),
            ..Descriptor::default()
        }),
        created_at: Some(created_at),
        updated_at: Some(created_at),
    }
}
