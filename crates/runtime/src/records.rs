//! containerd's images service: the names of images.

use std::collections::BTreeMap;

use async_trait::async_trait;
use prost_types::FieldMask;
use tonic::Code;

use crate::client::within;
use crate::containerd::{Containerd, bytes, found, time};
use crate::error::RuntimeError;
use crate::proto::containerd::services::images::v1::{
    CreateImageRequest, DeleteImageRequest, GetImageRequest, Image, ListImagesRequest, UpdateImageRequest,
};
use crate::proto::containerd::types::Descriptor;
use crate::runtime::Records;
use crate::types::{Record, Target};

#[async_trait]
impl Records for Containerd {
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

    async fn tag(&self, name: &str, target: &Target) -> Result<(), RuntimeError> {
        if let Some(record) = self.get(name).await? {
            if record.target == target.digest {
                return Ok(());
            }
            return self.point(name, target).await;
        }
        let mut client = self.images.clone();
        let request = CreateImageRequest {
            image: Some(Image {
                name: name.to_owned(),
                target: Some(descriptor(target)),
                ..Image::default()
            }),
        };
        match within(
            "containerd CreateImage",
            self.timeouts.write,
            client.create(request),
        )
        .await
        {
            Ok(_) => Ok(()),
            // A pull made it meanwhile.
            Err(error) if error.code() == Some(Code::AlreadyExists) => self.point(name, target).await,
            Err(error) => Err(error),
        }
    }

    async fn set_labels(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<(), RuntimeError> {
        let image = Image {
            name: name.to_owned(),
            labels: labels.clone().into_iter().collect(),
            // Not looked at, but without it containerd 2.3.7 crashes (a nil pointer in imageFromProto).
            target: Some(Descriptor::default()),
            ..Image::default()
        };
        self.update(image, labels.keys().map(|key| format!("labels.{key}")).collect())
            .await
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
        let call = client.delete(request);
        found(within("containerd DeleteImage", self.timeouts.write, call).await)?;
        Ok(())
    }
}

impl Containerd {
    async fn point(&self, name: &str, target: &Target) -> Result<(), RuntimeError> {
        let image = Image {
            name: name.to_owned(),
            target: Some(descriptor(target)),
            ..Image::default()
        };
        self.update(image, vec!["target".to_owned()]).await
    }

    /// Changes the fields that `paths` name. Without any, containerd would replace the whole record.
    async fn update(&self, image: Image, paths: Vec<String>) -> Result<(), RuntimeError> {
        if paths.is_empty() {
            return Ok(());
        }
        let mut client = self.images.clone();
        let call = client.update(UpdateImageRequest {
            image: Some(image),
            update_mask: Some(FieldMask { paths }),
        });
        within("containerd UpdateImage", self.timeouts.write, call).await?;
        Ok(())
    }
}

fn descriptor(target: &Target) -> Descriptor {
    Descriptor {
        media_type: target.media_type.clone(),
        digest: target.digest.clone(),
        size: i64::try_from(target.size).unwrap_or(i64::MAX),
    }
}

impl From<Image> for Record {
    fn from(record: Image) -> Self {
        let Image {
            name,
            labels,
            target,
            created_at,
            ..
        } = record;
        let target = target.unwrap_or_default();
        Self {
            name,
            target: target.digest,
            media_type: target.media_type,
            size: bytes(target.size),
            created_at: time(created_at),
            labels: labels.into_iter().collect(),
        }
    }
}
