//! Where an image's registry is asked, and with which client.

use std::{collections::BTreeMap, path::PathBuf};

use larder_core::image_ref::ImageRef;
use reqwest::{Certificate, Client, redirect};
use url::Url;

use super::Options;
use crate::{ConfigError, RegistriesConfig, RegistryError};

/// Every client that the configuration needs.
pub(super) struct Endpoints {
    config: RegistriesConfig,
    client: Client,
    by_ca_file: BTreeMap<PathBuf, Client>,
}

/// Where one image is asked for.
pub(super) struct Endpoint<'a> {
    pub(super) client: &'a Client,
    /// The registry, as the image names it.
    pub(super) host: &'a str,
    /// What stands before `/v2/`, without a slash at its end.
    base: String,
    mirrored: bool,
}

impl Endpoints {
    pub(super) fn new(config: RegistriesConfig, options: &Options) -> Result<Self, ConfigError> {
        let client = client(options, Vec::new())?;
        let mut by_ca_file = BTreeMap::new();
        for path in config.ca_files() {
            by_ca_file.insert(path.clone(), self::client(options, certificates(path)?)?);
        }
        Ok(Self {
            config,
            client,
            by_ca_file,
        })
    }

    pub(super) fn endpoint<'a>(&'a self, image: &'a ImageRef) -> Endpoint<'a> {
        let entry = self.config.host(image.registry_host());
        let mirror = entry.and_then(|e| e.mirror.as_ref());
        let base = match mirror {
            Some(mirror) => mirror.as_str().trim_end_matches('/').to_owned(),
            None if entry.is_some_and(|e| e.plain_http) => format!("http://{}", image.api_host()),
            None => format!("https://{}", image.api_host()),
        };
        let own = entry
            .and_then(|e| e.ca_file.as_ref())
            .and_then(|path| self.by_ca_file.get(path));
        Endpoint {
            client: own.unwrap_or(&self.client),
            host: image.registry_host(),
            base,
            mirrored: mirror.is_some(),
        }
    }
}

impl Endpoint<'_> {
    /// `kind` is `manifests` or `blobs`.
    pub(super) fn url(&self, image: &ImageRef, kind: &str, reference: &str) -> Result<Url, RegistryError> {
        let text = format!("{}/v2/{}/{kind}/{reference}", self.base, image.repository());
        let mut url = Url::parse(&text).map_err(|e| self.malformed(&format!("{text:?} is no URL: {e}")))?;
        if self.mirrored {
            url.query_pairs_mut().append_pair("ns", self.host);
        }
        Ok(url)
    }

    /// Tells registries apart, and what is behind a mirror from the mirror itself.
    pub(super) fn key(&self) -> String {
        format!("{} {}", self.base, self.host)
    }

    pub(super) fn is_plain_http(&self) -> bool {
        self.base.starts_with("http://")
    }

    pub(super) fn malformed(&self, message: &str) -> RegistryError {
        RegistryError::Malformed {
            host: self.host.to_owned(),
            message: message.to_owned(),
        }
    }
}

fn client(options: &Options, authorities: Vec<Certificate>) -> Result<Client, ConfigError> {
    let mut builder = Client::builder()
        .user_agent(concat!("larder/", env!("CARGO_PKG_VERSION")))
        // Followed by hand: the rules for credentials are our own.
        .redirect(redirect::Policy::none())
        .no_proxy()
        .connect_timeout(options.connect_timeout)
        .timeout(options.request_timeout);
    for authority in authorities {
        builder = builder.add_root_certificate(authority);
    }
    builder
        .build()
        .map_err(|e| ConfigError::Client(super::send::root_cause(&e)))
}

fn certificates(path: &PathBuf) -> Result<Vec<Certificate>, ConfigError> {
    let pem = std::fs::read(path).map_err(|source| ConfigError::Read {
        path: path.clone(),
        source,
    })?;
    let wrong = |problem: String| ConfigError::Certificates {
        path: path.clone(),
        problem,
    };
    let found = Certificate::from_pem_bundle(&pem).map_err(|e| wrong(super::send::root_cause(&e)))?;
    if found.is_empty() {
        Err(wrong("there are none".to_owned()))
    } else {
        Ok(found)
    }
}
