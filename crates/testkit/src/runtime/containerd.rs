//! The half of the fake that is containerd's own API.

use larder_core::image_ref::is_digest;
use larder_runtime::Target;
use larder_runtime::proto::containerd::services::images::v1::images_server::Images;
use larder_runtime::proto::containerd::services::images::v1::{
    CreateImageRequest, CreateImageResponse, DeleteImageRequest, GetImageRequest, GetImageResponse, Image,
    ListImagesRequest, ListImagesResponse, UpdateImageRequest, UpdateImageResponse,
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

    async fn create(
        &self,
        request: Request<CreateImageRequest>,
    ) -> Result<Response<CreateImageResponse>, Status> {
        self.enter(Call::CreateRecord).await?;
        check_namespace(&request)?;
        let wanted = request.into_inner().image.unwrap_or_default();
        let name = wanted.name;
        let target = target(wanted.target.unwrap_or_default())?;
        let mut model = self.model();
        if !model.create(&name, target, wanted.labels.into_iter().collect()) {
            return Err(Status::already_exists(format!("image {name:?}: already exists")));
        }
        let image = model.records.get(&name).map(|stored| image(&name, stored));
        Ok(Response::new(CreateImageResponse { image }))
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
        let Some(given) = wanted.target else {
            return Err(Status::unavailable(
                "the real one crashes on an update without a target",
            ));
        };
        let name = wanted.name;
        let mut model = self.model();
        let stored = model.records.get_mut(&name).ok_or_else(|| absent(&name))?;
        for path in update_mask.unwrap_or_default().paths {
            match path.strip_prefix("labels.") {
                Some(key) => match wanted.labels.get(key).filter(|value| !value.is_empty()) {
                    Some(value) => stored.labels.insert(key.to_owned(), value.clone()),
                    None => stored.labels.remove(key),
                },
                None if path == "target" => {
                    stored.target = target(given.clone())?;
                    None
                }
                None => {
                    let words = format!("cannot update {path:?} field on image {name:?}: invalid argument");
                    return Err(Status::invalid_argument(words));
                }
            };
        }
        let image = image(&name, stored);
        model.subscribers.image("update", &name);
        model.adopt(&name);
        Ok(Response::new(UpdateImageResponse { image: Some(image) }))
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

/// containerd keeps one set of images a namespace; CRI's is `k8s.io`.
pub(super) fn check_namespace<T>(request: &Request<T>) -> Result<(), Status> {
    match request.metadata().get("containerd-namespace") {
        Some(namespace) if namespace == "k8s.io" => Ok(()),
        Some(_) => Err(Status::not_found("nothing in this namespace")),
        None => Err(Status::failed_precondition(
            "namespace is required: failed precondition",
        )),
    }
}

fn target(descriptor: Descriptor) -> Result<Target, Status> {
    let Descriptor {
        media_type,
        digest,
        size,
    } = descriptor;
    if !is_digest(&digest) || media_type.is_empty() || size <= 0 {
        return Err(Status::invalid_argument(
            "image target is not complete: invalid argument",
        ));
    }
    Ok(Target {
        media_type,
        digest,
        size: size as u64,
    })
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
            media_type: stored.target.media_type.clone(),
            digest: stored.target.digest.clone(),
            size: stored.target.size as i64,
        }),
        created_at: Some(created_at),
        updated_at: Some(created_at),
    }
}
