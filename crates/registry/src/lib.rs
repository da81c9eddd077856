//! What a registry says about an image: its digest, its platforms and their sizes, and whether it is private.
//!
//! [`Registry`] is the seam that the operator uses; [`HttpRegistry`] is the real one. Beside it are the configuration of
//! registry hosts ([`RegistriesConfig`]), the pull secrets ([`Keyring`]), the dialer for whatever address a tenant
//! chooses ([`SafeHttp`], [`address`]), and the readers of image [`sources`]. It must not hold a Kubernetes client, nor
//! decide when to ask or what an answer means for a node.

pub mod address;
mod client;
mod config;
mod credentials;
mod error;
mod http;
mod registry;
pub mod sources;

pub use client::{Budget, HttpRegistry, Options};
pub use config::{ConfigError, RegistriesConfig, RegistryHost};
pub use credentials::{Credential, Credentials, DockerConfigError, Keyring, location_fits};
pub use error::RegistryError;
pub use http::{FetchError, Fetched, Get, HttpOptions, Limits, Proxies, SafeHttp, SharedPolicy};
pub use registry::{Head, Platform, Registry, Tags};
