//! What a registry says about an image: its digest, its platforms and their sizes, and whether it is private.
//!
//! [`Registry`] is the seam that the operator uses; [`HttpRegistry`] is the real one. Beside it are the configuration of
//! registry hosts ([`RegistriesConfig`]) and the pull secrets ([`Keyring`]). It must not hold a Kubernetes client, nor
//! decide when to ask or what an answer means for a node.

mod client;
mod config;
mod credentials;
mod error;
mod manifest;
mod registry;

pub use client::{HttpRegistry, Options};
pub use config::{ConfigError, RegistriesConfig, RegistryHost};
pub use credentials::{Credential, Credentials, DockerConfigError, Keyring, location_fits};
pub use error::RegistryError;
pub use manifest::{Descriptor, IndexEntry, Manifest, ManifestError};
pub use registry::{Head, Platform, Registry};
