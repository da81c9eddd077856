//! Which credentials are tried for an image, and pulls that try them.

mod provider;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use larder_api::names::Reason;
use larder_core::image_ref::ImageRef;
use larder_registry::{Credential, Keyring};
use larder_runtime::{AuthConfig, Runtime};

use crate::failure::{self, PullError};
use provider::Providers;

/// Where the kubelet's credential provider plugins are, as the kubelet is told it.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ProviderFlags {
    /// The kubelet's configuration of credential provider plugins.
    #[arg(long, value_name = "FILE", requires = "image_credential_provider_bin_dir")]
    image_credential_provider_config: Option<PathBuf>,
    /// Where the plugins are.
    #[arg(long, value_name = "DIR", requires = "image_credential_provider_config")]
    image_credential_provider_bin_dir: Option<PathBuf>,
}

impl ProviderFlags {
    /// None where no plugins are named.
    pub(crate) fn files(&self) -> Option<ProviderFiles> {
        Some(ProviderFiles {
            config: self.image_credential_provider_config.clone()?,
            folder: self.image_credential_provider_bin_dir.clone()?,
        })
    }
}

/// The kubelet's credential provider plugins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderFiles {
    /// A `CredentialProviderConfig`.
    pub config: PathBuf,
    /// The folder of the programs.
    pub folder: PathBuf,
}

/// Docker's configuration, then the kubelet's credential provider plugins.
#[derive(Debug, Default)]
pub(crate) struct Finder {
    keyring: Keyring,
    providers: Providers,
}

/// What was found for one image.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// In the order in which they are to be tried; None is a request without credentials.
    to_try: Vec<Option<AuthConfig>>,
    /// Plugins that failed, in words: worth telling if the registry refuses what is left.
    pub(crate) complaints: Vec<String>,
}

impl Found {
    /// There are no credentials for the image: it is asked for without.
    pub(crate) fn is_bare(&self) -> bool {
        self.to_try.iter().all(Option::is_none)
    }
}

impl Finder {
    /// Adds the credentials of a file of the form `{"auths": …}`.
    pub(crate) fn add_docker_config(&mut self, path: &Path) -> Result<()> {
        let data =
            std::fs::read(path).with_context(|| format!("cannot read --docker-config {}", path.display()))?;
        // The form of the file is that of a pull secret of this type.
        self.keyring
            .add_secret("kubernetes.io/dockerconfigjson", |_| Some(&data))
            .with_context(|| format!("--docker-config {}", path.display()))
    }

    /// Adds the plugins of a `CredentialProviderConfig`.
    pub(crate) fn add_providers(&mut self, files: &ProviderFiles) -> Result<()> {
        self.providers = Providers::load(&files.config, &files.folder)?;
        Ok(())
    }

    /// All that fits the image. A request without credentials comes last: what is public may still be refused to a
    /// stale password.
    pub(crate) async fn find(&self, image: &ImageRef) -> Found {
        let (provided, complaints) = self.providers.ask(image).await;
        let fitting = self.keyring.credentials(image);
        let mut all: Vec<&Credential> = Vec::new();
        for credential in fitting.fitting().iter().chain(&provided) {
            if !all.contains(&credential) {
                all.push(credential);
            }
        }
        let to_try = all.into_iter().map(|c| Some(auth(c, image))).chain([None]);
        Found {
            to_try: to_try.collect(),
            complaints,
        }
    }

    /// Pulls `source`, a name of the image, with each of the credentials found for it until one is taken. One that is
    /// refused says nothing of the next. Answers the image id.
    pub(crate) async fn pull(
        &self,
        runtime: &dyn Runtime,
        image: &ImageRef,
        source: &str,
        found: &Found,
        at_most: Duration,
    ) -> Result<String, PullError> {
        let mut refused: Option<PullError> = None;
        for auth in &found.to_try {
            match runtime.pull(source, auth.clone(), at_most).await {
                Ok(id) => return Ok(id),
                Err(error) => {
                    let error = failure::of(&error);
                    if !is_about_credentials(error.reason) {
                        return Err(error);
                    }
                    // What the first, best fitting credential was told says most.
                    refused.get_or_insert(error);
                }
            }
        }
        // What a plugin once said may have been replaced since: the next attempt asks it anew.
        self.providers.forget(image);
        Err(refused.unwrap_or_else(|| failure::too_long(at_most)))
    }
}

/// Registries hide what exists from those who may not see it, so that not found is one of them.
fn is_about_credentials(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Unauthorized | Reason::CredentialsMissing | Reason::NotFound
    )
}

fn auth(credential: &Credential, image: &ImageRef) -> AuthConfig {
    // Without the server's address a mirror that asks for a password is sent this one. containerd compares the host of a
    // URL, and finds none without a scheme.
    let server_address = format!("https://{}", image.api_host());
    match credential {
        Credential::Basic { username, password } => AuthConfig {
            username: username.clone(),
            password: password.clone(),
            server_address,
            ..AuthConfig::default()
        },
        Credential::IdentityToken { token } => AuthConfig {
            identity_token: token.clone(),
            server_address,
            ..AuthConfig::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn credentials_go_to_the_registry_alone_and_what_is_public_is_tried_last() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = r#"{"auths": {
            "https://index.docker.io/v1/": {"username": "u", "password": "p"},
            "10.77.0.3:5000/team": {"username": "narrow", "password": "p"},
            "10.77.0.3:5000": {"identitytoken": "t"}
        }}"#;
        std::fs::write(file.path(), config).unwrap();
        let mut finder = Finder::default();
        finder.add_docker_config(file.path()).unwrap();
        let table = [
            ("nginx", vec!["u@https://registry-1.docker.io", "-"]),
            (
                "10.77.0.3:5000/team/app:1",
                vec!["narrow@https://10.77.0.3:5000", "@https://10.77.0.3:5000", "-"],
            ),
            ("quay.io/a/b", vec!["-"]),
        ];
        for (image, expected) in table {
            let found = finder.find(&ImageRef::parse(image).unwrap()).await;
            let show = |auth: &Option<AuthConfig>| {
                auth.as_ref()
                    .map_or("-".to_owned(), |a| format!("{}@{}", a.username, a.server_address))
            };
            let shown: Vec<String> = found.to_try.iter().map(show).collect();
            assert_eq!(shown, expected, "{image}");
        }
    }
}
