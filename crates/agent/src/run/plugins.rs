//! The kubelet's credential provider plugins, for what needs credentials.

use std::time::Duration;

use larder_api::names::Reason;
use larder_core::agent::PullOrder;
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

    /// What the plugins have for the image of an order; none where they are not to be asked. They have a minute, which is
    /// no part of the time that the pull has: a plugin that hangs must not look like a registry that does.
    pub(super) async fn find(&self, order: &PullOrder) -> Option<Found> {
        let image = ImageRef::parse(&order.image).ok()?;
        if !order.credentials {
            return None;
        }
        Some(self.finder.find(&image).await)
    }

    /// Pulls `source`, a name of the image, with what was found for it. Without, and where that is refused, once more
    /// without credentials: nobody may have looked yet whether it needs any.
    pub(super) async fn pull(
        &self,
        runtime: &dyn Runtime,
        image: &ImageRef,
        source: &str,
        found: &Found,
        at_most: Duration,
    ) -> Result<String, PullError> {
        let pulled = self.finder.pull(runtime, image, source, found, at_most);
        pulled.await.map_err(|error| self.explain(error, found))
    }

    /// What it was that the registry, whose words these are, was not shown.
    fn explain(&self, mut error: PullError, found: &Found) -> PullError {
        let bare = found.is_bare();
        let why = match (&self.lack, found.complaints.as_slice()) {
            (Some(lack), _) => lack.clone(),
            (None, []) if bare => NONE_FITS.to_owned(),
            (None, []) => return error,
            (None, complaints) => complaints.join("; "),
        };
        match error.reason {
            Reason::Unauthorized | Reason::CredentialsMissing if bare => PullError {
                reason: Reason::CredentialsMissing,
                message: format!("{why}; {}", error.message),
            },
            // Registries say so of what they hide, and of what is not there; and a plugin that failed may have had what
            // was not refused.
            Reason::NotFound | Reason::Unauthorized | Reason::CredentialsMissing => {
                error.message = format!("{}; {why}", error.message);
                error
            }
            _ => error,
        }
    }
}
