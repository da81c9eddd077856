//! Which credentials are tried for an image.

use std::path::Path;

use anyhow::{Context as _, Result};
use larder_core::image_ref::ImageRef;
use larder_registry::{Credential, Keyring};
use larder_runtime::AuthConfig;

use super::provider::Providers;

/// Docker's configuration, then the kubelet's credential provider plugins.
#[derive(Debug, Default)]
pub(super) struct Finder {
    keyring: Keyring,
    providers: Providers,
}

/// What was found for one image.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In the order in which they are to be tried; None is a request without credentials.
    pub(super) to_try: Vec<Option<AuthConfig>>,
    /// Plugins that failed, in words: worth telling if the registry refuses what is left.
    pub(super) complaints: Vec<String>,
}

impl Finder {
    /// Adds the credentials of a file of the form `{"auths": …}`.
    pub(super) fn add_docker_config(&mut self, path: &Path) -> Result<()> {
        let data =
            std::fs::read(path).with_context(|| format!("cannot read --docker-config {}", path.display()))?;
        // The form of the file is that of a pull secret of this type.
        self.keyring
            .add_secret("kubernetes.io/dockerconfigjson", |_| Some(&data))
            .with_context(|| format!("--docker-config {}", path.display()))
    }

    /// Adds the plugins of a `CredentialProviderConfig`.
    pub(super) fn add_providers(&mut self, config: &Path, folder: &Path) -> Result<()> {
        self.providers = Providers::load(config, folder)?;
        Ok(())
    }

    /// All that fits the image. A request without credentials comes last: what is public may still be refused to a
    /// stale password.
    pub(super) async fn find(&self, image: &ImageRef) -> Found {
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
