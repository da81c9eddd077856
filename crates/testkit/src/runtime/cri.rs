//! The CRI half of the fake.

use larder_runtime::proto::cri::image_service_server::ImageService;
use larder_runtime::proto::cri::runtime_service_server::RuntimeService;
use larder_runtime::proto::cri::{
    Container, ContainerStatus, ContainerStatusRequest, ContainerStatusResponse, FilesystemIdentifier,
    FilesystemUsage, Image, ImageFsInfoRequest, ImageFsInfoResponse, ImageSpec, ImageStatusRequest,
    ImageStatusResponse, ListContainersRequest, ListContainersResponse, ListImagesRequest,
    ListImagesResponse, Mount, PullImageRequest, PullImageResponse, RemoveImageRequest, RemoveImageResponse,
    UInt64Value, VersionRequest, VersionResponse,
};
use tonic::{Request, Response, Status, async_trait};

use super::Shared;
use super::faults::Call;
use super::model::Listed;

#[async_trait]
impl RuntimeService for Shared {
    async fn version(&self, _: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        self.enter(Call::Version).await?;
        Ok(Response::new(VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: "fake".to_owned(),
            runtime_version: "v2.3.7".to_owned(),
            runtime_api_version: "v1".to_owned(),
        }))
    }

    async fn list_containers(
        &self,
        _: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        self.enter(Call::ListContainers).await?;
        let containers = self.model().containers.clone().into_iter().map(|c| Container {
            id: c.id,
            image: Some(ImageSpec {
                image: c.image_id.clone(),
            }),
            image_ref: c.image_id.clone(),
            state: c.state.into(),
            image_id: c.image_id,
        });
        Ok(Response::new(ListContainersResponse {
            containers: containers.collect(),
        }))
    }

    async fn container_status(
        &self,
        request: Request<ContainerStatusRequest>,
    ) -> Result<Response<ContainerStatusResponse>, Status> {
        self.enter(Call::ContainerStatus).await?;
        let id = request.into_inner().container_id;
        let found = self.model().containers.iter().find(|c| c.id == id).cloned();
        let container = found.ok_or_else(|| Status::not_found(format!("container {id:?}: not found")))?;
        let mount = |image| Mount {
            container_path: "/volume".to_owned(),
            image: Some(ImageSpec { image }),
        };
        let plain = Mount {
            container_path: "/etc/hosts".to_owned(),
            image: None,
        };
        let mounts = container.mounts.into_iter().map(mount).chain([plain]).collect();
        Ok(Response::new(ContainerStatusResponse {
            status: Some(ContainerStatus { id, mounts }),
        }))
    }
}

#[async_trait]
impl ImageService for Shared {
    async fn list_images(
        &self,
        _: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        self.enter(Call::ListImages).await?;
        let images = self
            .model()
            .listed()
            .into_iter()
            .map(|(id, listed)| image(id, listed))
            .collect();
        Ok(Response::new(ListImagesResponse { images }))
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        self.enter(Call::ImageStatus).await?;
        let model = self.model();
        let found = model.find(&named(request.into_inner().image));
        let image = found.and_then(|id| Some(image(id.clone(), model.listed().remove(&id)?)));
        Ok(Response::new(ImageStatusResponse { image }))
    }

    async fn pull_image(
        &self,
        request: Request<PullImageRequest>,
    ) -> Result<Response<PullImageResponse>, Status> {
        self.enter(Call::PullImage).await?;
        let PullImageRequest { image, auth } = request.into_inner();
        let reference = named(image);
        self.model().check_login(&reference, auth.as_ref())?;
        let image_ref = tokio::select! {
            pulled = self.pull(&reference) => pulled?,
            status = self.stopped() => return Err(status),
        };
        Ok(Response::new(PullImageResponse { image_ref }))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        self.enter(Call::RemoveImage).await?;
        self.model().remove(&named(request.into_inner().image));
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        _: Request<ImageFsInfoRequest>,
    ) -> Result<Response<ImageFsInfoResponse>, Status> {
        self.enter(Call::ImageFsInfo).await?;
        let used = self.model().listed().values().map(|listed| listed.size).sum();
        let usage = FilesystemUsage {
            fs_id: Some(FilesystemIdentifier {
                mountpoint: "/var/lib/fake".to_owned(),
            }),
            used_bytes: Some(UInt64Value { value: used }),
        };
        Ok(Response::new(ImageFsInfoResponse {
            image_filesystems: vec![usage],
        }))
    }
}

fn named(spec: Option<ImageSpec>) -> String {
    spec.unwrap_or_default().image
}

fn image(id: String, listed: Listed) -> Image {
    let Listed {
        tags,
        digests,
        size,
        pinned,
    } = listed;
    Image {
        id,
        repo_tags: tags,
        repo_digests: digests,
        size,
        pinned,
    }
}
