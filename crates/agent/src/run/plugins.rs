//! The kubelet's credential provider plugins, for what needs credentials.

use std::time::Duration;

use larder_api::names::Reason;
use larder_core::image_ref::ImageRef;
use larder_runtime::Runtime;
use tracing::{info, warn};

use crate::ProviderFiles;
use crate::credentials::{Finder, Found};
use crate::failure::PullError;

/// What an agent without plugins says.
const NONE: &str = "no credential provider plugins are set up for the agent of this node";
/// What one says none of whose plugins is for an image.
const NONE_FITS: &str = "no credential provider plugin of this node has credentials for this image";

/// The plugins of this node.
#[derive(Debug, Default)]
pub(super) struct Plugins {
    finder: Finder,
    /// Why there are none.
    lack: Option<String>,
}

impl Plugins {
    /// Reads the kubelet's configuration. What is wrong with it costs private images alone, and is said of each.
    pub(super) fn load(files: Option<&ProviderFiles>) -> Self {
        let mut finder = Finder::default();
        let lack = match files.map(|files| finder.add_providers(files)) {
            None => Some(NONE.to_owned()),
            Some(Ok(())) => {
                info!("private images are pulled with the node's credential provider plugins");
                None
            }
            Some(Err(error)) => {
                let words = format!("the node's credential provider plugins cannot be used: {error:#}");
                warn!(error = words, "private images cannot be pulled");
                Some(words)
            }
        };
        Self { finder, lack }
    }

    /// Pulls `source`, a name of the image, with what the plugins have for it. Without, and where that is refused, once
    /// more without credentials: nobody may have looked yet whether it needs any.
    pub(super) async fn pull(
        &self,
        runtime: &dyn Runtime,
        image: &ImageRef,
        source: &str,
        at_most: Duration,
    ) -> Result<String, PullError> {
        let found = self.finder.find(image).await;
        let pulled = self.finder.pull(runtime, image, source, &found, at_most);
        pulled.await.map_err(|error| self.explain(error, &found))
    }

    /// What it was that the registry, whose words these are, was not shown.
    fn explain(&self, mut error: PullError, found: &Found) -> PullError {
        if !found.is_bare() {
            return error;
        }
        let why = match (&self.lack, found.complaints.as_slice()) {
            (Some(lack), _) => lack.clone(),
            (None, []) => NONE_FITS.to_owned(),
            (None, complaints) => complaints.join("; "),
        };
        match error.reason {
            Reason::Unauthorized | Reason::CredentialsMissing => PullError {
                reason: Reason::CredentialsMissing,
                message: format!("{why}; {}", error.message),
            },
            // Registries say so of what they hide, and of what is not there.
            Reason::NotFound => {
                error.message = format!("{}; {why}", error.message);
                error
            }
            _ => error,
        }
    }
}
