//! The custom resource definitions, as the API server wants them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{ImageCache, ImageCacheRevision, NodeImageCache};

/// Every definition, in the order in which they are installed.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        ImageCache::crd(),
        ImageCacheRevision::crd(),
        NodeImageCache::crd(),
    ]
}
