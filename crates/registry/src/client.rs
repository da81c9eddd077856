//! The registry client over HTTP.

mod access;
mod answer;
mod budget;
mod challenge;
mod courtesy;
mod endpoint;
mod fault;
mod tags;
mod token;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use larder_api::revision::PlatformManifest;
use larder_core::image_ref::ImageRef;

use crate::{
    ConfigError, Credential, Credentials, Head, HttpOptions, Limits, Platform, RegistriesConfig, Registry,
    RegistryError, Tags,
};
use access::Access;
use challenge::Challenge;
use courtesy::Courtesy;
use endpoint::{Endpoint, Endpoints};
use token::Tokens;

pub use budget::Budget;

/// Hosts whose way of authentication is remembered.
const MAX_CHALLENGES: usize = 256;

/// How registries are asked.
#[derive(Clone, Debug)]
pub struct Options {
    /// How connections are made.
    pub http: HttpOptions,
    /// What one answer may cost.
    pub limits: Limits,
    /// Requests to one registry at a time: 8 by default, at least 1.
    pub per_registry: usize,
    /// Tags of a page, where the registry leaves it to us: 1,000 by default.
    pub tags_per_page: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            http: HttpOptions::default(),
            limits: Limits::default(),
            per_registry: 8,
            tags_per_page: 1000,
        }
    }
}

/// Asks registries over HTTP. Keeps connections, tokens until they expire, how each host wants to be asked, and when it
/// wants to be left alone; holds nothing else between two questions.
pub struct HttpRegistry {
    endpoints: Endpoints,
    limits: Limits,
    tags_per_page: usize,
    /// By host: the challenge that it made last, so that the next question is answered at once.
    challenges: Mutex<HashMap<String, Challenge>>,
    tokens: Tokens,
    courtesy: Courtesy,
}

impl HttpRegistry {
    /// Sets up clients and reads the configuration's `caFile`s. Uses ring for TLS where the process has chosen nothing.
    pub fn new(config: RegistriesConfig, options: &Options) -> Result<Self, ConfigError> {
        Ok(Self {
            endpoints: Endpoints::new(config, &options.http)?,
            limits: options.limits.clone(),
            tags_per_page: options.tags_per_page.max(1),
            challenges: Mutex::default(),
            tokens: Tokens::default(),
            courtesy: Courtesy::new(options.per_registry),
        })
    }

    /// What registries said last of how many requests they still allow, by the names that images have for them. Few
    /// registries say it.
    pub fn budgets(&self) -> Vec<(String, Budget)> {
        self.courtesy.budgets()
    }

    fn known_challenge(&self, host: &str) -> Option<Challenge> {
        self.challenges
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(host)
            .cloned()
    }

    fn remember_challenge(&self, host: &str, challenge: &Challenge) {
        let mut known = self.challenges.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_CHALLENGES {
            // Costs one refused request for each host that is still asked.
            known.clear();
        }
        known.insert(host.to_owned(), challenge.clone());
    }
}

#[async_trait]
impl Registry for HttpRegistry {
    async fn digest(&self, image: &ImageRef, credentials: &Credentials) -> Result<Head, RegistryError> {
        let endpoint = self.endpoints.endpoint(image);
        let mut refusal = Refusal::default();
        let order = credentials.in_order();
        let telling = order.iter().rposition(Option::is_some).unwrap_or_default();
        for (tried, credential) in order.iter().enumerate() {
            let access = Access {
                registry: self,
                endpoint: &endpoint,
                image,
                credential: *credential,
            };
            match access.head(tried == telling).await {
                Ok(digest) => {
                    return Ok(Head {
                        digest,
                        private: credential.is_some(),
                    });
                }
                Err(error) => refusal.keep_or_return(*credential, error)?,
            }
        }
        Err(refusal.into_error(&endpoint, credentials))
    }

    async fn platforms(
        &self,
        image: &ImageRef,
        digest: &str,
        credentials: &Credentials,
        wanted: &[Platform],
    ) -> Result<Vec<PlatformManifest>, RegistryError> {
        let endpoint = self.endpoints.endpoint(image);
        let mut refusal = Refusal::default();
        for credential in credentials.in_order() {
            let access = Access {
                registry: self,
                endpoint: &endpoint,
                image,
                credential,
            };
            match access.platforms(digest, wanted).await {
                Ok(platforms) => return Ok(platforms),
                // Users have limits of their own, and anybody gets the same manifests.
                Err(error @ RegistryError::RateLimited { .. }) => refusal.keep(credential, error),
                Err(error) => refusal.keep_or_return(credential, error)?,
            }
        }
        Err(refusal.into_error(&endpoint, credentials))
    }
}

#[async_trait]
impl Tags for HttpRegistry {
    async fn tags(
        &self,
        repository: &ImageRef,
        credentials: &Credentials,
    ) -> Result<Vec<String>, RegistryError> {
        let endpoint = self.endpoints.endpoint(repository);
        let mut refusal = Refusal::default();
        for credential in credentials.in_order() {
            let access = Access {
                registry: self,
                endpoint: &endpoint,
                image: repository,
                credential,
            };
            match access.tags().await {
                Ok(tags) => return Ok(tags),
                Err(error) => refusal.keep_or_return(credential, error)?,
            }
        }
        Err(refusal.into_error(&endpoint, credentials))
    }
}

/// The most telling of the refusals so far: that of the last credential rather than that of nobody.
#[derive(Default)]
struct Refusal {
    error: Option<RegistryError>,
}

impl Refusal {
    /// Returns every error that another credential cannot mend.
    fn keep_or_return(
        &mut self,
        credential: Option<&Credential>,
        error: RegistryError,
    ) -> Result<(), RegistryError> {
        if !matches!(
            error,
            RegistryError::Unauthorized { .. } | RegistryError::CredentialsMissing { .. }
        ) {
            return Err(error);
        }
        self.keep(credential, error);
        Ok(())
    }

    fn keep(&mut self, credential: Option<&Credential>, error: RegistryError) {
        if self.error.is_none() || credential.is_some() {
            self.error = Some(error);
        }
    }

    fn into_error(self, endpoint: &Endpoint<'_>, credentials: &Credentials) -> RegistryError {
        match self.error {
            // With a pull secret for the registry, nothing is missing: what there is was refused.
            Some(RegistryError::CredentialsMissing { message, .. }) if !credentials.is_empty() => {
                RegistryError::Unauthorized { message }
            }
            Some(error) => error,
            None => endpoint.malformed("nothing was asked"),
        }
    }
}
