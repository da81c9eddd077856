//! What the node really holds, image by image: names from CRI and containerd, and whether the content is there.

use std::collections::{BTreeMap, BTreeSet};

use larder_core::manifest::Descriptor;

use crate::error::RuntimeError;
use crate::presence::store::Store;
use crate::runtime::Runtime;
use crate::types::{Target, Version};

mod assemble;
mod store;
mod users;

pub use store::Manifests;

/// What a runtime holds at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Which runtime.
    pub version: Version,
    /// It tells names apart, shows its content and takes labels.
    pub has_content: bool,
    /// By image id.
    pub images: Vec<ImageContents>,
}

/// One image under all of its names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageContents {
    /// Digest of its configuration, `sha256:…`.
    pub id: String,
    /// CRI lists it: pods can use it by its names.
    pub listed: bool,
    /// Normalised names with a tag, and the digest that each points at, where that is known.
    pub tags: BTreeMap<String, Option<String>>,
    /// The indexes and manifests under which it is known, by digest.
    pub targets: BTreeMap<String, TargetContents>,
    /// Labels of the record that is named like the image id.
    pub labels: BTreeMap<String, String>,
    /// The runtime says that it is pinned.
    pub pinned: bool,
    /// A container that has not ended was made from it or mounts it.
    pub used: bool,
}

/// An index or manifest under which an image is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetContents {
    /// As another record can point at it; the digest alone where the runtime has no records.
    pub target: Target,
    /// Pods can be started from it: index, manifest and configuration are there, and either every layer or what they
    /// were unpacked to. True where the runtime does not let anybody look.
    pub whole: bool,
    /// Its layers, lowest first; empty where they are not known.
    pub layers: Vec<Descriptor>,
}

impl Contents {
    /// Looks: five calls, one more for each manifest and container that was not read before, and one if layers are kept
    /// unpacked only. Names come first and content after them, so that an image that arrives meanwhile is never half
    /// there.
    pub async fn observe(runtime: &dyn Runtime, manifests: &mut Manifests) -> Result<Self, RuntimeError> {
        let version = runtime.version().await?;
        let records = match runtime.records() {
            Some(records) => Some(records.list().await?),
            None => None,
        };
        let images = runtime.images().await?;
        let store = match (&records, runtime.content()) {
            (Some(records), Some(content)) => {
                let targets: BTreeSet<&str> = records.iter().map(|r| r.target.as_str()).collect();
                Some(Store::look(content, &targets, manifests).await?)
            }
            _ => None,
        };
        let users = users::look(runtime, manifests).await?;
        Ok(Self {
            version,
            has_content: store.is_some(),
            images: assemble::images(images, records.unwrap_or_default(), &users, store.as_ref()),
        })
    }
}
