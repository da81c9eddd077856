//! Container images for tests and demos, made, moved and removed without a container engine.
//!
//! [`ImageSpec`] says what an image shall hold and makes it from code in milliseconds; [`Image`] is
//! the result, or what was read from a folder or an archive; [`Registry`] takes it over HTTP.

mod blob;
mod error;
mod image;
mod layer;
mod layout;
mod reference;
mod registry;
mod spec;

pub use blob::{Blob, sha256_digest};
pub use error::Error;
pub use image::{Descriptor, Image, Platform};
pub use layout::read_image;
pub use reference::Destination;
pub use registry::{Pushed, Registry, RegistryTarget};
pub use spec::ImageSpec;
