//! Container images for tests and demos, made, moved and removed without a container engine.
//!
//! [`ImageSpec`] says what an image shall hold and makes it from code in milliseconds; [`Image`] is
//! the result, or what was read from a folder or an archive; [`Registry`] takes it over HTTP.
//! [`build_product_images`] is the one place that needs a tool: it builds the project's own Dockerfile.

mod blob;
mod error;
mod image;
mod layer;
mod layout;
mod product;
mod reference;
mod registry;
mod spec;

pub use blob::{Blob, sha256_digest};
pub use error::Error;
pub use image::{Descriptor, Image, Platform};
pub use layout::read_image;
pub use product::{ProductImage, build_product_images, read_product_images};
pub use reference::Destination;
pub use registry::{Pushed, Registry, RegistryTarget};
pub use spec::ImageSpec;

use std::path::Path;

/// Pushes an image from an OCI layout folder, an OCI archive or a docker archive.
///
/// Without a `reference` the image goes under the name that it carries.
pub async fn push_layout(path: &Path, registry: &Registry, reference: Option<&str>) -> Result<Pushed, Error> {
    let owned = path.to_owned();
    let image = tokio::task::spawn_blocking(move || read_image(&owned))
        .await
        .map_err(Error::Stopped)??;
    let name = match reference.or(image.name()) {
        Some(name) => name.to_owned(),
        None => {
            return Err(Error::Unnamed {
                path: path.to_owned(),
            });
        }
    };
    let destination = Destination::parse(&name)?;
    registry
        .push(&image, &destination.repository, &destination.tag)
        .await
}
