//! The kubelet's credential provider plugins, executed as the kubelet does it: the image on standard input, credentials
//! on standard output, never by way of a shell. Source: kubernetes 1.34 `pkg/credentialprovider/plugin`.

mod config;
mod exec;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use futures::future::join_all;
use larder_core::image_ref::ImageRef;
use larder_registry::{Credential, Keyring, location_fits};
use tokio::time::Instant;
use tracing::warn;

use config::Provider;
use exec::{Answer, CacheKeyType};

/// All plugins that are configured.
#[derive(Debug, Default)]
pub(super) struct Providers {
    providers: Vec<Provider>,
    /// What plugins answered, by plugin and what the answer is good for.
    cache: Mutex<BTreeMap<(String, Key), Cached>>,
}

/// What an answer is good for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Image(String),
    Registry(String),
    Global,
}

impl Key {
    fn of_image(image: &ImageRef) -> Self {
        Self::Image(image.normalized().to_owned())
    }

    fn of_registry(image: &ImageRef) -> Self {
        Self::Registry(image.registry_host().to_owned())
    }

    fn all(image: &ImageRef) -> [Self; 3] {
        [Self::of_image(image), Self::of_registry(image), Self::Global]
    }
}

#[derive(Clone, Debug)]
struct Cached {
    until: Instant,
    keyring: Keyring,
}

impl Providers {
    /// Reads a `CredentialProviderConfig` and makes sure that its plugins are there.
    pub(super) fn load(config: &Path, folder: &Path) -> Result<Self> {
        Ok(Self {
            providers: config::load(config, folder)?,
            cache: Mutex::default(),
        })
    }

    /// What the plugins that are meant for the image have for it, in the order of the configuration, and the complaints of
    /// those that failed. They are asked side by side: however many hang, it is over within [`exec::TIMEOUT`].
    pub(super) async fn ask(&self, image: &ImageRef) -> (Vec<Credential>, Vec<String>) {
        let fits = |p: &&Provider| p.match_images.iter().any(|glob| location_fits(glob, image));
        let fitting = self.providers.iter().filter(fits);
        let answers = fitting.map(|provider| async move { (provider, self.ask_one(provider, image).await) });
        let (mut found, mut complaints) = (Vec::new(), Vec::new());
        for (provider, answer) in join_all(answers).await {
            match answer {
                Ok(keyring) => found.extend_from_slice(keyring.credentials(image).fitting()),
                Err(error) => {
                    let complaint = format!("credential provider {}: {error:#}", provider.name);
                    warn!(
                        image = image.normalized(),
                        complaint, "no credentials from a plugin"
                    );
                    complaints.push(complaint);
                }
            }
        }
        (found, complaints)
    }

    async fn ask_one(&self, provider: &Provider, image: &ImageRef) -> Result<Keyring> {
        if let Some(keyring) = self.cached(&provider.name, image) {
            return Ok(keyring);
        }
        let Answer {
            key_type,
            good_for,
            keyring,
        } = exec::ask(provider, image).await?;
        let good_for = good_for.unwrap_or(provider.default_cache_duration);
        if good_for > Duration::ZERO {
            let key = match key_type {
                CacheKeyType::Image => Key::of_image(image),
                CacheKeyType::Registry => Key::of_registry(image),
                CacheKeyType::Global => Key::Global,
            };
            let cached = Cached {
                until: Instant::now() + good_for,
                keyring: keyring.clone(),
            };
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.retain(|_, old| old.until > Instant::now());
            cache.insert((provider.name.clone(), key), cached);
        }
        Ok(keyring)
    }

    /// Forgets every answer that is good for the image.
    pub(super) fn forget(&self, image: &ImageRef) {
        let keys = Key::all(image);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.retain(|(_, key), _| !keys.contains(key));
    }

    fn cached(&self, provider: &str, image: &ImageRef) -> Option<Keyring> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        Key::all(image)
            .into_iter()
            .filter_map(|key| cache.get(&(provider.to_owned(), key)))
            .find(|cached| cached.until > Instant::now())
            .map(|cached| cached.keyring.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn plugins_that_hang_are_waited_for_together_and_named() {
        let hangs = |name: &str| Provider {
            name: name.to_owned(),
            program: "/bin/sh".into(),
            match_images: vec!["registry.internal".to_owned()],
            default_cache_duration: Duration::ZERO,
            api_version: "credentialprovider.kubelet.k8s.io/v1".to_owned(),
            args: vec!["-c".to_owned(), "exec sleep 600".to_owned()],
            env: Vec::new(),
        };
        let providers = Providers {
            providers: vec![hangs("one"), hangs("two")],
            cache: Mutex::default(),
        };
        let image = ImageRef::parse("registry.internal/app:1").unwrap();
        let begun = Instant::now();
        let (found, complaints) = providers.ask(&image).await;
        assert_eq!(begun.elapsed().as_secs(), exec::TIMEOUT.as_secs());
        assert!(found.is_empty());
        let named = ["one", "two"].map(|name| format!("credential provider {name}: no answer within 60s"));
        assert!(
            complaints.iter().zip(&named).all(|(c, name)| c.starts_with(name)) && complaints.len() == 2,
            "{complaints:?}"
        );
    }
}
