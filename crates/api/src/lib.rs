//! The Kubernetes objects of Larder (`larder.dev/v1alpha1`) and every name they use.
//!
//! Holds plain data and its validation schema. It must not hold a client, a runtime or a decision:
//! decisions live in `larder-core`.

#![allow(
    clippy::doc_markdown,
    reason = "these texts are read in `kubectl explain`, where backticks are noise"
)]

pub mod crds;
pub mod image_cache;
pub mod image_cache_status;
pub mod image_source;
pub mod names;
pub mod node_image_cache;
pub mod revision;

pub use image_cache::{ImageCache, ImageCacheSpec};
pub use image_cache_status::ImageCacheStatus;
pub use node_image_cache::{NodeImageCache, NodeImageCacheSpec, NodeImageCacheStatus};
pub use revision::{ImageCacheRevision, ImageCacheRevisionSpec};
