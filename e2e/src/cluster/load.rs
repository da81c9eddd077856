//! Puts an image from disk into a cluster's registry.

use std::path::Path;

use crate::cluster::Cluster;
use crate::cluster::control::registry::RegistryKind;
use crate::cluster::error::{Error, Result};
use crate::images::{self, Destination, RegistryTarget, read_image};

impl Cluster {
    /// Pushes the image in `source` (a folder in OCI layout, or an archive of `docker save` or OCI) so that nodes find
    /// it under `reference`, and returns the name under which the registry holds it. Without a reference the image goes
    /// under the name that it carries, and one without a name under that of the file.
    ///
    /// References to the cluster's registries go there; all others go to the open one, which nodes take for everyone's.
    pub async fn load(&self, source: &Path, reference: Option<&str>) -> Result<String> {
        let failed = |error: images::Error| Error::Image(error.to_string());
        let image = read_image(source).map_err(failed)?;
        let stem = source
            .file_stem()
            .map(|stem| stem.to_string_lossy().to_lowercase());
        let reference = reference.or(image.name()).or(stem.as_deref()).unwrap_or_default();
        let destination = Destination::parse(reference).map_err(failed)?;
        let registry = self.registry(RegistryKind::of(reference))?;
        let target = RegistryTarget {
            base: registry.url,
            credentials: registry.credentials,
            ca_file: registry.ca,
        };
        let connected = images::Registry::connect(&target).map_err(failed)?;
        connected
            .push(&image, &destination.repository, &destination.tag)
            .await
            .map_err(failed)?;
        Ok(format!(
            "{}/{}:{}",
            registry.host, destination.repository, destination.tag
        ))
    }
}
